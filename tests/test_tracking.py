"""Trackers: what they are told of a run, that the run is the same with and without, and what is said when one is
missing."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from procpre_interp.data import TASKS
from procpre_interp.pipeline import tracking
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.pipeline.stacked import execute_stacked
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted, TrainConfig
from procpre_interp.train.state import TrainState
from tests.test_engine import by_id

TRAIN = TrainConfig(steps=6, batch_size=4, evaluate_every=2, evaluate_examples=8, kernel="torch")
CONFIG = RunConfig(task=TASKS.build("set", length=8), train=TRAIN)
NO_SECONDS = ["seconds"]


class Kept:
    """A tool that keeps what it is told."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, Mapping[str, Any], Path]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.n_closed = 0

    def __call__(self, run: str, config: Mapping[str, Any], folder: Path) -> "Kept":
        self.runs.append((run, config, folder))
        return self

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.logged.append((step, dict(values)))

    def close(self) -> None:
        self.n_closed += 1


@pytest.fixture
def kept(monkeypatch) -> Kept:
    tool = Kept()
    monkeypatch.setitem(tracking.TRACKERS, "kept", tool)
    monkeypatch.setenv(tracking.VARIABLE, "kept")
    return tool


def test_a_tracker_is_told_the_history_and_changes_nothing(kept, tmp_path, monkeypatch):
    run = execute(CONFIG, RunStore(tmp_path / "tracked"))
    ((id_, config, folder),) = kept.runs
    assert (id_, config["task"]["name"], kept.n_closed) == (run.id, "set", 1)
    assert folder == tmp_path / "tracked" / "tracking" / "kept"
    history = run.history()
    assert [step for step, _ in kept.logged] == [0, 2, 4, 6] == sorted(set(history["step"]))
    for step, values in kept.logged:
        for row in history.loc[history["step"] == step].to_dict("records"):
            assert values[f"{row['split']}/loss_nats"] == row["loss_nats"]
    assert all(isinstance(value, (int, float)) for _, values in kept.logged for value in values.values())
    monkeypatch.delenv(tracking.VARIABLE)
    plain = execute(CONFIG, RunStore(tmp_path / "plain"))
    assert plain.id == run.id
    pd.testing.assert_frame_equal(plain.history().drop(columns=NO_SECONDS), history.drop(columns=NO_SECONDS))
    assert RunStore(tmp_path / "tracked").query()["status"].tolist() == ["finished"]


def test_every_run_of_a_stack_is_told(tmp_path, monkeypatch):
    tools: dict[str, Kept] = {}
    monkeypatch.setitem(tracking.TRACKERS, "kept", lambda run, *about: tools.setdefault(run, Kept())(run, *about))
    monkeypatch.setenv(tracking.VARIABLE, "kept")
    stacked = dataclasses.replace(CONFIG, train=dataclasses.replace(TRAIN, kernel="stacked"))
    configs = by_id(*(dataclasses.replace(stacked, seed=seed) for seed in (1, 2)))
    store = RunStore(tmp_path)
    execute_stacked(configs, store)
    assert tools.keys() == configs.keys()
    for run, tool in tools.items():
        assert [step for step, _ in tool.logged] == [0, 2, 4, 6]
        assert tool.n_closed == 1
        losses = store.open(run).history().query("split == 'validation'")["loss_nats"]
        assert [values["validation/loss_nats"] for _, values in tool.logged] == losses.tolist()


def test_a_tool_with_one_run_at_once_is_refused_for_a_stack(monkeypatch):
    monkeypatch.setattr(tracking.Trackio, "module", "json")
    monkeypatch.setenv(tracking.VARIABLE, "trackio")
    tracking.check_tracker()
    with pytest.raises(ValueError, match="trackio has one run at once in a process: give --engine processes"):
        tracking.check_tracker(at_once=2)


def test_a_run_that_is_gone_on_with_is_told_once(kept, tmp_path):
    store, steps = RunStore(tmp_path), list[int]()

    def entered(state: TrainState, train: TrainConfig) -> None:
        steps.append(state.step)

    with pytest.raises(Interrupted):
        execute(CONFIG, store, on_step=entered, should_stop=lambda: steps[-1] == 3)
    assert [step for step, _ in kept.logged] == [0, 2]
    execute(CONFIG, store, on_step=entered)
    assert [step for step, _ in kept.logged] == [0, 2, 4, 6]
    assert (steps, kept.n_closed) == ([1, 2, 3, 4, 5, 6], 2)
    execute(CONFIG, store)
    assert kept.n_closed == 2


@pytest.mark.parametrize(
    ("name", "says"),
    [("nonsense", "unknown tracker 'nonsense'"), ("absent", "the package nowhere_to_be_found: pip install nowhere")],
)
def test_a_tracker_that_cannot_be_had_is_refused_before_the_run(name, says, tmp_path, monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "absent", type("Absent", (Kept,), {"module": "nowhere_to_be_found"}))
    monkeypatch.setenv(tracking.VARIABLE, name)
    with pytest.raises(ValueError, match=says):
        execute(CONFIG, RunStore(tmp_path))
    assert RunStore(tmp_path).query().empty


def test_nothing_is_imported_unless_asked_for(tmp_path):
    code = (
        "import sys; from procpre_interp.pipeline import execute, tracking; "
        "print([name for name in ('wandb', 'tensorboard', 'trackio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


REAL = """
import dataclasses, json, os, sys
from pathlib import Path
from tests.test_tracking import CONFIG
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore
run = execute(CONFIG, RunStore(Path(sys.argv[1])))
print(json.dumps(run.history().to_dict("records")))
"""


def tracked_by(name: str, folder: Path) -> list[dict[str, Any]]:
    """The history of a run that the tool is told, in a process of its own."""
    environment = os.environ | {
        tracking.VARIABLE: name,
        "TRACKIO_DIR": str(folder / "trackio"),
        "WANDB_MODE": "offline",
    }
    done = subprocess.run(
        [sys.executable, "-c", REAL, str(folder)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_tensorboard_reads_the_losses(tmp_path):
    events_of = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator
    history = tracked_by("tensorboard", tmp_path)
    (folder,) = (tmp_path / "tracking" / "tensorboard").iterdir()
    events = events_of(str(folder)).Reload().Scalars("validation/loss_nats")
    expected = [(row["step"], row["loss_nats"]) for row in history if row["split"] == "validation"]
    assert [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events] == expected


@pytest.mark.slow
def test_wandb_writes_an_offline_run(tmp_path):
    pytest.importorskip("wandb")
    tracked_by("wandb", tmp_path)
    (file,) = (tmp_path / "tracking" / "wandb").rglob("run-*.wandb")
    assert CONFIG.run_id in file.name
    assert b"validation/loss_nats" in file.read_bytes()


@pytest.mark.slow
def test_trackio_keeps_the_losses(tmp_path):
    pytest.importorskip("trackio")
    history = tracked_by("trackio", tmp_path)
    asked = ["--project", tracking.PROJECT, "--run", CONFIG.run_id, "--metric", "validation/loss_nats", "--json"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("trackio")), "get", "metric", *asked],
        capture_output=True,
        text=True,
        env=os.environ | {"TRACKIO_DIR": str(tmp_path / "trackio")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    kept = [(each["step"], each["value"]) for each in json.loads(done.stdout)["values"]]
    assert kept == [(row["step"], row["loss_nats"]) for row in history if row["split"] == "validation"]
