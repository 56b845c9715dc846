"""Runs in the tools with which people watch training: TensorBoard, Weights & Biases, trackio.

What stands in a run's history is handed on as it is entered, so that the run is the same with or without. A tool's
package is imported when it is asked for, and is no dependency of this one.
"""

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from procpre_interp.core.messages import unknown_name
from procpre_interp.train import TrainConfig, TrainState

VARIABLE = "PROCPRE_TRACK"
"""Environment variable that names a tracker, for a command and its workers."""
PROJECT = "procpre_interp"


class Tracker(Protocol):
    """One run in one tool."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Enter the values after so many steps of training."""
        ...

    def close(self) -> None:
        """Nothing more follows."""
        ...


OnStep = Callable[[TrainState, TrainConfig], None]
MakeTracker = Callable[[str, Mapping[str, Any], Path], Tracker]
"""Opens a run in a tool, given the run's id, its config in plain values, and a folder for the tool's files."""


class TensorBoard:
    """Event files, for `tensorboard --logdir STORE/tracking/tensorboard`."""

    module = "torch.utils.tensorboard"

    def __init__(self, run: str, config: Mapping[str, Any], folder: Path) -> None:
        self.writer = _needed(self.module).SummaryWriter(str(folder / run))
        self.writer.add_text("config", str(dict(config)))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """Files that `wandb sync` uploads, unless the variable WANDB_MODE says online."""

    module = "wandb"

    def __init__(self, run: str, config: Mapping[str, Any], folder: Path) -> None:
        wandb = _needed(self.module)
        self.run = wandb.init(
            project=PROJECT,
            id=run,
            name=run,
            config=dict(config),
            dir=str(folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",
            settings={"silent": True, "console": "off", "disable_git": True, "save_code": False},
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """A local database of trackio, where its own settings say, for `trackio show`."""

    module = "trackio"
    is_single = True
    """Whether a run ends where another one begins."""

    def __init__(self, run: str, config: Mapping[str, Any], folder: Path) -> None:
        self.trackio = _needed(self.module)
        self.trackio.init(project=PROJECT, name=run, config=dict(config), resume="allow", embed=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.trackio.log(dict(values), step=step)

    def close(self) -> None:
        self.trackio.finish()


TRACKERS: dict[str, MakeTracker] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "trackio": Trackio}
"""Name -> how a run is opened there. One's own tool is entered here."""


def check_tracker(at_once: int = 1) -> None:
    """Raise `ValueError` where the environment names a tracker that is unknown, whose package is missing, or that does
    not have so many runs `at_once` in one process."""
    if name := os.environ.get(VARIABLE):
        if name not in TRACKERS:
            raise unknown_name("tracker", name, sorted(TRACKERS))
        if at_once > 1 and getattr(TRACKERS[name], "is_single", False):
            raise ValueError(f"{name} has one run at once in a process: give --engine processes, or another tracker")
        if (module := getattr(TRACKERS[name], "module", None)) is not None:
            _needed(module)


@contextmanager
def tracked(on_step: OnStep, run: str, config: Mapping[str, Any], store: Path) -> Iterator[OnStep]:
    """`on_step`, which also hands the run's history to the tracker that the environment names, if it names one."""
    name = os.environ.get(VARIABLE)
    if not name:
        yield on_step
        return
    folder = store / "tracking" / name
    folder.mkdir(parents=True, exist_ok=True)
    tracker = TRACKERS[name](run, config, folder)

    def entered(state: TrainState, train: TrainConfig) -> None:
        first = state.history[0]["step"]
        # What stands there before the first step belongs to it; a run that is gone on with has had all earlier rows.
        for step in (first, state.step) if state.step == first + 1 else (state.step,):
            rows = [row for row in state.history if row["step"] == step]
            if values := {
                f"{row['split']}/{name}": row[name] for row in rows for name in row if _is_measure(row, name)
            }:
                tracker.log(step, values)
        on_step(state, train)

    try:
        yield entered
    finally:
        tracker.close()


def _is_measure(row: Mapping[str, Any], name: str) -> bool:
    return name not in ("step", "split") and isinstance(row[name], (int, float))


def _needed(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.split(".")[-1]
        raise ValueError(f"tracking needs the package {package}: pip install {package}") from None
