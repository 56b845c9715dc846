"""Probes of attention patterns, from token ids alone."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer
from procpre_interp.probe.targets import Mask, targets_named


def row_entropy_bits(pattern: Float[Tensor, "*row key_pos"]) -> Float[Tensor, "*row"]:
    """Shannon entropy of each attention row, in bits; a weight of 0 counts nothing."""
    return -torch.xlogy(pattern, pattern).sum(-1) / torch.log(torch.tensor(2.0, device=pattern.device))


def attention_entropy(model: HookedTransformer, batch: Batch, *, max_sequences: int = 64) -> pd.DataFrame:
    """Entropy of each head's attention, one row per head: layer, head, entropy_bits, entropy_relative, n_rows.

    The scores of `attention_scores` with these names; `n_rows` are the queries of the first.
    """
    scores = attention_scores(model, batch, targets=(), max_sequences=max_sequences)
    wide = scores.pivot(index=["layer", "head"], columns="score")
    columns = {name: wide["value", name] for name in ("entropy_bits", "entropy_relative")}
    return pd.DataFrame({**columns, "n_rows": wide["n_queries", "entropy_bits"]}).reset_index()


@torch.no_grad()
def attention_scores(
    model: HookedTransformer,
    batch: Batch,
    task: Task | None = None,
    *,
    targets: Iterable[str] | None = None,
    max_sequences: int = 64,
) -> pd.DataFrame:
    """What each head attends to, one row per head and score: layer, head, score, value, uniform, n_queries.

    Every `value` is a mean over the `n_queries` queries at real tokens that the score has, and `uniform` the same of a
    head that attends evenly to all its causal choices; both are NaN where there is no query. The scores:

    - `entropy_bits`: the entropy of the row, in bits.
    - `entropy_relative`: that over log2(i + 1), the most that a causal row of i + 1 choices can have, 0 to 1. The
      first row, which has no choice, is left out.
    - `distance`: query position minus key position, in tokens, weighted by attention.
    - each target (see `probe.targets`): the attention on the target's keys, 0 to 1, over the queries that have any.
      `targets` names them; by default all that `task` has, and without a task those of every sequence of tokens.

    One layer's patterns of `max_sequences` sequences are held at once, which bounds the memory and not the numbers.

    Raises `ValueError` for an empty batch, and for a target that the task does not have.
    """
    chosen = targets_named(targets, task)
    names = ["entropy_bits", "entropy_relative", "distance", *(target.name for target in chosen)]
    starts = range(0, len(batch), max_sequences)
    if not starts:
        raise ValueError("a batch of no sequences; give at least one")
    parts = (batch[slice(start, start + max_sequences)].to(model.flat.device) for start in starts)
    sums = [_sums(model, part, [target.mask(part, task) for target in chosen]) for part in parts]
    totals, uniform, n_queries = (torch.stack(each).sum(0) for each in zip(*sums))
    # 0 / 0 is NaN: a score without a query.
    means, chance = totals / n_queries, uniform / n_queries
    rows = [
        {
            "layer": layer,
            "head": head,
            "score": name,
            "value": float(means[layer, head, score]),
            "uniform": float(chance[score]),
            "n_queries": int(n_queries[score]),
        }
        for layer in range(model.config.n_layers)
        for head in range(model.config.n_heads)
        for score, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


@torch.no_grad()
def attention_pattern(model: HookedTransformer, tokens: Int[Tensor, " pos"]) -> pd.DataFrame:
    """Attention weights of one sequence, 0 to 1: layer, head, query, key, weight, one row per causal pair of positions.

    A table of n_layers n_heads n (n + 1) / 2 rows. Raises `ValueError` for more than one sequence.
    """
    if tokens.ndim != 1:
        raise ValueError(f"tokens of shape {tuple(tokens.shape)}; give one sequence, as a row of token ids")
    query, key = np.tril_indices(len(tokens))
    tables = []

    def keep(layer: int, pattern: Float[Tensor, "batch head query key"]) -> None:
        for head, weights in enumerate(pattern[0].float().cpu().numpy()):
            place = {"layer": layer, "head": head, "query": query, "key": key}
            tables.append(pd.DataFrame({**place, "weight": weights[query, key]}))

    _visit_patterns(model, tokens.to(model.flat.device)[None], keep)
    return pd.concat(tables, ignore_index=True)


def _visit_patterns(
    model: HookedTransformer,
    tokens: Int[Tensor, "batch pos"],
    visit: Callable[[int, Float[Tensor, "batch head query key"]], None],
) -> None:
    """Call `visit(layer, pattern)` on each layer's patterns in turn, so that no more than one is held."""

    def hook_of(layer: int) -> Callable[..., None]:
        return lambda pattern, hook: visit(layer, pattern)

    points = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.config.n_layers)]
    with model.hooks(fwd_hooks=[(point, hook_of(layer)) for layer, point in enumerate(points)]):
        model(tokens, return_type=None)


def _sums(
    model: HookedTransformer, part: Batch, masks: list[Mask]
) -> tuple[Float[Tensor, "layer head score"], Float[Tensor, " score"], Int[Tensor, " score"]]:
    """Sums over the queries of each score: of the heads' values, of even attention's, and of the queries themselves."""
    t = torch.arange(part.tokens.shape[1], device=part.tokens.device)
    real = t < part.lengths[:, None]
    queries = [real, real & (t > 0), real, *(mask.any(-1) for mask in masks)]
    layers = []

    def add(layer: int, pattern: Float[Tensor, "batch head query key"]) -> None:
        scores = zip(_row_scores(pattern, masks), queries)
        layers.append(torch.stack([(rows * counted[:, None]).sum((0, 2)) for rows, counted in scores], dim=1))

    _visit_patterns(model, part.tokens, add)
    uniform = torch.stack([(rows * counted).sum() for rows, counted in zip(_uniform_scores(t, masks), queries)])
    return torch.stack(layers).cpu(), uniform.cpu(), torch.stack([counted.sum() for counted in queries]).cpu()


def _row_scores(
    pattern: Float[Tensor, "batch head query key"], masks: list[Mask]
) -> list[Float[Tensor, "batch head query"]]:
    """Every score of each row of attention, in float64."""
    pattern = pattern.to(torch.promote_types(pattern.dtype, torch.float32))
    t = torch.arange(pattern.shape[-1], dtype=pattern.dtype, device=pattern.device)
    entropy = row_entropy_bits(pattern).double()
    # The first row's 0 bits are divided by 1 instead of its 0; the others are from 1 on.
    relative = entropy / torch.log2(t + 1).clamp(min=1)
    back = (t[:, None] - t).clamp(min=0)
    distance = einsum(pattern, back, "batch head query key, query key -> batch head query")
    shapes = "batch head query key, batch query key -> batch head query"
    attention = [einsum(pattern, mask.to(pattern.dtype), shapes).double() for mask in masks]
    return [entropy, relative, distance.double(), *attention]


def _uniform_scores(t: Int[Tensor, " query"], masks: list[Mask]) -> list[Float[Tensor, "*batch query"]]:
    """Every score of a row of even attention, in float64."""
    choices = t.double() + 1
    return [choices.log2(), torch.ones_like(choices), (choices - 1) / 2, *(mask.sum(-1) / choices for mask in masks)]
