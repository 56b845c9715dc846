"""Claim: tokens drawn one by one, as often as union has them, leave the loss on English where it was.

    python experiments/unigrams_teach_nothing.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The null with the least structure: a shuffled sequence of union still has most symbols twice, once given and once in the
answer, which a model can learn to copy (`structure_not_statistics`). Here each token is replaced by one from anywhere
in the same draw of sequences (`noisy` with a share of 1), so that nothing is left but how often tokens occur. There is
nothing else to learn in phase 1, and so its gate is at 0; its accuracy is that on sequences of union.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import MARGIN, MARGIN_NOTE, full_on, loss_figure, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

CLAIM = Claim(
    name="unigrams_teach_nothing",
    claim="Tokens drawn one by one, as often as union has them, leave the loss on English where it was.",
    prediction="The test loss after them and without pretraining are the same, within the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly outside of the margin.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="unigrams over none",
        weights={"unigrams full": 1, "none": -1},
        predicted="within",
        margin=MARGIN,
        measure="loss_nats",
    ),
    secondary=(
        Contrast(
            name="unigrams over fresh weights of their scales",
            weights={"unigrams full": 1, "unigrams full scales": -1},
            predicted="within",
            margin=MARGIN,
            measure="loss_nats",
        ),
        Contrast(
            name="shuffled sequences of union over unigrams",
            weights={"union full shuffled sequences": 1, "unigrams full": -1},
            measure="loss_nats",
        ),
    ),
)
figure = loss_figure

EXPERIMENT = text_experiment(
    CLAIM,
    (full_on("unigrams", "language"), full_on("union", "language")),
    replicates=14,
    seen="Seeds from 3000, of which union with its sequences shuffled had been seen when the prediction was written: "
    "it had ended .42 nats above no pretraining.",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
