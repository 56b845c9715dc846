"""What commands and scripts share: default folders, the number of cores, how a script ends."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from procpre_interp.core.environment import check_workers, default_store, usable_cores
from procpre_interp.core.streams import flush_stdout, open_streams

__all__ = [
    "beside_package",
    "check_workers",
    "default_store",
    "run_script",
    "time_limit",
    "usable_cores",
]


def beside_package(name: str) -> Path:
    """The folder `app` or `experiments`: within the package when installed from a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    bundled = package / f"_{name}"
    return bundled if bundled.is_dir() else package.parent / name


def run_script(name: str, work: Callable[[], int]) -> int:
    """The exit code of a script's work: its own, 130 after Ctrl-C, 1 for a file or folder, 2 for a mistake in the call.

    What went wrong is one line on stderr.
    """
    open_streams()
    code = _run_safely(name, work)
    return max(code, int(flush_stdout() is not None))


def _run_safely(name: str, work: Callable[[], int]) -> int:
    try:
        return work()
    except KeyboardInterrupt:
        print(f"{name}: stopped; repeat the command to go on from there", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output is gone (`... | head`)
        return 1
    except (ValueError, OSError) as problem:
        print(f"{name}: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1 if isinstance(problem, OSError) else 2


def time_limit(minutes: float | int | None) -> Callable[[], bool]:
    """A predicate that is true until `minutes` have passed (always, if None). Raises `ValueError` for fewer than 0."""
    if minutes is None:
        return lambda: True
    if not minutes >= 0:
        raise ValueError(f"minutes={minutes}; it must not be negative, or none")
    end = time.monotonic() + 60 * minutes
    return lambda: time.monotonic() < end
