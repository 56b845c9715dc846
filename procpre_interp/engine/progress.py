"""Progress of a run on the terminal: a bar where there is one, plain lines where the output goes to a file."""

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from procpre_interp.engine.events import Event
from procpre_interp.engine.time_left import time_left

PLAIN_SECONDS = 10.0
"""Seconds between two plain lines of one run."""
REFRESHES_PER_SECOND = 4
BAR_COLUMNS = 10
LABEL_COLUMNS = 20
"""What a label is not cut below to make room for scores."""


def scores(event: Event) -> list[str]:
    """Accuracy and loss, as far as they are known, the more telling one first."""
    parts = [] if event.accuracy is None else [f"accuracy {event.accuracy:.1%}"]
    return parts if event.loss_nats is None else [*parts, f"loss {event.loss_nats:.3f} nats"]


def bar(share: float, columns: int, console: Console) -> Text:
    """A bar that is filled by a share, 0 to 1."""
    full, empty = ("#", "-") if console.options.ascii_only else ("━", "─")
    done = round(columns * min(1.0, share))
    return Text.assemble((full * done, "green"), (empty * (columns - done), "dim"))


def run_line(label: str, event: Event, details: Sequence[str], console: Console, columns: int = 0) -> Text:
    """A line on a run at work: its label, cut where there is no room, bar, steps, and as many details as fit.

    A shorter label is filled up to `columns`, so that bars below one another line up.
    """
    tail = [f"{event.step}/{event.steps}"]
    room = console.width - BAR_COLUMNS - 2 - len(tail[0])
    for detail in details:
        if room - len(detail) - 2 >= min(max(len(label), columns), LABEL_COLUMNS):
            room -= len(detail) + 2
            tail.append(detail)
    name = Text(label.ljust(columns))
    name.truncate(max(1, room), overflow="ellipsis")
    filled = bar(event.step / max(1, event.steps), BAR_COLUMNS, console)
    return Text.assemble(name, " ", filled, " ", "  ".join(tail), no_wrap=True, overflow="crop")


class Output:
    """Where progress is shown: a terminal (`live`), or a file, which gets plain lines."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.live = self.console.is_terminal

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class RunProgress(Output):
    """Shows the events of one run, which people call `label`. Use as a context manager."""

    def __init__(
        self, label: str, console: Console | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console)
        self.label, self.clock = label, clock
        self.event: Event | None = None
        self.first: tuple[int, float] | None = None
        """Step and time of the first event: what a resumed run did before does not belong to its rate."""
        self.spoken = clock()
        self.display = Live(
            console=self.console,
            get_renderable=self.render,
            refresh_per_second=REFRESHES_PER_SECOND,
            transient=True,
        )

    def __enter__(self) -> "RunProgress":
        if self.live:
            self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.display.stop()

    def __call__(self, event: Event) -> None:
        if event.kind == "note":
            self.say(f"{self.label}: {event.problem}")
            return
        if event.kind != "progress":
            self.event = None
            self.say(f"{self.label}: {event.kind}{'' if event.problem is None else f': {event.problem}'}")
            return
        if self.first is None:
            self.first = event.step, self.clock()
            if not self.live:
                self.say(f"{self.label}: started")
        self.event = event
        if not self.live and self.clock() - self.spoken > PLAIN_SECONDS:
            self.spoken = self.clock()
            self.say(", ".join([f"{self.label}: step {event.step}/{event.steps}", *self.details(event)]))

    def render(self) -> Text:
        """The run's line as it is now."""
        return (
            Text() if self.event is None else run_line(self.label, self.event, self.details(self.event), self.console)
        )

    def details(self, event: Event) -> list[str]:
        """Time left, scores and rate, as far as they are known."""
        assert self.first is not None
        steps, seconds = event.step - self.first[0], self.clock() - self.first[1]
        if not steps:
            return scores(event)
        left = time_left((event.steps - event.step) * seconds / steps, at_most=False)
        return [left, *scores(event), f"{steps / max(1e-9, seconds):.0f} steps/s"]
