"""Standard output and error that are closed, that nobody reads any more, or that are full."""

import os
import sys
from typing import TextIO


def open_streams() -> None:
    """Give a process that was started without stdout or stderr (`>&-`) one that swallows what is printed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open as long as the process lives)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def flushed(stream: TextIO) -> OSError | None:
    """Write out what is buffered, and return what prevents it, after which the rest is dropped.

    To be called last: Python's own flush at exit would complain on stderr, and exit with 120.
    """
    try:
        stream.flush()
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return problem
    return None
