"""The start of a process of our own, a command or a worker, whose imports take longer than its first work."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Imports in the block are an eighth faster: Python's garbage collector lets them be, now and later.

    It would look again and again through the hundreds of thousands of objects that torch and pandas make, all of which
    stay. To be used in processes of our own alone, since it also keeps what is garbage at the end of the block.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()
