"""The engine on a real Ray cluster of two nodes on this machine: what it computes, and what it survives."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("ray", reason="pip install 'procpre-interp[ray]'")

from procpre_interp.core.config import to_yaml
from procpre_interp.core.locks import is_locked
from procpre_interp.engine.engines import Ray
from procpre_interp.engine.events import Event
from procpre_interp.store.remote_copy import RemoteCopy
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import saved_step
from procpre_interp.sweep.config import Condition, Source, Sweep
from procpre_interp.sweep.plan import run_sweep
from procpre_interp.train import Interrupted
from tests.object_store import bucket  # noqa: F401  (the fixture)
from tests.test_engine import by_id
from tests.test_pipeline import PHASE2
from tests.test_remote import same_runs
from tests.test_sweep import DYCK, TRAIN, tiny

# Ray leaves sockets and processes to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

ROOT = Path(__file__).parents[1]
SMALL = {"object_store_memory": 80_000_000}


@pytest.fixture(scope="module")
def cluster(bucket: str) -> Iterator[Any]:  # noqa: F811
    """Two nodes of one CPU each, with processes of their own; the second one can be killed. They know the bucket."""
    ray, cluster_utils = map(importlib.import_module, ("ray", "ray.cluster_utils"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **SMALL})
        made.second = made.add_node(num_cpus=1, **SMALL)
        yield made
        ray.shutdown()
        made.shutdown()


def sweep(steps: int) -> Sweep:
    """Two replicates of three conditions, two of which read a parent."""
    train = dataclasses.replace(TRAIN, steps=steps, evaluate_every=steps // 2, save_seconds=0.5)
    first = dataclasses.replace(DYCK, train=dataclasses.replace(TRAIN, steps=100, evaluate_every=50))
    conditions = tuple(
        Condition(name=name, sources=(Source(phase1="dyck", selector=name),)) for name in ("attn", "attn+ln")
    )
    return tiny(train=train, phase1=(first,), conditions=conditions)


def command_line(path: Path, out: Path, *options: str) -> list[str]:
    """The command of a sweep, which draws data as users do, and so as the tasks of the cluster do."""
    return [sys.executable, "-m", "procpre_interp.cli", "sweep", str(path), "--out", str(out), *options]


def by_processes(asked: Sweep, folder: Path) -> RunStore:
    """The runs of a sweep as worker processes compute them."""
    path = folder / "by_processes.yaml"
    path.write_text(to_yaml(asked))
    subprocess.run(command_line(path, folder / "by_processes"), cwd=folder, check=True, capture_output=True)
    return RunStore(folder / "by_processes")


def test_ctrl_c_saves_every_run_at_work(tmp_path, cluster):
    long = dataclasses.replace(PHASE2.train, steps=1_000_000, evaluate_every=500_000, save_seconds=1000.0)
    configs = by_id(*(dataclasses.replace(PHASE2, seed=seed, train=long) for seed in range(5)))
    at_work: set[str] = set()
    stopping: set[str] = set()

    def interrupt(event: Event) -> None:
        if event.kind == "stopping":
            stopping.add(event.run)
        elif event.kind == "progress":
            at_work.add(event.run)
            if len(at_work) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        Ray(cluster.address).execute(configs, RunStore(tmp_path), on_event=interrupt)
    assert stopping == at_work
    for run in at_work:
        assert saved_step(tmp_path / "partial" / run)
    for run in configs:
        assert not is_locked(tmp_path / "partial" / f"{run}.lock")
    assert not (tmp_path / "runs").exists()


def test_a_driver_killed_is_started_again_and_goes_on(tmp_path, cluster):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(to_yaml(sweep(400)))
    command = command_line(path, out, "--engine", "ray", "--address", cluster.address)
    driver = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while not any(map(saved_step, (out / "partial").glob("*/"))) or not list((out / "runs").glob("*")):
        assert driver.poll() is None, "it has ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    assert len(before) < 8
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "finished" in done.stderr  # progress, as with processes
    assert {name: (out / "runs" / name).stat().st_mtime_ns for name in before} == before  # none was repeated
    same_runs(by_processes(sweep(400), tmp_path), RunStore(out))


def test_nodes_that_share_a_bucket_and_no_folder(tmp_path, cluster, bucket):  # noqa: F811
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(to_yaml(sweep(100)))
    options = ["--engine", "ray", "--address", cluster.address, "--mirror", bucket]
    done = subprocess.run(
        command_line(path, out, *options), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    there = RunStore(tmp_path / "there")
    assert RemoteCopy(bucket).pull(there).problems == []
    same_runs(by_processes(sweep(100), tmp_path), RunStore(out), there)
    assert there.tables() == RunStore(out).tables() != []


def test_a_claim_is_judged_from_runs_of_a_cluster(tmp_path, cluster):
    command = [sys.executable, "-m", "procpre_interp.cli", "claims", "dyck_teaches_recall", "--run", "--quick"]
    judged = []
    for name, options in {"ray": ["--engine", "ray", "--address", cluster.address], "here": []}.items():
        out = tmp_path / name
        subprocess.run(
            [*command, "--store", str(out), *options], cwd=tmp_path, check=True, capture_output=True, timeout=500
        )
        (claim,) = RunStore(out).tables()
        judged.append(RunStore(out).read_table(claim))
    numbers = [table.frame.drop(columns=[c for c in table.frame if "seconds" in c]) for table in judged]
    pd.testing.assert_frame_equal(*numbers)
    assert judged[0].metadata["verdict"] == judged[1].metadata["verdict"] == "undecided"


def test_a_node_killed_half_way_changes_nothing(tmp_path, cluster):
    # Long enough that a worker, which notices only some time after its node is gone, does not finish its run meanwhile.
    there, store = sweep(2000), RunStore(tmp_path / "ray")
    events: list[Event] = []
    killed: list[set[str]] = []
    running: dict[str, int] = {}

    def kill(event: Event) -> None:
        events.append(event)
        if event.kind == "progress":
            running[event.run] = event.step
        elif event.kind == "finished":
            running.pop(event.run, None)
        if not killed and len(running) == 2 and min(running.values()) > 200:  # one on each node
            killed.append(set(running))
            cluster.remove_node(cluster.second, allow_graceful=False)

    planned, problems = run_sweep(there, store, engine=Ray(cluster.address), show=lambda planned: nullcontext(kill))
    assert problems == {}
    assert killed
    (lost,) = [event for event in events if event.kind == "note"]
    assert lost.run in killed[0]
    assert "retry 1 of 3" in str(lost.problem)
    first, second = [event for event in events if event.run == lost.run and event.kind == "started"]
    assert first.step == 0 < second.step  # it went on from what it had saved
    assert len(planned.configs) == len(store.query()) == 8
    same_runs(by_processes(there, tmp_path), store)
    assert not [path for path in (store.path / "partial").iterdir() if path.is_dir()]
