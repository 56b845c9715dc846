"""Claim: the circuit that solves haystack after the transfer is, in part, the one that solved Dyck.

    python experiments/circuits_are_reused.py [--out runs] [--workers 2] [--minutes 90] [--quick]

A model's circuit is the fifth of its edges with the largest |score| of EAP-IG (inputs, 5 steps, logit difference) on
64 counterfactual pairs of each cause of its task. Circuits of the phase-1 model on Dyck and of the finished model on
haystack are compared edge by edge (Jaccard index), with as null both circuits rewired so that every writer and reader
keeps its number of edges. How much identical circuits would exceed that null is reported beside: few rewirings keep
the degrees of so small a graph's circuits, so that the primary contrast could hardly have been supported (seen after
the verdict). Overlap shows no cause, so the phase-1 circuit is also kept, and taken out, in the
finished model (all other edges carry their mean), beside random circuits of the same size; and four heads of the
parent are transferred (with LN): the strongest of its circuit, or four by lot. Layer and strength are confounded in
that; circuit_heads_carry_it tells them apart.
"""

import sys
from collections.abc import Mapping

from procpre_interp.analysis.circuit_overlap import circuit_overlaps, circuit_reuse
from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.claim_figures import measure_figure
from procpre_interp.study.claim_tables import layers_of_heads
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.observation import Measured, Observation
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck

__all__ = ["EXPERIMENT", "figure", "run"]

CLAIM = Claim(
    name="circuits_are_reused",
    version=2,
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
        Contrast(
            name="what identical circuits would exceed rewired ones by",
            weights={"identical": 1, "identical_rewired": -1},
            measure="jaccard",
        ),
    ),
)


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """Overlap of the two circuits, and what the first one carries in the finished model."""
    run = runs["attn+ln"]
    compared = circuit_overlaps([run], store).set_index(["first", "second"])
    carried = circuit_reuse([run], store).set_index("circuit")
    both = ("phase1", "finished")
    found: dict[str, dict[str, float]] = {
        "overlap": {"jaccard": float(compared.at[both, "jaccard"])},
        "rewired": {"jaccard": float(compared.at[both, "null_mean"])},
        "identical": {"jaccard": 1.0},
        "identical_rewired": {"jaccard": 1 - float(compared.at[both, "ceiling"])},
    }
    found["overlap"] |= {each: float(compared.at[both, each]) for each in ("distinct_first", "distinct_second")}
    for name, circuit in (
        ("phase1_circuit", "phase1"),
        ("finished_circuit", "finished"),
        ("random_circuits", "random"),
    ):
        if circuit not in carried.index:  # of a model that answers nothing
            continue
        found[name] = {each: float(carried.at[circuit, each]) for each in ("faithfulness", "completeness")}
    return found


figure = measure_figure("jaccard", "Jaccard index of the edges of both circuits")

EXPERIMENT = confirmation(
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
            "rewired": "both rewired",
            "identical": "a circuit and itself",
            "identical_rewired": "the phase-1 circuit and itself, both rewired",
            "finished_circuit": "the finished model's own circuit in it",
            "phase1_circuit": "the phase-1 circuit in the finished model",
            "random_circuits": "random circuits of its size",
        },
        measure=measure,
    ),
    extra=layers_of_heads,
    seen=in_the_cheap_protocol("the overlap was 0.03 below that of rewired circuits."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
