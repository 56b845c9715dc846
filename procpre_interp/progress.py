"""Progress of runs on the terminal: bars where there is one, plain lines where the output goes to a file."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from procpre_interp.engine import Event

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines of one run."""


def scores_text(event: Event, started: tuple[int, float] | None) -> str:
    """Rate, loss and accuracy, as far as they are known."""
    parts = []
    if started is not None and event.step > started[0]:
        parts.append(f"{(event.step - started[0]) / max(1e-9, time.monotonic() - started[1]):.0f} steps/s")
    if event.loss_nats is not None:
        parts.append(f"loss {event.loss_nats:.3f} nats")
    if event.accuracy is not None:
        parts.append(f"accuracy {event.accuracy:.1%}")
    return ", ".join(parts)


class Output:
    """Where progress is shown: a terminal (`live`), or a file, which gets plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = self.console.is_terminal

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class RunProgress(Output):
    """Shows the events of one or many runs; `labels` says what to call them. Use as a context manager."""

    def __init__(self, labels: Mapping[str, str], console: Console | None = None) -> None:
        super().__init__(console)
        self.labels = labels
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[scores]}", markup=False),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )
        self.bars: dict[str, TaskID] = {}
        self.started: dict[str, tuple[int, float]] = {}
        self.spoken: dict[str, float] = {}

    def __enter__(self) -> "RunProgress":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        label = self.labels.get(event.run, event.run)
        if event.kind == "note":
            self.say(f"{label}: {event.problem}")
            return
        if event.kind in ("started", "progress"):
            # The rate counts from the first event on: what a resumed run did before does not belong to it.
            if event.kind == "progress":
                self.started.setdefault(event.run, (event.step, time.monotonic()))
            scores = scores_text(event, self.started.get(event.run))
            if self.live:
                if event.run not in self.bars:
                    self.bars[event.run] = self.progress.add_task(label, total=event.steps, scores="")
                self.progress.update(self.bars[event.run], completed=event.step, scores=scores)
            elif event.kind == "started":
                self.say(f"{label}: started")
            elif time.monotonic() - self.spoken.setdefault(event.run, time.monotonic()) > PLAIN_SECONDS:
                self.spoken[event.run] = time.monotonic()
                self.say(f"{label}: step {event.step}/{event.steps}{', ' if scores else ''}{scores}{self.left(event)}")
            return
        if event.run in self.bars:
            self.progress.remove_task(self.bars.pop(event.run))
        self.say(f"{label}: {event.kind}{'' if event.problem is None else f': {event.problem}'}")

    def left(self, event: Event) -> str:
        """Time left at the present rate, at most."""
        step, since = self.started[event.run]
        if event.step == step:
            return ""
        seconds = (event.steps - event.step) * (time.monotonic() - since) / (event.step - step)
        return f", {seconds / 60:.1f} min left"
