"""Reports: one HTML file that holds everything (plotly's script once), made from stored tables."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.describe import (
    READING_SURVIVAL,
    conditions_table,
    config_differences,
    describe_cost,
    explain_columns,
    flatten,
    lineage,
    map_effects_table,
)
from procpre_interp.diagnosis import diagnose_all, diagnosis_by_condition, diagnosis_table
from procpre_interp.files import write_text
from procpre_interp.plots.curves import accuracy_by_condition, learning_curves, survival_curves
from procpre_interp.plots.heatmaps import transfer_bars, transfer_heatmap
from procpre_interp.runs import DamagedRun, Run, RunStore, UnknownRun, load_histories
from procpre_interp.stats import interval_note, summarise_conditions

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1d1d1f, #e6e6e6); --quiet: light-dark(#666, #a0a0a0);
  --line: light-dark(#ddd, #3a3a3a); --warn: light-dark(#fff3d6, #4a3a12); }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: light-dark(#fff, #161618);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td:not(:first-child) { white-space: nowrap; }
th { color: var(--quiet); font-weight: 600; }
.warning { background: var(--warn); padding: .5rem .8rem; border-radius: .3rem; }
.infolayer text, .xtick text, .ytick text { fill: var(--ink) !important; }
"""

Block = str | pd.DataFrame | go.Figure
"""What a section shows: a paragraph, a table or a figure."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caution:
    """A paragraph that the reader must not miss."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block | Caution]


def write_report(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write one HTML file that opens without a network; all text is escaped. Returns its path."""
    figures = 0
    body = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        for block in section.blocks:
            if isinstance(block, go.Figure):
                body.append(
                    block.to_html(
                        full_html=False,
                        include_plotlyjs=figures == 0,
                        div_id=f"figure-{figures}",
                        config={"displaylogo": False, "responsive": True},
                    )
                )
                figures += 1
            elif isinstance(block, pd.DataFrame):
                table = block.to_html(index=False, border=0, na_rep="", justify="unset", float_format=_number)
                body.append(f'<div class="scroll">{table}</div>')
            else:
                text, kind = (block.text, ' class="warning"') if isinstance(block, Caution) else (block, "")
                body.append(f"<p{kind}>{html.escape(text)}</p>")
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page + "\n".join(body) + "\n</body></html>\n")
    return path


def conditions_report(store: RunStore, table_name: str, path: str | Path) -> Path:
    """The report on a stored table of `reproduce` or a sweep: results beside the paper's, curves, protocol and cost.

    The table has one row a condition and replicate; its metadata are title, protocol, threshold, cost and, where there
    are any, paper (accuracies by condition, as shares) and maps (the effects of `transfer_map`, with a title each).
    """
    stored = store.read_table(table_name)
    table, about = stored.frame, stored.metadata
    summary = summarise_conditions(table)
    histories, problems = load_histories(store, table)
    n = int(table.groupby("condition").size().to_numpy().min())
    result: list[Block | Caution] = []
    if n < 2:
        result.append(Caution(text="One replicate: an observation, not a result. Repeat with --replicates 5 or more."))
    result += [conditions_table(summary, about), f"Intervals: {interval_note(n)}. {explain_columns(about)}"]
    result += [f"{label}: {note}." for label, note in _notes(table, about)]
    result += [accuracy_by_condition(summary, table=table, paper=about.get("paper"))]
    learning: list[Block | Caution] = [Caution(text=problem) for problem in problems]
    if len(histories):
        learning += [learning_curves(histories, threshold=about.get("threshold"))]
        learning += [learning_curves(histories, "loss_nats", title="Loss")]
    cells = table.drop(columns=["label"], errors="ignore")
    sections = [
        Section(title="Result", blocks=result),
        Section(title="Learning", blocks=learning),
        Section(title="Time to breakthrough", blocks=[survival_curves(table), READING_SURVIVAL]),
        *(Section(title=each["title"], blocks=_map_blocks(each)) for each in about.get("maps", [])),
        Section(title="Diagnosis", blocks=_condition_diagnosis(store, table)),
        Section(title="Protocol", blocks=[about.get("protocol", "")]),
        Section(title="Cost", blocks=[describe_cost(about.get("cost", {}))]),
        Section(title="Every run", blocks=[cells]),
        Section(title="Environment", blocks=_environments(store, table)),
    ]
    return write_report(path, about.get("title", table_name), sections)


def runs_report(store: RunStore, runs: Sequence[Run], path: str | Path) -> Path:
    """The report on some runs of a store: numbers, curves, diagnosis, what the configs differ in, and parents."""
    runs = list({run.id: run for run in runs}.values())
    histories = pd.concat(
        [run.history().assign(condition=run.id, label=_run_label(run), replicate=0) for run in runs],
        ignore_index=True,
    )
    numbers = pd.DataFrame({run.id: run.summary for run in runs}, dtype=object).fillna("")
    curves = [
        learning_curves(histories, value, title=title)
        for value, title in (("accuracy", "Accuracy"), ("loss_nats", "Loss"))
        if value in histories and histories[value].notna().to_numpy().any()
    ]
    title = "Config" if len(runs) == 1 else "What the configs differ in"
    sections = [
        Section(title="Numbers", blocks=[numbers.drop(index="run").rename_axis("").reset_index()]),
        Section(title="Learning", blocks=curves),
        Section(title="Diagnosis", blocks=_diagnosis(store, runs)),
        Section(title=title, blocks=[config_differences({run.id: run.config for run in runs})]),
        Section(title="Lineage", blocks=[lineage(runs)]),
        Section(title="Environment", blocks=[_environment_table(run.environment) for run in runs[:1]]),
    ]
    return write_report(path, f"Runs {', '.join(run.id[:8] for run in runs)}", sections)


def _map_blocks(found: Mapping[str, Any]) -> list[Block | Caution]:
    """A transfer map: all methods beside one another, a heat map each, and the numbers; or why there is none."""
    effects = found["effects"]
    if not effects:
        return [Caution(text=found["problem"])]
    frame = pd.DataFrame(effects).fillna({"estimate": math.nan, "low": math.nan, "high": math.nan})
    methods = list(dict.fromkeys(frame["method"]))
    heatmaps = [transfer_heatmap(frame.loc[frame["method"] == method]) for method in methods]
    return [transfer_bars(frame), *heatmaps, map_effects_table(effects)]


def _diagnosis(store: RunStore, runs: Sequence[Run]) -> list[Block | Caution]:
    """A paragraph a finding, then the numbers behind them."""
    findings = diagnose_all(runs, store)
    said = [f"{each.run[:8]}, {each.signature}: {each.sentence} {each.remedy}" for each in findings]
    return [*said, diagnosis_table(findings).drop(columns="finding")]


def _condition_diagnosis(store: RunStore, table: pd.DataFrame) -> list[Block | Caution]:
    """One row a condition with pretraining, over those of its runs that the store holds."""
    runs = []
    for run in table.loc[table["phase1_run"].notna() & (table["phase1_run"] != ""), "run"]:
        try:
            runs.append(store.open(run, verify=False))
        except (UnknownRun, DamagedRun):  # said under "Learning"
            continue
    note = (
        "In brackets: runs of the condition that show a signature; one may show several. Numbers: means over the runs "
        "with the most frequent failure. `procpre-interp diagnose RUN` gives sentences, remedies and comparison runs."
    )
    return [diagnosis_by_condition(diagnose_all(runs, store), table), note]


def _run_label(run: Run) -> str:
    return f"{run.id[:8]} {run.summary.get('task', '')} seed {run.summary.get('seed', '?')}"


def _notes(table: pd.DataFrame, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    labels = dict(zip(table["condition"], table["label"]))
    return [(labels[name], note) for name, note in about.get("paper_notes", {}).items() if name in labels]


def _environments(store: RunStore, table: pd.DataFrame) -> list[Block | Caution]:
    """The distinct environments that the runs were computed in (their starts left out)."""
    seen: dict[str, dict[str, Any]] = {}
    for run_id in table["run"]:
        try:
            found = store.open(run_id, verify=False).environment
        except ValueError:  # missing or damaged: said under "Learning"
            continue
        found = {key: value for key, value in found.items() if key != "started"}
        seen[json.dumps(found, sort_keys=True)] = found
    return [_environment_table(found) for found in seen.values()]


def _environment_table(environment: Mapping[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(flatten(environment).items()), columns=["", "value"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"
