"""What single edges carry, measured by patching: alone, or along a path."""

from collections.abc import Sequence

import pandas as pd
import torch

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.patch.circuit import circuit_values
from procpre_interp.patch.gap import Gap, gap_of, prefers_answer
from procpre_interp.patch.graph import Edge, Graph, edge_table, node_of
from procpre_interp.patch.metrics import metric_named
from procpre_interp.patch.replacement import Direction, check_direction
from procpre_interp.patch.rewired import (
    Rewired,
    block_sizes,
    blocks,
    prepare,
    run_writers,
    writer_values,
)


@torch.no_grad()
def edge_patching(
    model: HookedTransformer,
    pairs: Pairs,
    *,
    edges: Sequence[Edge] | None = None,
    metric: str = "logit_difference",
    direction: Direction = "denoise",
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """Exact effect on the metric of patching each edge alone: writer, reader, value, effect, share (means over pairs).

    Further columns are those of `Gap`, the same in all rows.

    `denoise` runs the corrupted sequence, where this one edge carries its writer's clean value; `noise` runs the clean
    sequence, where it carries the corrupted one. All that follows is computed again. effect = value - value without
    the patch; share = effect / (clean - corrupted metric), NaN in a model at chance (see `Gap`). All edges unless
    `edges` are given. Runs of `max_bytes` at once (see `block_sizes`).

    Raises:
        ValueError: unknown metric or direction, an edge that is not in the graph, or no pairs.
    """
    measure = metric_named(metric)
    check_direction(direction)
    pairs, graph = prepare(model, pairs), Graph(model.config)
    chosen = list(graph.edges) if edges is None else list(edges)
    index = torch.tensor([graph.index(*edge) for edge in chosen], dtype=torch.long)
    values, unpatched = torch.zeros(2, len(chosen), dtype=torch.float64)
    n_pairs, n_runs = block_sizes(model, pairs.clean.shape[1], max_bytes)
    everything = torch.ones(1, len(graph.edges), dtype=torch.bool, device=pairs.clean.device)
    for rows in blocks(len(pairs), n_pairs):
        part = pairs[rows]
        ends = [run_writers(model, tokens, part.positions) for tokens in (part.clean, part.corrupted)]
        clean, corrupted = (writer_values(model, end, part.positions) for end in ends)
        run, other = (corrupted, clean) if direction == "denoise" else (clean, corrupted)
        for number, stage in enumerate(graph.stages):
            places = ((index >= stage.edges.start) & (index < stage.edges.stop)).nonzero().flatten()
            if len(places) == 0:
                continue
            rewired = Rewired(model, graph, run, other, part.positions, first_stage=number)
            for few in blocks(len(places), n_runs):
                keep = everything.repeat(few.stop - few.start, 1)
                keep[torch.arange(len(keep)), index[places[few]]] = False
                values[places[few]] += measure(rewired.logits(keep), part).sum(1).cpu().double()
            # Through the same operations, so that an edge without effect has one of almost exactly 0.
            unpatched[places] += float(measure(rewired.logits(everything), part).sum())
    gap = gap_of(model, pairs, metric=metric)
    effects = (values - unpatched) / len(pairs)
    table = edge_table(chosen, value=values / len(pairs), effect=effects, share=gap.defined(effects / gap.estimate))
    return table.assign(**gap.columns())


@torch.no_grad()
def path_patching(
    model: HookedTransformer,
    pairs: Pairs,
    path: Sequence[str],
    *,
    metric: str = "logit_difference",
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """Effect on the metric when one path alone carries the clean value into the corrupted run; one row.

    `path` is a writer, then the readers on the way, at last `logits`: ("embed", "blocks.0.attn.head.1.v", "logits").
    The writer has its clean value; each node on the path reads that of the node before it along the path's edge, and
    corrupted values along all others. Columns path, value, effect (value - corrupted metric), share (effect / (clean -
    corrupted metric), NaN in a model at chance), and those of `Gap`.

    Raises:
        ValueError: the path does not end in logits, or an edge of it is not in the graph.
    Source:
        Wang et al. 2023, "Interpretability in the Wild", section 3; Goldowsky-Dill et al. 2023.
    """
    if len(path) < 2 or path[-1] != "logits":
        raise ValueError(f"path {' -> '.join(path)!r}; give a writer, readers on the way if any, and at last logits")
    graph = Graph(model.config)
    circuit = graph.mask(zip([path[0], *map(node_of, path[1:-1])], path[1:]))
    before = graph.stage_of(path[0])
    # Up to where the writer is known all edges are kept, so that it has its clean value; the rest of what is known
    # there leaves along edges that are not kept.
    if before >= 0:
        circuit[: graph.stages[before].edges.stop] = True
    masks = torch.stack([circuit, torch.zeros_like(circuit), torch.ones_like(circuit)])
    found = circuit_values(model, pairs, masks, metric=metric, max_bytes=max_bytes)
    gap = Gap.between(metric, found[1], found[2], prefers_answer(model, pairs))
    value, corrupted, _ = found.cpu().double().mean(1)
    row = {"path": " -> ".join(path), "value": float(value), "effect": float(value - corrupted)}
    return pd.DataFrame([row | {"share": float(gap.defined((value - corrupted) / gap.estimate))} | gap.columns()])
