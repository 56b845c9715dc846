"""Where a worker process begins: in a module that loads nothing, so that it can say how the rest is loaded."""

from multiprocessing.connection import Connection
from pathlib import Path

from procpre_interp.core.plugins import Plugin
from procpre_interp.core.startup import quick_imports


def start(connection: Connection, store_path: Path, needed: tuple[Plugin, ...]) -> None:
    """A worker's life; see `processes.work`."""
    with quick_imports():
        from procpre_interp.engine.processes import work
    work(connection, store_path, needed)
