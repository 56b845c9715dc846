"""Claim: what teaches is the order of the tokens: Dyck with its sequences shuffled teaches nothing.

    python experiments/shuffled_sequences_teach_nothing.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Phase 1 on the same sequences, each with its tokens in random order. Attention + LN, the transfer that carries Dyck's
gain reliably, is the primary contrast; the paper's own control is full transfer.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.claim_figures import gains_figure
from procpre_interp.study.experiment import haystack_experiment, main, run
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck

__all__ = ["EXPERIMENT", "figure", "run"]

CLAIM = Claim(
    name="shuffled_sequences_teach_nothing",
    claim="Shuffled sequences teach nothing.",
    prediction="Attention + LN of a model trained on shuffled sequences is as good as none, within the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean gain whose 90 % interval lies wholly outside of the margin.",
    primary=Contrast(
        name="shuffled sequences, attention + LN, over none",
        weights={"shuffled attn+ln": 1, "none": -1},
        predicted="within",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="shuffled sequences, full transfer, over none",
            weights={"shuffled full": 1, "none": -1},
            predicted="within",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="ordered over shuffled sequences, attention + LN",
            weights={"attn+ln": 1, "shuffled attn+ln": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
    ),
)
figure = gains_figure
"""Every condition's gain over no pretraining."""

EXPERIMENT = haystack_experiment(
    CLAIM,
    (
        dyck("shuffled attn+ln", "attn+ln", label="shuffled sequences, attention + LN", phase1="shuffled"),
        dyck("shuffled full", label="shuffled sequences, full transfer", phase1="shuffled"),
        dyck("attn+ln", "attn+ln", label="Dyck, attention + LN"),
        dyck("full", label="Dyck, full transfer"),
    ),
    figure,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
