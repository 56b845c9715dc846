"""Files that are whole or absent: atomic writing, locks that die with their process, and manifests."""

import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
"""Written last into a folder: {file: {"bytes": size, "sha256": hash}}."""


def cache_folder() -> Path:
    """Where token files and compiled code are kept: $PROCPRE_CACHE, or ~/.cache/procpre_interp.

    Raises `FileNotFoundError` where that is in a home folder that is not known, as in some services and containers.
    """
    folder = Path(os.environ.get("PROCPRE_CACHE") or "~/.cache/procpre_interp")
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

    A reader sees the old file or the new one, never a part.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink()


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


@contextmanager
def locked(
    path: Path, *, timeout_seconds: float | int | None = None, waiting: Callable[[float], None] | None = None
) -> Iterator[None]:
    """Hold the lock file `path`, which the kernel releases when the process dies, whatever kills it.

    While another holder has it, `waiting(seconds waited so far)` is called before each new attempt. Raises
    `TimeoutError` after `timeout_seconds`.
    """
    started, pause = time.monotonic(), 0.02
    while (handle := _try_lock(path)) is None:
        waited = time.monotonic() - started
        if timeout_seconds is not None and waited >= timeout_seconds:
            raise TimeoutError(f"{path}: still locked by another process after {waited:.1f} s")
        if waiting is not None:
            waiting(waited)
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            path.unlink()
        os.close(handle)


def _try_lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file between open and flock: then this lock guards nothing.
        if os.fstat(handle).st_ino == path.stat().st_ino:
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, *, leave_out: str | None = None) -> None:
    """Sync every file of `folder` but `leave_out`, and write the manifest; remove what broken writes left."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink()
        elif path.is_dir():
            sync_folder(path)
        elif path.name not in (MANIFEST, leave_out):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            name = path.relative_to(folder).as_posix()
            entries[name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_json(folder / MANIFEST, entries)


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifest of a sealed folder. Raises `ValueError` where it is missing, or says what is not so.

    Names and sizes are compared here; `check_content` compares the hash of one file.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        sizes = {name: entry["bytes"] for name, entry in manifest.items()}
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{MANIFEST} cannot be read") from None
    for name, size in sizes.items():
        try:
            found = os.stat(f"{folder}/{name}").st_size
        except FileNotFoundError:
            raise ValueError(f"{name} is missing") from None
        if found != size:
            raise ValueError(f"{name} has {found:,} bytes, the manifest says {size:,}")
    return manifest


def check_content(folder: Path, name: str, manifest: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `ValueError` when the file's content is not what the manifest says."""
    if sha256(folder / name) != manifest[name]["sha256"]:
        raise ValueError(f"the content of {name} has changed since it was written")
