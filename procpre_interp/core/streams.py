"""Standard output and error: that are closed, that nobody reads any more, or that are full; and what is said first."""

import os
import shutil
import sys
import textwrap


def open_streams() -> None:
    """Give a process that was started without stdout or stderr (`>&-`) one that swallows what is printed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process lives)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def announce(text: str) -> None:
    """Say on stderr what a command will do, wrapped to the terminal; before anything that is slow to import."""
    if sys.stderr.isatty():
        text = textwrap.fill(text, shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr, flush=True)


def flush_stdout() -> OSError | None:
    """Write out what is buffered, and return what prevents it, after which the rest is dropped.

    To be called last: Python's own flush at exit would complain on stderr, and exit with 120.
    """
    try:
        sys.stdout.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return problem
    return None
