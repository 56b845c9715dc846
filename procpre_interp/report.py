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
    conditions_table,
    config_differences,
    describe_cost,
    explain_columns,
    flatten,
    lineage,
    map_effects_table,
)
from procpre_interp.diagnosis import diagnose_all, diagnosis_table
from procpre_interp.exhibits import Exhibit
from procpre_interp.exhibits import results as exhibits
from procpre_interp.exhibits.damage import diagnosis
from procpre_interp.files import write_text
from procpre_interp.plots.curves import learning_curves
from procpre_interp.plots.heatmaps import transfer_bars, transfer_heatmap
from procpre_interp.runs import Run, RunStore
from procpre_interp.stats import interval_note

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
.reading { color: var(--quiet); font-size: .9rem; margin: .2rem 0 1.2rem; }
.warning { background: var(--warn); padding: .5rem .8rem; border-radius: .3rem; }
.infolayer text, .xtick text, .ytick text { fill: var(--ink) !important; }
"""

Block = str | pd.DataFrame | go.Figure | Exhibit
"""What a section shows: a paragraph, a table, a figure, or a figure with the sentences that belong to it."""


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
    body, n_figures = [f"<h1>{html.escape(title)}</h1>"], 0
    for section in sections:
        body.append(f"<h2>{html.escape(section.title)}</h2>")
        for block in section.blocks:
            body.append(_html(block, n_figures))
            n_figures += isinstance(block, (go.Figure, Exhibit))
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
    found = exhibits.load_results(store, table_name)
    sections = [
        *results_sections(found),
        *(Section(title=each["title"], blocks=_map_blocks(each)) for each in found.about.get("maps", [])),
        Section(title="Diagnosis", blocks=_condition_diagnosis(found, store)),
        Section(title="Protocol", blocks=[found.about.get("protocol", "")]),
        Section(title="Cost", blocks=[describe_cost(found.about.get("cost", {}))]),
        Section(title="Every run", blocks=[found.table.drop(columns=["label"])]),
        Section(title="Environment", blocks=_environments(store, found.table)),
    ]
    return write_report(path, found.title, sections)


def results_sections(found: exhibits.Results) -> list[Section]:
    """Accuracy, learning and time to breakthrough by condition."""
    n = int(found.summary["n"].to_numpy().min())
    result: list[Block | Caution] = []
    if n < 2:
        result.append(Caution(text="One replicate: an observation, not a result. Repeat with --replicates 5 or more."))
    result += [found.about["note"]] if "note" in found.about else []
    result += [conditions_table(found.summary, found.about)]
    result += [f"Intervals: {interval_note(n)}. {explain_columns(found.about)}", exhibits.accuracy(found)]
    learning: list[Block | Caution] = [Caution(text=problem) for problem in found.problems]
    learning += [exhibits.learning(found, name) for name in ("accuracy", "loss_nats") if name in found.histories]
    return [
        Section(title="Result", blocks=result),
        Section(title="Learning", blocks=learning),
        Section(title="Time to breakthrough", blocks=[exhibits.survival(found)]),
    ]


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


def _html(block: Block | Caution, n_figures: int) -> str:
    """One block; the first figure brings plotly's script. `n_figures`: how many stand above it."""
    if isinstance(block, go.Figure):
        config = {"displaylogo": False, "responsive": True}
        return block.to_html(
            full_html=False, include_plotlyjs=n_figures == 0, div_id=f"figure-{n_figures}", config=config
        )
    if isinstance(block, Exhibit):
        said = "<br>".join(html.escape(line) for line in (f"How to read: {block.reading}", *block.notes))
        return f'{_html(block.figure, n_figures)}\n<p class="reading">{said}</p>'
    if isinstance(block, pd.DataFrame):
        table = block.to_html(index=False, border=0, na_rep="", justify="unset", float_format=_number)
        return f'<div class="scroll">{table}</div>'
    if isinstance(block, Caution):
        return f'<p class="warning">{html.escape(block.text)}</p>'
    return f"<p>{html.escape(block)}</p>"


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


def _condition_diagnosis(found: exhibits.Results, store: RunStore) -> list[Block | Caution]:
    """One row a condition with pretraining, over those of its runs that the store holds."""
    note = (
        "In brackets: runs of the condition that show a signature; one may show several. Numbers: means over the runs "
        "with the most frequent failure. `procpre-interp diagnose RUN` gives sentences, remedies and comparison runs."
    )
    return [diagnosis(found, store)[0], note]


def _run_label(run: Run) -> str:
    return f"{run.id[:8]} {run.summary.get('task', '')} seed {run.summary.get('seed', '?')}"


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
