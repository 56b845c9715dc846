"""Circuits: sets of edges, how to choose them, and how much of a model's behaviour they carry by themselves."""

import heapq
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.patch.gap import Gap, prefers_answer
from procpre_interp.patch.graph import Edge, Graph, node_of
from procpre_interp.patch.metrics import metric_named
from procpre_interp.patch.replacement import another_pair
from procpre_interp.patch.rewired import Rewired, WriterValues, block_sizes, blocks, prepare, run_writers, writer_values

Replacement = Literal["corrupted", "zero", "mean", "resample"]
Search = Literal["top", "greedy"]
Circuit = tuple[Edge, ...]

N_SIZES = 20


def top_edges(scores: pd.DataFrame, n: int) -> Circuit:
    """The n edges of largest |score|, strongest first; of equals the earlier. `scores`: writer, reader, score."""
    _check_size(n, len(scores))
    order = np.argsort(-scores["score"].abs().to_numpy(), kind="stable")[:n]
    return tuple(zip(scores["writer"].iloc[order], scores["reader"].iloc[order]))


def greedy_edges(scores: pd.DataFrame, n: int) -> Circuit:
    """n edges grown from the logits: always that of largest |score| whose reader's node is in the circuit already.

    So each leads to the logits. A node enters with the first edge from it. The first of them are the circuit of
    fewer edges. `scores` are those of all edges of a graph: writer, reader, score.

    Source:
        Hanna et al. 2024, "Have Faith in Faithfulness".
    """
    _check_size(n, len(scores))
    edges = list(zip(scores["writer"], scores["reader"]))
    strength = scores["score"].abs().to_numpy()
    into: dict[str, list[int]] = {}
    for i, (_, reader) in enumerate(edges):
        into.setdefault(node_of(reader), []).append(i)
    chosen: list[Edge] = []
    border = [(-strength[i], i) for i in into.pop("logits", [])]
    heapq.heapify(border)
    while len(chosen) < n:
        if not border:
            raise ValueError(f"only {len(chosen)} of n={n} edges lead to the logits; give the scores of all edges")
        _, i = heapq.heappop(border)
        chosen.append(edges[i])
        for new in into.pop(edges[i][0], []):
            heapq.heappush(border, (-strength[new], new))
    return tuple(chosen)


def random_edges(graph: Graph, n: int, *, generator: torch.Generator) -> Circuit:
    """n edges, any set as likely as any other, in random order."""
    _check_size(n, len(graph.edges))
    return tuple(graph.edges[i] for i in torch.randperm(len(graph.edges), generator=generator)[:n].tolist())


@torch.no_grad()
def circuit_values(
    model: HookedTransformer,
    pairs: Pairs,
    circuits: Bool[Tensor, "circuit edge"],
    *,
    metric: str = "logit_difference",
    replacement: Replacement = "corrupted",
    generator: torch.Generator | None = None,
    max_bytes: int | None = None,
) -> Float[Tensor, "circuit pair"]:
    """The metric of each pair, in its unit, when only a circuit's edges carry what the clean sequence makes.

    `circuits` are masks over `Graph(config).edges`. Each reader's input is the sum over all writers before it of the
    writer's value in this run, if the edge is in the circuit, or else its replaced value; plus b_O and b_out, which
    stay. Exact: LayerNorms, and q, k and v of each head, have inputs of their own. The full circuit is the clean run,
    the empty one has every value replaced, by those of

    - `corrupted`: the pair's corrupted run,
    - `zero`: nothing,
    - `mean`: the mean over all pairs' clean runs at the same position, of those that still read it; in the last layer,
      where a writer is only known at the read position, the mean over these,
    - `resample`: the clean run of another pair, drawn with `generator` without fixed points, at the same positions.

    Circuits that differ in ineffective edges alone are run once. `max_bytes`: see `block_sizes`.

    Raises:
        ValueError: unknown metric or replacement, masks of another graph, no pairs, or for `resample` a single pair or
            no generator.
    """
    measure = metric_named(metric)
    pairs, graph = prepare(model, pairs), Graph(model.config)
    if circuits.shape[1] != len(graph.edges):
        raise ValueError(f"masks over {circuits.shape[1]} edges; this model's graph has {len(graph.edges)}")
    n_pairs, n_circuits = block_sizes(model, pairs.clean.shape[1], max_bytes)
    parts = blocks(len(pairs), n_pairs)
    replaced = _replaced(model, pairs, replacement, generator, parts)
    distinct, which = graph.effective(circuits.to(model.flat.device)).unique(dim=0, return_inverse=True)
    values = []
    for rows in parts:
        part = pairs[rows]
        current = writer_values(model, run_writers(model, part.clean, part.positions), part.positions)
        rewired = Rewired(model, graph, current, replaced(rows, current), part.positions)
        found = [measure(rewired.logits(distinct[few]), part) for few in blocks(len(distinct), n_circuits)]
        values.append(torch.cat([current.read.new_empty(0, len(part)), *found]))
    return torch.cat(values, dim=1)[which]


def circuit_curve(
    model: HookedTransformer,
    pairs: Pairs,
    scores: pd.DataFrame,
    *,
    sizes: Sequence[int] | None = None,
    search: Search = "top",
    replacement: Replacement = "corrupted",
    metric: str = "logit_difference",
    n_random: int = 20,
    generator: torch.Generator | None = None,
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """How much of the metric circuits of growing size carry, one row per circuit.

    Columns search (`search`, or "random"), n_edges, draw (of a random one, else <NA>), value (the metric, mean over
    pairs), faithfulness = (m(C) - m(empty)) / (m(full) - m(empty)) and completeness, the same of all other edges:
    near 0 when C leaves out nothing that could do the work. Random circuits are the null: the first edges of `n_random`
    random orders, in the same `sizes` (by default at most 20 from 1 to all, evenly spaced in the logarithm).
    Faithfulness can lie outside of 0 to 1. Both are NaN in a model at chance; the further columns, those of `Gap`
    for m(full) - m(empty), say whether it is.

    Raises:
        ValueError: as `circuit_values`; an unknown search, a size that the graph does not have, or random circuits
            without a generator.
    Source:
        Wang et al. 2023, "Interpretability in the Wild", section 4; Hanna et al. 2024 (normalised faithfulness).
    """
    finders: dict[str, Callable[[pd.DataFrame, int], Circuit]] = {"top": top_edges, "greedy": greedy_edges}
    if search not in finders:
        raise unknown_name("search", search, list(finders))
    if n_random and generator is None:
        raise ValueError(f"n_random={n_random} circuits are drawn; give a generator, or n_random=0")
    graph = Graph(model.config)
    wanted = np.geomspace(1, len(graph.edges), N_SIZES).round() if sizes is None else sizes
    growing = sorted({int(n) for n in wanted})
    for n in growing:
        _check_size(n, len(graph.edges))
    orders: list[tuple[str, int | None, Circuit]] = [(search, None, finders[search](scores, max(growing, default=0)))]
    for draw in range(n_random):
        assert generator is not None
        orders.append(("random", draw, random_edges(graph, len(graph.edges), generator=generator)))
    rows = [{"search": kind, "n_edges": n, "draw": draw} for kind, draw, _ in orders for n in growing]
    empty = torch.zeros(1, len(graph.edges), dtype=torch.bool)
    circuits = torch.cat([empty, *(graph.mask(order[:n])[None] for *_, order in orders for n in growing)])
    # The complement of the empty circuit is the full one.
    found = circuit_values(
        model,
        pairs,
        torch.cat([circuits, ~circuits]),
        metric=metric,
        replacement=replacement,
        generator=generator,
        max_bytes=max_bytes,
    )
    gap = Gap.between(metric, found[0], found[len(circuits)], prefers_answer(model, pairs))
    inside, outside = found.cpu().double().mean(1).chunk(2)
    faithfulness = gap.defined(_share(torch.stack([inside, outside]), inside[0], outside[0])[:, 1:])
    table = pd.DataFrame(rows, columns=["search", "n_edges", "draw"]).astype({"draw": "Int64"})
    columns = {"value": inside[1:], "faithfulness": faithfulness[0], "completeness": faithfulness[1]}
    return table.assign(**{name: column.numpy() for name, column in columns.items()}, **gap.columns())


def minimality(
    model: HookedTransformer,
    pairs: Pairs,
    circuit: Sequence[Edge],
    *,
    replacement: Replacement = "corrupted",
    metric: str = "logit_difference",
    n_random: int = 20,
    generator: torch.Generator | None = None,
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """What each edge of a circuit adds to its faithfulness, one row per edge.

    loss = faithfulness with the edge - without it, the rest of the circuit being there. For an edge of the circuit
    (kind "inside") that is what taking it out loses; for `n_random` random edges that are not in it (kind "outside",
    all if there are fewer), what taking it out again would lose once it is added: the null that a needed edge must
    exceed in size. Columns kind, writer, reader, loss; NaN in a model at chance (see `Gap`).

    Raises:
        ValueError: as `circuit_values`; an edge that is not in the graph, or random edges without a generator.
    Source:
        Wang et al. 2023, "Interpretability in the Wild", section 4, with edges in place of heads, and always the
        whole rest of the circuit (their K is empty).
    """
    if n_random and generator is None:
        raise ValueError(f"n_random={n_random} edges are drawn; give a generator, or n_random=0")
    graph = Graph(model.config)
    mask = graph.mask(circuit)
    inside, outside = mask.nonzero().flatten(), (~mask).nonzero().flatten()
    if n_random:
        outside = outside[torch.randperm(len(outside), generator=generator)[:n_random].sort().values]
    else:
        outside = outside[:0]
    changed = torch.cat([inside, outside])
    circuits = mask.repeat(len(changed) + 3, 1)
    circuits[0], circuits[1] = False, True
    circuits[3:].scatter_(1, changed[:, None], ~mask[changed][:, None])
    found = circuit_values(
        model, pairs, circuits, metric=metric, replacement=replacement, generator=generator, max_bytes=max_bytes
    )
    values = found.cpu().double().mean(1)
    gap = Gap.between(metric, found[0], found[1], prefers_answer(model, pairs))
    faithfulness = gap.defined(_share(values, values[0], values[1]))
    sign = torch.where(mask[changed], 1.0, -1.0)
    return pd.DataFrame(
        {
            "kind": ["inside"] * len(inside) + ["outside"] * len(outside),
            "writer": [graph.edges[i][0] for i in changed.tolist()],
            "reader": [graph.edges[i][1] for i in changed.tolist()],
            "loss": (sign * (faithfulness[2] - faithfulness[3:])).numpy(),
        }
    )


def _check_size(n: int, n_edges: int) -> None:
    if not 0 <= n <= n_edges:
        raise ValueError(f"a circuit of {n} edges; there are {n_edges} to choose from")


def _share(values: Float[Tensor, "*any"], empty: Float[Tensor, ""], full: Float[Tensor, ""]) -> Float[Tensor, "*any"]:
    return (values - empty) / (full - empty)


def _replaced(
    model: HookedTransformer,
    pairs: Pairs,
    replacement: Replacement,
    generator: torch.Generator | None,
    parts: Sequence[slice],
) -> Callable[[slice, WriterValues], WriterValues]:
    """The replaced values of the pairs in a range, of which the current ones are given."""
    if replacement not in get_args(Replacement):
        raise unknown_name("replacement", replacement, list(get_args(Replacement)))
    if replacement == "zero":
        return lambda rows, current: WriterValues(torch.zeros_like(current.everywhere), torch.zeros_like(current.read))
    if replacement == "mean":
        return _means(model, pairs, parts)
    others = pairs.corrupted
    if replacement == "resample":
        others = pairs.clean[another_pair(len(pairs), generator).to(pairs.clean.device)]

    def of_others(rows: slice, current: WriterValues) -> WriterValues:
        positions = pairs.positions[rows]
        return writer_values(model, run_writers(model, others[rows], positions), positions)

    return of_others


def _means(
    model: HookedTransformer, pairs: Pairs, parts: Sequence[slice]
) -> Callable[[slice, WriterValues], WriterValues]:
    t = torch.arange(pairs.clean.shape[1], device=pairs.clean.device)
    reached = t <= pairs.positions[:, None]
    early, late = [], []
    for rows in parts:
        positions = pairs.positions[rows]
        values = writer_values(model, run_writers(model, pairs.clean[rows], positions), positions)
        early.append((values.everywhere * reached[rows, :, None]).sum(1))
        late.append(values.read.sum(1))
    mean = torch.stack(early).sum(0) / reached.sum(0)[:, None]
    mean_read = torch.stack(late).sum(0) / len(pairs)

    def of(rows: slice, current: WriterValues) -> WriterValues:
        read = mean_read[:, None].expand_as(current.read).clone()
        read[: len(mean)] = mean[:, pairs.positions[rows]]
        return WriterValues(mean[:, None].expand_as(current.everywhere), read)

    return of
