"""Claim: pretraining on Dyck brackets teaches a tiny transformer to recall (needle in a haystack).

    python experiments/dyck_teaches_recall.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The paper's headline is full transfer, 11.3 to 96.9 %. It either breaks through or does not, so replicates are many, on
seeds from 3000 that had not been seen when this was declared.
"""

import dataclasses
import sys

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.claims.claim import Contrast
from procpre_interp.claims.judged import JudgedClaim
from procpre_interp.claims.text import claim_title
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.headline import HEADLINE
from procpre_interp.study.protocols import EFFECT_MARGIN, dyck
from procpre_interp.views.plots.curves import survival_curves

__all__ = ["EXPERIMENT", "figure", "run"]

CLAIM = dataclasses.replace(
    HEADLINE,
    name="dyck_teaches_recall",
    version=2,
    primary=dataclasses.replace(HEADLINE.primary, weights={"full": 1, "none": -1}),
    secondary=(
        Contrast(
            name="attention + LN over none",
            weights={"attn+ln": 1, "none": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="steps that full transfer saves",
            weights={"none": 1, "full": -1},
            measure="restricted_time_steps",
        ),
    ),
)


def figure(table: pd.DataFrame, judged: JudgedClaim) -> go.Figure:
    """Time to breakthrough, as survival curves."""
    return survival_curves(table.loc[table["status"] != "failed"], title=claim_title(judged))


EXPERIMENT = confirmation(
    CLAIM,
    (dyck("full", label="Dyck, full transfer"), dyck("attn+ln", "attn+ln", label="Dyck, attention + LN")),
    figure,
    few=None,
    seen=in_the_cheap_protocol("5 of 10 broke through in full transfer, 0 of 10 without pretraining."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
