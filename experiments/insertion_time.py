"""Claim: the earlier union comes in the training on English, the more it helps, or the less it costs.

    python experiments/insertion_time.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Before English, in the middle of it, and when a tenth of it is left. In the middle, the model that English has come to
learns union with embeddings and positions of its own, and gets those of English back. The optimiser starts afresh each
time, which costs something by itself: so every arm is compared with a fresh model that is interrupted alike, and the
claim is about the difference of these gains.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.study.experiment import main, run
from procpre_interp.study.protocols import FRESH_SEED
from procpre_interp.study.text_protocol import full_name, full_on, loss_figure, on_text, text_experiment
from procpre_interp.sweep.config import Condition
from procpre_interp.sweep.phases import Insertion
from procpre_interp.transfer import TransferConfig

__all__ = ["EXPERIMENT", "figure", "run"]

INSERTIONS = {
    name: Insertion(at=share, optimiser="fresh", positions="own")
    for name, share in {"half": 0.5, "nine tenths": 0.9}.items()
}
FRESH = {"before": BASELINE} | {name: f"interrupted at {name}" for name in INSERTIONS}
"""The fresh model of each time."""
UNION = {"before": full_name("union", "language")} | {name: f"union at {name}" for name in INSERTIONS}
"""Full transfer of each time."""


def gain(when: str) -> dict[str, int]:
    """What union takes off the loss there, with the sign of a loss."""
    return {UNION[when]: 1, FRESH[when]: -1}


def earlier(first: str, second: str) -> Contrast:
    """Whether union is better at the earlier of two times."""
    weights = gain(first) | {name: -weight for name, weight in gain(second).items()}
    return Contrast(
        name=f"{UNION[first]} over {UNION[second]}, each over its fresh model",
        weights=weights,
        predicted="below",
        measure="loss_nats",
    )


CLAIM = Claim(
    name="insertion_time",
    claim="Union before English is better than union in the middle of it.",
    prediction="Against a fresh model interrupted alike, union lowers the loss more, or raises it less, before English "
    "than after half of it.",
    margin="0 nats per byte: before beats during, and during after, the authors announce, and not by how much.",
    refuted_by="A mean difference whose interval lies wholly above 0.",
    page="does_it_help_on_real_text",
    primary=earlier("before", "half"),
    secondary=(
        earlier("half", "nine tenths"),
        *(
            Contrast(name=f"{UNION[when]} over its fresh model", weights=gain(when), measure="loss_nats")
            for when in UNION
        ),
        Contrast(name="interrupted at half over none", weights={FRESH["half"]: 1, BASELINE: -1}, measure="loss_nats"),
    ),
)
figure = loss_figure

EXPERIMENT = text_experiment(
    CLAIM,
    (
        full_on("union", "language"),
        *(
            condition
            for name, insert in INSERTIONS.items()
            for condition in (
                Condition(name=FRESH[name], label=f"no pretraining, {FRESH[name]}", insert=insert),
                on_text(
                    UNION[name],
                    "union",
                    label=f"union at {name}, full transfer",
                    insert=insert,
                    transfer=TransferConfig(),
                ),
            )
        ),
    ),
    figure=figure,
    transferred="Blocks and final LayerNorm are transferred. Before English, embeddings and positions are fresh. In "
    "the middle of it union has fresh ones, English gets its own back, and the optimiser starts afresh both times.",
    seen=f"Seeds from {FRESH_SEED}. When the prediction was written, union before English had been seen on them (it "
    "cost .16 nats), and no run with union in the middle of English, on whatever seed.",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
