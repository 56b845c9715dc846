"""Claim: the transferred attention is needed only early, until the other weights have found their way.

    python experiments/needed_only_early.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Attention + LN of Dyck is transferred, and at some step of phase 2 the attention is set to values that were never
trained: those of the same seed without a transfer. All other weights, and what they have learnt by then, stay. Rewound
at step 0 it was never there; the later it is needed, the later the step up to which rewinding costs the gain. Beside it
the attention is set back to what was transferred, which takes away what phase 2 did to it, and only that.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.claim_figures import gains_beside_intact
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck
from procpre_interp.train.interventions import Rewind

__all__ = ["EXPERIMENT", "figure", "run"]

STEPS = (0, 250, 500, 1000)
"""Steps before which the attention becomes fresh. With all of it the breakthrough comes at step 1,500 to 1,800."""

CLAIM = Claim(
    name="needed_only_early",
    version=2,
    claim="Dyck's attention is needed only in the first 500 steps of phase 2.",
    prediction="Attention + LN whose attention is made fresh again before step 500 is more accurate than no "
    "pretraining by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean gain whose interval lies wholly below the margin.",
    page="can_anything_cheaper",
    primary=Contrast(
        name="attention fresh from step 500 on, over none",
        weights={"fresh at 500": 1, "none": -1},
        predicted="above",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="attention kept, over fresh from step 500 on",
            weights={"intact": 1, "fresh at 500": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="attention fresh from step 500 on, over never there",
            weights={"fresh at 500": 1, "fresh at 0": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="attention back to the transferred values before step 500, over none",
            weights={"transferred at 500": 1, "none": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        *(
            Contrast(
                name=f"attention fresh from step {step} on, over none", weights={f"fresh at {step}": 1, "none": -1}
            )
            for step in STEPS
            if step != 500
        ),
    ),
)
figure = gains_beside_intact
"""What is left of the gain, by the step before which the attention was rewound."""

EXPERIMENT = confirmation(
    CLAIM,
    (
        *(
            dyck(
                f"fresh at {step}",
                "attn+ln",
                label=f"attention fresh from step {step} on",
                interventions=(Rewind(selector="attn", to="fresh", steps=(step,)),),
            )
            for step in STEPS
        ),
        dyck(
            "transferred at 500",
            "attn+ln",
            label="attention back to the transferred values before step 500",
            interventions=(Rewind(selector="attn", to="start", steps=(500,)),),
        ),
        dyck("intact", "attn+ln", label="attention + LN intact"),
    ),
    figure,
    seen=in_the_cheap_protocol(
        "5 of 10 broke through with the attention made fresh before step 500, 0 of 10 without pretraining."
    ),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
