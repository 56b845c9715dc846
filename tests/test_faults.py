"""Kills at any moment: what was killed goes on to the same bits, and leaves nothing half-written, nor a lock."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from procpre_interp.store.store import RunStore
from tests import faults
from tests.faults import KILLS, Killer, files, results

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]


def survive(
    killer: Killer,
    work: Callable[..., None],
    place: Callable[[int], Path],
    *,
    after_kill: Callable[[Path], None],
    after_end: Callable[[Path], None],
) -> None:
    """Kill work in one place after another until it has ended there; `KILLS` times in all."""
    killed = attempt = 0
    while killed < KILLS:
        attempt += 1
        where = place(attempt)
        while killed < KILLS and killer.kill(work, where):
            killed += 1
            after_kill(where)
        killer.run(work, where)
        after_end(where)
    assert attempt < 4 * KILLS + 20


def check_listed(where: Path) -> None:
    """What is listed as finished is whole, and the rest is not listed so."""
    store = RunStore(where)
    table = store.query()
    assert set(table["status"]) <= {"finished", "interrupted"}, table[["run", "status", "problem"]].to_dict("records")
    for run in table["run"][table["status"] == "finished"]:
        store.open(run)


def check_clean(where: Path) -> None:
    """No lock, no state, no temporary file."""
    store = RunStore(where)
    assert set(store.query()["status"]) == {"finished"}
    assert os.listdir(where / "partial") == []
    for run in store.query()["run"]:
        opened = store.open(run)
        assert set(files(opened.folder)) == {*opened.manifest, "manifest.json"}
    assert sorted(os.listdir(where / "runs")) == sorted(store.query()["run"])


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    names = found.keys() | expected.keys()
    assert {
        name: (found.get(name), expected.get(name)) for name in names if found.get(name) != expected.get(name)
    } == {}


WORK = {"training": faults.train, "sealing": faults.seal, "a sweep's driver": faults.sweep}


@pytest.mark.parametrize("kind", WORK)
def test_runs_of_killed_processes_end_bit_identical(tmp_path: Path, kind: str):
    killer, whole = Killer(tmp_path / "cache", seed=1), RunStore(tmp_path / "whole")
    killer.run(WORK[kind], whole.path)
    expected = results(whole)

    def check_end(where: Path) -> None:
        check_clean(where)
        assert_same(results(RunStore(where)), expected)

    def place(n: int) -> Path:
        return tmp_path / f"store{n}"

    survive(killer, WORK[kind], place, after_kill=check_listed, after_end=check_end)


def test_a_sweep_goes_on_after_its_worker_was_killed(tmp_path: Path):
    killer, whole = Killer(tmp_path / "cache", seed=2), RunStore(tmp_path / "whole")
    killer.run(faults.sweep, whole.path)
    expected = results(whole)
    killed = attempt = 0
    while killed < KILLS:
        store, attempt = RunStore(tmp_path / f"store{attempt}"), attempt + 1
        killer.run(faults.sweep, store.path, killer.random.randint(1, 300))
        check_listed(store.path)
        killed += len(store.query(status="finished")) < 3
        killer.run(faults.sweep, store.path)
        check_clean(store.path)
        assert_same(results(store), expected)
    assert attempt < 2 * KILLS + 10


def test_a_corpus_that_was_killed_while_it_was_packed(tmp_path: Path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for n in range(200):
        (corpus / f"{n}.txt").write_text(f"Document {n} has {n % 7} apples, {n % 5} pears and {n * n} words. " * 5)
    killer = Killer(tmp_path / "whole", seed=3)
    killer.run(faults.pack, corpus)
    expected = files(tmp_path / "whole")

    def place(n: int) -> Path:
        killer.cache = tmp_path / f"cache{n}"
        return corpus

    def check_whole_or_absent(_: Path) -> None:
        for folder in (killer.cache / "tokens").glob("*"):
            if folder.is_dir() and "." not in folder.name:
                assert files(folder) == files(tmp_path / "whole" / "tokens" / folder.name)

    def check_end(_: Path) -> None:
        assert files(killer.cache) == expected
        (packed,) = (killer.cache / "tokens").iterdir()
        assert packed.is_dir()

    survive(killer, faults.pack, place, after_kill=check_whole_or_absent, after_end=check_end)


def test_an_exported_folder_is_whole_or_absent(tmp_path: Path):
    killer = Killer(tmp_path / "cache", seed=4)
    killer.run(faults.export, tmp_path / "whole")
    expected = files(tmp_path / "whole")

    def check_whole_or_absent(where: Path) -> None:
        assert not where.exists() or files(where) == expected
        assert {path.name for path in where.parent.iterdir() if not path.name.startswith(".")} <= {where.name}

    def place(n: int) -> Path:
        (tmp_path / f"exports{n}").mkdir()
        return tmp_path / f"exports{n}" / "model"

    def check_end(where: Path) -> None:
        assert files(where) == expected

    survive(killer, faults.export, place, after_kill=check_whole_or_absent, after_end=check_end)
