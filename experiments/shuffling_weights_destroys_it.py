"""Claim: the gain sits in where weights are, not in which values there are: shuffling them destroys it.

    python experiments/shuffling_weights_destroys_it.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Attention + LN of Dyck, which breaks through reliably when it is intact, is damaged by each rung of the ladder of
controls before the transfer. Embeddings (averaged) and positions (carried) are those of the undamaged parent.
`shuffle_neurons` is left out: it moves MLP weights only, and none are transferred. So is `row_norms_only`, which was
added to the ladder after the runs (claim scale_explains_it).
"""

import sys

import pandas as pd

from procpre_interp.ablate import ABLATIONS, LADDER
from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.store.store import RunStore
from procpre_interp.study.claim_figures import gains_beside_intact
from procpre_interp.study.claim_tables import Tables
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck

__all__ = ["EXPERIMENT", "figure", "run"]

LATER = ("row_norms_only", "keys_only", "values_only", "unpair_neurons")
"""Controls that did not exist when the claim was made."""
RUNGS = tuple(name for name in LADDER if name not in ("shuffle_neurons", *LATER))
"""Controls, ordered from the least structure kept to the most."""

CLAIM = Claim(
    name="shuffling_weights_destroys_it",
    version=2,
    claim="Shuffling the weights of each layer destroys the gain.",
    prediction="Attention + LN with its weights shuffled a layer (q, k and v as one pool: the paper's shuffle) is as "
    "good as no pretraining, within the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean gain whose 90 % interval lies wholly outside of the margin.",
    page="what_survives_damage",
    primary=Contrast(
        name="shuffled within layers, over none",
        weights={"shuffle_within_layers": 1, "none": -1},
        predicted="within",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="shuffled within layers, over embeddings and positions alone",
            weights={"shuffle_within_layers": 1, "frame": -1},
            predicted="within",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="whole heads shuffled (same function), over intact",
            weights={"shuffle_heads": 1, "intact": -1},
            predicted="within",
            margin=EFFECT_MARGIN,
        ),
        *(
            Contrast(name=f"{name} over none", weights={name: 1, "none": -1}, predicted="within", margin=EFFECT_MARGIN)
            for name in RUNGS
            if name not in ("shuffle_within_layers", "shuffle_heads")
        ),
    ),
)


def controls(table: pd.DataFrame, store: RunStore) -> Tables:
    """What each rung keeps and destroys, in words, for readers of the claim file."""
    rungs = ((name, ABLATIONS[name]) for name in RUNGS)
    rows = [(name, each.keeps, each.destroys) for name, each in rungs]
    return {"controls": pd.DataFrame(rows, columns=["name", "keeps", "destroys"])}


figure = gains_beside_intact
"""The ladder: what is left of the gain, from the least structure kept to the most."""

EXPERIMENT = confirmation(
    CLAIM,
    (
        *(dyck(name, "attn+ln", label=name.replace("_", " "), ablation=ABLATIONS.build(name)) for name in RUNGS),
        dyck("intact", "attn+ln", label="attention + LN intact"),
        dyck("frame", "none", label="averaged embeddings and positions alone"),
    ),
    figure,
    extra=controls,
    seen=in_the_cheap_protocol("2 of 10 broke through shuffled within layers, 0 of 10 without pretraining."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
