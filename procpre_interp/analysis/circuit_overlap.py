"""Circuits along a transfer: of the phase-1 model on its own task, of the transplanted one, and of the finished one."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from procpre_interp.core.seeding import numpy_stream, stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.patch import (
    Gap,
    Graph,
    circuit_values,
    edge_attribution,
    overlap_table,
    prefers_answer,
    random_edges,
    top_edges,
)
from procpre_interp.pipeline.lineage import StageName, Subject, at_stage
from procpre_interp.store.store import Run, RunStore

COMPARED: tuple[StageName, ...] = ("phase1", "transplanted", "finished")
"""Stages whose circuits are compared, where they have one; a model before any training answers nothing."""
SHARE = 0.2
"""Share of a graph's edges that make a circuit."""
PAIRS = 64
"""Counterfactual pairs of each cause."""
RANDOM = 50
"""Random circuits that a circuit is compared with."""


def subject_pairs(subject: Subject, seed: int, *, n: int = PAIRS) -> Pairs:
    """`n` pairs of every cause of a model's task, the same in every condition of a replicate."""
    return subject.task.counterfactuals(n, generator=stream(seed, "circuit pairs", subject.task.name))


def subject_circuit(subject: Subject, pairs: Pairs, *, share: float = SHARE) -> Bool[Tensor, " edge"] | None:
    """The strongest share of a model's edges, by |score| of EAP-IG (inputs, 5 steps), as a mask over the graph's.

    None where fewer edges have a score at all: with averaged embeddings, say, all tokens of a transplanted model are
    alike, and no edge carries a difference.
    """
    graph = Graph(subject.model.config)
    scores = edge_attribution(subject.model, pairs, method="eap_ig_inputs")
    size = round(share * len(graph.edges))
    if np.count_nonzero(scores["score"].to_numpy()) < size:
        return None
    return graph.mask(top_edges(scores, size))


def circuit_overlaps(runs: Iterable[Run], store: RunStore, *, n_draws: int = 1000) -> pd.DataFrame:
    """Overlap of the circuits of every two stages of each run, with that of rewired circuits.

    Columns run, replicate, and those of `patch.overlap_table`: Jaccard index of the edges, mean and 95 % range of the
    index when both circuits are rewired so that every writer and reader keeps its number of edges, and p. `ceiling` is
    what the first circuit and itself would exceed their null by. It is small, and the comparison says little, where a
    circuit admits few rewirings (`distinct_first`, `distinct_second`). Stages without a circuit are left out. Raises
    `ValueError` for a run without parents, or with circuits at fewer than two stages.
    """
    tables = []
    for run in runs:
        found = transferred(run, store)
        graph = Graph(found["finished"].model.config)
        circuits = {name: graph.circuit(mask) for name, mask in _circuits(found, run.seed).items()}
        if len(circuits) < 2:
            raise ValueError(f"run {run.id}: only {list(circuits)} has a circuit; a model must tell its pairs apart")
        generator = numpy_stream(run.seed, "rewired")
        table = overlap_table(graph, circuits, generator=generator, n_draws=n_draws)
        alone = {
            name: overlap_table(graph, {name: own, "itself": own}, generator=generator, n_draws=n_draws)
            for name, own in circuits.items()
        }
        ceilings = {name: 1 - float(each["null_mean"].iloc[0]) for name, each in alone.items()}
        table = table.assign(ceiling=[ceilings[name] for name in table["first"]])
        table.insert(0, "run", run.id)
        table.insert(1, "replicate", run.seed)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def circuit_reuse(runs: Iterable[Run], store: RunStore, *, n_random: int = RANDOM) -> pd.DataFrame:
    """What the circuit of each stage carries in the finished model, on the task of phase 2.

    One row per run and circuit: run, replicate, circuit (a stage, or "random": mean over `n_random` of the same size),
    faithfulness (of the logit difference when only the circuit's edges carry their values and all others their mean, 0
    for no edge and 1 for all) and completeness (the same when the circuit alone is taken out: low where nothing else
    can do the work), both NaN where the finished model is at chance; then the columns of `patch.Gap`, which say whether
    it is. Stages without a circuit are left out. Raises `ValueError` for a run without parents.
    """
    rows = []
    for run in runs:
        found = transferred(run, store)
        last = found["finished"]
        graph, pairs = Graph(last.model.config), subject_pairs(last, run.seed)
        masks = _circuits(found, run.seed)
        size, generator = round(SHARE * len(graph.edges)), stream(run.seed, "random circuits")
        randoms = [graph.mask(random_edges(graph, size, generator=generator)) for _ in range(n_random)]
        kept = torch.stack([*masks.values(), *randoms])
        ends = torch.stack([torch.ones_like(kept[0]), torch.zeros_like(kept[0])])
        of_pairs = circuit_values(last.model, pairs, torch.cat([kept, ~kept, ends]), replacement="mean")
        preferred, values = prefers_answer(last.model, pairs), of_pairs.mean(1)
        gap = Gap.between("logit_difference", of_pairs[-1], of_pairs[-2], preferred)
        full, empty = values[-2:]
        faithfulness, completeness = gap.defined((values[:-2] - empty) / (full - empty)).double().view(2, -1)
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
                    **gap.columns(),
                }
            )
    return pd.DataFrame(rows)


def _circuits(found: dict[StageName, Subject], seed: int) -> dict[StageName, Bool[Tensor, " edge"]]:
    """The circuits of the stages that have one."""
    masks: dict[StageName, Bool[Tensor, " edge"]] = {}
    for name, subject in found.items():
        mask = subject_circuit(subject, subject_pairs(subject, seed))
        if mask is not None:
            masks[name] = mask
    return masks


def transferred(run: Run, store: RunStore) -> dict[StageName, Subject]:
    """The models that are compared. Raises `ValueError` for a run without parents, or of another shape than theirs."""
    if not run.config.get("parents"):
        raise ValueError(f"run {run.id} has no parents, so nothing was transferred; give a run of phase 2")
    found: dict[StageName, Subject] = {stage: at_stage(run, store, stage).load(store) for stage in COMPARED}
    shapes = [Graph(found[name].model.config).edges for name in ("phase1", "finished")]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"run {run.id} has another number of layers or heads than its parent; edges cannot be compared"
        )
    return found
