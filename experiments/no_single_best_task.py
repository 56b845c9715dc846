"""Claim: no single procedural task is the best phase 1 for every text.

    python experiments/no_single_best_task.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Of the paper's tasks sort lowers the loss on C4 most (perplexity 58.8, union and set 59.9, no pretraining 62.0), and
union that on CodeParrot (5.13, set 5.15, no pretraining 5.47). If each leads the other on its own text, neither is best
for both, and then no task is, unless a third one beats them both on both.

Version 1 asked the same of Dyck and Dyck shuffle on haystack and reversed addition, chosen from the diagnostic table.
"""

import sys
from collections.abc import Mapping

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.measures import Measure
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.experiment import main, run
from procpre_interp.study.observation import Measured, Observation
from procpre_interp.study.protocols import FRESH_SEED
from procpre_interp.study.text_protocol import Domain, fresh_on, full_name, full_on, loss_figure, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

BEST: dict[Domain, str] = {"language": "sort", "code": "union"}
"""Text -> the task that is predicted to lead there."""
LEAST = "least lead"
SEEN = (
    f"Seeds from {FRESH_SEED}, the same runs as in other claims. Of these, sort and union on English had been seen on "
    "seeds 3000 to 3006 when the prediction was written (.04 and .16 nats above no pretraining, so that sort leads "
    "there), and union on Python beside natural text; of sort on Python, and so of the lead there, nothing, and the "
    "smaller lead is at most that one."
)


def lead(domain: Domain) -> dict[str, float]:
    """Weights of what the task that is best on a text is ahead of the other one there, in its loss."""
    (other,) = set(BEST.values()) - {BEST[domain]}
    return {full_name(other, domain): 1, full_name(BEST[domain], domain): -1}


CLAIM = Claim(
    name="no_single_best_task",
    version=2,
    claim="Sort is the better phase 1 for English and union for Python, so that neither task is best for both.",
    prediction="In the mean over replicates, the smaller of the two leads in test loss (sort's over union on English, "
    "union's over sort on Python) is above 0.",
    margin="0 nats per byte: the sentence is about which one is ahead.",
    refuted_by="A mean of the smaller lead whose interval lies wholly below 0.",
    page="does_it_help_on_real_text",
    measures={"lead_nats": Measure("smaller of two leads in test loss", "nats per byte", "nats")},
    primary=Contrast(name="the smaller of both leads", weights={LEAST: 1}, predicted="above", measure="lead_nats"),
    secondary=tuple(
        Contrast(
            name=f"how far the loss after {BEST[domain]} is below that after the other task, {domain}",
            weights=lead(domain),
            predicted="above",
            measure="loss_nats",
        )
        for domain in BEST
    ),
)
figure = loss_figure


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """The smaller of both leads in a replicate, which is at most the lead on either text."""
    losses = {name: float(each.summary["loss_nats"]) for name, each in runs.items()}
    leads = [sum(weight * losses[name] for name, weight in lead(domain).items()) for domain in BEST]
    return {LEAST: {"lead_nats": min(leads)}}


CONDITIONS = tuple(full_on(task, domain) for task in BEST.values() for domain in BEST)
EXPERIMENT = text_experiment(
    CLAIM,
    (fresh_on("code"), *CONDITIONS),
    seen=SEEN,
    observation=Observation(
        needs=tuple(each.name for each in CONDITIONS),
        conditions={LEAST: "the smaller of both leads"},
        measure=measure,
        reads_models=False,
    ),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
