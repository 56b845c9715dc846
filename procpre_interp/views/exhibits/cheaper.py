"""Can anything cheaper do the same? What recipes without phase 1, and interventions, recover of a transfer's gain."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Page
from procpre_interp.claims.compared import trained
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title, question_title
from procpre_interp.stats.greedy_search import FILE, StoredSearch, read_search, recipe_name
from procpre_interp.stats.recovered_share import BASELINE, FULL, recovered_shares
from procpre_interp.stats.resampling import paired_gains, replicate_bootstrap, replicate_matrix
from procpre_interp.stats.summary import restricted_time
from procpre_interp.views.exhibits.claims import of_page
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import Results
from procpre_interp.views.plots.ladder import ladder, ladders
from procpre_interp.views.plots.theme import CAPTION_WIDTH, wrapped

PAGE: Page = "can_anything_cheaper"

ENTROPIES = {"entropy_start": "before phase 2", "entropy_relative": "after phase 2"}
"""Columns of attention entropy, over its causal maximum, and when it was measured."""
TIME = "breakthrough_time"


def cheaper_claims(known: Mapping[str, StoredClaim]) -> dict[str, StoredClaim]:
    """Those of the claims that put something cheaper beside the real transfer, by name."""
    return of_page(known, PAGE)


def real_transfer(judged: StoredClaim) -> str:
    """The condition whose gain counts as 100 %: `FULL`, or where the claim has none by that name its full transfer."""
    return FULL if FULL in set(judged.cells["condition"]) else "full"


def answer(judged: StoredClaim) -> Answer:
    """What the claim's own recipe recovers, with its interval, and the verdict."""
    decided, verdict = judged.is_decided, f"The claim is {judged.verdict}."
    real, weights = real_transfer(judged), judged.primary.weights
    shares = recovered_shares(trained(judged.cells), full=real).set_index("condition")
    # What is predicted to do as well stands first, what the transfer is predicted to beat second.
    recipes = sorted(weights.keys() & set(shares.index) - {real}, key=lambda name: -weights[name])
    if not recipes:
        return Answer(verdict, decided=decided)
    row = shares.loc[recipes[0]]
    share, low, high = (f"{100 * row[key]:z.0f}" for key in ("estimate", "low", "high"))
    bounds = "" if np.isnan(row["low"]) else f" [{low}, {high}]"
    label = f"{row['label'][:1].upper()}{row['label'][1:]}"
    return Answer(f"{label}: {share} %{bounds} of the gain of the real transfer, n = {row['n']}. {verdict}", decided)


def shares(judged: StoredClaim) -> Exhibit:
    """Share of the transfer's gain that each condition recovers, replicates as dots."""
    note = "Of the recipes that a claim compares, the best looks better than it is: its verdict is on one alone."
    return _shares(trained(judged.cells), claim_title(judged), real_transfer(judged), (note,))


def answer_of(results: Results, full: str) -> Answer:
    """Which conditions of a stored table recover most of the gain of `full`, by their estimates."""
    found = recovered_shares(results.table, full=full).sort_values("estimate", ascending=False, kind="stable")
    if found.empty:
        return Answer("There is nothing here to compare with this transfer.", decided=False)
    best = found.iloc[0]
    bounds = "no interval" if np.isnan(best["low"]) else f"[{100 * best['low']:z.0f}, {100 * best['high']:z.0f}]"
    text = f"Most of the gain of {results.labels.get(full, full)} has {best['label']}: {100 * best['estimate']:z.0f} % "
    return Answer(f"{text}{bounds}, n = {best['n']}. The best of {len(found)} looks better than it is.", decided=False)


def shares_of(results: Results, full: str) -> Exhibit:
    """The same of any stored table with a condition `none`; `full` is the condition that counts as 100 %."""
    missing = {"condition", "label", "replicate", "status", "accuracy"} - set(results.table)
    if missing:
        raise ValueError(f"shares of a gain need a table with {', '.join(sorted(missing))}, which this one lacks")
    question = f"{results.title.rstrip('?.')}: how much of the gain of {results.labels.get(full, full)}?"
    found = recovered_shares(results.table, full=full)
    verdict = (
        f"At most {100 * found['estimate'].max():z.0f} %, by the estimates" if len(found) else "Nothing to compare"
    )
    return _shares(results.table, question_title(question, verdict), full, ())


def _shares(cells: pd.DataFrame, title: str, full: str, notes: tuple[str, ...]) -> Exhibit:
    found = recovered_shares(cells, full=full)
    gains = paired_gains(cells, BASELINE).dropna(subset=full)
    whole = gains.pop(full).mean()
    labels = dict(zip(found["condition"], found["label"]))
    percent = 100 * gains / whole
    dots = percent.melt(var_name="condition", ignore_index=False).dropna(subset="value").reset_index()
    dots["label"] = [labels[name] for name in dots["condition"]]
    bounds = ["estimate", "low", "high"]
    return Exhibit(
        name="shares",
        figure=ladder(
            found.drop(columns="condition").assign(**{name: 100 * found[name] for name in bounds}),
            dots=dots,
            references={"no pretraining": 0.0, "real transfer": 100.0},
            x="Gain in accuracy (% of the real transfer's)",
            title=title,
        ),
        reading="At 100 % something does what the transfer does, at 0 % no more than no pretraining; an interval that "
        "covers both says that this many replicates cannot tell.",
        table=found,
        notes=notes,
    )


def has_entropies(judged: StoredClaim) -> bool:
    """Whether attention was measured on the claim's runs."""
    return bool(set(ENTROPIES) & set(judged.cells))


def entropy_and_breakthrough(judged: StoredClaim) -> Exhibit:
    """Attention entropy before and after phase 2, and the time to breakthrough, condition by condition."""
    cells = trained(judged.cells)
    cells = cells.loc[cells["status"] == "finished"]
    if not has_entropies(judged):
        raise ValueError(f"attention was not measured on the runs of {judged.name}")
    measured = {f"Attention entropy {when}": name for name, when in ENTROPIES.items() if name in cells}
    measured["Time to breakthrough (steps)"] = TIME
    cells = cells.assign(**{TIME: restricted_time(cells)})
    parts, dots = [], []
    for panel, measure in measured.items():
        rows = cells.loc[cells[measure].notna()]
        labels = dict(zip(rows["condition"], rows["label"]))
        means = replicate_bootstrap(replicate_matrix(rows, measure)).rename_axis("condition").reset_index()
        parts.append(means.assign(label=[labels[name] for name in means["condition"]], panel=panel))
        dots.append(rows[["replicate", "label"]].assign(value=rows[measure], panel=panel))
    table = pd.concat(parts, ignore_index=True)
    return Exhibit(
        name="entropy_and_breakthrough",
        figure=ladders(
            table,
            pd.concat(dots, ignore_index=True),
            title=question_title("How sharp, and how soon?", f"The claim is {judged.verdict}"),
        ),
        reading="If sharpness were what matters, conditions that start as sharp as the transfer would break through as "
        "soon; a run without a breakthrough counts with the step limit, where its dot stands.",
        table=table,
        notes=("Entropy over the most that causal attention can have (1: even), mean of all heads and rows.",),
    )


def load_search(path: Path = FILE) -> StoredSearch | None:
    """The stored search over recipes; None where there is none. Raises `ValueError` for one that cannot be read."""
    return read_search(path) if path.exists() else None


def search_answer(found: StoredSearch) -> Answer:
    """What the search found, and on how much data."""
    scores = {name: score for tried in found.search.rounds for name, score in tried.items()}
    name = recipe_name(found.search.best)
    text = f"Of {len(scores)} recipes the search found {name}, with a mean validation accuracy of "
    seeds = f"{len(found.tuning_seeds)} tuning seeds"
    return Answer(
        f"{text}{100 * scores[name]:.1f} % over training. It was chosen for that score on {seeds}: no result.", False
    )


def search(found: StoredSearch) -> Exhibit:
    """All recipes that the greedy search tried, round by round."""
    name = recipe_name(found.search.best)
    rows = [
        {"round": number, "recipe": recipe, "score": score, "best": score == max(tried.values())}
        for number, tried in enumerate(found.search.rounds)
        for recipe, score in tried.items()
    ]
    table = pd.DataFrame(rows)
    names = [("start" if number == 0 else f"round {number}") for number in table["round"]]
    dots = table.assign(label=names, value=100 * table["score"])
    best = dots.loc[dots["best"]].drop_duplicates("round")
    bounds = best.assign(estimate=best["value"], low=np.nan, high=np.nan, n=len(found.tuning_seeds))
    figure = ladder(
        bounds[["label", "estimate", "low", "high", "n"]],
        dots=dots,
        x="Mean validation accuracy over training (% of answer tokens)",
        title=question_title("Which recipe does the search find?", name),
    )
    figure.data[0].update(name="one recipe", text=dots["recipe"].tolist(), hovertemplate="%{text}: %{x:.1f} %")
    figure.data[1].update(name="best of the round", text=best["recipe"].tolist(), hovertemplate="%{text}: %{x:.1f} %")
    seeds = ", ".join(str(seed) for seed in found.tuning_seeds)
    note = f"mean of tuning seeds {seeds}; chosen for its score, so no result"
    figure.update_layout(title_subtitle_text=wrapped(note, CAPTION_WIDTH))
    return Exhibit(
        name="search",
        figure=figure,
        reading="Each round tries every recipe that differs in one option from the best one so far; hover for names.",
        table=table,
        notes=(f"Found: {name}. Ended as {found.search.reason}.",),
    )
