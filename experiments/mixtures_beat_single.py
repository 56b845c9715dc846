"""Claim: set and union together are a better phase 1 for English than either alone.

    python experiments/mixtures_beat_single.py [--out runs] [--workers 2] [--minutes 90] [--quick]

In the mixture each sequence is behind a token that names its task, half of them of either, in as many steps as the
single tasks have: what it gains is not gained by more data. Beside it one model is assembled from two parents, with the
attention of one and the MLPs of the other.
"""

import sys
from collections.abc import Mapping

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.measures import Measure
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.experiment import main, run
from procpre_interp.study.observation import Measured, Observation
from procpre_interp.study.text_protocol import FRESH, PHASE2, TEXTS, full_on, loss_figure, text_experiment
from procpre_interp.sweep.config import Condition, Source

__all__ = ["EXPERIMENT", "figure", "run"]

SINGLE = ("set full", "union full")
MIXED = "set + union full"
LEAST = "least lead"

CLAIM = Claim(
    name="mixtures_beat_single",
    claim="A mixture of set and union is a better phase 1 for English than the better one of them.",
    prediction="In the mean over replicates, the smaller of its two leads in test loss is above 0.",
    margin="0 nats per byte: the mixture costs what each of them costs, so the better one is better by any amount.",
    refuted_by="A mean of the smaller lead whose interval lies wholly below 0.",
    page="does_it_help_on_real_text",
    measures={"lead_nats": Measure("smaller of two leads in test loss", "nats per byte", "nats")},
    primary=Contrast(
        name="the smaller of both leads", weights={LEAST: 1}, predicted="above", margin=0, measure="lead_nats"
    ),
    secondary=(
        *(
            Contrast(
                name=f"mixture over {single.removesuffix(' full')}",
                weights={MIXED: 1, single: -1},
                predicted="below",
                measure="loss_nats",
            )
            for single in SINGLE
        ),
        Contrast(
            name="assembly over the mean of both parents",
            weights={"assembly": 1, "set full": -0.5, "union full": -0.5},
            measure="loss_nats",
        ),
        Contrast(name="mixture over none", weights={MIXED: 1, "none": -1}, measure="loss_nats"),
    ),
)
figure = loss_figure


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """The mixture's smaller lead in a replicate, nats per byte."""
    loss = {name: float(each.summary["loss_nats"]) for name, each in runs.items()}
    return {LEAST: {"lead_nats": min(loss[single] for single in SINGLE) - loss[MIXED]}}


EXPERIMENT = text_experiment(
    CLAIM,
    (
        *(full_on(phase1, "language") for phase1 in ("set", "union", "set + union")),
        Condition(
            name="assembly",
            label="union's attention, set's MLPs and LayerNorms",
            sources=(Source(phase1="union", selector="attn"), Source(phase1="set", selector="mlp+ln")),
            transfer=FRESH,
            task=TEXTS["language"],
            train=PHASE2,
        ),
    ),
    observation=Observation(
        needs=(*SINGLE, MIXED),
        conditions={LEAST: "the smaller of both leads"},
        measure=measure,
        reads_models=False,
    ),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
