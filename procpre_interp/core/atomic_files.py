"""Files and folders that are whole or absent: written under another name, synced, and renamed."""

import errno
import fcntl
import glob
import json
import math
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from procpre_interp.core.locks import locked

LEFTOVER_SECONDS = 3600.0
"""Age at which a temporary file counts as left behind by a writer that was killed."""


def cache_folder() -> Path:
    """Where token files and compiled code are kept: $PROCPRE_CACHE, or procpre_interp in $XDG_CACHE_HOME or ~/.cache.

    Raises `FileNotFoundError` where that is in a home folder that is not known, as in some services and containers.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # As the XDG specification wants it, a relative path counts as none.
    beneath = (caches if caches.is_absolute() else Path("~/.cache")) / "procpre_interp"
    folder = Path(os.environ.get("PROCPRE_CACHE") or beneath)
    try:
        return folder.expanduser()
    except RuntimeError:
        raise FileNotFoundError(
            f"the cache {folder} is in a home folder that is not known; set PROCPRE_CACHE to a folder that can be "
            "written"
        ) from None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable (a rename is, only after its folder is synced)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which becomes `path`, synced, when the block ends without an error.

    A reader sees the old file or the new one, never a part; of several writers at once, the last wins.
    """
    path = Path(path)
    if os.path.lexists(path) and not (path.is_symlink() or path.is_file() or path.is_dir()):
        raise FileExistsError(errno.EEXIST, "a pipe or a device, which a file would take the place of", str(path))
    # Not named by process id: threads share it, and so do processes in containers of their own.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()
    _remove_old_leftovers(path)


@contextmanager
def rebuilt_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its place when the block ends without an error.

    For folders that are made under a lock, and made anew where they are damaged: what processes that were killed left
    is removed. What was there gets out of the way by a rename, so that who maps its files goes on with them.
    """
    _remove_building(folder)
    stem = f"{folder.name}.{secrets.token_hex(6)}"
    temporary = folder.with_name(f"{stem}.building")
    temporary.mkdir()
    try:
        yield temporary
        if folder.exists():
            remove(folder.rename(folder.with_name(f"{stem}.old.building")))
        temporary.rename(folder)
        sync_folder(folder.parent)
    finally:
        remove(temporary)


def remove_leftovers_of(made: Path, lock: Path) -> None:
    """Remove what a process left that was killed just after it had made a file or folder under a lock: the lock, and
    what it had replaced. Nothing is removed while a living process holds the lock, or where nothing may be."""
    if os.path.lexists(lock):
        with suppress(OSError), locked(lock, timeout_seconds=0):
            _remove_building(made)


def _remove_building(folder: Path) -> None:
    """Remove what processes that were killed left of a folder that they made; its lock is ours."""
    for leftover in folder.parent.glob(f"{glob.escape(folder.name)}.*.building"):
        remove(leftover)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to fill, which becomes `path`, its files synced, when the block ends without an error.

    Nothing is ever replaced: raises `FileExistsError` unless `path` is absent or an empty folder, and `OSError` where
    something came to be there while the block ran.
    """
    path = Path(os.path.abspath(path))
    if path.is_symlink() or (os.path.lexists(path) and not path.is_dir()):
        raise FileExistsError(errno.EEXIST, "exists and is no folder; choose a new one", str(path))
    if path.is_dir() and any(path.iterdir()):
        raise FileExistsError(errno.EEXIST, "is not empty; choose a new folder, nothing is overwritten", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _without_leftovers(path):
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
        temporary.mkdir()
        try:
            yield temporary
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as written:
                        os.fsync(written.fileno())
                sync_folder(Path(folder))
            os.rename(temporary, path)  # which replaces an empty folder, and no other
            sync_folder(path.parent)
        finally:
            remove(temporary)


@contextmanager
def _without_leftovers(path: Path) -> Iterator[None]:
    """Remove what killed writers of a folder left, which may be gigabytes, unless a living one is beside it.

    Who writes shares a lock of the parent folder, so that whoever has that lock alone meets leftovers only. The kernel
    releases it with the process. Where the file system has no such locks, leftovers stay.
    """
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for leftover in _leftovers(path):
                remove(leftover)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _remove_old_leftovers(path: Path) -> None:
    """Remove temporary files left behind by writers of `path` that were killed long ago."""
    with suppress(OSError):
        now = path.stat().st_mtime  # by the clock of the file system, which may be another computer's
        for leftover in _leftovers(path):
            with suppress(FileNotFoundError):
                if now - leftover.lstat().st_mtime > LEFTOVER_SECONDS:
                    remove(leftover)


def _leftovers(path: Path) -> list[Path]:
    """What writers of `path` that were killed left, or others are writing now."""
    names = os.listdir(path.parent)
    return [path.with_name(name) for name in names if name.startswith(f".{path.name}.") and name.endswith(".tmp")]


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically. Numpy scalars become numbers; NaN and infinity, unknown to JSON, become null."""
    write_text(path, json.dumps(plain(value), indent=1, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # a numpy scalar or array
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link, but never what that leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
