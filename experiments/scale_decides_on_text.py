"""Claim: on text, most of what a phase 1 gains is the scale of its weights.

    python experiments/scale_decides_on_text.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Fresh weights get the size that each tensor has after the transfer, and a rate of learning that keeps the relative step
of the transferred ones; the arm is tuned like all others. What they have of the gain needs no structure to explain it.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.experiment import main, run
from procpre_interp.study.text_protocol import full_on, loss_figure, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

SHARE = 0.5
"""Share of the gain that counts as most of it."""
TASKS = ("union", "sort")


def over_share(task: str) -> Contrast:
    """The loss with the scales alone, less what that share of full transfer's gain would leave."""
    return Contrast(
        name=f"scales of {task} over half of its gain",
        weights={f"{task} full scales": 1, "none": SHARE - 1, f"{task} full": -SHARE},
        predicted="below",
        measure="loss_nats",
    )


CLAIM = Claim(
    name="scale_decides_on_text",
    claim="Most of what sort gains on English is there with fresh weights of the same scales.",
    prediction="Fresh weights of the transferred scales have more than half of the gain of full transfer.",
    margin="0 nats beyond 0.5 of the gain of full transfer, which the contrast takes off.",
    refuted_by="A mean whose interval lies wholly above 0: less than half of the gain.",
    page="does_it_help_on_real_text",
    primary=over_share("sort"),
    premise="sort full over none",
    secondary=(
        over_share("union"),
        *(
            Contrast(
                name=f"{name} over none",
                weights={name: 1, "none": -1},
                measure="loss_nats",
                predicted="below" if name == "sort full" else None,
            )
            for task in TASKS
            for name in (f"{task} full", f"{task} full scales")
        ),
    ),
)
figure = loss_figure

EXPERIMENT = text_experiment(CLAIM, tuple(full_on(task, "language") for task in TASKS))

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
