"""What survives damage? What is left of a transfer's gain after shuffling or noise, and why transfers fail."""

import re

import numpy as np
import pandas as pd

from procpre_interp.analysis.diagnosis import NO_SIGNATURE, diagnose_all, diagnosis_by_condition
from procpre_interp.analysis.diagnosis.diagnose import describe_numbers
from procpre_interp.claims.text import claim_title, contrast_estimate, question_title, why
from procpre_interp.stats.half_dose import dose_means, half_dose
from procpre_interp.stats.summary import paired_gains, replicate_matrix, summarise_conditions
from procpre_interp.store.run import DamagedRun, Run, UnknownRun
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.claims import SOURCES, Judged, named_claims
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import Results, sides
from procpre_interp.views.plots.ladder import dose_response, half_dose_text, ladder

CONTROLS, NOISE = "shuffling_weights_destroys_it", "noise_dose_response"
"""The claims that damage weights."""

_NOISED = re.compile(r"(?P<part>.+) noise (?P<dose>\d+(?:\.\d+)?)")
"""How the conditions of `noise_dose_response` are named."""


def damage_claims(store: RunStore | None = None) -> dict[str, Judged]:
    """The claims that damage weights, by name; one in the store stands before the one that comes with the package."""
    return named_claims((CONTROLS, NOISE), store)


def origin(judged: Judged) -> str:
    """Where the numbers come from, in a sentence."""
    return f"From {SOURCES[judged['source']]}: `procpre-interp claims {judged['name']}`, {len(judged['seeds'])} seeds."


def answer(judged: Judged) -> Answer:
    """The verdict of a damage claim, and what its primary contrast measured."""
    first = judged["contrasts"][0]
    text = f"{claim_title(judged)}. Measured: {first['contrast']}, {contrast_estimate(first)}, n = {first['n']}; "
    text += f"{why(first, quick=judged['quick'])}."
    return Answer(text, decided=judged["verdict"] != "undecided")


def controls(judged: Judged) -> Exhibit:
    """Gain of each control over no pretraining, the ladder from the least structure kept to the most."""
    margin = f"Margin: the smallest gain that counts. {judged['margin']}"
    return _gains(judged["cells"], claim_title(judged), float(judged["contrasts"][0]["margin"]), (margin,))


def controls_of(results: Results) -> Exhibit:
    """The same of any stored table of conditions, such as a sweep with ablations."""
    above, below, both = sides(results)
    verdict = f"{len(above)} of {len(above) + len(below) + len(both)} conditions gained"
    title = question_title(f"{results.title.rstrip('?.')}: what is left of the gain?", verdict)
    return _gains(results.table, title, None, ())


def kept(judged: Judged) -> pd.DataFrame:
    """What each control of a claim keeps and destroys, as text, in the order of the ladder; no rows for a claim file
    that does not say so."""
    labels = dict(judged["cells"][["condition", "label"]].itertuples(index=False, name=None))
    said = judged.get("controls") or {}
    rows = [[labels[name], said[name]["keeps"], said[name]["destroys"]] for name in labels if name in said]
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


def doses(cells: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by component, noise and replicate beside no pretraining's: what `dose.half_dose` wants.

    Conditions are "none", "intact" and "<part> noise <std>". Raises `ValueError` for cells without noise.
    """
    accuracy = replicate_matrix(cells.loc[cells["status"] == "finished"], "accuracy")
    labels = dict(cells[["condition", "label"]].itertuples(index=False, name=None))
    parts: dict[str, dict[float, str]] = {}
    for condition in accuracy:
        if found := _NOISED.fullmatch(str(condition)):
            parts.setdefault(found["part"], {0.0: "intact"})[float(found["dose"])] = str(condition)
    if not parts or not {"none", "intact"} <= set(accuracy):
        raise ValueError("cells without noise on an intact transfer: no dose-response")
    rows = [
        pd.DataFrame({"value": accuracy[condition], "baseline": accuracy["none"]}).assign(
            component=labels[max(by_dose.items())[1]].rpartition(" on ")[2] or part, noise_std=dose
        )
        for part, by_dose in parts.items()
        for dose, condition in sorted(by_dose.items())
    ]
    # Some doses are in the first replicates only.
    return pd.concat(rows).reset_index().dropna(subset=["value", "baseline"])


def noise(judged: Judged) -> Exhibit:
    """Accuracy after phase 2 against the noise on the transferred weights, with half doses."""
    return _dose_response(doses(judged["cells"]), "noise_before", "Noise before phase 2: how much halves the gain?")


def noise_on_finished(judged: Judged) -> Exhibit:
    """Accuracy against the noise on finished models, which had no training to make up for it."""
    if not judged.get("finished_doses"):
        raise ValueError("this claim has no noise on finished models; compute it again with `procpre-interp claims`")
    table = pd.DataFrame(judged["finished_doses"])
    return _dose_response(table, "noise_after", "Noise on the finished model: how much halves the gain?")


def _dose_response(table: pd.DataFrame, name: str, question: str) -> Exhibit:
    means, fits = dose_means(table), half_dose(table)
    verdict = "; ".join(f"{fit['component']}: {_half(fit, means)}" for fit in fits.to_dict("records"))
    return Exhibit(
        name=name,
        figure=dose_response(means, fits, title=question_title(question, verdict)),
        reading="The further right the dashed mark, the more noise the weights take before half of the gain is gone; "
        "without a mark it lies beyond the doses that were measured. The dotted line is no pretraining.",
        table=means,
        notes=tuple(f"{fit['component']}: {fit['problem']}." for fit in fits.to_dict("records") if fit["problem"]),
    )


def _half(fit: dict, means: pd.DataFrame) -> str:
    """The half dose alone, for a title."""
    used = means.loc[(means["component"] == fit["component"]) & (means["noise_std"] > 0), "noise_std"]
    alone = fit | {"low": np.nan, "high": np.nan}
    return half_dose_text(alone, used.to_numpy(dtype=float)).removeprefix("half dose ")


def transferred_runs(results: Results, store: RunStore) -> tuple[list[Run], list[str]]:
    """The runs of a table that had pretraining, and a line for each that cannot be opened."""
    _require(results.table, "phase1_run", what="a diagnosis")
    runs, problems = [], []
    has_parent = results.table["phase1_run"].fillna("") != ""
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
    failed = findings.loc[findings["signature"] != NO_SIGNATURE]
    n, n_failed = findings["run"].nunique(), failed["run"].nunique()
    text = f"{n_failed} of {n} runs with pretraining show a failure."
    if n_failed:
        counts = failed.drop_duplicates(["run", "signature"])["signature"].value_counts()
        text += f" The most frequent, in {counts.iloc[0]} of them: {counts.index[0]}."
    return Answer(f"{text} One run is an observation: what a condition does is under Did transfer help?", decided=False)


def _require(cells: pd.DataFrame, *columns: str, what: str) -> None:
    missing = [name for name in columns if name not in cells]
    if missing:
        raise ValueError(f"{what} needs a table with {', '.join(columns)}; this one lacks {', '.join(missing)}")
