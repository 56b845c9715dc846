"""How a phase is trained, as a config."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch

from procpre_interp.core.config import unhashed
from procpre_interp.model import ModelConfig
from procpre_interp.train import native
from procpre_interp.train.interventions import Intervention
from procpre_interp.train.native.build import compiler
from procpre_interp.train.optimiser import Schedule

MOST_THREADS = 4096
MOST_CHECKPOINTS = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How one phase is trained. Defaults: the paper's diagnostic phase 2."""

    version = 1

    steps: int = 10_000
    """Optimiser steps at most; the learning-rate schedule spans them."""
    stop_after: int | None = None
    """Stop after this many steps, while the schedule still spans `steps`. Default: go on to `steps`."""
    start_at: int = 0
    """Steps that the run's first parent has taken of the same training, which this run goes on with: its first batch
    and its learning rate are those of this step, and steps are counted from here. Default: start from the beginning."""
    batch_size: int = 1000
    """Sequences per step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Learning rate after the warm-up; linear and cosine end at zero."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    weight_decay: float = 1e-3
    """Decoupled weight decay: each step takes away this, times the learning rate, of a weight. Commands give new runs
    on text .1 for language, and .01 for code and mathematics, unless one is asked for."""
    decay: Literal["all", "matrices"] = "matrices"
    """Which parameters decay: all, or all but biases and LayerNorm gains."""
    beta1: float = 0.9
    """Decay rate of Adam's first moment."""
    beta2: float = 0.999
    """Decay rate of Adam's second moment."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; None for no clipping."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes forward and backward under autocast; weights stay float32. Worth it from d_model 256 on,
    where commands give it to new runs on text, unless one is asked for."""
    kernel: Literal["auto", "native", "torch", "stacked"] = "auto"
    """What computes loss and gradient: native is several times faster for tiny models on a CPU; auto: native where it
    is available, otherwise torch. stacked trains many runs of one shape as one computation (`sweep --engine stacked`),
    which is for GPUs; the last bits of a run then depend on how many share its stack. Those of the kernels differ, so
    what auto became, and the version, are part of the run's identity. Where attention is saturated (scores from 1e5 on,
    which a run says once), trust any kernel's loss and no kernel's gradient, which in float32 is off by percents, and
    at 1e7 by its own size."""
    kernel_version: int | None = None
    """Version of the kernel, whose numbers may change from one to the next. Default: the one there is; version 1, the
    first of each kernel, is none."""
    recompute: bool = unhashed(False)
    """Gradient checkpointing of the torch kernel: compute the activations inside of each block again in the backward
    pass. Memory for one block in place of all, a third more time, the same numbers. For large models."""
    compile: bool = False
    """torch.compile of each block in training: for large models, above all on a GPU. Changes the last bits. Takes a
    minute at the start."""
    shard: bool = unhashed(False)
    """Where torchrun has started several processes: each has a part of every weight, gradient and moment (FSDP2), in
    place of all of them (DDP). For models that one device does not hold. Without effect in one process."""
    micro_batch_tokens: int | None = None
    """Tokens per micro-batch of the torch kernel, in each of several processes; gradients are accumulated. Default: as
    many as fit in the cache."""
    curriculum: bool = False
    """Start at length 2 and lengthen by 2 whenever validation accuracy reaches .99, up to the task's own length."""
    evaluate_every: int = 100
    """Steps between evaluations."""
    evaluate_examples: int = 1000
    """Validation examples, the same at every evaluation."""
    patience: int | None = None
    """Stop after this many evaluations without a lower validation loss. Default: never."""
    target_accuracy: float | None = None
    """Stop at the first evaluation with at least this token accuracy (share, 0 to 1). Default: never."""
    checkpoints: int = 1
    """Log-spaced steps whose weights are kept, the last step among them."""
    keep_optimiser: bool = unhashed(False)
    """Keep the optimiser's final state with the run: twice the size of its weights, for runs that carry it on."""
    freeze: str | None = None
    """Selector of weights that stay at their initial values."""
    interventions: tuple[Intervention, ...] = ()
    """What else is done to the run, in this order: `procpre_interp.train.interventions`."""
    threads: int = 1
    """CPU threads. Their number changes the last bits of sums, so it is part of the run's identity."""
    device: str = "cpu"
    """Device to train on: cpu, cuda, cuda:1, mps."""
    save_seconds: float = unhashed(30.0)
    """Seconds between saved training states: the most that a killed run can lose."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "evaluate_examples", "checkpoints", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate={self.learning_rate}; it must be a positive number")
        for name in ("warmup_steps", "weight_decay", "save_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must not be negative")
        for name in ("stop_after", "micro_batch_tokens", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be at least 1, or none")
        if self.threads > MOST_THREADS:
            raise ValueError(f"threads={self.threads}; at most {MOST_THREADS:,}")
        if self.checkpoints > MOST_CHECKPOINTS:
            raise ValueError(f"checkpoints={self.checkpoints}; at most {MOST_CHECKPOINTS:,} steps can be kept")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be in [0, 1)")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm}; it must be positive, or none")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy={self.target_accuracy}; it is a share and must be in (0, 1]")
        if not 0 <= self.start_at < self.last_step:
            raise ValueError(f"start_at={self.start_at}; it must be from 0 to below the last step, {self.last_step}")
        if self.start_at and self.curriculum:
            raise ValueError(f"start_at={self.start_at} with a curriculum, whose length a run does not hand on")
        if self.start_at and (refused := [each.name for each in self.interventions if each.starts_over]):
            raise ValueError(
                f"start_at={self.start_at} with {refused[0]}, which takes the weights at the start of a training; "
                "the rest of one can have rate, entropy_penalty, rescaled and matched_entropy"
            )
        try:
            torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device={self.device!r}; it must be one that torch knows, such as cpu or cuda") from None

    @property
    def last_step(self) -> int:
        """The step at which a run ends that nothing else ends before."""
        return self.steps if self.stop_after is None else min(self.steps, self.stop_after)

    @property
    def kept_steps(self) -> set[int]:
        """The steps whose weights are kept of a run that goes on to its end: 0 and `checkpoints` log-spaced ones from 1
        to the last, fewer where they coincide; the last alone for 1.

        Of a training that goes on at `start_at`, that one and those after it.
        """
        n, last = self.checkpoints, self.last_step
        if n == 1:
            return {last}
        spaced = (round(last ** (i / (n - 1))) for i in range(n))
        return {self.start_at} | {step for step in spaced if step > self.start_at}

    def resolve(self, model: ModelConfig) -> "TrainConfig":
        """The config with everything filled in that the numbers depend on, and nothing else."""
        kernel = self.kernel
        if kernel == "auto":
            kernel = "native" if self.why_torch(model) is None else "torch"
        version = self.kernel_version
        if version is None and kernel == "native":
            version = native.VERSION
        tokens = None if kernel != "torch" else self.micro_batch_tokens or cached_tokens(model.d_model)
        names = [each.name if each.draws else "" for each in self.interventions]
        places = [names[:i].count(name) if name else 0 for i, name in enumerate(names)]
        interventions = tuple(each.canonical(place) for each, place in zip(self.interventions, places))
        stop_after = None if self.last_step == self.steps else self.stop_after
        return dataclasses.replace(
            self,
            kernel=kernel,
            kernel_version=version,
            micro_batch_tokens=tokens,
            interventions=interventions,
            stop_after=stop_after,
        )

    def why_torch(self, model: ModelConfig) -> str | None:
        """Why the native kernel cannot do this, in one line; None when it can."""
        if self.device != "cpu":
            return f"device={self.device} (the native kernel is for the CPU)"
        if self.precision != "float32":
            return f"precision={self.precision} (the native kernel computes in float32)"
        if self.compile:
            return "compile (it is torch that is compiled)"
        return native.why_not(model)

    def needs_compiling(self, model: ModelConfig) -> bool:
        """Whether `why_torch` would first compile the native kernel for this shape."""
        return (
            self.device == "cpu" and self.precision == "float32" and not self.compile and not native.is_compiled(model)
        )

    def refuse(self, model: ModelConfig) -> None:
        """Raise `ValueError` when a kernel, or a version of it, is asked for that cannot be had."""
        if self.kernel_version not in (None, native.VERSION if self.kernel == "native" else None):
            raise ValueError(
                f"kernel_version={self.kernel_version} of kernel={self.kernel} cannot be had: "
                f"only the native kernel has versions, and here is {native.VERSION}"
            )
        if self.compile:
            self._refuse_to_compile()
        if self.kernel == "native" and (reason := self.why_torch(model)) is not None:
            raise ValueError(f"kernel=native cannot be had: {reason}; use kernel=auto or torch")

    def _refuse_to_compile(self) -> None:
        if self.kernel == "stacked" or self.interventions:
            what = self.interventions[0].name if self.interventions else "kernel=stacked"
            raise ValueError(f"compile with {what}, which reaches into blocks; leave compile out")
        if torch.device(self.device).type == "cpu":
            try:
                compiler()
            except native.KernelUnavailable as problem:
                raise ValueError(f"compile cannot be had: {problem}") from None


def cached_tokens(d_model: int) -> int:
    """Tokens of a micro-batch whose activations stay in a core's cache; measured at d_model 16, 64, 128 and 256."""
    return max(2048, 2**17 // d_model)
