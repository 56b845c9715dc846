"""Claim: what helps on English is the order of the tokens of phase 1, not which they are.

    python experiments/structure_not_statistics.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The third of the experiments that the paper suggests: phase 1 on the sequences of union, each in random order, is to
bring nothing. Its symbols are uniform and its token embeddings are not transferred, so that another naming of the
symbols would be the same data. Tokens drawn one by one would not: a shuffled sequence still has most symbols twice,
once given and once in the answer.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.data import Task
from procpre_interp.study.experiment import Experiment, main, run
from procpre_interp.study.text_protocol import MARGIN, MARGIN_NOTE, PHASE1, TEXTS, full_on, loss_figure, text_experiment

__all__ = ["EXPERIMENT", "experiment", "figure", "run"]

CLAIM = Claim(
    name="structure_not_statistics",
    claim="Union with its sequences shuffled leaves the loss on English where it was.",
    prediction="The test loss after shuffled sequences and without pretraining are the same, within the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly outside of the margin.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="shuffled sequences over none",
        weights={"union full shuffled sequences": 1, "none": -1},
        predicted="within",
        margin=MARGIN,
        measure="loss_nats",
    ),
    secondary=(
        Contrast(
            name="ordered over shuffled sequences",
            weights={"union full": 1, "union full shuffled sequences": -1},
            predicted="below",
            margin=-MARGIN,
            measure="loss_nats",
        ),
    ),
)
figure = loss_figure


def experiment(phase1_steps: int = PHASE1.steps, text: Task = TEXTS["language"]) -> Experiment:
    """The claim with this budget of phase 1, on this text."""
    full = full_on("union", "language")
    return text_experiment(CLAIM, (full,), phase1_steps=phase1_steps, text=text, replicates=14)


EXPERIMENT = experiment()

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
