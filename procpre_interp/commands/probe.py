"""`procpre-interp probe`: what heads attend to, what weights and representations are like, and how they developed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.analysis.attention_timeline import timelines
from procpre_interp.commands._models import (
    Columns,
    Look,
    check_named,
    of_stored_runs,
    show,
    stage_title,
    subjects,
)
from procpre_interp.commands._options import Runs, parse
from procpre_interp.core.registry import unknown_name
from procpre_interp.core.seeding import stream
from procpre_interp.data import Batch
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.lineage import Subject, table_of
from procpre_interp.probe import attention_scores
from procpre_interp.probe.labels import labels_for, position_labels
from procpre_interp.probe.lens import direct_logit_attribution_table, logit_lens_table
from procpre_interp.probe.linear import linear_probe
from procpre_interp.probe.representation import cka
from procpre_interp.probe.weights import composition_scores, drift, spectra, weight_table
from procpre_interp.store.store import RunStore
from procpre_interp.train.process import run_threads
from procpre_interp.views.exhibits.attention import sample
from procpre_interp.views.exhibits.circuits import pairs_of
from procpre_interp.views.plots.attention import score_heatmap, timeline_figure
from procpre_interp.views.plots.measures import measure_dots
from procpre_interp.views.plots.weights import cka_heatmap, drift_figure, spectrum_figure

What = Literal[
    "attention", "weights", "spectra", "composition", "linear", "lens", "attribution", "drift", "cka", "timeline"
]


@dataclass(frozen=True, kw_only=True)
class Probe(Look):
    """What do heads attend to, and what are weights and representations like?

    RUN is an id, the beginning of one, "latest", RUN@STEP for kept weights, or a folder with a GPT-2 of Hugging Face's.
    With several runs the table has means over them.
    """

    runs: Runs = ()
    """Models to look at."""
    what: What = "attention"
    """attention: entropy, distance and task-aware scores of each head; weights, spectra, composition: of the matrices;
    linear: linear probes of what the task defines, with controls; lens, attribution: the logit difference by layer and
    by component; drift, cka: how far phase 2 moved weights and representations; timeline: attention at every kept step
    of both phases."""
    score: str = "entropy_relative"
    """timeline: the score that is followed, such as entropy_relative, or a target such as value."""
    seed: int = 0
    """Seed of the sequences, and of everything else that is drawn."""


def main(arguments: list[str]) -> int:
    """Print the table, and write the figures if asked."""
    command = parse(Probe, "probe", arguments)
    columns = COLUMNS[command.what]
    store = RunStore(command.store)
    if command.what in ("drift", "cka", "timeline"):
        of_stored_runs(command.runs, command.what)
    with run_threads(1):
        if command.what == "timeline":
            check_named(command.runs, "probe")
            table = _timeline(command, store)
            title = "attention at every kept step"
        else:
            found = subjects(command.runs, command, "probe")
            table = table_of(found, lambda subject: WHAT[command.what](subject, command))
            title = stage_title(found, f"{command.what}, {found[0].task.name}")
    show(table, columns, command, _figures(command, table) if command.html is not None else [], title)
    return 0


def _timeline(command: Probe, store: RunStore) -> pd.DataFrame:
    """One target's timelines, or those of the scores that need none."""
    general = ("entropy_bits", "entropy_relative", "distance")
    targets = () if command.score in general else (command.score,)
    runs = [store.open(name) for name in command.runs]
    table = timelines(runs, store, n_sequences=command.sequences, targets=targets)
    rows = table.loc[table["score"] == command.score].reset_index(drop=True)
    if rows.empty:
        raise unknown_name("score of these runs' tasks", command.score, list(dict.fromkeys(table["score"])))
    return rows


def _attention(subject: Subject, command: Probe) -> pd.DataFrame:
    return attention_scores(subject.model, _batch(subject, command), subject.task)


def _linear(subject: Subject, command: Probe) -> pd.DataFrame:
    names = labels_for(subject.task)
    if not names:
        raise ValueError(f"{subject.task.name} has no labels that a linear probe could be asked for")
    untrained = subject.moment and subject.moment.untrained.model(RunStore(command.store))
    batch, tables = _batch(subject, command), []
    for name in names:
        labels = position_labels(batch, subject.task, name)
        generator = stream(command.seed, "linear probe", name)
        table = linear_probe(subject.model, batch, labels, generator=generator, untrained=untrained)
        tables.append(table.assign(label=name))
    whole = pd.concat(tables, ignore_index=True)
    return whole.reindex(columns=["label", *whole.columns.drop("label")])


def _batch(subject: Subject, command: Probe) -> Batch:
    return sample(subject.task, command.seed, command.sequences)


def _pairs(subject: Subject, command: Probe) -> Pairs:
    return pairs_of(subject.task, None, command.seed, command.sequences)


def _before_and_after(subject: Subject, command: Probe) -> tuple[HookedTransformer, HookedTransformer]:
    """What a phase began with, and what it ended with."""
    if command.stage not in ("finished", "phase1"):
        raise ValueError(f"--what {command.what} compares before and after; --stage is finished, or phase1 for phase 1")
    assert subject.moment is not None  # `of_stored_runs` has refused other models
    return subject.moment.start.model(RunStore(command.store)), subject.model


WHAT: dict[str, Callable[[Subject, Probe], pd.DataFrame]] = {
    "attention": _attention,
    "weights": lambda subject, command: weight_table(subject.model),
    "spectra": lambda subject, command: spectra(subject.model),
    "composition": lambda subject, command: composition_scores(subject.model),
    "linear": _linear,
    "lens": lambda subject, command: logit_lens_table(subject.model, _pairs(subject, command)),
    "attribution": lambda subject, command: direct_logit_attribution_table(subject.model, _pairs(subject, command)),
    "drift": lambda subject, command: drift(*_before_and_after(subject, command)),
    "cka": lambda subject, command: cka(*_before_and_after(subject, command), _batch(subject, command)),
}
"""What is measured of a model."""

MATRIX = ("name", "layer", "head")
COLUMNS: dict[str, Columns] = {
    "attention": Columns(("score", "layer", "head"), ("value", "uniform", "n_queries"), spread="score"),
    "weights": Columns(MATRIX, ("frobenius", "spectral", "stable_rank", "effective_rank", "rms")),
    "spectra": Columns((*MATRIX, "index"), ("singular_value",)),
    "composition": Columns(("kind", "layer", "head", "to_layer", "to_head"), ("score", "baseline")),
    "linear": Columns(("label", "site"), ("accuracy", "majority", "control", "selectivity", "untrained")),
    "lens": Columns(("site", "layer"), ("value", "accuracy")),
    "attribution": Columns(("component", "layer", "head"), ("value",)),
    "drift": Columns(MATRIX, ("relative_change", "cosine", "in_subspace", "turned_in_subspace", "expected", "rank")),
    "cka": Columns(("site", "other"), ("cka",)),
    "timeline": Columns(("task", "phase", "step", "layer", "head"), ("value", "uniform")),
}
"""What people are shown of each table."""


def _figures(command: Probe, table: pd.DataFrame) -> list[go.Figure]:
    """Figures of the first run; of timelines, of all."""
    first = table.loc[table["run"] == table["run"].iloc[0]]
    if command.what == "attention":
        return [score_heatmap(first, name) for name in dict.fromkeys(first["score"])]
    if command.what == "timeline":
        return [timeline_figure(table, command.score)]
    figures = {"spectra": spectrum_figure, "drift": drift_figure, "cka": cka_heatmap}
    if command.what in figures:
        return [figures[command.what](first)]
    shown = {"weights": ("stable_rank", "effective_rank"), "linear": ("accuracy", "control", "majority")}
    columns = COLUMNS[command.what]
    return [measure_dots(table, columns.keys, shown.get(command.what, columns.values), title=command.what)]
