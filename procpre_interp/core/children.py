"""Child interpreters, none of which imports a module from the current folder.

`python -m` and `python -c` put the current folder first in `sys.path`: a file `secrets.py` that lies in a store would
run in place of the standard library's. What PYTHONPATH names is imported as ever.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SAFE_PATH = "PYTHONSAFEPATH"
"""The variable that keeps the current folder out of `sys.path`; a child's own children inherit it."""

_one_at_a_time = threading.Lock()


def child_environment(**more: str) -> dict[str, str]:
    """The environment of a child interpreter: this one's and `more`."""
    return {**os.environ, SAFE_PATH: "1", **more}


@contextmanager
def safe_spawn() -> Iterator[None]:
    """What multiprocessing starts in the block is such a child: it takes no environment but this process's own.

    Afterwards the variable is as before, since a notebook's user may start children that want their folder.
    """
    with _one_at_a_time:
        before = os.environ.get(SAFE_PATH)
        os.environ[SAFE_PATH] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[SAFE_PATH]
            else:
                os.environ[SAFE_PATH] = before
