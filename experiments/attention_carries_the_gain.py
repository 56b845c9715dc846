"""Claim: it is attention that carries Dyck's gain on haystack, given its LayerNorms and positions.

    python experiments/attention_carries_the_gain.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The LayerNorms belong to no component, so attention with them is compared with them alone: both have the same
embeddings (averaged) and positions (carried). That the MLPs are not enough is a test of equivalence.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.claim_figures import gains_figure
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck

__all__ = ["EXPERIMENT", "figure", "run"]

NOT_ENOUGH = {"mlp+ln": "MLP + LN", "mlp": "MLP", "ln": "LN", "frame": "embeddings and positions"}

CLAIM = Claim(
    name="attention_carries_the_gain",
    version=2,
    claim="Given Dyck's LayerNorms and positions, its attention adds what teaches recall.",
    prediction="Attention + LN is more accurate than LN alone by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly below the margin.",
    primary=Contrast(
        name="attention + LN over LN alone",
        weights={"attn+ln": 1, "ln": -1},
        predicted="above",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="attention without LN over none",
            weights={"attn": 1, "none": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        *(
            Contrast(
                name=f"{name} is not enough",
                weights={condition: 1, "none": -1},
                predicted="within",
                margin=EFFECT_MARGIN,
            )
            for condition, name in NOT_ENOUGH.items()
        ),
    ),
)
figure = gains_figure
"""Every condition's gain over no pretraining."""

EXPERIMENT = confirmation(
    CLAIM,
    (
        dyck("attn+ln", "attn+ln", label="attention + LN"),
        dyck("attn", "attn", label="attention"),
        dyck("mlp+ln", "mlp+ln", label="MLP + LN"),
        dyck("mlp", "mlp", label="MLP"),
        dyck("ln", "ln", label="LN"),
        dyck("frame", "none", label="averaged embeddings and positions alone"),
        dyck("full", label="attention + MLP + LN"),
    ),
    figure,
    seen=in_the_cheap_protocol("10 of 10 broke through with attention + LN, 0 of 10 with LN alone."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
