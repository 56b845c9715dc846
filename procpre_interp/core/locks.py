"""Lock files that the kernel releases when the process that holds them dies, whatever kills it."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from procpre_interp.core.regular_files import SAFELY, check_regular, open_regular


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock file that this process holds."""

    path: Path
    handle: int

    @property
    def is_held(self) -> bool:
        """Whether the file is still there, so that nobody else can hold another one of its name."""
        try:
            return os.path.samestat(os.fstat(self.handle), self.path.stat())
        except OSError:
            return False


@contextmanager
def locked(
    path: Path, *, timeout_seconds: float | int | None = None, waiting: Callable[[float], None] | None = None
) -> Iterator[Lock]:
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
    lock = Lock(path, handle)
    try:
        yield lock
    finally:
        if lock.is_held:  # else it was removed, and what has its name now is another process's
            with suppress(FileNotFoundError):
                path.unlink()
        os.close(handle)


def _try_lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | SAFELY, 0o644)
    try:
        check_regular(handle, path)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The last holder may have removed the file between open and flock: then this lock guards nothing.
        if os.path.samestat(os.fstat(handle), path.stat()):
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
