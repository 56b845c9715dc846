"""What goes on while the loss does not change: repeated answers, states that point one way, heads that write in few
directions.

On a plateau a transformer repeats itself and its hidden states are nearly parallel, until attention finds its pattern
(Gopalani and Hu 2025, arXiv 2506.13688); heads of a circuit write in few directions (participation ratio).
"""

import math

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.model.hits import hits
from procpre_interp.probe.representation import activations, residual_sites


@torch.no_grad()
def plateau_table(model: HookedTransformer, batch: Batch) -> pd.DataFrame:
    """Measures at the scored positions of a batch, one row per measure, layer and head.

    Columns measure, layer, head (NaN where it is of all heads, or of the output), value, and `reference`: what the
    value would be of targets in place of predictions, and otherwise what says that nothing is going on.

    - `repeated`: share of neighbouring scored positions at which the greedy predictions are equal; reference: the same
      of the targets. NaN for tasks that score one token of a sequence, and, as `commonest`, where logits tie.
    - `commonest`: share of the predictions that are the one made most often; reference: the same of the targets.
    - `cosine`: mean cosine of the residual stream after each block at two scored positions, over all pairs of different
      sequences: 1 is collapse, 0 is what independent directions have.
    - `participation`: participation ratio of each head's output z, the number of directions in which it varies: from 1
      to the reference d_head, NaN where it does not vary.

    Raises `ValueError` for a batch in which nothing is scored.
    """
    scored = batch.loss_mask
    if not scored.any():
        raise ValueError("nothing is scored in this batch")
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    blocks = residual_sites(n_layers, mid=False)[1:]
    heads = [f"z.{layer}.{head}" for layer in range(n_layers) for head in range(n_heads)]
    found = activations(model, batch.tokens, scored, [*blocks, *heads])
    rows = torch.arange(len(batch), device=scored.device)[:, None].expand_as(scored)[scored]
    predicted = torch.empty_like(batch.targets)
    states = found[blocks[-1]][None]  # as one sequence, since each position is read by itself
    logits = model.unembed(model.ln_final(states))[0]
    best = logits.argmax(-1)
    predicted[scored] = best.to(predicted.device)
    # Where logits tie, as all do behind an averaged W_U, nothing is predicted, least of all the lowest id everywhere.
    told = bool(hits(logits, best).all())
    table: list[tuple[str, float, float, float, float]] = []
    for measure, of in (("repeated", repeated), ("commonest", commonest)):
        value = of(predicted, scored) if told else math.nan
        table.append((measure, math.nan, math.nan, value, of(batch.targets, scored)))
    for layer, site in enumerate(blocks):
        table.append(("cosine", layer, math.nan, mean_cosine(found[site], rows.to(found[site].device)), 0.0))
    for site in heads:
        _, layer, head = site.split(".")
        table.append(("participation", int(layer), int(head), participation_ratio(found[site]), model.cfg.d_head))
    return pd.DataFrame(table, columns=["measure", "layer", "head", "value", "reference"])


def repeated(tokens: Int[Tensor, "batch pos"], scored: Bool[Tensor, "batch pos"]) -> float:
    """Share of neighbouring scored positions with equal tokens; NaN without neighbours."""
    both = scored[:, 1:] & scored[:, :-1]
    return (tokens[:, 1:] == tokens[:, :-1])[both].double().mean().item() if both.any() else math.nan


def commonest(tokens: Int[Tensor, "batch pos"], scored: Bool[Tensor, "batch pos"]) -> float:
    """Share of the token that occurs most at the scored positions."""
    counts = tokens[scored].unique(return_counts=True)[1]
    return (counts.max() / counts.sum()).item()


def mean_cosine(x: Float[Tensor, "row feature"], sequences: Int[Tensor, " row"]) -> float:
    """Mean cosine of two rows of different sequences; NaN where there is one sequence. Rows of zeros count as
    orthogonal to all."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    # Over all pairs (|sum u|^2 - sum |u|^2) / 2, less those within sequences.
    totals = torch.zeros(int(sequences.max()) + 1, x.shape[1], dtype=torch.float64, device=x.device)
    totals.index_add_(0, sequences, unit)
    sizes = sequences.bincount().double()
    pairs = (sizes.sum() ** 2 - (sizes**2).sum()).item()
    if not pairs:
        return math.nan
    return ((totals.sum(0).square().sum() - totals.square().sum()).item()) / pairs


def participation_ratio(x: Float[Tensor, "row feature"]) -> float:
    """(tr C)^2 / tr C^2 of the covariance C: the number of directions of equal variance that would give the same.

    1 to the number of features; NaN where the rows do not vary beyond rounding.
    """
    centred = x.double() - x.double().mean(0)
    total = centred.square().sum().item()
    if total <= len(x) * (torch.finfo(x.dtype).eps * x.abs().max().item()) ** 2:
        return math.nan
    covariance = centred.T @ centred
    return total**2 / covariance.square().sum().item()
