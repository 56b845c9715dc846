"""Kills at any moment: what was killed goes on to the same bits, and leaves nothing half-written, nor a lock."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from procpre_interp.store.store import RunStore
from tests import faults
from tests.faults import KILLS, Killer, assert_close, assert_same, check_clean, check_listed, files

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


WORK = {
    "training": (faults.train, assert_same),
    "sealing": (faults.seal, assert_same),
    "a sweep's driver": (faults.sweep, assert_same),
    # Its last bits depend on how many are in it, and so on who was finished when it was killed.
    "a stacked group": (faults.stack, assert_close),
}


@pytest.mark.parametrize("kind", WORK)
def test_runs_of_killed_processes_end_bit_identical(tmp_path: Path, kind: str):
    work, assert_equal = WORK[kind]
    killer, whole = Killer(tmp_path / "cache", seed=1), RunStore(tmp_path / "whole")
    killer.run(work, whole.path)

    def check_end(where: Path) -> None:
        check_clean(where)
        assert_equal(RunStore(where), whole)

    def place(n: int) -> Path:
        return tmp_path / f"store{n}"

    survive(killer, work, place, after_kill=check_listed, after_end=check_end)


@pytest.mark.usefixtures("a_compiler")
def test_runs_of_the_native_kernel_end_bit_identical(tmp_path: Path):
    killer, whole = Killer(tmp_path / "cache", seed=6), RunStore(tmp_path / "whole")
    killer.cache.mkdir()
    (killer.cache / "native").symlink_to(Path(os.environ["PROCPRE_CACHE"]) / "native")
    faults.train_natively(whole.path)  # which compiles it, if need be
    killer.run(faults.train_natively, tmp_path / "timed")

    def check_end(where: Path) -> None:
        check_clean(where)
        assert_same(RunStore(where), whole)

    check_end(tmp_path / "timed")
    survive(
        killer, faults.train_natively, lambda n: tmp_path / f"store{n}", after_kill=check_listed, after_end=check_end
    )


def test_a_sweep_goes_on_after_its_worker_was_killed(tmp_path: Path):
    killer, whole = Killer(tmp_path / "cache", seed=2), RunStore(tmp_path / "whole")
    killer.run(faults.sweep, whole.path)
    killed = attempt = 0
    while killed < KILLS:
        store, attempt = RunStore(tmp_path / f"store{attempt}"), attempt + 1
        killer.run(faults.sweep, store.path, killer.random.randint(1, 300))
        check_listed(store.path)
        killed += len(store.query(status="finished")) < 3
        killer.run(faults.sweep, store.path)
        check_clean(store.path)
        assert_same(store, whole)
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


@pytest.mark.usefixtures("a_compiler")
def test_a_kernel_whose_building_was_killed(tmp_path: Path):
    compiler = tmp_path / "fast-compiler"
    compiler.write_text('#!/bin/sh\nexec c++ "$@" -O0\n')
    compiler.chmod(0o755)
    killer = Killer(tmp_path / "whole", seed=5)
    killer.run(faults.compile_kernel, compiler)
    (expected,) = (tmp_path / "whole" / "native").glob("*.so")

    def place(n: int) -> Path:
        killer.cache = tmp_path / f"cache{n}"
        return compiler

    def check_whole_or_absent(_: Path) -> None:
        for library in (killer.cache / "native").glob("[!.]*.so"):
            assert library.read_bytes() == expected.read_bytes()

    def check_end(_: Path) -> None:
        assert files(killer.cache) == files(tmp_path / "whole")

    survive(killer, faults.compile_kernel, place, after_kill=check_whole_or_absent, after_end=check_end)


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
        assert [path.name for path in where.parent.iterdir()] == [where.name]

    survive(killer, faults.export, place, after_kill=check_whole_or_absent, after_end=check_end)
