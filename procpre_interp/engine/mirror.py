"""A URL beside a folder of runs: what is finished there is not computed again, and what is finished here goes there.

Runs are still computed in a folder, since locks, saved states and atomic renames are a file system's. On a cluster the
nodes then need no folder that they share (`remote.compute`). Two machines may so compute one run, of which either is
right; should their files be mixed on the way, the run is damaged when it is fetched, and computed again.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Unpack

from procpre_interp.engine.engines import Engine, Told
from procpre_interp.engine.events import Event
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.ancestry import ancestry
from procpre_interp.store.remote_copy import Copied, DamagedCopy, RemoteCopy
from procpre_interp.store.run import UnknownRun
from procpre_interp.store.store import DamagedRun, RunStore

TRANSFERS = 8
"""Runs that are sent or fetched at once: each is a few small files, most of whose time is the way there."""


@contextmanager
def mirrored(engine: Engine, url: str | None, store: RunStore) -> Iterator[Engine]:
    """An engine whose runs, and what it finds of them, are at a URL too; with the tables that are written meanwhile.

    The engine itself where there is no URL. Raises `ValueError` for one that cannot be opened, and `OSError` where
    something could not be sent.
    """
    if url is None:
        yield engine
        return
    mirror = Mirror(url, store)
    yield Mirrored(engine, mirror)
    mirror.send_rest()


class Mirror:
    """What there is of a store at a URL."""

    def __init__(self, url: str, store: RunStore) -> None:
        self.copy, self.store = RemoteCopy(url), store
        self.there: set[str] = set()
        """Runs that are known to be there."""
        self.unsent: dict[str, str] = {}
        """Why runs could not be sent, though they are finished here."""
        self.copy.pull_tables(store, Copied())
        self._written = self._tables()

    def exchange(self, configs: Mapping[str, RunConfig], tell: Callable[[Event], None]) -> None:
        """Fetch those of the runs that are there, and send those that are finished here, and all their ancestors."""
        self.there = self.copy.runs()
        with ThreadPoolExecutor(TRANSFERS) as pool:
            for event in filter(None, pool.map(self._fetch, [run for run in configs if self._is_wanted(run)])):
                tell(event)
            parents = {parent.run for config in configs.values() for parent in config.parents}
            for problem in filter(None, pool.map(self._problem_of_sending, self._with_ancestors({*configs, *parents}))):
                raise OSError(problem)

    def send(self, run: str) -> None:
        """Send a finished run, unless it is there; one that cannot be sent is tried again by `send_rest`."""
        if (problem := self._problem_of_sending(run)) is None:
            self.unsent.pop(run, None)
        else:
            self.unsent[run] = problem

    def send_rest(self) -> None:
        """Send what could not be sent, and tables that were written since this was made. Raises `OSError`."""
        for run in list(self.unsent):
            self.send(run)
        if self.unsent:
            first = next(iter(self.unsent.values()))
            raise OSError(f"{first}; the same command sends what is not there, {len(self.unsent)} runs at least")
        for name, written in self._tables().items():
            if written != self._written.get(name):
                self.copy.replace_table(name, self.store)

    def _is_wanted(self, run: str) -> bool:
        with suppress(DamagedRun):  # which the engine tells
            return run in self.there and not self.store.is_finished(run, whole=True)
        return False

    def _fetch(self, run: str) -> Event | None:
        """Fetch a run, and what is to be said of it."""
        try:
            self.copy.fetch(run, self.store)
        except DamagedCopy as problem:
            self.there.discard(run)
            self.copy.discard(run)
            return Event(run, "note", problem=f"{problem}, and is computed again")
        except FileNotFoundError:  # removed there since it was listed
            self.there.discard(run)
        except (TimeoutError, DamagedRun, UnknownRun):  # it is computed here, or damaged, as the engine will find
            pass
        return None

    def _problem_of_sending(self, run: str) -> str | None:
        if run in self.there:
            return None
        try:
            found = self.store.open(run)
            if not found.is_light and not self.copy.has(run):
                self.copy.send(found)
        except (UnknownRun, DamagedRun):
            return None
        except OSError as problem:
            return f"run {run} is finished, and could not be sent: {problem}"
        self.there.add(run)
        return None

    def _with_ancestors(self, runs: set[str]) -> list[str]:
        """The runs that are here and not there, and their ancestors."""
        found = []
        for run in sorted(runs - self.there):
            with suppress(UnknownRun, DamagedRun):
                found.append(self.store.open(run, verify=False))
        return [run.id for run in ancestry(found, self.store)[0]]

    def _tables(self) -> dict[str, int]:
        """When each table was written, in nanoseconds."""
        folder = self.store.path / "tables"
        return {name: (folder / f"{name}.parquet").stat().st_mtime_ns for name in self.store.tables()}


@dataclass(frozen=True, slots=True)
class Mirrored(Engine):
    """Another engine, whose runs go to a URL as they are finished."""

    engine: Engine
    mirror: Mirror

    @property
    def at_once(self) -> int:
        return self.engine.at_once

    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        tell: Callable[[Event], None] = told.get("on_event", lambda event: None)
        self.mirror.exchange(configs, tell)
        sent: list[Future[None]] = []
        with ThreadPoolExecutor(TRANSFERS) as pool:  # so that no worker waits for what another one has finished

            def pass_on(event: Event) -> None:
                if event.kind == "finished":
                    sent.append(pool.submit(self.mirror.send, event.run))
                tell(event)

            told["on_event"] = pass_on
            problems = self.engine.execute(configs, store, **told)
        for each in sent:
            each.result()  # raises what is neither the network's fault nor the run's, and would be lost in its thread
        return problems
