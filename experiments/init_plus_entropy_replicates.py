"""Claim: a closed-form initialisation and an entropy regulariser together replicate the gain of pretraining.

    python experiments/init_plus_entropy_replicates.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The 2 x 2 that the paper asks for: a closed-form initialisation (that of claim closed_form_initialisation) or a fresh
one, with a penalty that pulls the attention entropy of all heads to that of finished models or without, beside the
real transfer.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.stats.greedy_search import recipe_name
from procpre_interp.study.claim_figures import gains_beside_intact
from procpre_interp.study.claim_tables import recovered
from procpre_interp.study.experiment import haystack_experiment, main, run
from procpre_interp.study.initialisation_lab import read_lab
from procpre_interp.study.observation import entropy_observation
from procpre_interp.study.protocols import EFFECT_MARGIN, ENTROPY_PENALTY, MARGIN_NOTE, SEEN_NOTE, dyck
from procpre_interp.sweep.config import Condition

__all__ = ["EXPERIMENT", "figure", "run"]

LAB = read_lab()

CLAIM = Claim(
    name="init_plus_entropy_replicates",
    claim="A closed-form initialisation with an entropy penalty does as well on haystack as Dyck's attention + LN.",
    prediction="Both together and the real transfer have the same accuracy, within the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly outside of the margin.",
    page="can_anything_cheaper",
    primary=Contrast(
        name="closed form and entropy penalty, over attention + LN",
        weights={"init + entropy": 1, "intact": -1},
        predicted="within",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="entropy penalty, given the closed form",
            weights={"init + entropy": 1, "init": -1},
            predicted="within",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="closed form, given the entropy penalty",
            weights={"init + entropy": 1, "entropy": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="entropy penalty alone, over none",
            weights={"entropy": 1, "none": -1},
            predicted="within",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="interaction of closed form and entropy penalty",
            weights={"init + entropy": 1, "init": -1, "entropy": -1, "none": 1},
        ),
    ),
)
CONDITIONS = (
    LAB.condition("init", LAB.best, label="closed form"),
    Condition(name="entropy", label="entropy penalty", interventions=(ENTROPY_PENALTY,)),
    LAB.condition("init + entropy", LAB.best, ENTROPY_PENALTY, label="closed form and entropy penalty"),
    dyck("intact", "attn+ln", label="attention + LN intact"),
)
figure = gains_beside_intact
"""The four cells' gains beside that of the transfer."""

EXPERIMENT = haystack_experiment(
    CLAIM,
    CONDITIONS,
    figure,
    few=None,
    observation=entropy_observation("none", *(condition.name for condition in CONDITIONS)),
    extra=recovered,
    seen=f"Closed form: {recipe_name(LAB.best)}. {SEEN_NOTE} The closed form alone had been seen on these seeds in "
    "claim closed_form_initialisation, and the penalty alone in claim sharpness_is_not_enough.",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
