"""The run store: atomic, content-addressed, checked when read."""

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from procpre_interp.core import atomic_files, checksums
from procpre_interp.store.store import DamagedRun, PartialRun, RunStore, UnknownRun, environment, load_history

HISTORY = pd.DataFrame({"step": [0, 50], "split": "validation", "loss_nats": [2.0, 1.0], "accuracy": [0.1, 0.6]})


def fill(partial: PartialRun | None, **summary) -> None:
    """Write what a trainer writes, with bytes for weights."""
    assert partial is not None
    partial.write_config("task: {name: haystack}\nseed: 3\n")
    partial.write_json("environment.json", environment(threads=1))
    partial.write_table("history", HISTORY)
    for step in (0, 50):
        partial.weights_path(step).write_bytes(b"weights of %d" % step)
    partial.resume_path.write_bytes(b"state")
    partial.finish({"task": "haystack", "seed": 3, **summary})


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "store")
    for run_id, accuracy in (("abc1", 0.9), ("abd2", 0.1)):
        with store.claim(run_id) as partial:
            fill(
                partial,
                accuracy=accuracy,
                breakthrough_step=None,
                status="finished" if accuracy > 0.5 else "diverged",
            )
    return store


def test_a_finished_run_is_read_back_and_never_given_out_again(store: RunStore):
    run = store.open("abc1")
    assert run.config == {"task": {"name": "haystack"}, "seed": 3}
    assert run.summary["accuracy"] == 0.9
    assert run.environment["threads"] == 1
    assert run.environment["packages"]["torch"]
    assert run.steps == [0, 50]
    assert run.weights_path().read_bytes() == b"weights of 50"
    assert run.weights_path(0).read_bytes() == b"weights of 0"
    assert not (run.folder / "resume.safetensors").exists()
    assert list(run.history().columns[:3]) == ["run", "seed", "step"]
    pd.testing.assert_frame_equal(load_history(run), load_history(run.folder))
    assert store.is_finished("abc1")
    with store.claim("abc1") as partial:
        assert partial is None
    assert list((store.path / "partial").iterdir()) == []


def test_names_are_resolved_or_refused_in_one_line(store: RunStore):
    assert store.open("abd").id == "abd2"
    assert store.open("latest").id == "abd2"
    with pytest.raises(UnknownRun, match="not unique: abc1, abd2"):
        store.open("ab")
    with pytest.raises(UnknownRun, match="closest: abc1"):
        store.open("abx1")
    for outside in ("../runs/abc1", "..", "", "/etc", "a/b"):
        with pytest.raises(UnknownRun, match="no name of a run"):
            store.open(outside)
    with pytest.raises(ValueError, match=r"no weights of step 7; there are: \[0, 50\]"):
        store.open("abc1").weights_path(7)
    with pytest.raises(ValueError, match=r"unknown file of run abc1 'examples.parquet'"):
        store.open("abc1").examples()
    with store.claim("abe3"):
        pass
    with pytest.raises(UnknownRun, match="not finished; repeat its command"):
        store.open("abe3")


def test_query_filters_by_equality(store: RunStore):
    with store.claim("half") as partial:
        partial.write_config("task: {name: set}")
        assert store.query(status="running")["run"].tolist() == ["half"]
    with store.claim("empty"):  # of which nothing was written, when its process was killed, say
        pass
    table = store.query()
    assert table.columns[:4].tolist() == ["run", "status", "created", "problem"]
    assert dict(zip(table["run"], table["status"])) == {
        "half": "interrupted",
        "abd2": "diverged",
        "abc1": "finished",
    }
    assert store.query(task="haystack", accuracy="0.9")["run"].tolist() == ["abc1"]
    assert store.query(seed=3, breakthrough_step=None)["run"].tolist() == ["abd2", "abc1"]
    with pytest.raises(ValueError, match=r"unknown column of the runs 'acuracy'. Did you mean 'accuracy'"):
        store.query(acuracy=1)
    with pytest.raises(ValueError, match="the column seed holds numbers"):
        store.query(seed="three")


def test_an_empty_store_is_an_empty_list(tmp_path: Path):
    store = RunStore(tmp_path / "none")
    assert store.query(task="haystack").empty
    assert store.tables() == []
    with pytest.raises(UnknownRun, match="no finished run"):
        store.open("latest")
    assert not store.path.exists()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json cannot be read"),
        (lambda folder: (folder / "history.parquet").unlink(), "history.parquet is missing"),
        (lambda folder: (folder / "weights/step_00000000.safetensors").write_bytes(b"cut"), "has 3 bytes"),
    ],
)
def test_a_damaged_run_is_reported_and_not_used(store: RunStore, damage, problem: str):
    damage(store.path / "runs" / "abc1")
    with pytest.raises(DamagedRun, match=problem) as raised:
        store.open("abc1")
    assert "computed again" in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with pytest.raises(DamagedRun), store.claim("abc1"):
        pass
    assert problem in store.query(status="damaged")["problem"].item()
    store.delete("abc1")
    with store.claim("abc1") as partial:
        assert partial is not None


def test_changed_content_of_the_same_size_is_noticed(store: RunStore):
    (store.path / "runs/abc1/weights/step_00000050.safetensors").write_bytes(b"weights of 51")
    with pytest.raises(DamagedRun, match="content of weights/step_00000050"):
        store.open("abc1")
    run = store.open("abc1", verify=False)
    assert run.weights_path(0).exists()
    with pytest.raises(DamagedRun, match="has changed"):
        run.weights_path()


WORKER = """
import sys, time
from pathlib import Path
from procpre_interp.store.store import RunStore
store, log = RunStore(sys.argv[1]), sys.argv[2]
with store.claim("shared") as partial:
    if partial is None:
        print("finished by another")
    else:
        with open(log, "a") as file: file.write("start\\n")
        time.sleep(0.3)
        partial.write_config("seed: 1"); partial.write_json("environment.json", {})
        partial.finish({"accuracy": 1.0})
        with open(log, "a") as file: file.write("end\\n")
        print("computed")
"""


def test_processes_that_want_the_same_run_compute_it_once(tmp_path: Path):
    command = [sys.executable, "-c", WORKER, str(tmp_path / "store"), str(tmp_path / "log")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = sorted(worker.communicate(timeout=60)[0].strip() for worker in workers)
    assert outputs == ["computed"] + 3 * ["finished by another"]
    assert (tmp_path / "log").read_text() == "start\nend\n"


KILLED = """
import sys, time
from procpre_interp.core.atomic_files import atomic_write
from procpre_interp.store.store import RunStore
with RunStore(sys.argv[1]).claim("killed") as partial:
    partial.resume_path.write_bytes(b"state")
    with atomic_write(partial.weights_path(10)) as temporary:
        temporary.write_bytes(b"half of")
        print("writing", flush=True)
        time.sleep(60)
"""


def test_a_killed_process_leaves_a_run_that_can_be_resumed(tmp_path: Path):
    store = RunStore(tmp_path)
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "writing\n"
    waited: list[float] = []
    with (
        pytest.raises(TimeoutError, match="locked by another process"),
        store.claim("killed", timeout_seconds=0.1, waiting=waited.append),
    ):
        pass
    assert waited
    with pytest.raises(ValueError, match="being written by another process"):
        store.delete("killed")
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=60)
    assert store.query()["status"].tolist() == ["interrupted"]
    with store.claim("killed", timeout_seconds=1) as partial:
        assert partial is not None
        assert partial.resume_path.read_bytes() == b"state"
        assert not partial.weights_path(10).exists()
        fill(partial)
    assert [name for name in store.open("killed").manifest if name.endswith("tmp")] == []


def test_a_run_that_could_not_be_sealed_keeps_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = RunStore(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checksums, "seal", full_disk)
        with pytest.raises(OSError, match="No space"), store.claim("abc1") as partial:
            fill(partial)
    assert store.query()["status"].tolist() == ["interrupted"]
    with store.claim("abc1") as partial:
        assert partial is not None
        assert partial.resume_path.read_bytes() == b"state"
        fill(partial)
    assert store.open("abc1").steps == [0, 50]


def test_a_write_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    atomic_files.write_text(tmp_path / "kept", "old")
    with pytest.raises(TypeError), atomic_files.atomic_write(tmp_path / "kept") as temporary:
        temporary.write_text(1)  # type: ignore[arg-type]

    def full_disk(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        atomic_files.write_text(tmp_path / "kept", "new")
    assert (tmp_path / "kept").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_place_that_cannot_be_written_is_an_os_error(tmp_path: Path):
    with pytest.raises(OSError, match="proc"), RunStore("/proc/nowhere").claim("abc"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; a run store is a folder"):
        RunStore(tmp_path / "file")


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write anywhere: be nobody for a while."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_store_can_be_read():
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        store = RunStore(Path(folder) / "store")
        with store.claim("abc1") as partial:
            fill(partial)
        paths = [store.path.parent, store.path, *store.path.rglob("*")]
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with ordinary_user():
            assert store.open("abc1").history().shape[0] == 2
            assert store.query()["status"].tolist() == ["finished"]
            with store.claim("abc1") as partial:
                assert partial is None
            with pytest.raises(PermissionError), store.claim("new1"):
                pass
            with pytest.raises(PermissionError):
                store.delete("abc1")
        assert store.open("abc1").steps == [0, 50]
        for path in paths:
            path.chmod(0o755)


def test_tables_are_stored_with_their_metadata(store: RunStore):
    frame = pd.DataFrame({"condition": ["none", "dyck"], "breakthrough_step": [np.nan, 900.0]})
    store.write_table("reproduce-1", frame, {"title": "Haystack", "threshold": np.float64(0.5)})
    table = store.read_table("reproduce-1")
    pd.testing.assert_frame_equal(table.frame, frame)
    assert table.metadata["threshold"] == 0.5
    assert store.tables("reproduce-") == ["reproduce-1"]
    with pytest.raises(UnknownRun, match="Did you mean 'reproduce-1'"):
        store.read_table("reproduce-2")
    with pytest.raises(UnknownRun, match="no name"):
        store.read_table("../tables/reproduce-1")
    (store.path / "tables/reproduce-1.parquet").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="table reproduce-1 is damaged"):
        store.read_table("reproduce-1")


def test_json_has_no_nan():
    assert atomic_files.plain({"a": np.float32("nan"), "b": (np.int64(1), float("inf")), "c": np.arange(2)}) == {
        "a": None,
        "b": [1, None],
        "c": [0, 1],
    }


def test_a_thousand_runs_are_listed(tmp_path: Path):
    make_runs(tmp_path, 1000)
    table = RunStore(tmp_path).query(task="haystack")
    assert len(table) == 1000
    assert set(table["status"]) == {"finished"}


def make_runs(store: Path, count: int, checkpoints: int = 2) -> None:
    """Finished runs, written plainly: a thousand synced ones take long."""
    weights = [f"weights/step_{step:08d}.safetensors" for step in range(checkpoints)]
    names = ["config.yaml", "environment.json", "history.parquet", *weights]
    entries = {name: {"bytes": 5, "sha256": "0" * 64} for name in names}
    for index in range(count):
        folder = store / "runs" / f"{index:016x}"
        (folder / "weights").mkdir(parents=True)
        for name in names:
            (folder / name).write_bytes(b"12345")
        summary = {"run": folder.name, "status": "finished", "task": "haystack", "created": "2026"}
        content = json.dumps(summary).encode()
        (folder / "summary.json").write_bytes(content)
        own = {"summary.json": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}}
        (folder / "manifest.json").write_text(json.dumps(entries | own))


if __name__ == "__main__":
    make_runs(Path(sys.argv[1]), int(sys.argv[2]), checkpoints=12)
    for _ in range(3):
        started = time.perf_counter()
        RunStore(sys.argv[1]).query()
        print(f"{time.perf_counter() - started:.3f} s")
