"""What survives damage? What is left of a transfer's gain after shuffling or noise, and why transfers fail."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pandas as pd

from procpre_interp.analysis.diagnosis import NO_BASELINE, NO_SIGNATURE, diagnose_all, diagnosis_by_condition
from procpre_interp.analysis.diagnosis.diagnose import describe_numbers
from procpre_interp.claims.claim import Page
from procpre_interp.claims.contrast_text import contrast_estimate, why
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title, question_title
from procpre_interp.stats.half_dose import HalfDose, dose_means, half_dose
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import paired_gains, replicate_matrix, summarise_conditions
from procpre_interp.store.run import DamagedRun, Run, UnknownRun
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.claims import SOURCES, of_page
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import Results, sides
from procpre_interp.views.plots.ladder import dose_response, half_dose_text, half_doses, ladder

PAGE: Page = "what_survives_damage"
NOISED = "noised"
"""Table of a claim: which conditions have how much noise on which component."""


def damage_claims(known: Mapping[str, StoredClaim]) -> dict[str, StoredClaim]:
    """Those of the claims that damage weights in another way than by noise, by name."""
    return {name: claim for name, claim in of_page(known, PAGE).items() if not has_noise(claim)}


def noise_claims(known: Mapping[str, StoredClaim]) -> dict[str, StoredClaim]:
    """Those of the claims that add noise to weights, by name."""
    return {name: claim for name, claim in of_page(known, PAGE).items() if has_noise(claim)}


def has_noise(judged: StoredClaim) -> bool:
    """Whether the claim says which of its conditions have how much noise."""
    return NOISED in judged.tables


def origin(judged: StoredClaim) -> str:
    """Where the numbers come from, in a sentence."""
    return f"From {SOURCES[judged.source]}: `procpre-interp claims {judged.name}`, {len(judged.seeds)} seeds."


def answer(judged: StoredClaim) -> Answer:
    """The verdict of a damage claim, and what its primary contrast measured."""
    first = judged.primary
    text = f"{claim_title(judged)}. Measured: {first.contrast}, {contrast_estimate(first)}, n = {first.n}; "
    text += f"{why(first, quick=judged.quick)}."
    return Answer(text, decided=judged.is_decided)


def controls(judged: StoredClaim) -> Exhibit:
    """Gain of each control over no pretraining, the ladder from the least structure kept to the most."""
    margin = f"Margin: the smallest gain that counts. {judged.margin}"
    return _gains(judged.cells, claim_title(judged), judged.primary.margin, (margin,))


def controls_of(results: Results) -> Exhibit:
    """The same of any stored table of conditions, such as a sweep with ablations."""
    above, below, both = sides(results)
    verdict = f"{len(above)} of {len(above) + len(below) + len(both)} conditions gained"
    title = question_title(f"{results.title.rstrip('?.')}: what is left of the gain?", verdict)
    return _gains(results.table, title, None, ())


def kept(judged: StoredClaim) -> pd.DataFrame:
    """What each control of a claim keeps and destroys, as text, in the order of the ladder; no rows for a claim file
    that does not say so."""
    labels = dict(judged.cells[["condition", "label"]].itertuples(index=False, name=None))
    said = judged.tables.get("controls", pd.DataFrame(columns=["name", "keeps", "destroys"])).set_index("name")
    rows = [[labels[name], *said.loc[name, ["keeps", "destroys"]]] for name in labels if name in said.index]
    return pd.DataFrame(rows, columns=["Control", "Keeps", "Destroys"])


def _gains(cells: pd.DataFrame, title: str, margin: float | None, notes: tuple[str, ...]) -> Exhibit:
    _require(cells, "status", "accuracy", what="a ladder")
    summary = summarise_conditions(cells)
    if "none" not in set(summary["condition"]):
        raise ValueError("a ladder shows gains over no pretraining: the table has no condition 'none'")
    shown = summary.loc[(summary["condition"] != "none") & summary["gain_mean"].notna()]
    if shown.empty:
        raise ValueError("no condition has a finished replicate beside one without pretraining")
    named = {"gain_mean": "estimate", "gain_low": "low", "gain_high": "high"}
    effects = shown[["condition", "label", "n", *named]].rename(columns=named)
    gains = paired_gains(cells)
    # Of the pairs, which are fewer than the runs where one of a pair is missing.
    effects["n"] = [int(gains[condition].notna().to_numpy().sum()) for condition in effects["condition"]]
    dots = gains.melt(var_name="condition", value_name="value", ignore_index=False).dropna(subset="value").reset_index()
    labels = dict(zip(effects["condition"], effects["label"]))
    dots["label"] = [labels.get(condition) for condition in dots["condition"]]
    lines = {"no pretraining": 0.0} | ({} if margin is None else {"margin": 100 * margin})
    intact = effects.loc[effects["condition"] == "intact", "estimate"]
    lines |= {"intact transfer": 100 * float(intact.iloc[0])} if len(intact) else {}
    bounds = ["estimate", "low", "high"]
    points = effects.drop(columns="condition").assign(**{name: 100 * effects[name] for name in bounds})
    figure = ladder(
        points,
        dots=dots.dropna().assign(value=100 * dots["value"]),
        references=lines,
        x="Gain over no pretraining (percentage points)",
        title=title,
    )
    return Exhibit(
        name="ladder",
        figure=figure,
        reading="A control that keeps what matters stands near the intact transfer, one that destroys it near no "
        "pretraining; dots far apart mean that some replicates broke through and others did not.",
        table=effects,
        notes=notes,
    )


def doses(cells: pd.DataFrame, noised: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by component, noise and replicate beside no pretraining's: what `half_dose` wants.

    `noised` says which conditions have noise: condition, component, noise_std. "none" and "intact" have none. Raises
    `ValueError` for cells without these.
    """
    accuracy = replicate_matrix(cells.loc[cells["status"] == "finished"], "accuracy")
    there = noised.loc[noised["condition"].isin(list(accuracy))]
    if there.empty or not {"none", "intact"} <= set(accuracy):
        raise ValueError("cells without noise on an intact transfer: no dose-response")
    undamaged = there.drop_duplicates("component").assign(condition="intact", noise_std=0.0)
    ordered = pd.concat([undamaged, there]).sort_values("noise_std", kind="stable")
    curves = [ordered.loc[ordered["component"] == component] for component in undamaged["component"]]
    rows = [
        pd.DataFrame({"value": accuracy[row.condition], "baseline": accuracy["none"]}).assign(
            component=row.component, noise_std=float(row.noise_std)
        )
        for curve in curves
        for row in named_rows(curve)
    ]
    # Some doses are in the first replicates only.
    return pd.concat(rows).reset_index().dropna(subset=["value", "baseline"])


def noise(judged: StoredClaim) -> Exhibit:
    """Accuracy after phase 2 against the noise on the transferred weights, with half doses."""
    if not has_noise(judged):
        raise ValueError("this claim does not say which conditions have noise; judge it again with `claims --run`")
    table = doses(judged.cells, judged.tables[NOISED])
    return _dose_response(table, "noise_before", "Noise before phase 2: how much halves the gain?")


def noise_on_finished(judged: StoredClaim) -> Exhibit:
    """Accuracy against the noise on finished models, which had no training to make up for it."""
    table = judged.tables.get("finished_doses", pd.DataFrame())
    if table.empty:
        raise ValueError("this claim has no noise on finished models; compute it again with `procpre-interp claims`")
    return _dose_response(table, "noise_after", "Noise on the finished model: how much halves the gain?")


def _dose_response(table: pd.DataFrame, name: str, question: str) -> Exhibit:
    means, fits = dose_means(table), half_dose(table)
    found = half_doses(fits)
    verdict = "; ".join(f"{fit.component}: {_half(fit, means)}" for fit in found)
    return Exhibit(
        name=name,
        figure=dose_response(means, fits, title=question_title(question, verdict)),
        reading="The further right the dashed mark, the more noise the weights take before half of the gain is gone; "
        "without a mark it lies beyond the doses that were measured. The dotted line is no pretraining.",
        table=means,
        notes=tuple(f"{fit.component}: {fit.said}." for fit in found if fit.problem),
    )


def _half(fit: HalfDose, means: pd.DataFrame) -> str:
    """The half dose alone, for a title."""
    used = means.loc[(means["component"] == fit.component) & (means["noise_std"] > 0), "noise_std"]
    alone = dataclasses.replace(fit, low=np.nan, high=np.nan)
    return half_dose_text(alone, used.to_numpy(dtype=float), named=False)


def transferred_runs(results: Results, store: RunStore) -> tuple[list[Run], list[str]]:
    """The runs of a table that had pretraining, and a line for each that cannot be opened."""
    _require(results.table, "phase1_run", what="a diagnosis")
    runs, problems = [], []
    has_parent = results.table["phase1_run"].map(bool)
    for run in dict.fromkeys(results.table.loc[has_parent, "run"]):
        try:
            runs.append(store.open(run, verify=False))
        except (UnknownRun, DamagedRun) as problem:
            problems.append(str(problem))
    return runs, problems


def diagnosis(
    results: Results, store: RunStore, summaries: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Why transfers failed: signatures by condition as text, and one row per finding of each run.

    The second has columns label, replicate, run, signature, finding, remedy and numbers. `summaries` is the store's
    `query`, where it was read already.
    """
    runs, _ = transferred_runs(results, store)
    findings = diagnose_all(runs, store, summaries)
    cells = results.table.drop_duplicates("run").set_index("run")
    rows = [
        {
            "label": cells.loc[found.run, "label"],
            "replicate": cells.loc[found.run, "replicate"],
            "run": found.run,
            "signature": found.signature,
            "finding": found.sentence,
            "remedy": found.remedy,
            "numbers": describe_numbers(found.numbers),
        }
        for found in findings
    ]
    columns = ["label", "replicate", "run", "signature", "finding", "remedy", "numbers"]
    return diagnosis_by_condition(findings, results.table), pd.DataFrame(rows, columns=columns)


def failures_answer(findings: pd.DataFrame) -> Answer:
    """How many of the runs with pretraining show a failure, and which one most of them."""
    lacking = findings.loc[findings["signature"] == NO_BASELINE, "run"]
    judged = findings.loc[~findings["run"].isin(lacking)]
    failed = judged.loc[judged["signature"] != NO_SIGNATURE]
    n, n_failed = judged["run"].nunique(), failed["run"].nunique()
    text = f"{n_failed} of {n} runs with pretraining show a failure."
    if len(lacking):
        text += f" {lacking.nunique()} more have no baseline to be compared with."
    if n_failed:
        counts = failed.drop_duplicates(["run", "signature"])["signature"].value_counts()
        text += f" The most frequent, in {counts.iloc[0]} of them: {counts.index[0]}."
    return Answer(f"{text} One run is an observation: what a condition does is under Did transfer help?", decided=False)


def _require(cells: pd.DataFrame, *columns: str, what: str) -> None:
    missing = [name for name in columns if name not in cells]
    if missing:
        raise ValueError(f"{what} needs a table with {', '.join(columns)}; this one lacks {', '.join(missing)}")
