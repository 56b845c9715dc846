"""A copy of a store in an object store such as S3 (any URL of fsspec): runs go there and come back whole or not at all.

    URL/runs/<run id>/...    as in a store's folder; the manifest is written last, and a run without one is not there
    URL/tables/<name>.parquet

Runs are named by their content, so that one that is there already is the same one; copies without weights
(`store.archive`) are not sent, and whole runs take their place. Tables are not: one that differs
from the other side's stays as it is, on both sides, and is named.
"""

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from procpre_interp.core import atomic_files
from procpre_interp.core.checksums import MANIFEST
from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import parse_json
from procpre_interp.store.leftovers import fetched_folder, move_to_place
from procpre_interp.store.names import NAME, folders
from procpre_interp.store.run import OWN_FILES, DamagedRun, Run, UnknownRun, read_run
from procpre_interp.store.store import CLEANING_SECONDS, RunStore
from procpre_interp.store.tables import date_as_created, read_table_file


@dataclass(kw_only=True)
class Copied:
    """What was copied, and what was not."""

    runs: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """A line for each run or table that was left, and why."""


class DamagedCopy(ValueError):
    """A run whose copy is not what was sent."""


class RemoteCopy:
    """The copy of a store at a URL."""

    def __init__(self, url: str) -> None:
        try:
            fsspec = importlib.import_module("fsspec")
            self.files, self.root = fsspec.core.url_to_fs(url)
        except Exception as problem:  # of many kinds, as each file system checks its own address
            hint = (
                "pip install 'procpre-interp[s3]'" if isinstance(problem, ImportError) and _is_s3(url) else "no store"
            )
            raise ValueError(f"{url}: {hint} ({one_line(problem) or type(problem).__name__})") from None
        self._is_folder = isinstance(self.files, fsspec.get_filesystem_class("file"))
        self.url = url
        self.full_url = str(self.files.unstrip_protocol(self.root))
        """The URL as another machine, or a process in another folder, understands it."""

    def runs(self) -> set[str]:
        """Runs that are there now: those with a manifest."""
        with self._told():
            self.files.invalidate_cache()  # fsspec remembers what it has listed
            found: Iterable[str] = self.files.find(f"{self.root}/runs", maxdepth=2)
        parts = [path.split("/") for path in found]
        return {run for *_, run, name in parts if name == MANIFEST and NAME.fullmatch(run)}

    @property
    def is_empty(self) -> bool:
        """Whether neither runs nor tables are there now, as at an address that is mistyped."""
        return not self.runs() and not self._names("tables")

    def has(self, run: str) -> bool:
        """Whether a run is there now."""
        with self._told():
            self.files.invalidate_cache()
            return bool(self.files.exists(f"{self.root}/runs/{run}/{MANIFEST}"))

    def discard(self, run: str) -> None:
        """Have a damaged run count as not there, so that it can be sent again."""
        with self._told():
            self.files.rm_file(f"{self.root}/runs/{run}/{MANIFEST}")

    def push(self, store: RunStore, told: Callable[[str], None] = lambda run: None) -> Copied:
        """Send the finished runs and the tables that are not there. A damaged run is not sent, nor a light copy."""
        done = Copied()
        there = self.runs()
        light = 0
        for folder in folders(store.path / "runs"):
            if folder.name in there:
                continue
            try:
                run = read_run(folder, verify=True)
            except (DamagedRun, UnknownRun) as problem:
                done.problems.append(str(problem))
                continue
            if run.is_light:
                light += 1
                continue
            self.send(run)
            done.runs.append(folder.name)
            told(folder.name)
        if light:
            done.problems.append(
                f"{light} runs are here without their weights, and were not sent; pack keeps such runs"
            )
        self.push_tables(store, done)
        return done

    def send(self, run: Run) -> None:
        """Send one run that was checked, and is no light copy."""
        with self._told():
            for name in (*run.manifest, MANIFEST):  # which comes last, and says that all is there
                self._send(run.folder / name, f"{self.root}/runs/{run.id}/{name}")

    def push_tables(self, store: RunStore, done: Copied) -> None:
        """Send the tables that are not there, and enter in `done` which these were, and which differ."""
        for name in store.tables():
            try:
                content = read_table_file(_table_of(store, name))
            except OSError as problem:  # a link, which may lead out of the store, or a pipe
                done.problems.append(f"table {name} was not sent: {problem.strerror}")
                continue
            with self._told():
                place = self._table(name)
                if not self.files.exists(place):
                    self._send_content(content, place)
                    done.tables.append(name)
                elif self.files.cat_file(place) != content:
                    done.problems.append(f"table {name} differs at {self.url}; it stays there as it is")

    def replace_table(self, name: str, store: RunStore) -> None:
        """Send a table, whatever is there."""
        content = read_table_file(_table_of(store, name))
        with self._told():
            self._send_content(content, self._table(name))

    def pull(self, store: RunStore, told: Callable[[str], None] = lambda run: None, *, light: bool = False) -> Copied:
        """Fetch the runs and tables that are not here. Each run is checked before it is listed.

        Whole runs take the place of light copies; where those that are fetched are `light` themselves, a run that was
        begun here is left, since it goes on from there.
        """
        done = Copied()
        for run in sorted(self.runs()):
            try:
                if light and store.is_begun(run) and not store.is_finished(run):
                    raise TimeoutError
                if not self.fetch(run, store, light=light):
                    continue
            except TimeoutError:
                done.problems.append(f"run {run} is being computed here{', or was begun' if light else ''}")
                continue
            except (DamagedRun, DamagedCopy, UnknownRun) as problem:  # here, or there
                done.problems.append(str(problem))
                continue
            done.runs.append(run)
            told(run)
        self.pull_tables(store, done)
        return done

    def pull_tables(self, store: RunStore, done: Copied) -> None:
        """Fetch the tables that are not here, and enter in `done` which these were, and which differ."""
        for name in self._names("tables"):
            stem = name.removesuffix(".parquet")
            if stem == name or not NAME.fullmatch(stem):
                continue
            path, place = _table_of(store, stem), self._table(stem)
            if not os.path.lexists(path):
                self._save(place, path)
                date_as_created(path)
                done.tables.append(stem)
                continue
            try:
                content = read_table_file(path)
            except OSError as problem:
                done.problems.append(f"table {stem} was not fetched: in its place here is {problem.strerror}")
                continue
            with self._told():
                differs = self.files.cat_file(place) != content
            if differs:
                done.problems.append(f"table {stem} differs at {self.url}; it stays here as it is")

    def fetch(
        self, run: str, store: RunStore, *, light: bool = False, timeout_seconds: float | None = CLEANING_SECONDS
    ) -> bool:
        """Fetch one run under its lock; False where it is here already.

        Raises `FileNotFoundError` where it is not there, `DamagedCopy` where it is not what was sent, and
        `TimeoutError` while it is locked.
        """
        failed: Exception | None = None
        with store.claim(run, whole=not light, timeout_seconds=timeout_seconds) as partial:
            if partial is None:
                return False
            try:
                self._fetch(run, fetched_folder(store.path, run), partial.finished_folder)
                atomic_files.remove(partial.folder)  # with what an interrupted run had saved
            except Exception as problem:  # raised below, since a claim whose folder is gone would say that instead
                failed = problem
            finally:
                with suppress(OSError):  # it is gone, or holds what was computed here
                    partial.folder.rmdir()
        if failed is not None:
            raise failed
        return True

    def _fetch(self, run: str, hidden: Path, finished: Path) -> None:
        """One run, out of sight until it is whole and checked. Raises `DamagedRun`."""
        atomic_files.remove(hidden)
        hidden.mkdir()
        try:
            place = f"{self.root}/runs/{run}"
            self._save(f"{place}/{MANIFEST}", hidden / MANIFEST)
            try:
                for name in _names_in(hidden):
                    self._save(f"{place}/{name}", hidden / name)
                read_run(hidden, verify=True)
            except (DamagedRun, FileNotFoundError) as problem:
                raise DamagedCopy(f"{place}: {getattr(problem, 'problem', problem)}; it was not fetched") from None
            move_to_place(hidden, finished)
            atomic_files.sync_folder(finished.parent)
        finally:
            atomic_files.remove(hidden)

    def _send(self, path: Path, place: str) -> None:
        with self._written(place) as temporary:
            self.files.put_file(str(path), temporary)

    def _send_content(self, content: bytes, place: str) -> None:
        with self._written(place) as temporary:
            self.files.pipe_file(temporary, content)

    @contextmanager
    def _written(self, place: str) -> Iterator[str]:
        """Where to write a file, so that it is whole or absent: an object is at once, a file in a folder is not, be it
        that the disk is full."""
        self.files.makedirs(place.rpartition("/")[0], exist_ok=True)
        if self._is_folder:
            with atomic_files.atomic_write(place) as temporary:
                yield str(temporary)
        else:
            yield place

    def _save(self, place: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_files.atomic_write(path) as temporary, self._told():
            self.files.get_file(place, str(temporary))

    def _table(self, name: str) -> str:
        return f"{self.root}/tables/{name}.parquet"

    def _names(self, folder: str) -> list[str]:
        with self._told():
            if not self.files.exists(f"{self.root}/{folder}"):
                return []
            return sorted(path.split("/")[-1] for path in self.files.ls(f"{self.root}/{folder}", detail=False))

    @contextmanager
    def _told(self) -> Iterator[Any]:
        """Errors of the other side, which are of many kinds, as `OSError`."""
        try:
            yield
        except FileNotFoundError as problem:
            raise FileNotFoundError(f"{problem} is missing") from None
        except Exception as problem:
            raise OSError(f"{self.url}: {type(problem).__name__}: {one_line(problem)}") from None


def _table_of(store: RunStore, name: str) -> Path:
    return store.path / "tables" / f"{name}.parquet"


def _is_s3(url: str) -> bool:
    """Whether a URL needs what the extra brings: fsspec itself, or its file system of S3."""
    return importlib.util.find_spec("fsspec") is None or url.startswith(("s3:", "s3a:"))


def _names_in(folder: Path) -> list[str]:
    """The files that the manifest in a folder names, those of a run alone: a name may lead anywhere."""
    try:
        manifest = parse_json((folder / MANIFEST).read_bytes())
    except ValueError as problem:
        raise DamagedRun(folder, one_line(problem)) from None
    return [name for name in manifest if OWN_FILES.fullmatch(name)] if isinstance(manifest, dict) else []
