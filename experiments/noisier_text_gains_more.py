"""Claim: the noisier the text, the more a phase 1 helps.

    python experiments/noisier_text_gains_more.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Half of the tokens of the training text are replaced by others that occur in it, and the model is tested on clean text.
Reported for data from linear recurrent networks and for Dyck, with gains that grow from .026 to .038 and from .009 to
.015 nats as noise goes from none to half.

Noise makes all losses more alike, and so would make a cost smaller, too. So it is a premise that on noisy text there is
a gain (added before any run on noisy text that confirms, when union was known to cost .16 nats on clean text).
"""

import dataclasses
import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.data import TASKS
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import PHASE2, TEXTS, full_on, loss_figure, text_experiment
from procpre_interp.sweep.config import Condition

__all__ = ["EXPERIMENT", "figure", "run"]

NOISE = 0.5
NOISY = TASKS.build("noisy", task=TEXTS["language"], share=NOISE)
CLEAN_GAIN, NOISY_GAIN = {"union full": 1, "none": -1}, {"union full, noisy": 1, "none, noisy": -1}

CLAIM = Claim(
    name="noisier_text_gains_more",
    claim="Union gains more on English of which half of the tokens are noise.",
    prediction="What full transfer takes off the clean test loss is more after noisy than after clean text.",
    margin="0 nats per byte: the sentence is about the sign of the difference between two gains.",
    refuted_by="A mean difference whose interval lies wholly above 0.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="gain on noisy over gain on clean text",
        weights=NOISY_GAIN | {name: -weight for name, weight in CLEAN_GAIN.items()},
        predicted="below",
        measure="loss_nats",
    ),
    premise="full transfer over none, noisy",
    secondary=(
        Contrast(name="full transfer over none, clean", weights=CLEAN_GAIN, measure="loss_nats"),
        Contrast(name="full transfer over none, noisy", weights=NOISY_GAIN, predicted="below", measure="loss_nats"),
    ),
)
figure = loss_figure

FULL = full_on("union", "language")
EXPERIMENT = text_experiment(
    CLAIM,
    (
        FULL,
        Condition(name="none, noisy", label="no pretraining, noisy text", task=NOISY, train=PHASE2),
        dataclasses.replace(FULL, name="union full, noisy", label="union, full transfer, noisy text", task=NOISY),
    ),
    natural_text=dataclasses.replace(TEXTS["language"], order="uniform"),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
