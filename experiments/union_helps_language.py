"""Claim: a phase 1 on set union lowers the loss on English.

    python experiments/union_helps_language.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The first of the three experiments that the paper suggests to a reader: union of 16 symbols, two layers, full transfer,
then language. Its perplexity is the exponential of the loss. The controls are further arms: a fresh model with the
scales of the transferred weights, natural text for the budget of phase 1, and the same sequences shuffled.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.data import Task
from procpre_interp.study.experiment import Experiment, main, run
from procpre_interp.study.text_protocol import (
    MARGIN,
    MARGIN_NOTE,
    PHASE1,
    TEXTS,
    full_on,
    loss_figure,
    over_controls,
    text_experiment,
)

__all__ = ["EXPERIMENT", "experiment", "figure", "run"]

CLAIM = Claim(
    name="union_helps_language",
    claim="Pretraining on set union, transferred in full, lowers the loss on English.",
    prediction="The test loss on Wikipedia is lower than without pretraining, by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly above -0.02 nats.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="full transfer over none",
        weights={"union full": 1, "none": -1},
        predicted="below",
        margin=-MARGIN,
        measure="loss_nats",
    ),
    secondary=over_controls(),
)
figure = loss_figure


def experiment(phase1_steps: int = PHASE1.steps, text: Task = TEXTS["language"]) -> Experiment:
    """The claim with this budget of phase 1, on this text."""
    full = full_on("union", "language")
    return text_experiment(CLAIM, (full,), phase1_steps=phase1_steps, text=text)


EXPERIMENT = experiment()

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
