"""Does it help on real text? Every arm of a fair sweep against the fresh model of its text, and how it was tuned."""

import math
from collections.abc import Mapping

import pandas as pd

from procpre_interp.claims.claim import Page
from procpre_interp.claims.compared import trained
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import claim_title, question_title
from procpre_interp.stats.baselines import baselines
from procpre_interp.stats.resampling import replicate_bootstrap, replicate_matrix
from procpre_interp.views.exhibits import damage
from procpre_interp.views.exhibits.claims import of_page
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import ARMS, Results
from procpre_interp.views.plots.ladder import ladder

PAGE: Page = "does_it_help_on_real_text"
CHANGES = {"loss_nats": ("loss_change_nats", "nats per token"), "bits_per_byte": ("loss_change_bits", "bits per byte")}
"""Measure of a test loss -> the column of what it changes, and the unit."""
TUNED = {"label": "Arm", "learning_rate": "Learning rate", "initial_scale": "Initial scale"}


def text_claims(known: Mapping[str, StoredClaim]) -> dict[str, StoredClaim]:
    """Those of the claims that are on real text, by name."""
    return of_page(known, PAGE)


def is_fair(cells: pd.DataFrame) -> bool:
    """Whether a table is that of a fair sweep."""
    return set(cells) >= ARMS


def answer(judged: StoredClaim) -> Answer:
    """The verdict, what the primary contrast measured, and what these replicates could have shown."""
    row, text = judged.primary, damage.answer(judged).text
    if not math.isnan(row.detectable):
        size, unit = row.about.scale * row.detectable, row.about.unit
        text += f" As many replicates find an effect in 80 % of studies if it is {size:.2g} {unit} beyond the margin."
    return Answer(text, decided=judged.is_decided)


def arms(judged: StoredClaim) -> Exhibit:
    """The loss of every arm of a claim against the fresh one of its text, in the unit of its primary contrast."""
    measure = judged.primary.measure if judged.primary.measure in CHANGES else "loss_nats"
    found = _changes(trained(judged.cells), measure)
    return _arms(found, _means(found, measure), claim_title(judged), measure)


def arms_of_results(results: Results) -> Exhibit:
    """The same of a stored fair sweep."""
    found = _changes(results.table)
    means = _means(found)
    below = means.loc[means["high"] < 0, "label"]
    verdict = f"Below the fresh model: {', '.join(below)}" if len(below) else "No interval lies below the fresh model"
    return _arms(found, means, question_title(results.title, verdict))


def tuned(cells: pd.DataFrame) -> pd.DataFrame:
    """What each arm was tuned to, as text, one row per arm; what was measured on runs is no arm."""
    shown = trained(cells).drop_duplicates("condition").reindex(columns=list(TUNED)).rename(columns=TUNED)
    return shown.assign(**{name: [f"{value:g}" for value in shown[name]] for name in list(TUNED.values())[1:]})


def _means(found: pd.DataFrame, measure: str = "loss_nats") -> pd.DataFrame:
    """Mean change of each arm with its interval, in the order of `_changes`: label, estimate, low, high, n."""
    labels = dict(zip(found["condition"], found["label"]))
    means = replicate_bootstrap(replicate_matrix(found, CHANGES[measure][0])).reindex(list(labels))
    return means.assign(label=list(labels.values())).reset_index(drop=True)


def _arms(found: pd.DataFrame, means: pd.DataFrame, title: str, measure: str = "loss_nats") -> Exhibit:
    column, unit = CHANGES[measure]
    return Exhibit(
        name="arms",
        figure=ladder(
            means,
            dots=found[["label"]].assign(value=found[column]),
            references={"fresh model": 0.0},
            x=f"Test loss less that of the fresh model ({unit})",
            title=title,
        ),
        reading="Left of the line an arm is better than a fresh model on the same text, both tuned alike; a transfer "
        "has gained by what it learnt only as far as it lies left of its own controls.",
        table=found,
        notes=(
            "Controls of a transfer: fresh weights of its scales, natural text for as many tokens as its phase 1, and "
            "its own sequences, shuffled.",
        ),
    )


def _changes(cells: pd.DataFrame, measure: str = "loss_nats") -> pd.DataFrame:
    """One row per arm with pretraining and replicate: its test loss less that of the fresh arm of its text.

    Raises `ValueError` for a table of another kind.
    """
    if not is_fair(cells):
        raise ValueError(
            f"the arms of a fair sweep are in columns {' and '.join(sorted(ARMS))}, which this table lacks"
        )
    done = cells.loc[cells["status"] == "finished"]
    fresh = done["condition"].map(baselines(done))
    losses = done.set_index(["condition", "replicate"])[measure]
    base = losses.reindex(pd.MultiIndex.from_arrays([fresh, done["replicate"]])).to_numpy()
    column, _ = CHANGES[measure]
    rows = done.assign(**{column: done[measure] - base}).loc[done["arm"] != "fresh"]
    return rows.loc[rows[column].notna(), ["condition", "label", "replicate", "arm", "control_of", column]]
