"""Progress of a sweep: a table with one row a condition on a terminal, plain lines where the output goes to a file."""

import datetime
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from procpre_interp.engine import Event
from procpre_interp.outcomes import whole_runs
from procpre_interp.progress import Output, scores_text
from procpre_interp.runs import RunStore
from procpre_interp.sweep import Plan

REFRESHES_PER_SECOND = 4
SUMMARY_SECONDS = 60.0
"""Seconds between two plain summaries of the sweep."""


@dataclass(frozen=True, slots=True)
class _Condition:
    """A row of the table: the runs of all replicates."""

    label: str
    runs: tuple[tuple[int, str], ...]
    """Replicate and run id of each cell."""


class SweepTable(Output):
    """Shows the events of a sweep. Use as a context manager, whose beginning is the start of the clock.

    `cells` has the columns condition, label, replicate and run. `labels` names the sweep's other runs, its parents,
    which are counted too; it may rename cells in plain lines. `accuracies` has the runs that were finished before and
    for which no event will come; NaN where the accuracy is not known. Accuracies are those last reported, shares.
    """

    def __init__(
        self,
        cells: pd.DataFrame,
        labels: Mapping[str, str],
        *,
        accuracies: Mapping[str, float] | None = None,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(console)
        self.conditions: list[_Condition] = []
        cell_labels: dict[str, str] = {}
        for _, group in cells.groupby("condition", sort=False):
            label = str(group["label"].iloc[0])
            runs = tuple(zip(group["replicate"].tolist(), group["run"].tolist()))
            self.conditions.append(_Condition(label, runs))
            cell_labels |= {run: f"seed {replicate} {label}" for replicate, run in runs}
        self.parents = {run: label for run, label in labels.items() if run not in cell_labels}
        self.labels = {**cell_labels, **labels}
        self.accuracies = dict(accuracies or {})
        self.finished = {run for run in self.accuracies if run in self.labels}
        self.running: dict[str, Event] = {}
        self.problems: dict[str, str] = {}
        """Of failed and skipped runs: one line, which begins with the kind."""
        self.clock = clock
        self.began = self.last_finish = clock()
        self.n_finished_here = 0
        self.spoken = -math.inf
        self.ended = False
        # The display draws in a thread of its own.
        self.lock = threading.Lock()
        self.display = Live(
            console=self.console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            vertical_overflow="crop",
        )

    def __enter__(self) -> "SweepTable":
        self.began = self.last_finish = self.clock()
        if self.live:
            self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended = True
        if self.live:
            self.display.stop()
        else:
            self.say(self.summary())

    def __call__(self, event: Event) -> None:
        with self.lock:
            before = self.running.get(event.run)
            if event.run not in self.labels:
                self.labels[event.run] = self.parents[event.run] = event.run
            self._note(event)
        label = self.labels[event.run]
        if event.kind == "note":
            self.say(f"{label}: {event.problem}")
        if self.live:
            return
        if event.kind in ("failed", "skipped"):
            self.say(f"{label}: {self.problems[event.run]}")
        elif event.kind == "finished" and before is not None:  # else it was finished before: a number in the summary
            scores = scores_text(before, None)
            self.say(f"{label}: finished{', ' if scores else ''}{scores}")
        if event.kind in ("started", "progress") and self.clock() - self.spoken >= SUMMARY_SECONDS:
            self.spoken = self.clock()
            self.say(self.summary())

    def _note(self, event: Event) -> None:
        if event.kind == "note":
            return
        if event.kind in ("started", "progress"):
            self.running[event.run] = event
            if event.accuracy is not None:
                self.accuracies[event.run] = event.accuracy
            return
        worked_on = self.running.pop(event.run, None) is not None
        if event.kind == "finished":
            self.finished.add(event.run)
            if worked_on:
                self.n_finished_here += 1
                self.last_finish = self.clock()
        else:
            first = next(iter((event.problem or "unknown").strip().splitlines()), "unknown")
            self.problems[event.run] = f"{event.kind}: {first}"

    def summary(self) -> str:
        """One line: runs done, running and failed, time elapsed and left."""
        total, done, failed = len(self.labels), len(self.finished), len(self.problems)
        elapsed = self.clock() - self.began
        parts = [f"{done}/{total} runs done", f"{len(self.running)} running", f"{failed} failed"]
        parts.append(f"{_duration(elapsed)} elapsed")
        if (left := self.seconds_left()) is not None:
            parts.append(f"about {_duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Estimate from the runs finished since the start; None before the first one.

        (Time of the last finish / number finished) x runs to come, less the time since the last finish.
        """
        if not self.n_finished_here:
            return None
        to_come = len(self.labels) - len(self.finished) - len(self.problems)
        rate = (self.last_finish - self.began) / self.n_finished_here
        return max(0.0, to_come * rate - (self.clock() - self.last_finish))

    def render(self) -> Group:
        """The display as it is now: as many rows as fit, and all of them once the sweep has ended."""
        with self.lock:
            # Two lines are the summary and the heads of the columns, and one stays free for the cursor.
            height = sys.maxsize if self.ended else max(2, self.console.height - 3)
            parents = _cut(self._parents(), max(1, height // 2))
            table = Table(box=None, expand=True, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
            table.add_column("condition", no_wrap=True, max_width=max(12, self.console.width // 3))
            for head in ("done", "accuracy", "failed"):
                table.add_column(head, no_wrap=True, justify="right")
            table.add_column("now", no_wrap=True, ratio=1)
            for row in _cut(self._rows(fit=height - len(parents)), height - len(parents)):
                table.add_row(*row)
            summary = Text(self.summary(), no_wrap=True, overflow="ellipsis")
            if self.problems:
                summary.highlight_regex(r"\d+ failed", "red")
            return Group(summary, table, *(row[0] for row in parents))

    def _rows(self, fit: int) -> list[list[Text]]:
        """A row a condition and one a failed cell; where they do not `fit`, those with work going on come first."""
        blocks = [(self._priority(condition), self._block(condition)) for condition in self.conditions]
        if sum(len(block) for _, block in blocks) > fit:
            blocks.sort(key=lambda item: item[0])
        return [row for _, block in blocks for row in block]

    def _priority(self, condition: _Condition) -> int:
        runs = {run for _, run in condition.runs}
        return 0 if runs & self.running.keys() else 1 if runs & self.problems.keys() else 2

    def _block(self, condition: _Condition) -> list[list[Text]]:
        finished = [run for _, run in condition.runs if run in self.finished]
        known = [self.accuracies[run] for run in finished if not math.isnan(self.accuracies.get(run, math.nan))]
        failed = [(replicate, self.problems[run]) for replicate, run in condition.runs if run in self.problems]
        running = [(replicate, self.running[run]) for replicate, run in condition.runs if run in self.running]
        first = [
            Text(condition.label),
            Text(f"{len(finished)}/{len(condition.runs)}"),
            Text(f"{statistics.fmean(known):.1%}" if known else ""),
            Text(str(len(failed)) if failed else "", style="red"),
            Text("; ".join(f"seed {replicate} {_state(event)}" for replicate, event in running)),
        ]
        empty = [Text()] * 4
        return [first, *([*empty, Text(f"seed {replicate} {problem}", style="red")] for replicate, problem in failed)]

    def _parents(self) -> list[list[Text]]:
        """A line a parent that is worked on, then one a parent that failed."""
        lines = [f"{label}: {_state(self.running[run])}" for run, label in self.parents.items() if run in self.running]
        failed = [f"{label} {self.problems[run]}" for run, label in self.parents.items() if run in self.problems]
        return [
            *([Text(line, no_wrap=True, overflow="ellipsis")] for line in lines),
            *([Text(line, no_wrap=True, overflow="ellipsis", style="red")] for line in failed),
        ]


def live_table(store: RunStore) -> Callable[[Plan], SweepTable]:
    """What `sweep.run_sweep` shows on stderr: the table of a plan, with what the store has of it already."""

    def show(planned: Plan) -> SweepTable:
        there = whole_runs(planned.configs, store)
        accuracies = {run: float(opened.summary["accuracy"]) for run, opened in there.items()}
        cells = planned.cells.loc[planned.cells["run"] != ""]
        return SweepTable(cells, planned.labels, accuracies=accuracies)

    return show


def _state(event: Event) -> str:
    """How far a run is, and its scores."""
    scores = scores_text(event, None)
    return f"{event.step}/{event.steps}{', ' if scores else ''}{scores}"


def _cut(rows: list[list[Text]], fit: int) -> list[list[Text]]:
    """The first rows, and how many more there are."""
    if len(rows) <= fit:
        return rows
    return [*rows[: fit - 1], [Text(f"… {len(rows) - fit + 1} more", style="dim")]]


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))
