"""Progress of many runs: a table on a terminal, plain lines where the output goes to a file."""

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

from procpre_interp.engine.events import Event
from procpre_interp.engine.progress import REFRESHES_PER_SECOND, Output, bar, run_line, scores
from procpre_interp.engine.time_left import Rates, Work, time_left, work_of
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.outcomes import whole_runs
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import saved_step
from procpre_interp.sweep.plan import Plan

NUMBER_COLUMNS = 30
"""Columns of the terminal that stay free for numbers beside the names of conditions."""
SUMMARY_SECONDS = 60.0
"""Seconds between two plain summaries."""


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
    `work` says what each run takes, in the order in which they start; `saved` has the steps of interrupted ones.
    """

    def __init__(
        self,
        cells: pd.DataFrame,
        labels: Mapping[str, str],
        *,
        work: Mapping[str, Work] | None = None,
        saved: Mapping[str, int] | None = None,
        workers: int = 1,
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
        self.labels = {**cell_labels, **labels}
        self.short_labels = {**labels, **cell_labels}
        self.work, self.workers = dict(work or {}), workers
        self.rates = Rates(self.work)
        self.saved = dict(saved or {})
        self.accuracies = dict(accuracies or {})
        self.finished = {run for run in self.accuracies if run in self.labels}
        self.running: dict[str, Event] = {}
        self.stopping: set[str] = set()
        self.problems: dict[str, str] = {}
        """One line per failed or skipped run, which begins with the kind."""
        self.clock = clock
        self.began = clock()
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
        self.began = self.clock()
        if self.live:
            self.display.start()
        else:
            self._summarise()
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
            before, first_stop = self.running.get(event.run), not self.stopping
            if event.run not in self.labels:
                self.labels[event.run] = self.short_labels[event.run] = event.run
            self._note(event)
        label = self.labels[event.run]
        if event.kind == "note":
            self.say(f"{label}: {event.problem}")
        if self.live:
            return
        if event.kind == "stopping" and first_stop:
            self.say(_STOPPING)
        elif event.kind in ("failed", "skipped"):
            self.say(f"{label}: {self.problems[event.run]}")
        elif event.kind == "finished" and before is not None:  # else it was finished before: a number in the summary
            said = scores(before) if event.problem is None else [event.problem]
            self.say(f"{label}: {', '.join(['finished', *said])}")
        if event.kind in ("started", "progress") and self.clock() - self.spoken >= SUMMARY_SECONDS:
            self._summarise()

    def _summarise(self) -> None:
        self.spoken = self.clock()
        self.say(self.summary())

    def _note(self, event: Event) -> None:
        if event.kind == "note":
            return
        if event.kind in ("started", "progress"):
            self.running[event.run] = event
            self.finished.discard(event.run)  # a copy without weights, which is computed again
            self.saved[event.run] = event.step
            if event.kind == "progress":
                self.rates.note(event.run, event.step, self.clock())
            if event.accuracy is not None:
                self.accuracies[event.run] = event.accuracy
            return
        if event.kind == "stopping":
            self.stopping.add(event.run)
            return
        self.running.pop(event.run, None)
        if event.kind == "finished":
            self.finished.add(event.run)
        else:
            first = next(iter((event.problem or "unknown").strip().splitlines()), "unknown")
            self.problems[event.run] = f"{event.kind}: {first}"

    def summary(self) -> str:
        """One line: runs done, running and failed, time elapsed and left."""
        return f"{self._counts()}, {self._times()}"

    def _counts(self) -> str:
        counts = f"{len(self.finished)}/{len(self.labels)} runs done"
        at_work = f"{len(self.running)} running" if self.running or not self._to_come() else "starting workers"
        return f"{counts}, {at_work}, {len(self.problems)} failed"

    def _times(self) -> str:
        elapsed = f"{datetime.timedelta(seconds=round(self.clock() - self.began))} elapsed"
        left = self.seconds_left()
        if left is None or self.stopping or self.ended or not self._to_come():
            return elapsed
        at_most = any(run in self.work and self.work[run].may_end_early for run in self._to_come())
        return f"{elapsed}, {time_left(left, at_most=at_most)}"

    def _to_come(self) -> list[str]:
        """Runs at work and waiting, in their order."""
        order = [*self.work, *(run for run in self.labels if run not in self.work)]
        return [run for run in order if run not in self.finished and run not in self.problems]

    def seconds_left(self) -> float | None:
        """Estimate from the rates of all steps seen here, runs that wait included; None before any were seen."""
        at = {run: event.step for run, event in self.running.items()}
        waiting = {run: self.saved.get(run, 0) for run in self._to_come() if run not in at}
        return self.rates.seconds_left(at, waiting, self.workers)

    def share(self) -> float:
        """Share of all work that is done, 0 to 1: by the tokens of all steps if these are known, otherwise by runs."""
        if not self.work:
            return len(self.finished) / max(1, len(self.labels))
        whole = {run: (work.steps - work.first) * work.tokens for run, work in self.work.items()}
        done = sum(
            whole[run] if run in self.finished else work.done(self.saved.get(run, 0)) * work.tokens
            for run, work in self.work.items()
        )
        return done / max(1, sum(whole.values()))

    def render(self) -> Group:
        """The display as it is now: as many rows as fit, and all of them once the sweep has ended."""
        with self.lock:
            stops = bool(self.stopping) and not self.ended
            summary = Text(_STOPPING if stops else self._counts(), no_wrap=True, overflow="ellipsis")
            if self.problems:
                summary.highlight_regex(r"\d+ failed", "red")
            # Three lines are the summary, the bar and the heads of the columns, and one stays free for the cursor.
            height = sys.maxsize if self.ended else max(3, self.console.height - 4)
            running, failed = self._running(), self._failed()
            running = _cut(running, max(1, height // 2))
            failed = _cut(failed, max(1, (height - len(running)) // 2))
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
            table.add_column("condition", no_wrap=True, max_width=max(12, self.console.width - NUMBER_COLUMNS))
            for head in ("done", "accuracy", "failed"):
                table.add_column(head, no_wrap=True, justify="right")
            for row in _cut(self._rows(), height - len(running) - len(failed)):
                table.add_row(*row)
            return Group(summary, self._bar(), table, *(row[0] for row in (*running, *failed)))

    def _bar(self) -> Text:
        """The bar of all runs, and the time beside it."""
        times = f" {self.share():4.0%}  {self._times()}"
        filled = bar(self.share(), min(40, max(0, self.console.width - len(times))), self.console)
        return Text.assemble(filled, times, no_wrap=True, overflow="crop")

    def _rows(self) -> list[list[Text]]:
        """A row per condition; where they do not fit, those come first that matter now."""
        return [self._row(condition) for condition in sorted(self.conditions, key=self._priority)]

    def _priority(self, condition: _Condition) -> int:
        if self.ended or len(self.conditions) <= self.console.height // 2:
            return 0
        runs = {run for _, run in condition.runs}
        return 0 if runs & self.running.keys() else 1 if runs & self.problems.keys() else 2

    def _row(self, condition: _Condition) -> list[Text]:
        finished = [run for _, run in condition.runs if run in self.finished]
        known = [self.accuracies[run] for run in finished if not math.isnan(self.accuracies.get(run, math.nan))]
        n_failed = sum(run in self.problems for _, run in condition.runs)
        return [
            Text(condition.label, overflow="ellipsis"),
            Text(f"{len(finished)}/{len(condition.runs)}"),
            Text(f"{statistics.fmean(known):.1%}" if known else ""),
            Text(str(n_failed) if n_failed else "", style="red"),
        ]

    def _running(self) -> list[list[Text]]:
        """A line per run at work; before any is, a line per interrupted run that will go on."""
        if self.running or self.ended:
            at = self.running
        else:
            saved = ((run, self.saved.get(run, 0)) for run in self._to_come())
            at = {run: Event(run, "started", step, self.work[run].steps) for run, step in saved if step}
        columns = max((len(self.short_labels[run]) for run in at), default=0)
        return [
            [run_line(self.short_labels[run], event, scores(event), self.console, columns)] for run, event in at.items()
        ]

    def _failed(self) -> list[list[Text]]:
        """A line per run that failed, and why."""
        lines = (f"{self.short_labels[run]} {problem}" for run, problem in self.problems.items())
        return [[Text(line, no_wrap=True, overflow="ellipsis", style="red")] for line in lines]


_STOPPING = "stopping: saving the runs; the same command goes on from here"


def live_table(store: RunStore, workers: int) -> Callable[[Plan], SweepTable]:
    """What `sweep.run_sweep` shows on stderr: the table of a plan, with what the store has of it already."""

    def show(planned: Plan) -> SweepTable:
        cells = planned.cells.loc[planned.cells["run"] != ""]
        return table_of_runs(planned.configs, cells, planned.labels, store, workers)

    return show


def table_of_runs(
    configs: Mapping[str, RunConfig], cells: pd.DataFrame, labels: Mapping[str, str], store: RunStore, workers: int
) -> SweepTable:
    """The table of runs, given by id, with what the store has of them already."""
    there = whole_runs(configs, store)
    return SweepTable(
        cells,
        labels,
        work={run: work_of(config) for run, config in configs.items()},
        saved={run: saved_step(store.path / "partial" / run) or 0 for run in configs if run not in there},
        workers=workers,
        accuracies={run: opened.accuracy for run, opened in there.items()},
    )


def _cut(rows: list[list[Text]], fit: int) -> list[list[Text]]:
    """The first rows, and how many more there are."""
    if len(rows) <= fit:
        return rows
    return [*rows[: fit - 1], [Text(f"… {len(rows) - fit + 1} more", style="dim")]]
