"""Claim: the stack helps on code, and the queue does not.

    python experiments/stack_not_queue.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The same operations in both tasks, and the same answers in another order: last in, first out, or first in, first out.
Code nests, so that what is opened last is closed first.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import MARGIN, MARGIN_NOTE, loss_figure, on_text, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

CLAIM = Claim(
    name="stack_not_queue",
    claim="Stack is a better phase 1 for Python than queue.",
    prediction="The test loss on Python after stack is lower than after queue, by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly above -0.02 nats.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="stack over queue",
        weights={"stack full": 1, "queue full": -1},
        predicted="below",
        margin=-MARGIN,
        measure="loss_nats",
    ),
    secondary=(
        Contrast(
            name="stack over none",
            weights={"stack full": 1, "none": -1},
            predicted="below",
            margin=-MARGIN,
            measure="loss_nats",
        ),
        Contrast(
            name="queue over none",
            weights={"queue full": 1, "none": -1},
            predicted="within",
            margin=MARGIN,
            measure="loss_nats",
        ),
    ),
)
figure = loss_figure

EXPERIMENT = text_experiment(
    CLAIM,
    tuple(on_text(f"{task} full", task, label=f"{task}, full transfer", domain="code") for task in ("stack", "queue")),
    domain="code",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
