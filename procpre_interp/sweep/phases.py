"""What a sweep can have beyond phase 1 and then phase 2: phases that follow, and phase 1 in the middle of phase 2."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from procpre_interp.data import Task
from procpre_interp.pipeline.config import Architecture
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig

OptimiserState = Literal["fresh", "carried"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A phase after phase 2: the whole model of the phase before it, trained on. Shape and context stay.

    Its data and whatever else is random have the replicate's seed, as in all phases.
    """

    task: Task
    """What the model is trained on: another corpus, or a task."""
    train: TrainConfig
    """How it is trained."""
    transfer: TransferConfig | None = None
    """What happens to embeddings and positions. Default: all are carried where the token ids of both tasks stand for
    the same; otherwise positions are carried, and token embeddings and unembedding are fresh."""
    optimiser: OptimiserState = "fresh"
    """State of the optimiser at the start: fresh, or carried from the phase before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Insertion:
    """Phase 1 in the middle of phase 2.

    Three runs: phase 2 up to a step; phase 1, which starts from those weights and has a model of the same shape and
    context; the rest of phase 2, whose batches and learning rates are those that would have come next. It takes from
    phase 1 what the condition's sources select, and everything else from where phase 2 stopped. Without sources phase 2
    is only interrupted, which with a carried optimiser changes nothing. The first part goes on to its end: it has no
    target accuracy and no patience. Interventions on initial weights are done to the first part, those that compare
    weights before and after a transfer to the rest.
    """

    at: float
    """Share of the steps of phase 2 that come before phase 1, from 0 to below 1; at 0 there is no first part, and phase
    1 starts from fresh weights."""
    optimiser: OptimiserState = "carried"
    """State of the optimiser as phase 1 begins, and as phase 2 goes on: fresh, or carried along with each weight."""
    embeddings: Literal["own", "fresh"] = "own"
    """Token embeddings and unembedding of the rest of phase 2: its own, put back as they were before phase 1, or fresh
    ones. Those of phase 1 are always fresh, since its ids stand for something else."""
    positions: Literal["carry", "own"] = "carry"
    """Position embeddings: carry takes them through phase 1, which trains them; own gives phase 1 fresh ones and then
    puts phase 2's back."""

    def __post_init__(self) -> None:
        if not 0 <= self.at < 1:
            raise ValueError(
                f"insert at={self.at:g}, which is {100 * self.at:g} % of phase 2; it is a share of its steps, from 0 "
                "to below 1, such as 0.5"
            )

    def step(self, train: TrainConfig) -> int:
        """The step of phase 2 at which it is inserted. Raises `ValueError` where either part would have none."""
        step = round(self.at * train.last_step)
        if self.at and not 0 < step < train.last_step:
            raise ValueError(
                f"insert at={self.at:g} of {train.last_step} steps is step {step}; "
                "both parts of phase 2 need at least 1 step"
            )
        return step


def context_of(task: Task, shape: Architecture) -> int:
    """Context length of a model of this shape for a task, in tokens."""
    return task.model_n_ctx if shape.n_ctx is None else shape.n_ctx


def inserted_shape(name: str, task: Task, shape: Architecture, phase2: Architecture, phase2_task: Task) -> Architecture:
    """The shape of an inserted phase 1: its own, with the context of phase 2.

    Raises `ValueError` where it has no place in the model of phase 2.
    """
    for field in ("n_layers", "n_heads", "d_model", "d_mlp"):
        theirs, ours = getattr(shape, field), getattr(phase2, field)
        if field == "d_mlp":
            theirs, ours = theirs or 4 * shape.d_model, ours or 4 * phase2.d_model
        if theirs != ours:
            raise ValueError(
                f"pretraining {name!r} has {field}={theirs} and phase 2 {field}={ours}; phase 1 in the middle of phase "
                "2 has the same model, so give both one shape"
            )
    context = context_of(phase2_task, phase2)
    if max(task.n_ctx, shape.n_ctx or 0) > context:
        raise ValueError(
            f"pretraining {name!r} needs a context of {max(task.n_ctx, shape.n_ctx or 0)} tokens, and phase 2, whose "
            f"model it has, {context}; give the sweep's model a longer n_ctx, or phase 1 shorter sequences"
        )
    return dataclasses.replace(shape, n_ctx=context)
