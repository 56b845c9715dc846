"""Circuits along a transfer: of the phase-1 model on its own task, of the transplanted one, and of the finished one."""

from collections.abc import Iterable

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.lineage import Stage, StageName, stages
from procpre_interp.patch import Graph, circuit_values, edge_attribution, overlap_table, random_edges, top_edges
from procpre_interp.runs import Run, RunStore
from procpre_interp.seeding import numpy_stream, stream

COMPARED: tuple[StageName, ...] = ("phase1", "transplanted", "finished")
"""Stages whose circuits are compared; a model before any training answers nothing."""
SHARE = 0.2
"""Of a graph's edges that make a circuit."""
PAIRS = 64
"""Counterfactual pairs of each cause."""
RANDOM = 50
"""Random circuits that a circuit is compared with."""


def stage_pairs(stage: Stage, seed: int, *, n: int = PAIRS) -> Pairs:
    """`n` pairs of every cause of a stage's task, the same in every condition of a replicate."""
    return stage.task.counterfactuals(n, generator=stream(seed, "circuit pairs", stage.task.name))


def stage_circuit(stage: Stage, pairs: Pairs, *, share: float = SHARE) -> Bool[Tensor, " edge"]:
    """The strongest share of a model's edges, by |score| of EAP-IG (inputs, 5 steps), as a mask over the graph's."""
    graph = Graph(stage.model.config)
    scores = edge_attribution(stage.model, pairs, method="eap_ig_inputs")
    return graph.mask(top_edges(scores, round(share * len(graph.edges))))


def circuit_overlaps(runs: Iterable[Run], store: RunStore, *, n_draws: int = 1000) -> pd.DataFrame:
    """Overlap of the circuits of every two stages of each run, with that of rewired circuits.

    Columns run, replicate, and those of `patch.overlap_table`: Jaccard index of the edges, mean and 95 % range of the
    index when both circuits are rewired so that every writer and reader keeps its number of edges, and p. Raises
    `ValueError` for a run without parents.
    """
    tables = []
    for run in runs:
        found = transferred(run, store)
        graph = Graph(found["finished"].model.config)
        circuits = {
            name: graph.circuit(stage_circuit(stage, stage_pairs(stage, run.seed))) for name, stage in found.items()
        }
        table = overlap_table(graph, circuits, generator=numpy_stream(run.seed, "rewired"), n_draws=n_draws)
        table.insert(0, "run", run.id)
        table.insert(1, "replicate", run.seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def circuit_reuse(runs: Iterable[Run], store: RunStore, *, n_random: int = RANDOM) -> pd.DataFrame:
    """What the circuit of each stage carries in the finished model, on the task of phase 2.

    One row a run and circuit: run, replicate, circuit (a stage, or "random": mean over `n_random` of the same size),
    faithfulness (of the logit difference when only the circuit's edges carry their values and all others their mean, 0
    for no edge and 1 for all) and completeness (the same when the circuit alone is taken out: low where nothing else
    can do the work). Raises `ValueError` for a run without parents.
    """
    rows = []
    for run in runs:
        found = transferred(run, store)
        last = found["finished"]
        graph, pairs = Graph(last.model.config), stage_pairs(last, run.seed)
        masks = {name: stage_circuit(stage, stage_pairs(stage, run.seed)) for name, stage in found.items()}
        size, generator = int(masks["phase1"].sum()), stream(run.seed, "random circuits")
        randoms = [graph.mask(random_edges(graph, size, generator=generator)) for _ in range(n_random)]
        kept = torch.stack([*masks.values(), *randoms])
        ends = torch.stack([torch.ones_like(kept[0]), torch.zeros_like(kept[0])])
        values = circuit_values(last.model, pairs, torch.cat([kept, ~kept, ends]), replacement="mean").mean(1)
        full, empty = values[-2:]
        faithfulness, completeness = ((values[:-2] - empty) / (full - empty)).double().view(2, -1)
        for i, name in enumerate([*masks, "random"]):
            part = slice(i, None) if name == "random" else slice(i, i + 1)
            rows.append(
                {
                    "run": run.id,
                    "replicate": run.seed,
                    "circuit": name,
                    "n_edges": size,
                    "faithfulness": float(faithfulness[part].mean()),
                    "completeness": float(completeness[part].mean()),
                }
            )
    return pd.DataFrame(rows)


def transferred(run: Run, store: RunStore) -> dict[StageName, Stage]:
    """The stages that are compared. Raises `ValueError` for a run without parents, or of another shape than theirs."""
    found = stages(run, store)
    if "phase1" not in found:
        raise ValueError(f"run {run.id} has no parents, so nothing was transferred; give a run of phase 2")
    shapes = [Graph(found[name].model.config).edges for name in ("phase1", "finished")]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"run {run.id} has another number of layers or heads than its parent; edges cannot be compared"
        )
    return {name: found[name] for name in COMPARED}
