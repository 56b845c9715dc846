"""Claim: the same budget of text of another domain is a worse phase 1 for English than union.

    python experiments/procedural_beats_other_text.py [--out runs] [--workers 2] [--minutes 90] [--quick]

`procedural_beats_natural_warmup` with Python in place of English as the text of phase 1: natural, and not further
epochs of what phase 2 reads; its comments and docstrings are English, though. As there its budget is that of phase 1 on
union, in random windows, and what phase 2 has as fresh is drawn anew. So are its steps, learning rate and decay, which
were chosen by how far procedural tasks are learnt with them: they are not tuned for text, and how well Python was
learnt is to be said beside the verdict.
"""

import dataclasses
import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import TEXTS, full_on, loss_figure, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

OTHER = "union full natural text"

CLAIM = Claim(
    name="procedural_beats_other_text",
    claim="Union is a better phase 1 for English than as many tokens of Python.",
    prediction="The test loss on Wikipedia after union is lower than after Python.",
    margin="0 nats per byte: both cost the same, so the better one is better by any amount.",
    refuted_by="A mean difference whose interval lies wholly above 0.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="union over Python", weights={"union full": 1, OTHER: -1}, predicted="below", measure="loss_nats"
    ),
    secondary=(Contrast(name="Python over none", weights={OTHER: 1, "none": -1}, measure="loss_nats"),),
)
figure = loss_figure

EXPERIMENT = text_experiment(
    CLAIM,
    (full_on("union", "language"),),
    natural_text=dataclasses.replace(TEXTS["code"], order="uniform"),
    seen="Seeds from 3000, of which no run with Python as phase 1 had been seen when the prediction was written; union "
    "had, .16 nats above no pretraining, and level with English as phase 1 (+.003 [-.14, +.15] nats).",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
