"""Claim: after a procedural phase 1, less text is needed for the same loss.

    python experiments/procedural_tokens_save_data.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Saved is what phase 2 needs less than no pretraining does until that one's final loss, as a share of its tokens
(`procpre_interp.stats.savings`). With phase 1 counted against it, in tokens and in compute, it is a contrast of its
own. The paper's phase 1 has .1 to .3 % of the tokens of phase 2; of two million bytes that is three to eight steps, in
which nothing is learnt. Here phase 1 is as long as it takes to learn the task, about as many tokens as phase 2, and
what a shorter one saves is `procpre-interp sweep text_budgets`, without a prediction.
"""

import sys
from collections.abc import Mapping

import pandas as pd

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.measures import accuracy_measure
from procpre_interp.stats.confidence_sequence import Limits
from procpre_interp.stats.savings import SHARES, replicate_savings
from procpre_interp.store.outcomes import cell_results
from procpre_interp.store.run import parents_of
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.claim_figures import measure_figure
from procpre_interp.study.experiment import main, run
from procpre_interp.study.observation import Measured, Observation
from procpre_interp.study.text_protocol import Domain, fresh_on, full_name, full_on, name_in, text_experiment

__all__ = ["EXPERIMENT", "figure", "run"]

DOMAINS: tuple[Domain, ...] = ("language", "code", "mathematics")
LEAST_SHARE = 0.1
"""Share of the text that is worth saving; the paper saves 14 to 45 %."""


TRANSFERS: tuple[tuple[str, Domain], ...] = (
    *((task, domain) for task in ("sort", "union") for domain in DOMAINS),
    *((task, DOMAINS[0]) for task in ("set", "dyck", "stack")),
)


def saved(task: str, domain: Domain, measure: str, margin: float) -> Contrast:
    """What a transfer saves, as predicted above the margin."""
    return Contrast(
        name=f"{SHARES[measure]} that {task} saves, {domain}",
        weights={full_name(task, domain): 1},
        predicted="above",
        margin=margin,
        measure=measure,
    )


CLAIM = Claim(
    name="procedural_tokens_save_data",
    claim="Sort saves a tenth of the English that is needed for the same loss.",
    prediction="After sort, phase 2 has the final loss of no pretraining with less than 90 % of its tokens.",
    margin="0.1 of the tokens of phase 2; the paper saves 45 % on C4, 33 % on CodeParrot and 14 % on DeepMind-Math.",
    refuted_by="A mean share whose interval lies wholly below 10 %.",
    page="does_it_help_on_real_text",
    measures={name: accuracy_measure(f"share of {said} saved", "%") for name, said in SHARES.items()},
    # A run that never has the loss saves nothing, so that savings may come from two kinds of runs.
    limits={name: Limits(low=-1 if name == "semantic_saved" else -2, high=1) for name in SHARES},
    primary=saved("sort", "language", "semantic_saved", LEAST_SHARE),
    secondary=(
        *(saved(task, domain, "semantic_saved", LEAST_SHARE) for task, domain in TRANSFERS[1:]),
        *(saved("sort", "language", measure, 0) for measure in ("tokens_saved", "compute_saved")),
    ),
)
figure = measure_figure("semantic_saved", "Tokens of phase 2 saved (%)")


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """What each transfer saves in a replicate, of the budget of no pretraining on its text, where both are there."""
    cells = [
        {"condition": name, "label": name, "replicate": 0, "run": each.id}
        | {"phase1_run": tuple(parent["run"] for parent in parents_of(each))}
        for name, each in runs.items()
    ]
    table = cell_results(pd.DataFrame(cells), store, {})
    curves = pd.concat(each.history().assign(condition=name, replicate=0) for name, each in runs.items())
    found: dict[str, dict[str, float]] = {}
    for domain in DOMAINS:
        names = [full_name(task, text) for task, text in TRANSFERS if text == domain]
        baseline = name_in(domain, "none")
        if baseline not in runs:
            continue
        rows = table.loc[table["condition"].isin([baseline, *names])]
        shares = replicate_savings(rows, curves, baseline=baseline).set_index("condition")
        for name in names:
            if name in shares.index:
                found[name] = {share: float(shares.loc[name, share]) for share in SHARES}
    return found


CONDITIONS = [full_on(task, domain) for task, domain in TRANSFERS]
EXPERIMENT = text_experiment(
    CLAIM,
    (*map(fresh_on, DOMAINS[1:]), *CONDITIONS),
    figure=figure,
    observation=Observation(
        needs=(*(name_in(domain, "none") for domain in DOMAINS), *(each.name for each in CONDITIONS)),
        conditions={},
        measure=measure,
        parts={full_name(task, text): (full_name(task, text), name_in(text, "none")) for task, text in TRANSFERS},
        reads_models=False,
    ),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
