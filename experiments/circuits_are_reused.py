"""Claim: the circuit that solves haystack after the transfer is, in part, the one that solved Dyck.

    python experiments/circuits_are_reused.py [--out runs] [--workers 2] [--minutes 90] [--quick]

A model's circuit is the fifth of its edges with the largest |score| of EAP-IG (inputs, 5 steps, logit difference) on
64 counterfactual pairs of each cause of its task. Circuits of the phase-1 model on Dyck and of the finished model on
haystack are compared edge by edge (Jaccard index), with as null the phase-1 circuit rewired so that every writer and
reader keeps its number of edges. Overlap shows no cause, so the phase-1 circuit is also kept, and taken out, in the
finished model (all other edges carry their mean), beside random circuits of the same size; and four heads of the
parent are transferred (with LN): the strongest of its circuit, or four by lot.
"""

import sys
from collections.abc import Mapping

import torch

from procpre_interp.claims import Claim, Contrast
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.experiment import haystack_experiment, main, measure_figure, run
from procpre_interp.lineage import Stage, stages
from procpre_interp.observe import Measured, Observation
from procpre_interp.patch import Graph, circuit_values, edge_attribution, overlap_table, random_edges, top_edges
from procpre_interp.reproduce import EFFECT_MARGIN, MARGIN_NOTE, SEEN_IN_MODELS, dyck
from procpre_interp.runs import Run, RunStore
from procpre_interp.seeding import numpy_stream, stream

__all__ = ["EXPERIMENT", "figure", "run"]

SHARE = 0.2
PAIRS = 64
RANDOM = 50

CLAIM = Claim(
    name="circuits_are_reused",
    claim="The circuit of the finished haystack model overlaps with the phase-1 circuit more than its degrees explain.",
    prediction="The Jaccard index of their edges exceeds that of rewired circuits by more than 0.1.",
    margin=f"0.1 of the Jaccard index; 0.25 of what a circuit carries; for accuracies {MARGIN_NOTE}",
    refuted_by="A mean excess whose interval lies wholly below 0.1.",
    primary=Contrast(
        name="overlap over rewired circuits",
        weights={"overlap": 1, "rewired": -1},
        predicted="above",
        margin=0.1,
        measure="jaccard",
    ),
    secondary=(
        Contrast(
            name="phase-1 circuit alone carries more of haystack than random ones",
            weights={"phase1_circuit": 1, "random_circuits": -1},
            predicted="above",
            margin=0.25,
            measure="faithfulness",
        ),
        Contrast(
            name="without the phase-1 circuit less is left than without random ones",
            weights={"phase1_circuit": 1, "random_circuits": -1},
            predicted="below",
            margin=-0.25,
            measure="completeness",
        ),
        Contrast(
            name="four heads of the circuit over four by lot",
            weights={"circuit_heads": 1, "random_heads": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
    ),
)


def circuit(stage: Stage, pairs: Pairs) -> torch.Tensor:
    """The strongest fifth of a model's edges, as a mask over the graph's."""
    graph = Graph(stage.model.config)
    scores = edge_attribution(stage.model, pairs, method="eap_ig_inputs")
    return graph.mask(top_edges(scores, round(SHARE * len(graph.edges))))


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """Overlap of the two circuits, and what the first one carries in the finished model."""
    seed, models = runs["attn+ln"].seed, stages(runs["attn+ln"], store)
    first, last = models["phase1"], models["finished"]
    pairs = {
        stage.name: stage.task.counterfactuals(PAIRS, generator=stream(seed, "circuit pairs", stage.task.name))
        for stage in (first, last)
    }
    graph = Graph(last.model.config)
    masks = {stage.name: circuit(stage, pairs[stage.name]) for stage in (first, last)}
    named = {name: graph.circuit(mask) for name, mask in masks.items()}
    compared = overlap_table(graph, named, generator=numpy_stream(seed, "rewired")).iloc[0]
    generator = stream(seed, "random circuits")
    size = len(named["phase1"])
    randoms = torch.stack([graph.mask(random_edges(graph, size, generator=generator)) for _ in range(RANDOM)])
    kept = torch.cat([masks["phase1"][None], randoms])
    ends = torch.stack([torch.ones_like(kept[0]), torch.zeros_like(kept[0])])
    values = circuit_values(last.model, pairs["finished"], torch.cat([kept, ~kept, ends]), replacement="mean").mean(1)
    full, empty = values[-2:]
    share = ((values[:-2] - empty) / (full - empty)).view(2, -1)
    return {
        "overlap": {"jaccard": float(compared["jaccard"])},
        "rewired": {"jaccard": float(compared["null_mean"])},
        "phase1_circuit": {"faithfulness": float(share[0, 0]), "completeness": float(share[1, 0])},
        "random_circuits": {"faithfulness": float(share[0, 1:].mean()), "completeness": float(share[1, 1:].mean())},
    }


figure = measure_figure("jaccard", "Jaccard index of the edges of both circuits")

EXPERIMENT = haystack_experiment(
    CLAIM,
    (
        dyck("attn+ln", "attn+ln", label="attention + LN"),
        dyck("circuit_heads", "ln+circuit.4", label="LN + four heads of the circuit"),
        dyck("random_heads", "ln+random.4", label="LN + four heads by lot"),
    ),
    figure,
    few=None,
    observation=Observation(
        needs=("attn+ln",),
        conditions={
            "overlap": "phase-1 circuit and finished circuit",
            "rewired": "rewired phase-1 circuit and finished circuit",
            "phase1_circuit": "the phase-1 circuit in the finished model",
            "random_circuits": "random circuits of its size",
        },
        measure=measure,
    ),
    seen=SEEN_IN_MODELS,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
