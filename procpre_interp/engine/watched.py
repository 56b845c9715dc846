"""One run executed here, with its progress shown: from the command line, a script, a Python prompt or a notebook."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console

from procpre_interp.engine.events import Event, finished_event, progress_event
from procpre_interp.engine.progress import RunProgress, scores
from procpre_interp.pipeline import execute as pipeline
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import TrainConfig, TrainState

NOTEBOOK_SECONDS = 0.5
"""Seconds between two updates of a notebook's line."""


def execute(
    config: RunConfig,
    store: RunStore,
    *,
    progress: bool | None = None,
    on_step: Callable[[TrainState, TrainConfig], None] = lambda state, train: None,
    should_stop: Callable[[], bool] = lambda: False,
    waiting: Callable[[float], None] | None = None,
) -> Run:
    """`pipeline.execute` with its progress shown: on stderr, or in the notebook's cell.

    By default that is in a terminal and in a notebook, and not where stderr is a file; `progress` says otherwise.
    """
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter if progress is None else progress):
        return pipeline.execute(config, store, on_step=on_step, should_stop=should_stop, waiting=waiting)
    label = f"{config.task.name}, seed {config.seed}"
    with NotebookLine(label) if console.is_jupyter else RunProgress(label, console) as shown:
        if (note := config.compile_note) is not None:
            shown.say(note)
        return execute_shown(config, store, shown, on_step=on_step, should_stop=should_stop, waiting=waiting)


def execute_shown(
    config: RunConfig,
    store: RunStore,
    shown: "RunProgress | NotebookLine",
    *,
    on_step: Callable[[TrainState, TrainConfig], None] = lambda state, train: None,
    should_stop: Callable[[], bool] = lambda: False,
    waiting: Callable[[float], None] | None = None,
    execute: Callable[..., Run] = pipeline.execute,
) -> Run:
    """`pipeline.execute`, or a function like it, whose steps, notes and end go to `shown`."""
    run_id = config.run_id
    # Said at the first step: a run that is refused is one line, and one that finished before has its kernel already.
    unsaid = [note] if (note := config.kernel_note) is not None else []

    def show(state: TrainState, train: TrainConfig) -> None:
        while unsaid:
            shown.say(unsaid.pop())
        if state.step % 10 == 0 or state.step == 1:
            shown(progress_event(run_id, state, train))
        on_step(state, train)

    def tell(text: str) -> None:
        shown(Event(run_id, "note", problem=text))

    run = execute(config, store, on_step=show, should_stop=should_stop, waiting=waiting, on_note=tell)
    shown(finished_event(run))
    return run


class NotebookLine:
    """Progress as one line of a notebook's cell, written over and over; rich's own bars need ipywidgets there."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.handle: Any = None
        self.started: tuple[int, float] | None = None
        self.said = 0.0

    def __enter__(self) -> "NotebookLine":
        self.show_line()
        return self

    def show_line(self) -> None:
        """Begin a line; what the one before says, stays."""
        from IPython.display import display  # there in every notebook, and nowhere else needed

        self.handle = display({"text/plain": f"{self.label}: starting"}, raw=True, display_id=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.say("stopped")

    def say(self, text: str) -> None:
        self.handle.update({"text/plain": f"{self.label}: {text}"}, raw=True)

    def __call__(self, event: Event) -> None:
        if event.kind == "note":
            self.say(str(event.problem))
            self.show_line()
        elif event.kind != "progress":
            self.say(event.kind if event.problem is None else f"{event.kind}: {event.problem}")
        elif time.monotonic() - self.said > NOTEBOOK_SECONDS:
            self.started = self.started or (event.step, time.monotonic())
            self.said = time.monotonic()
            steps, seconds = event.step - self.started[0], self.said - self.started[1]
            rate = [f"{steps / seconds:.0f} steps/s"] if steps and seconds else []
            self.say(", ".join([f"step {event.step:,} of at most {event.steps:,}", *scores(event), *rate]))
