"""Files that are whole or absent: atomic writing, locks that die with their process, checksums, and manifests."""

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from procpre_interp.core.schema import parse_json

MANIFEST = "manifest.json"
"""Written last into a folder: {file: {"bytes": size, "sha256": hash}}, and under its own name the hash of the rest."""

CHECKSUM_PLACE = "sha256:" + "0" * 64
"""Placeholder that `with_checksum` replaces by the checksum of the whole file."""

LEFTOVER_SECONDS = 3600.0
"""Age at which a temporary file counts as left behind by a writer that was killed."""

SAFELY = os.O_NONBLOCK | os.O_NOFOLLOW
"""Flags for opening files in a store. Opening a pipe would wait for its other end, and a link in a store that somebody
else made could expose any file on this computer."""


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

    A reader sees the old file or the new one, never a part; of several writers at once, the last wins.
    """
    path = Path(path)
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
    _remove_leftovers(path)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files left behind by writers of `path` that were killed long ago."""
    with suppress(OSError):
        now = path.stat().st_mtime  # by the clock of the file system, which may be another computer's
        for name in os.listdir(path.parent):
            if name.startswith(f".{path.name}.") and name.endswith(".tmp"):
                leftover = path.with_name(name)
                with suppress(FileNotFoundError):
                    if now - leftover.lstat().st_mtime > LEFTOVER_SECONDS:
                        leftover.unlink()


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
    handle = os.open(path, os.O_RDWR | os.O_CREAT | SAFELY, 0o644)
    try:
        _check_regular(handle, path)
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
    """Whether a living process holds the lock file; False where there is no such file."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def open_regular(path: str | Path) -> io.BufferedReader:
    """A file in a store or cache, opened for reading. Raises `OSError` for links, pipes, devices and folders."""
    try:
        handle = os.open(path, os.O_RDONLY | SAFELY)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link, which is not followed", str(path)) from None
        raise
    try:
        _check_regular(handle, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def _check_regular(handle: int, path: str | Path) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: str | Path) -> bytes:
    """The content of a file in a store or cache. Raises `OSError` for links, pipes, devices and folders."""
    with open_regular(path) as file:
        return file.read()


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_checksum(content: bytes) -> bytes:
    """`content` with `CHECKSUM_PLACE` replaced by the checksum of all of it: a file that guards itself."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return content.replace(CHECKSUM_PLACE.encode(), checksum.encode())


def check_checksum(content: bytes, checksum: Any) -> None:
    """Raise `ValueError` when `content`, which holds `checksum`, is not what `with_checksum` returned."""
    place = content.replace(str(checksum).encode(), CHECKSUM_PLACE.encode())
    if checksum != f"sha256:{hashlib.sha256(place).hexdigest()}":
        raise ValueError("its content has changed since it was written")


def seal(folder: Path, own: re.Pattern[str]) -> None:
    """Sync the files in `folder` whose names match `own`, write the manifest, and remove what broken writes left.

    Other files (a .DS_Store, an editor's swap file) come and go, so they are not part of the manifest.
    """
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
        elif path.is_dir():
            sync_folder(path)
        elif own.fullmatch(name):
            with open_regular(path) as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                entries[name] = {"bytes": file.tell(), "sha256": digest}
    write_json(folder / MANIFEST, {**entries, MANIFEST: {"sha256": _hash_entries(entries)}})


def _hash_entries(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path, required: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """The manifest of a sealed folder. Raises `ValueError` where it is damaged, or where files do not match it.

    Here only names and sizes are compared: `check_content` and `read_checked` compare the hash of one file.
    """
    try:
        manifest = parse_json(read_regular(folder / MANIFEST))
        rest = dict(manifest)
        own = rest.pop(MANIFEST, None)  # older manifests have none
        if own is not None and own["sha256"] != _hash_entries(rest):
            raise ValueError("it has changed since it was written")
        # Older versions sealed every file in the folder, even hidden ones that the system or an editor removes later.
        entries = {name: entry for name, entry in rest.items() if not name.rpartition("/")[2].startswith(".")}
        expected = {name: (int(entry["bytes"]), str(entry["sha256"])) for name, entry in entries.items()}
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise ValueError(f"{MANIFEST} cannot be read ({_reason(problem)})") from None
    if never := [name for name in required if name not in entries]:
        raise ValueError(f"{never[0]} was never written")
    for parent in {name.rpartition("/")[0] for name in entries} - {""}:
        if ".." in parent.split("/") or os.path.islink(f"{folder}/{parent}"):
            raise ValueError(f"{parent} leads out of the folder")
    for name, (size, _) in expected.items():
        try:
            found = os.lstat(f"{folder}/{name}")
        except FileNotFoundError:
            raise ValueError(f"{name} is missing") from None
        except OSError as problem:
            raise ValueError(f"{name} cannot be read ({_reason(problem)})") from None
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{name} is not a regular file")
        if found.st_size != size:
            raise ValueError(f"{name} has {found.st_size:,} bytes, the manifest says {size:,}")
    return entries


def check_content(folder: Path, name: str, manifest: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `ValueError` when the file's content is not what the manifest says."""
    try:
        found = sha256(folder / name)
    except OSError as problem:
        raise ValueError(f"{name} cannot be read ({_reason(problem)})") from None
    if found != manifest[name]["sha256"]:
        raise ValueError(f"the content of {name} has changed since it was written")


def read_checked(folder: Path, name: str, manifest: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The file's content. Raises `ValueError` when it is not what the manifest says."""
    try:
        content = read_regular(folder / name)
    except OSError as problem:
        raise ValueError(f"{name} cannot be read ({_reason(problem)})") from None
    if hashlib.sha256(content).hexdigest() != manifest[name]["sha256"]:
        raise ValueError(f"the content of {name} has changed since it was written")
    return content


def _reason(problem: Exception) -> str:
    """What went wrong on one line, without the path, which the message around it has."""
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return " ".join(text.split()) or type(problem).__name__
