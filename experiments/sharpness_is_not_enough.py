"""Claim: how sharp the transferred attention is does not carry the gain; what it attends to does.

    python experiments/sharpness_is_not_enough.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Attention + LN of Dyck is transferred with fresh embeddings, which tell tokens apart; its queries and keys are replaced
by fresh ones, and these are scaled head by head until their entropy on haystack is that of the transferred heads:
sharpness without pattern. Beside it the same without the scaling, and the reverse (the transferred pattern with the
entropy of fresh heads). Fresh models whose attention a penalty makes sharp, an arm of version 1, are in
init_plus_entropy_replicates.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.claim_figures import gains_beside_intact
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.observation import entropy_observation
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck
from procpre_interp.train.interventions import MatchedEntropy

__all__ = ["EXPERIMENT", "figure", "run"]

WITHOUT_PATTERN = "attn+ln-attn.W_Q-attn.b_Q-attn.W_K-attn.b_K"
"""Attention + LN but for what decides where heads look."""

CLAIM = Claim(
    name="sharpness_is_not_enough",
    version=2,
    claim="Fresh heads as sharp as the transferred ones are no better than fresh heads.",
    prediction="Attention + LN with fresh queries and keys of the transferred entropy is as accurate as with fresh "
    "queries and keys as they are, within the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly outside of the margin.",
    page="can_anything_cheaper",
    primary=Contrast(
        name="fresh queries and keys, transferred entropy over own entropy",
        weights={"sharp": 1, "without pattern": -1},
        predicted="within",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="transferred pattern with fresh entropy, over fresh queries and keys",
            weights={"blunt": 1, "without pattern": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="attention + LN intact, over fresh queries and keys of its entropy",
            weights={"intact": 1, "sharp": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(name="fresh queries and keys, over none", weights={"without pattern": 1, "none": -1}),
    ),
)
CONDITIONS = (
    dyck("without pattern", WITHOUT_PATTERN, label="fresh queries and keys", embeddings="fresh"),
    dyck(
        "sharp",
        "attn+ln",
        label="fresh queries and keys, transferred entropy",
        embeddings="fresh",
        interventions=(MatchedEntropy(pattern="fresh", entropy="transferred"),),
    ),
    dyck(
        "blunt",
        "attn+ln",
        label="transferred queries and keys, fresh entropy",
        embeddings="fresh",
        interventions=(MatchedEntropy(pattern="transferred", entropy="fresh"),),
    ),
    dyck("intact", "attn+ln", label="attention + LN intact", embeddings="fresh"),
)
figure = gains_beside_intact
"""Gains with pattern and sharpness apart."""

EXPERIMENT = confirmation(
    CLAIM,
    CONDITIONS,
    figure,
    few=None,
    observation=entropy_observation("none", *(condition.name for condition in CONDITIONS)),
    seen=in_the_cheap_protocol(
        "8 of 10 broke through with fresh queries and keys of the transferred entropy, 7 of 10 of their own."
    ),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
