"""Scores of a model on fixed examples: one row per example."""

import copy
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, torch_defaults
from procpre_interp.model.hits import hits
from procpre_interp.train.loss import UNSCORED, WHOLE, Share, micro_batches
from procpre_interp.train.native import KernelUnavailable, NativeStep

EVALUATION_TOKENS = 2**14
"""Tokens of a micro-batch in evaluation, where no activations are kept."""


@torch_defaults()
@torch.no_grad()
def evaluate(
    model: HookedTransformer,
    batch: Batch,
    *,
    max_tokens: int = EVALUATION_TOKENS,
    autocast: bool = False,
    native: NativeStep | None = None,
    share: Share = WHOLE,
    forward: Callable[..., Tensor] | None = None,
) -> pd.DataFrame:
    """One row per example, teacher-forced: what was scored, how well.

    Columns: `example` (row of the batch), `length` (tokens), `n_scored` (targets), `loss_nats` (mean over the scored
    targets), `n_correct` (targets that are `hits`: no other logit is as large), `exact_match` (all of them). An example
    without a scored target has no row. `native`, made of this model, computes it instead of torch, in float32. Where
    processes share the work, each has the rows of its `share`, and calls the model through the wrapper `forward`.
    """
    if native is not None:
        return native_scores(native, batch)
    forward = forward or model
    batch = batch.to(device := model.W_E.device)
    pieces = [torch.zeros(0, 5, dtype=torch.float64)]
    for micro in micro_batches(batch, max_tokens * share.size, share):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logits = forward(micro.tokens, positions=micro.positions)
        scored = micro.targets != UNSCORED
        loss = F.cross_entropy(
            logits.to(torch.promote_types(logits.dtype, torch.float32)).transpose(1, 2),
            micro.targets,
            ignore_index=UNSCORED,
            reduction="none",
        ).sum(1)
        n_scored = scored.sum(1)
        n_correct = (hits(logits, micro.targets.clamp_min(0)) & scored).sum(1)
        pieces.append(
            torch.stack([micro.rows, batch.lengths[micro.rows], n_scored, n_correct, loss / n_scored]).T.cpu().double()
        )
    example, length, n_scored, n_correct, loss_nats = torch.cat(pieces).T.numpy()
    table = _examples(example, length, n_scored, loss_nats, n_correct)
    return table.loc[table.n_scored > 0].sort_values("example").reset_index(drop=True)


def native_scores(native: NativeStep, batch: Batch, flat: Float[Tensor, " n_parameters"] | None = None) -> pd.DataFrame:
    """The table of `evaluate` by the native kernel: of its model, or of other parameters `flat` of that shape."""
    rows = batch.loss_mask.any(1).nonzero().squeeze(1)
    batch = batch[rows]
    loss, correct = native.score(batch, flat)
    n_scored = batch.loss_mask.sum(1)
    return _examples(*(x.numpy() for x in (rows, batch.lengths, n_scored, loss / n_scored, correct)))


def _examples(
    example: np.ndarray, length: np.ndarray, n_scored: np.ndarray, loss_nats: np.ndarray, n_correct: np.ndarray
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "example": example.astype("int64"),
            "length": length.astype("int64"),
            "n_scored": n_scored.astype("int64"),
            "loss_nats": loss_nats,
            "n_correct": n_correct.astype("int64"),
            "exact_match": n_correct == n_scored,
        }
    )


def summarise(examples: pd.DataFrame) -> dict[str, float]:
    """The scores of a table of examples: every scored token counts once, exact match counts sequences.

    `loss_nats` a token, `accuracy` (share of scored tokens, teacher-forced), `exact_match` (share of sequences).
    """
    n_scored = examples.n_scored.sum()
    # numpy's sum, not pandas', which passes over NaN: a broken model must not look like a good one.
    loss = (examples.loss_nats * examples.n_scored).to_numpy().sum()
    return {
        "loss_nats": float(loss / n_scored),
        "accuracy": float(examples.n_correct.sum() / n_scored),
        "exact_match": float(examples.exact_match.mean()),
    }


@torch_defaults()
def evaluate_copies(
    model: HookedTransformer, copies: Iterable[Float[Tensor, " n_parameters"]], batch: Batch, *, threads: int = 1
) -> pd.DataFrame:
    """Scores of copies of a model that differ in their parameters alone, such as damaged ones: one row per copy.

    `copies` yields flat parameter vectors, in the order of `model.flat`, which keeps its own. Columns: `copy` (counted
    from 0) and those of `summarise`. The native kernel scores them where it can, at some ms a copy for tiny models.
    """
    try:
        native = NativeStep(model, threads=threads)
    except KernelUnavailable:
        scratch = copy.deepcopy(model)

        def score(flat: Tensor) -> pd.DataFrame:
            with torch.no_grad():
                scratch.flat.copy_(flat)
            return evaluate(scratch, batch)
    else:

        def score(flat: Tensor) -> pd.DataFrame:
            return native_scores(native, batch, flat)

    rows = [{"copy": number, **summarise(score(flat))} for number, flat in enumerate(copies)]
    return pd.DataFrame(rows, columns=["copy", "loss_nats", "accuracy", "exact_match"])
