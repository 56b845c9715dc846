"""What killed processes leave in a store is removed by the next one, and what is removed in mid-run is not sealed."""

import dataclasses
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from procpre_interp.core import checksums, locks
from procpre_interp.pipeline.execute import execute
from procpre_interp.pipeline.stacked import Listener, execute_stacked
from procpre_interp.store.names import lock_file
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import PREVIOUS, RESUME
from tests.test_pipeline import PHASE2, TRAIN

SAVING = dataclasses.replace(PHASE2, train=dataclasses.replace(TRAIN, save_seconds=0.0, checkpoints=3))


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "store")
    with store.claim("whole") as partial:
        assert partial is not None
        partial.write_config("seed: 1")
        partial.write_json("environment.json", {})
        partial.finish({"accuracy": 1.0})
    return store


def leave(store: RunStore) -> list[Path]:
    """What a process leaves that is killed between the rename and its end, and one that is killed while it deletes."""
    left = [store.path / "runs" / "whole" / name for name in (RESUME, PREVIOUS)]
    left += [lock_file(store.path, "whole"), store.path / "partial" / ".gone.deleted"]
    for path in left[:-1]:
        path.write_bytes(b"")
    left[-1].mkdir()
    return left


LOOKS: dict[str, Callable[[RunStore], object]] = {
    "listed": lambda store: store.query(),
    "asked for": lambda store: store.is_finished("whole"),
    "wanted again": lambda store: store.claim("whole").__enter__(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_who_looks_at_a_finished_run_removes_what_its_writer_left(store: RunStore, look: str):
    left = leave(store)
    LOOKS[look](store)
    # Of another run, only a list knows.
    assert [path.name for path in left if path.exists()] == ([] if look == "listed" else [".gone.deleted"])
    assert store.query()["status"].tolist() == ["finished"]
    assert os.listdir(store.path / "partial") == []


def test_a_waiting_process_removes_what_a_killed_one_left(store: RunStore):
    lock_file(store.path, "whole").write_bytes(b"")
    (store.path / "runs" / "whole").rename(store.path / "partial" / "whole")

    def finish_and_die(seconds: float) -> None:
        (store.path / "partial" / "whole").rename(store.path / "runs" / "whole")
        (store.path / "runs" / "whole" / RESUME).write_bytes(b"")
        os.close(killed)

    killed = os.open(lock_file(store.path, "whole"), os.O_RDWR)
    fcntl.flock(killed, fcntl.LOCK_EX)
    with store.claim("whole", waiting=finish_and_die) as partial:
        assert partial is None
    assert not (store.path / "runs" / "whole" / RESUME).exists()
    assert os.listdir(store.path / "partial") == []


def test_nothing_of_a_living_writer_is_removed(store: RunStore):
    left = leave(store)
    with locks.locked(lock_file(store.path, "whole")), locks.locked(lock_file(store.path, "gone")):
        store.query()
        store.is_finished("whole")
        assert all(path.exists() for path in left)
    with store.claim("going") as partial:
        assert partial is not None
        store.query()
        assert lock_file(store.path, "going").exists()
        assert partial.lock.is_held


def test_leftovers_are_never_removed_through_a_link(store: RunStore, tmp_path: Path):
    outside = tmp_path / "outside"
    (store.path / "runs" / "whole").rename(outside)
    (store.path / "runs" / "whole").symlink_to(outside)
    (outside / RESUME).write_bytes(b"mine")
    lock_file(store.path, "whole").write_bytes(b"")
    store.query()
    assert (outside / RESUME).read_bytes() == b"mine"


def test_a_link_to_itself_hides_no_other_run(store: RunStore):
    for place in ("runs", "partial"):
        link = store.path / place / "loop"
        link.symlink_to(link)
        assert store.query()["run"].tolist() == ["whole"]
        store.delete("loop")
        assert not link.is_symlink()


def test_no_run_is_written_through_a_link(store: RunStore, tmp_path: Path):
    link = store.path / "partial" / "new"
    (tmp_path / "outside").mkdir()
    link.symlink_to(tmp_path / "outside")
    with pytest.raises(FileExistsError, match="remove it"), store.claim("new"):
        pass
    store.delete("new")
    with store.claim("new") as partial:
        assert partial is not None
    assert os.listdir(tmp_path / "outside") == []


REMOVED: dict[str, Callable[[RunStore], object]] = {
    "the store": lambda store: shutil.rmtree(store.path),
    "the run's folder": lambda store: shutil.rmtree(store.path / "partial" / SAVING.run_id),
    "the lock": lambda store: lock_file(store.path, SAVING.run_id).unlink(),
    "the store, and a new one is made": lambda store: (
        shutil.rmtree(store.path),
        (store.path / "partial" / SAVING.run_id).mkdir(parents=True),
    ),
}


@pytest.mark.parametrize("save_seconds", [0.0, 60.0])
@pytest.mark.parametrize("what", REMOVED)
def test_what_is_removed_in_mid_run_is_one_error_and_no_run(tmp_path: Path, what: str, save_seconds: float):
    store = RunStore(tmp_path / "store")
    config = dataclasses.replace(SAVING, train=dataclasses.replace(SAVING.train, save_seconds=save_seconds))
    steps: list[int] = []

    def remove(state, train) -> None:
        steps.append(state.step)
        if state.step == 5:
            REMOVED[what](store)

    with pytest.raises(FileNotFoundError, match="removed while the run was computed"):
        execute(config, store, on_step=remove)
    assert steps == sorted(set(steps)), "it was not computed again"
    assert "finished" not in set(store.query()["status"])
    assert execute(config, store).summary["status"] == "finished"


def test_a_stack_whose_store_is_removed_fails_with_the_same_error(tmp_path: Path):
    store, problems = RunStore(tmp_path / "store"), {}

    def remove(run, state, train) -> None:
        if state.step == 5 and store.path.exists():
            shutil.rmtree(store.path)

    def fail(run, error) -> None:
        problems[run] = str(error)

    train = dataclasses.replace(TRAIN, kernel="stacked", checkpoints=3)
    configs = [dataclasses.replace(PHASE2, seed=seed, train=train) for seed in (1, 2)]
    execute_stacked(
        {config.run_id: config for config in configs}, store, listener=Listener(on_step=remove, on_failed=fail)
    )
    assert set(problems) == {config.run_id for config in configs}
    assert all("removed while the run was computed" in problem for problem in problems.values())
    assert store.query().empty


@pytest.mark.parametrize("name", ["config.yaml", "environment.json", "summary.json"])
def test_a_file_that_is_removed_while_a_run_is_sealed_is_missed(tmp_path: Path, name: str, monkeypatch):
    store, seal = RunStore(tmp_path), checksums.seal

    def remove_and_seal(folder: Path, own) -> None:
        (folder / name).unlink()
        seal(folder, own)

    monkeypatch.setattr(checksums, "seal", remove_and_seal)
    with pytest.raises(ValueError, match=name):
        execute(SAVING, store)
    assert store.query()["status"].tolist() == ["interrupted"]
    monkeypatch.undo()
    assert execute(SAVING, store).summary["status"] == "finished"
