"""What engines tell of the runs that they compute."""

from dataclasses import dataclass
from typing import Literal

from procpre_interp.store.run import Run
from procpre_interp.train import TrainConfig, TrainState


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to a run of the sweep."""

    run: str
    kind: Literal["started", "progress", "note", "stopping", "finished", "failed", "skipped"]
    """note: something to be said of it, in `problem`; stopping: it was asked to save where it is."""
    step: int = 0
    steps: int = 0
    """Largest number of steps."""
    loss_nats: float | None = None
    """Training loss since the last evaluation, or up to it."""
    accuracy: float | None = None
    """Validation token accuracy at the last evaluation, share."""
    seconds: float = 0.0
    problem: str | None = None
    """Why it failed, or was skipped, or that it diverged; what a note says."""


def finished_event(run: Run) -> Event:
    """The event of a run that ended, which says so where it diverged."""
    diverged = run.summary["status"] == "diverged"
    return Event(run.id, "finished", problem=f"diverged, {run.summary['stop_reason']}" if diverged else None)


def progress_event(run: str, state: TrainState, train: TrainConfig) -> Event:
    """The event that a training state makes."""
    accuracy, loss = state.latest("accuracy", "validation"), state.mean_train_loss
    if loss is None:  # just evaluated
        loss = state.latest("loss_nats", "train")
    return Event(run, "progress", state.step, train.last_step, loss, accuracy, state.seconds)


def failure(run: str, error: Exception) -> Event:
    """The event of a run that failed, with what a user reads of the error."""
    known = isinstance(error, (ValueError, OSError))
    return Event(run, "failed", problem=str(error) if known else f"{type(error).__name__}: {error}")
