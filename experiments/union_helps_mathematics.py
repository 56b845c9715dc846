"""Claim: a phase 1 on set union lowers the loss on school mathematics.

    python experiments/union_helps_mathematics.py [--out runs] [--workers 2] [--minutes 90] [--quick]

`union_helps_language` on the third of the paper's domains: questions of DeepMind's generator, each with its answer. The
paper compares the share of questions that are answered right. Here that is a contrast without a prediction: a model of
this size and budget has hardly begun to answer, and a gain of the paper's size in such a share is nothing that 40
replicates decide. The loss is over questions and answers alike.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import MARGIN, loss_figure, on_text, over_controls, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

OVER_NONE = {"union full": 1, "none": -1}

CLAIM = Claim(
    name="union_helps_mathematics",
    claim="Pretraining on set union, transferred in full, lowers the loss on school mathematics by more than .02 nats.",
    prediction="The test loss on DeepMind's questions is lower than without pretraining, by more than the margin.",
    margin="0.02 nats per byte, as on English. The paper has 1.5 points more right answers, and reports no loss.",
    refuted_by="A mean difference whose interval lies wholly above -0.02 nats.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="full transfer over none", weights=OVER_NONE, predicted="below", margin=-MARGIN, measure="loss_nats"
    ),
    secondary=(
        Contrast(name="full transfer over none, answers", weights=OVER_NONE, measure="answers_right"),
        *over_controls(),
    ),
)
figure = loss_figure

EXPERIMENT = text_experiment(
    CLAIM,
    (on_text("union full", "union", label="union, full transfer", domain="mathematics"),),
    domain="mathematics",
    seen="Seeds from 3000, of which no run on mathematics had been seen when the prediction was written; union had "
    "cost .16 nats on English there, and .14 on Python.",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
