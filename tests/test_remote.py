"""What engines of clusters have in common, on a cluster that computes here, and loses what a test tells it to."""

import dataclasses
import importlib.util
import re
import shlex
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import torch
import yaml

from procpre_interp.cli import main
from procpre_interp.commands._options import parse
from procpre_interp.commands.store import Store
from procpre_interp.commands.sweep import SweepCommand
from procpre_interp.core.plugins import Plugin
from procpre_interp.engine import remote
from procpre_interp.engine.engines import Processes, Ray, Serial, Slurm, chosen_engine
from procpre_interp.engine.events import Event
from procpre_interp.engine.options import EngineOptions
from procpre_interp.engine.remote import Lost, Task, compute, execute_remotely, task_of
from procpre_interp.pipeline.config import Parent
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.pipeline.tracking import VARIABLE
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted
from tests.test_engine import by_id
from tests.test_pipeline import PHASE1, PHASE2, child


class Here:
    """A cluster that computes a task when its events are asked for, one per call, unless it is lost."""

    def __init__(self, losses: dict[str, int] | None = None, places: int = 8) -> None:
        self.losses, self.places = losses or {}, places
        self.tasks: list[Task] = []
        self.submitted: list[str] = []
        self.recalled: list[str] = []
        self.stopped: list[str] = []
        self.compute: Callable[[Task, Callable[[Event], None]], Event | None] = compute

    def room(self) -> int:
        return self.places

    def submit(self, task: Task) -> None:
        self.tasks.append(task)
        self.submitted.append(task.run)
        assert len(self.tasks) <= self.places

    def events(self, seconds: float) -> Iterator[Event | Lost]:
        if self.tasks:
            task = self.tasks.pop(0)
            told: list[Event | Lost] = []
            if self.losses.get(task.run, 0) > 0:
                self.losses[task.run] -= 1
                told = [Event(task.run, "started"), Lost(task.run, "its node burnt down")]
            else:
                told.append(self.compute(task, told.append) or Lost(task.run, "it was stopped"))
            yield from told
            yield Event(task.run, "progress", 3, 12)  # which is late

    def recall(self, runs: Iterable[str]) -> None:
        asked = set(runs)
        self.recalled += sorted(asked)
        self.tasks = [task for task in self.tasks if task.run not in asked]

    def stop(self, runs: Iterable[str]) -> None:
        self.stopped += sorted(runs)


def kinds(events: list[Event], run: str) -> list[str]:
    return [event.kind for event in events if event.run == run]


def test_parents_first_and_a_failed_run_fails_its_children_alone(tmp_path):
    store, cluster, events = RunStore(tmp_path), Here(places=1), []
    misfit = dataclasses.replace(
        child(selector="blocks.1"), model=dataclasses.replace(child().model, n_layers=1)
    )  # which has no such block
    orphan = dataclasses.replace(PHASE2, parents=(Parent(run=misfit.run_id),))
    configs = by_id(orphan, misfit, child(), PHASE1)
    problems = execute_remotely(configs, store, cluster, on_event=events.append)
    assert set(problems) == {misfit.run_id, orphan.run_id}
    assert cluster.submitted[0] == PHASE1.run_id
    assert orphan.run_id not in cluster.submitted
    assert kinds(events, orphan.run_id) == ["skipped"]
    # Nothing is told of a run after its end.
    assert kinds(events, child().run_id)[0] == "started"
    assert kinds(events, child().run_id)[-1] == "finished"
    here = execute(child(), RunStore(tmp_path))
    other = RunStore(tmp_path / "other")
    execute(PHASE1, other)
    assert torch.equal(load_model(here).flat, load_model(execute(child(), other)).flat)
    events.clear()
    again = Here()
    assert set(execute_remotely(configs, store, again, on_event=events.append)) == set(problems)
    assert PHASE1.run_id not in again.submitted


def test_a_lost_run_goes_on_a_bounded_number_of_times(tmp_path):
    store, events = RunStore(tmp_path), []
    unlucky, doomed = dataclasses.replace(PHASE2, seed=1), dataclasses.replace(PHASE2, seed=2)
    cluster = Here({unlucky.run_id: remote.RETRIES, doomed.run_id: remote.RETRIES + 1})
    problems = execute_remotely(by_id(unlucky, doomed), store, cluster, on_event=events.append)
    assert set(problems) == {doomed.run_id}
    assert "its node burnt down, 4 times" in problems[doomed.run_id]
    assert store.is_finished(unlucky.run_id)
    assert cluster.submitted.count(unlucky.run_id) == cluster.submitted.count(doomed.run_id) == remote.RETRIES + 1
    notes = [event.problem for event in events if event.kind == "note" and event.run == unlucky.run_id]
    assert len(notes) == remote.RETRIES
    assert "its node burnt down; it goes on elsewhere (retry 1 of 3)" in str(notes[0])


def test_what_a_node_writes_elsewhere_is_not_called_finished(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SEEN_SECONDS", 0.0)
    cluster = Here()
    cluster.compute = lambda task, tell: compute(dataclasses.replace(task, store=tmp_path / "elsewhere"), tell)
    problems = execute_remotely(by_id(PHASE1), RunStore(tmp_path / "shared"), cluster)
    assert "give a folder that all nodes share" in problems[PHASE1.run_id]


def test_a_task_waits_for_its_parents_to_be_seen(tmp_path, monkeypatch):
    store, looks = RunStore(tmp_path), []
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.0)

    def slowly(self: RunStore, run: str, *, whole: bool = False) -> bool:
        looks.append(run)
        return seen(self, run, whole=whole) and looks.count(run) > 3

    execute(PHASE1, store)
    seen = RunStore.is_finished
    with monkeypatch.context() as patched:
        patched.setattr(RunStore, "is_finished", slowly)
        compute(task_of(child().run_id, child(), store), lambda event: None)
    assert looks.index(child().run_id) == 4  # after four looks for the parent
    assert store.is_finished(child().run_id)


def test_no_task_is_left_waiting_once_none_may_start(tmp_path):
    store, cluster = RunStore(tmp_path), Here()
    configs = by_id(PHASE1, *(dataclasses.replace(PHASE1, seed=seed) for seed in (5, 6)))
    finished: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "finished":
            finished.append(event.run)

    assert execute_remotely(configs, store, cluster, on_event=note, may_start=lambda: not finished) == {}
    assert finished == [PHASE1.run_id]
    assert set(cluster.recalled) == set(configs) - {PHASE1.run_id}


def test_ctrl_c_stops_what_was_submitted(tmp_path):
    cluster, events = Here(), []
    configs = by_id(PHASE1, dataclasses.replace(PHASE1, seed=5))

    def interrupt(event: Event) -> None:
        events.append(event)
        if event.kind == "progress":
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        execute_remotely(configs, RunStore(tmp_path), cluster, on_event=interrupt)
    assert set(cluster.stopped) == set(configs)
    assert [event.run for event in events if event.kind == "stopping"] == [PHASE1.run_id]


def test_a_task_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, "tensorboard")
    train = dataclasses.replace(PHASE1.train, device="cuda", threads=3)
    task = task_of("run", dataclasses.replace(PHASE1, train=train), RunStore(tmp_path))
    assert (task.on_gpu, task.threads, task.tracker, task.parents) == (True, 3, "tensorboard", ())
    assert task_of("run", child(), RunStore(tmp_path)).parents == (PHASE1.run_id,)
    assert not task_of("run", child(), RunStore(tmp_path)).on_gpu


def test_a_plugin_that_a_node_lacks_fails_the_run(tmp_path):
    lacking = dataclasses.replace(
        task_of(PHASE1.run_id, PHASE1, RunStore(tmp_path)), plugins=(Plugin(str(tmp_path / "mine.py"), "0" * 16),)
    )
    outcome = compute(lacking, lambda event: None)
    assert outcome is not None
    assert outcome.kind == "failed"
    assert "mine.py" in str(outcome.problem)


def test_the_serial_engine_gives_the_bits_of_worker_processes(tmp_path):
    configs = by_id(child(), PHASE1)
    stores = RunStore(tmp_path / "serial"), RunStore(tmp_path / "processes")
    before = torch.get_num_threads()
    assert Serial().execute(configs, stores[0]) == {}
    assert torch.get_num_threads() == before
    assert Processes(1).execute(configs, stores[1]) == {}
    same_runs(*stores)


def same_runs(*stores: RunStore) -> None:
    """The runs of all stores have the same weights, tests and histories, bit for bit."""
    first, *others = stores
    runs = sorted(first.query()["run"])
    assert runs
    for other in others:
        assert sorted(other.query()["run"]) == runs
        for run in runs:
            one, two = first.open(run), other.open(run)
            assert one.weights_path().read_bytes() == two.weights_path().read_bytes()
            assert _table(one.history()).equals(_table(two.history()))
            assert (one.folder / "examples.parquet").read_bytes() == (two.folder / "examples.parquet").read_bytes()


def _table(history):
    return history.drop(columns=[name for name in history if "seconds" in name])


def test_options_choose_the_engine():
    assert chosen_engine(EngineOptions(workers=3)) == Processes(3)
    assert chosen_engine(EngineOptions(workers=3, engine="serial")) == Serial()
    assert chosen_engine(EngineOptions(workers=3, engine="ray", address="auto")) == Ray("auto", 3)
    assert chosen_engine(EngineOptions(workers=64, engine="slurm")) == Slurm(64)
    assert [engine.at_once for engine in (Processes(3), Serial(), Slurm(64))] == [3, 1, 64]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sweep", "components", "--address", "auto"], "is for --engine ray"),
        (["claims", "--run", "--engine", "stacked"], "is for sweep"),
        (["reproduce", "--quick", "--engine", "stacked"], "is for sweep"),
    ],
)
def test_a_mistake_in_the_engine_is_one_line(arguments, said, tmp_path, capsys):
    assert main([*arguments, "--store" if arguments[0] == "claims" else "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_package_that_is_not_there_is_named(engine, package, tmp_path, capsys):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    assert main(["reproduce", "--quick", "--engine", engine, "--out", str(tmp_path)]) == 2
    assert f"pip install 'procpre-interp[{engine}]'" in capsys.readouterr().err.splitlines()[-1]


README = (Path(remote.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_the_commands_of_the_readme_parse():
    lines = re.findall(r"procpre-interp (sweep|store) (.*)", README)
    assert {name for name, _ in lines} == {"sweep", "store"}
    for name, options in lines:
        words = shlex.split(options.replace("$head", "HEAD:6379"))
        if name == "store":
            parse(Store, name, words)
        else:
            chosen = parse(SweepCommand, name, words)
            chosen.check()
            assert chosen.engine in ("ray", "slurm")


def test_the_kubernetes_example_has_two_groups_of_one_template():
    text = README.split("## Kubernetes")[1].split("## ")[0]
    job = yaml.safe_load(textwrap.dedent("\n".join(line for line in text.splitlines() if line.startswith("    "))))
    groups = job["spec"]["rayClusterSpec"]
    (workers,) = groups["workerGroupSpecs"]
    assert workers["template"] == groups["headGroupSpec"]["template"]
    assert workers["groupName"] == "cells"
