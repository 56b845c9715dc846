"""Sweeps: parents before children, failures stay where they are, Ctrl-C loses nothing."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from procpre_interp.engine import processes as engine
from procpre_interp.engine.events import Event
from procpre_interp.engine.processes import execute_all
from procpre_interp.pipeline.config import Parent
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted
from tests.hostile import plant
from tests.test_pipeline import PHASE1, PHASE2, TRAIN, child


def by_id(*configs):
    return {config.run_id: config for config in configs}


@pytest.fixture(autouse=True)
def _hostile_folder(tmp_path_factory, monkeypatch):
    """Every test here runs in a folder with modules of others' names, and its workers import none of them."""
    here, before = tmp_path_factory.mktemp("hostile"), os.environ.get("PYTHONSAFEPATH")
    marker = plant(here)
    monkeypatch.chdir(here)
    yield
    assert not marker.exists(), marker.read_text()
    assert os.environ.get("PYTHONSAFEPATH") == before


def test_a_graph_with_a_failing_cell(tmp_path):
    store = RunStore(tmp_path)
    misfit = child(selector="blocks.1")  # the child below has one layer only
    misfit = dataclasses.replace(misfit, model=dataclasses.replace(misfit.model, n_layers=1))
    orphan = dataclasses.replace(PHASE2, parents=(Parent(run=misfit.run_id),))
    damaged = dataclasses.replace(PHASE1, seed=4)
    execute(damaged, store).weights_path().write_bytes(b"damaged")
    heir = dataclasses.replace(PHASE2, seed=4, parents=(Parent(run=damaged.run_id),))
    events: list[Event] = []
    configs = by_id(heir, damaged, orphan, misfit, child(), PHASE1)  # children first: the order must not matter
    problems = execute_all(configs, store, workers=1, on_event=events.append)
    assert set(problems) == {misfit.run_id, orphan.run_id, damaged.run_id, heir.run_id}
    assert "is damaged" in problems[damaged.run_id]
    assert "missing in the model" in problems[misfit.run_id]
    assert problems[orphan.run_id] == f"its parent {misfit.run_id} failed"
    assert store.is_finished(PHASE1.run_id)
    assert store.is_finished(child().run_id)
    kinds = {run: [event.kind for event in events if event.run == run] for run in configs}
    assert kinds[PHASE1.run_id][0] == "started"
    assert kinds[PHASE1.run_id][-1] == "finished"
    assert kinds[misfit.run_id][-1] == "failed"
    assert kinds[orphan.run_id] == ["skipped"]
    # Workers change nothing: the same run, computed here, has the same bits.
    here = execute(PHASE1, RunStore(tmp_path / "serial"))
    assert torch.equal(load_model(here).flat, load_model(store.open(PHASE1.run_id)).flat)
    events.clear()
    execute_all(by_id(child(), PHASE1), store, workers=2, on_event=events.append)
    assert {event.kind for event in events} == {"finished"}


def test_ctrl_c_saves_every_worker_and_the_sweep_goes_on(tmp_path):
    store = RunStore(tmp_path)
    long = dataclasses.replace(TRAIN, steps=100_000, evaluate_every=50_000, save_seconds=1000.0)
    configs = by_id(*(dataclasses.replace(PHASE2, seed=seed, train=long) for seed in range(2)))
    progress: set[str] = set()
    stopping: set[str] = set()

    def note(event: Event) -> None:
        if event.kind == "progress" and event.step > 1:
            progress.add(event.run)
        if event.kind == "stopping":
            stopping.add(event.run)
            assert not (tmp_path / "partial" / event.run / "resume.safetensors").exists()

    def interrupt() -> None:
        limit = time.monotonic() + 60
        while len(progress) < 2 and time.monotonic() < limit:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted):
        execute_all(configs, store, workers=2, on_event=note)
    thread.join()
    assert len(progress) == 2
    assert stopping == set(configs)  # said before the workers have saved
    assert store.query()["status"].tolist() == ["interrupted", "interrupted"]
    for run in configs:
        assert (tmp_path / "partial" / run / "resume.safetensors").exists()


def test_a_killed_worker_fails_its_own_run_only(tmp_path):
    store = RunStore(tmp_path)
    victim = dataclasses.replace(PHASE2, seed=9, train=dataclasses.replace(TRAIN, steps=100_000, save_seconds=0.0))
    killed: list[int] = []

    def kill(event: Event) -> None:
        if event.run == victim.run_id and event.kind == "progress" and event.step > 1 and not killed:
            (child_process,) = (p for p in multiprocessing.active_children() if p.pid is not None)
            killed.append(child_process.pid)
            os.kill(child_process.pid, signal.SIGKILL)

    problems = execute_all(by_id(victim, PHASE1), store, workers=1, on_event=kill)
    assert killed
    assert set(problems) == {victim.run_id}
    assert "worker process was killed" in problems[victim.run_id]
    assert store.is_finished(PHASE1.run_id)
    assert (tmp_path / "partial" / victim.run_id / "resume.safetensors").exists()


def test_a_worker_that_dies_between_two_runs_fails_the_next_one_only(tmp_path):
    store = RunStore(tmp_path)
    three = [dataclasses.replace(PHASE1, seed=seed) for seed in (1, 2, 3)]
    killed: list[str] = []

    def kill(event: Event) -> None:
        if event.kind == "finished" and not killed:
            (worker,) = multiprocessing.active_children()
            worker.kill()
            worker.join()
            killed.append(event.run)

    problems = execute_all(by_id(*three), store, workers=1, on_event=kill)
    (failed,) = problems
    assert failed not in killed
    assert "worker process was killed" in problems[failed]
    assert [config.run_id for config in three if not store.is_finished(config.run_id)] == [failed]


def test_no_run_starts_once_none_may(tmp_path):
    store = RunStore(tmp_path)
    started: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "started":
            started.append(event.run)

    configs = by_id(PHASE1, child(), dataclasses.replace(PHASE1, seed=4))
    assert execute_all(configs, store, workers=1, on_event=note, may_start=lambda: not started) == {}
    assert started == [PHASE1.run_id]
    assert store.is_finished(PHASE1.run_id)  # what was under way is finished
    assert len(store.query()) == 1


def test_a_worker_reports_that_a_damaged_run_starts_over(tmp_path):
    store, steps = RunStore(tmp_path), []
    with pytest.raises(Interrupted):
        execute(PHASE1, store, on_step=lambda s, t: steps.append(s.step), should_stop=lambda: len(steps) == 5)
    (tmp_path / "partial" / PHASE1.run_id / "resume.safetensors").write_bytes(b"nonsense")
    started, note, *_ = worker_events(tmp_path)
    assert (started.kind, note.kind) == ("started", "note")
    assert note.run == PHASE1.run_id
    assert "the run starts over" in str(note.problem)


def worker_events(folder: Path) -> list[Event]:
    """What a worker tells of one run, executed here."""
    events: list[Event] = []
    engine.perform(PHASE1.run_id, PHASE1, folder, events.append)
    return events


def test_a_resumed_run_says_its_saved_steps_when_it_starts(tmp_path):
    store = RunStore(tmp_path)
    with pytest.raises(Interrupted):
        execute(PHASE1, store, should_stop=lambda: True)
    started, *_ = worker_events(tmp_path)
    assert (started.kind, started.step, started.steps) == ("started", 1, 12)


SCRIPT = """
from pathlib import Path

from procpre_interp.engine.processes import execute_all
from procpre_interp.store.store import RunStore
from tests.test_pipeline import PHASE1

problems = execute_all({PHASE1.run_id: PHASE1}, RunStore(Path("store")), workers=1)
print("problems:", *problems.values())
"""


@pytest.mark.parametrize("from_file", [True, False])
def test_a_script_without_a_main_guard_is_told_so(tmp_path, from_file):
    """The first worker imports the script, which starts workers again; from stdin there is nothing to import."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "script.py" if from_file else "-"]
    root = Path(__file__).parents[1]
    done = subprocess.run(
        command,
        input=None if from_file else SCRIPT,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        timeout=300,
    )
    said = next(line for line in done.stdout.splitlines() if line.startswith("problems:"))
    assert 'Guard the script that starts the runs with `if __name__ == "__main__":`' in said
    assert "memory" not in said


def test_signals_that_python_did_not_install_stay_as_they_are(tmp_path, monkeypatch):
    """In a program that embeds Python and handles signals in C, `getsignal` gives None, which `signal` refuses."""
    installed: list[object] = []
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: installed.append(handler))
    store = RunStore(tmp_path)
    assert execute(PHASE1, store).summary["status"] == "finished"
    assert execute_all(by_id(dataclasses.replace(PHASE1, seed=4)), store, workers=1) == {}
    assert installed == []
    assert len(store.query()) == 2
