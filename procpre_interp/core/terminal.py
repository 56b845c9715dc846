"""What commands and scripts share: default folders, the number of cores, tables on stdout."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from procpre_interp.core.environment import check_workers, default_store, usable_cores
from procpre_interp.core.streams import flush_stdout, open_streams

__all__ = [
    "beside_package",
    "check_workers",
    "default_store",
    "fitting",
    "frame_width",
    "print_frame",
    "run_script",
    "stdout_console",
    "time_limit",
    "usable_cores",
]


WRAPPED = 40
"""Characters of a cell from which on it is wrapped."""
GAP = 2
"""Columns of the terminal between two columns of a table."""


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


def stdout_console() -> Console:
    """A console for tables on stdout; into a file or a pipe a line may be as long as it wants."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)


def fitting(frame: pd.DataFrame, width: int, optional: Sequence[str]) -> pd.DataFrame:
    """A table of strings without those of the `optional` columns, in this order, for which there is no room.

    Cells of more than `WRAPPED` characters are wrapped, so that they count no more than that.
    """
    needs = {str(column): frame_width(frame.loc[:, [column]]) for column in frame}
    dropped: set[str] = set()
    for column in (name for name in optional if name in needs):
        if sum(need for name, need in needs.items() if name not in dropped) - GAP <= width:
            break
        dropped.add(column)
    return frame.drop(columns=list(dropped))


def frame_width(frame: pd.DataFrame) -> int:
    """Columns of the terminal that a table of strings takes, with the gap after it."""
    cells = [max([len(str(column)), *frame[column].str.len()]) for column in frame]
    return sum(min(WRAPPED, cell) + GAP for cell in cells)


def print_frame(console: Console, frame: pd.DataFrame, title: str, *, left: Sequence[str]) -> None:
    """A table of strings; the columns named in `left` are text, the others numbers."""
    shown = Table(title=title, box=None, pad_edge=False, title_justify="left")
    for column in frame:
        shown.add_column(str(column), justify="left" if column in left else "right", overflow="fold")
    for row in frame.itertuples(index=False):
        shown.add_row(*row)
    console.print(shown)
