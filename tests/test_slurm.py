"""The engine of Slurm, on submitit's executor for jobs of this machine."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("submitit", reason="pip install 'procpre-interp[slurm]'")

from procpre_interp.engine.engines import Serial, Slurm
from procpre_interp.engine.events import Event
from procpre_interp.pipeline.config import Parent
from procpre_interp.store.store import RunStore
from tests.test_engine import by_id
from tests.test_pipeline import PHASE1, PHASE2, child
from tests.test_remote import kinds, same_runs

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]  # of submitit's processes


@pytest.mark.usefixtures("large_draws")  # as jobs have them, which are interpreters of their own
def test_jobs_compute_what_processes_do_and_a_killed_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    train = dataclasses.replace(PHASE2.train, steps=300, evaluate_every=100, save_seconds=0.0)
    longer = dataclasses.replace(child(), seed=7, train=train)
    misfit = dataclasses.replace(PHASE2, parents=(Parent(run="0" * 16),))
    configs = by_id(longer, misfit, PHASE1)
    store, events = RunStore(tmp_path / "slurm"), []
    killed: list[int] = []

    def kill(event: Event) -> None:
        events.append(event)
        if event.run == longer.run_id and event.kind == "started" and not killed:
            lock = store.path / "partial" / f"{longer.run_id}.lock"
            killed.append(holder(lock))
            os.kill(killed[0], signal.SIGKILL)

    problems = Slurm(2, cluster="local").execute(configs, store, on_event=kill)
    assert set(problems) == {misfit.run_id}
    assert "0" * 16 in problems[misfit.run_id]
    assert killed
    (note,) = [event for event in events if event.kind == "note"]
    assert (note.run, "retry 1 of 3" in str(note.problem)) == (longer.run_id, True)
    assert kinds(events, PHASE1.run_id)[-1] == "finished"
    assert next(iter((store.path / "slurm").glob("*.out")))
    other = RunStore(tmp_path / "processes")
    Serial().execute(by_id(PHASE1, longer), other)
    same_runs(other, store)


def holder(lock: Path) -> int:
    """The process that holds a lock file, once one does."""
    while True:
        for entry in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if entry.readlink() == lock:
                    return int(entry.parts[2])
            except OSError:
                continue
