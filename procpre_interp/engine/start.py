"""Where a worker process begins: in a module that loads nothing, so that it can say how the rest is loaded."""

import os
from multiprocessing.connection import Connection
from pathlib import Path

from procpre_interp.core.environment import usable_cores
from procpre_interp.core.plugins import Plugin
from procpre_interp.core.startup import quick_imports


def start(connection: Connection, store_path: Path, needed: tuple[Plugin, ...], workers: int) -> None:
    """A worker's life among so many; see `processes.work`."""
    # Not where each core has its worker already.
    os.environ.setdefault("PROCPRE_PREFETCH", str(int(workers < usable_cores())))
    with quick_imports():
        from procpre_interp.engine.processes import work
    work(connection, store_path, needed)
