"""Disks that fill up or become read-only, stores that are removed, clocks that jump, and many writers at once."""

import errno
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from procpre_interp.store.store import RunStore
from tests import faults
from tests.faults import KILLS, Killer, assert_close, assert_same, check_clean, check_listed, files

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc"),
]

WORK = {
    "training": (faults.train, assert_same),
    "sealing": (faults.seal, assert_same),
    "a stacked group": (faults.stack, assert_close),
}
MOMENTS = -(-KILLS // 3)
"""Of each harm to each kind of work; `make test-faults` has 17."""
SAID = {
    "full": os.strerror(errno.ENOSPC),
    "read-only": os.strerror(errno.EROFS),
    "removed": "was removed while|no run '|" + os.strerror(errno.ENOENT),
    "clock ahead": None,
    "clock back": None,
}
"""What is said of it; nothing where the work is to end all the same."""


@pytest.mark.parametrize("harm", SAID)
@pytest.mark.parametrize("kind", WORK)
def test_what_happens_to_a_disk_is_one_clear_error_and_the_work_goes_on(tmp_path: Path, kind: str, harm: str):
    work, assert_equal = WORK[kind]
    killer, whole = Killer(tmp_path / "cache", seed=1), RunStore(tmp_path / "whole")
    killer.run(work, whole.path)
    for n in range(MOMENTS):
        store = RunStore(tmp_path / f"store{n}")
        said = killer.harm(harm, killer.random.randint(1, killer.changes), work, store.path)
        assert said is None or (SAID[harm] is not None and re.search(SAID[harm], str(said))), repr(said)
        check_listed(store.path)
        killer.run(work, store.path)
        check_clean(store.path)
        assert_equal(store, whole)


def can_mount() -> bool:
    return os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


@contextmanager
def disk(folder: Path, kib: int) -> Iterator[Callable[[int], None]]:
    """A disk of this size; whoever is given it can make it larger."""
    folder.mkdir()

    def mount(*options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)

    mount("-o", f"size={kib}k")
    try:
        yield lambda larger: mount("-o", f"remount,size={larger}k")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.skipif(not can_mount(), reason="may not mount a disk")
@pytest.mark.parametrize("kind", WORK)
def test_a_disk_that_is_full_in_the_middle_of_a_file(tmp_path: Path, kind: str):
    work, assert_equal = WORK[kind]
    killer, whole = Killer(tmp_path / "cache", seed=2), RunStore(tmp_path / "whole")
    killer.run(work, whole.path)
    needed = sum(4 + path.stat().st_size // 1024 for path in whole.path.rglob("*"))
    for n in range(MOMENTS):
        with disk(tmp_path / f"disk{n}", killer.random.randint(8, needed)) as enlarge:
            store = RunStore(tmp_path / f"disk{n}" / "store")
            said = killer.harm("nothing", 0, work, store.path)
            assert said is None or SAID["full"] in str(said), repr(said)
            check_listed(store.path)
            enlarge(10 * needed)
            killer.run(work, store.path)
            check_clean(store.path)
            assert_equal(store, whole)


# Many at once


def test_many_writers_at_once_and_many_who_want_one_run(tmp_path: Path):
    writers, same = 4 * KILLS, 2 * KILLS // 5 + 1
    killer, store = Killer(tmp_path / "cache", seed=3), RunStore(tmp_path / "store")
    killer.run_all(
        [(faults.seal, (store.path, f"run{n}")) for n in range(writers)] + same * [(faults.seal, (store.path,))]
    )
    check_clean(store.path)
    assert set(store.query()["run"]) == {"sealed", *(f"run{n}" for n in range(writers))}
    weights = [files(store.open(run).folder / "weights") for run in store.query()["run"]]
    assert all(written == weights[0] for written in weights)
