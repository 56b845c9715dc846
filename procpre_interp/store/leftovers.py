"""What processes left in a store that were killed once a run was finished, or while one was deleted or fetched."""

import os
from contextlib import suppress
from pathlib import Path

from procpre_interp.core import atomic_files, locks
from procpre_interp.core.checksums import MANIFEST
from procpre_interp.store.names import LOCK, NAME, lock_file
from procpre_interp.store.unfinished import PREVIOUS, RESUME, SHARDS

_DELETED, _FETCHED = ".deleted", ".fetched"


def fetched_folder(store: Path, run_id: str) -> Path:
    """Where a run's folder is put together that comes from elsewhere."""
    return store / "partial" / f".{run_id}{_FETCHED}"


def hidden_folder(store: Path, run_id: str) -> Path:
    """Where a run's folder is moved to be deleted."""
    return store / "partial" / f".{run_id}{_DELETED}"


def move_to_place(folder: Path, finished: Path) -> None:
    """Move the folder of a run, whose lock is ours, among the finished ones, in the place of a copy that is there."""
    finished.parent.mkdir(exist_ok=True)
    replaced = hidden_folder(finished.parent.parent, finished.name)
    if finished.is_dir():
        atomic_files.remove(replaced)
        finished.rename(replaced)
    folder.rename(finished)
    atomic_files.remove(replaced)


def remove_all_leftovers(store: Path) -> None:
    """Remove the leftovers of every run of the store in this folder that no process is at."""
    try:
        names = set(os.listdir(store / "partial"))
    except OSError:
        return
    locked = {name.removesuffix(LOCK) for name in names if name.endswith(LOCK)}
    hidden = {name[1:].removesuffix(end) for name in names for end in (_DELETED, _FETCHED) if name.endswith(end)}
    # A run with something in its folder here is being written, or will be resumed, which needs the lock.
    empty = {name for name in names if _is_empty(store / "partial" / name)}
    for run_id in ((locked | hidden) - names) | empty:
        if NAME.fullmatch(run_id):
            try_to_remove_leftovers(store, run_id)


def try_to_remove_leftovers(store: Path, run_id: str) -> None:
    """Remove the leftovers of a run, its lock too, unless a living process holds that, or the store is read-only."""
    with suppress(OSError), locks.locked(lock_file(store, run_id), timeout_seconds=0):
        remove_leftovers(store, run_id)


def remove_leftovers(store: Path, run_id: str) -> None:
    """Remove the leftovers of a run whose lock is ours: states to resume from in a finished run, what was hidden to be
    deleted, what was being fetched, and a folder in which nothing was written yet."""
    folder = store / "runs" / run_id
    if not folder.is_symlink() and (folder / MANIFEST).is_file():
        for name in (RESUME, PREVIOUS):
            (folder / name).unlink(missing_ok=True)
        atomic_files.remove(folder / SHARDS)
    for hidden in (hidden_folder(store, run_id), fetched_folder(store, run_id)):
        atomic_files.remove(hidden)
    with suppress(OSError):  # there is none, or something is in it
        (store / "partial" / run_id).rmdir()


def _is_empty(folder: Path) -> bool:
    """Whether this is a folder with nothing in it. It may be gone by now."""
    try:
        return not os.listdir(folder)
    except OSError:
        return False
