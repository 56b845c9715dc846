"""Claim: what union gains on English is still there after training on other text.

    python experiments/gain_survives_finetuning.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Three phases: union, then English, then a short training on Python, the whole model carried. Every arm has all phases
but the first, and is tuned by its loss at the end of the last one, which is also what is compared. The loss at the end
of phase 2 stands beside it.
"""

import dataclasses
import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.measures import Measure
from procpre_interp.study.claim_figures import measure_figure
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import DECAY, PHASE2, TEXTS, full_on, text_experiment
from procpre_interp.sweep.phases import Phase

__all__ = ["EXPERIMENT", "figure", "run"]

FINE_TUNING = Phase(
    task=TEXTS["code"],
    train=dataclasses.replace(
        PHASE2, steps=300, learning_rate=1e-3, warmup_steps=30, weight_decay=DECAY["code"], evaluate_every=50
    ),
)
GAIN = {"union full": 1, "none": -1}

CLAIM = Claim(
    name="gain_survives_finetuning",
    claim="A model that began with union and learnt English is better at Python, after a short training on it.",
    prediction="The test loss on Python after all phases is lower than without phase 1.",
    margin="0 nats per byte: the paper says that gains persist, and not how much of them.",
    refuted_by="A mean difference whose interval lies wholly above 0.",
    page="does_it_help_on_real_text",
    measures={"phase2_loss_nats": Measure("test loss after phase 2", "nats per byte", "nats")},
    primary=Contrast(
        name="full transfer over none, after training on Python",
        weights=GAIN,
        predicted="below",
        measure="loss_nats",
    ),
    secondary=(
        Contrast(name="full transfer over none, on English before that", weights=GAIN, measure="phase2_loss_nats"),
        Contrast(
            name="union over natural text, after training on Python",
            weights={"union full": 1, "union full natural text": -1},
            predicted="below",
            measure="loss_nats",
        ),
    ),
)
figure = measure_figure("loss_nats", "Test loss on Python after all phases (nats per byte)")

EXPERIMENT = text_experiment(
    CLAIM,
    (full_on("union", "language"),),
    figure=figure,
    then=(FINE_TUNING,),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
