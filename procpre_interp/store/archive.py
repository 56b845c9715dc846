"""Light copies of a store's runs in one file, to be kept with results or sent to colleagues: a `.tar.xz`.

    runs/<run id>/config.yaml  environment.json  history.parquet  summary.json  manifest.json ...
    tables/<name>.parquet

Weights and examples are left out (`export_run`), so that a run takes one or two kilobytes. To whatever reads the
outcomes of runs, such as sweeps and claims, a light copy is a finished run; where a run that is still to be computed
takes weights from one, the engines compute that again (`engine.known_runs`).
"""

import io
import lzma
import math
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from procpre_interp.core import atomic_files
from procpre_interp.core.checksums import MANIFEST
from procpre_interp.core.locks import locked
from procpre_interp.core.messages import one_line, shown
from procpre_interp.core.places import LONGEST_NAME
from procpre_interp.core.regular_files import open_regular
from procpre_interp.store.export import export_run
from procpre_interp.store.names import NAME, folders
from procpre_interp.store.remote_copy import Copied, RemoteCopy
from procpre_interp.store.run import OWN_FILES
from procpre_interp.store.store import RunStore

ENDINGS = (".tar.xz", ".txz")
"""How such a file may be called, so that other programs know what it is."""
LARGEST_ARCHIVE = 2**28
"""Bytes that an archive may hold when it is unpacked: some ten thousand light runs."""
MOST_FILES = 100_000
"""Files that an archive may hold."""


def pack(store: RunStore, path: Path, told: Callable[[str], None] = lambda run: None) -> Copied:
    """Add the finished runs and the tables that a file lacks, and write it anew; it is made where there is none.

    The same runs and tables give the same bytes. A damaged run is not packed, and a table that differs stays in the
    file as it is. Raises `ValueError` for a file that is no such archive, or a new one with another ending.
    """
    if not path.exists() and not path.name.endswith(ENDINGS):
        raise ValueError(f"{path}: it becomes a tar file that xz has packed; give it a name such as runs.tar.xz")
    path = path.resolve()  # a link stays one
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock")), _unpacked(path) as there:
        done = Copied()
        for folder in folders(store.path / "runs"):
            try:
                if there.is_finished(folder.name):
                    continue
                export_run(store.open(folder.name), there)
            except (ValueError, FileNotFoundError) as problem:  # damaged, or not whole; or deleted this moment
                done.problems.append(str(problem))
                continue
            done.runs.append(folder.name)
            told(folder.name)
        RemoteCopy(str(there.path)).push_tables(store, done)
        _write(path, there.path)
    return _told_of(path, there, done)


def unpack(path: Path, store: RunStore, told: Callable[[str], None] = lambda run: None) -> Copied:
    """Add the runs and tables of a file that the store lacks; each run is checked before it is listed.

    Raises `ValueError` for a file that is no such archive, and `FileNotFoundError` for none.
    """
    if not path.exists():
        raise FileNotFoundError(f"no archive {path}")
    with _unpacked(path) as there:
        done = RemoteCopy(str(there.path)).pull(store, told, light=True)
    return _told_of(path, there, done)


def _told_of(path: Path, there: RunStore, done: Copied) -> Copied:
    """What was done, told of the file and not of the temporary folder that held its content."""
    done.problems = [problem.replace(str(there.path), str(path)) for problem in done.problems]
    return done


@contextmanager
def _unpacked(path: Path) -> Iterator[RunStore]:
    """A temporary store with what a file holds, beside nothing else; an empty one where there is no file."""
    with tempfile.TemporaryDirectory(prefix="procpre-archive-") as folder:
        if path.exists():
            try:
                # A device that never ends, or a pipe that nobody writes to, would be read for ever.
                with open_regular(path.resolve()) as file, lzma.open(file) as content:
                    bounded = _Bounded(content)
                    with tarfile.open(fileobj=bounded, mode="r|") as tar:
                        _extract(tar, Path(folder))
                    while bounded.read(2**20):  # to the end, where a file that was cut off is found out
                        pass
            except (tarfile.TarError, lzma.LZMAError, EOFError, ValueError) as problem:
                raise ValueError(f"{path} is no archive of runs ({one_line(problem)})") from None
        yield RunStore(folder)


class _Bounded(io.RawIOBase):
    """What a compressed file holds, up to `LARGEST_ARCHIVE`: a small one may hold more than a disk does."""

    def __init__(self, content: lzma.LZMAFile) -> None:
        self._content, self._left = content, LARGEST_ARCHIVE

    def read(self, size: int = -1, /) -> bytes:
        found = self._content.read(size if size >= 0 else self._left + 1)
        self._left -= len(found)
        if self._left < 0:
            raise ValueError(f"it holds more than {LARGEST_ARCHIVE:,} bytes")
        return found


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Write what may be in an archive. Raises `ValueError` for anything else, since a name may lead anywhere."""
    for n, member in enumerate(tar):
        if n == MOST_FILES:
            raise ValueError(f"it holds more than {MOST_FILES:,} files")
        # A sparse file, however small, may stand for more than a disk holds.
        if not member.isreg() or member.issparse() or not _may_hold(member.name):
            raise ValueError(f"it holds {shown(member.name)}")
        content = tar.extractfile(member)
        assert content is not None
        place = folder / member.name
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as file:
            shutil.copyfileobj(content, file)


def _may_hold(name: str) -> bool:
    """Whether a name is that of a run's file, or of a table."""
    match PurePosixPath(name).parts:
        case ("runs", run, *rest):
            file = "/".join(rest)
            own = file == MANIFEST or OWN_FILES.fullmatch(file)
            return bool(NAME.fullmatch(run) and len(run) <= LONGEST_NAME and own and ".." not in rest)
        case ("tables", table):
            return bool(NAME.fullmatch(table) and len(table) <= LONGEST_NAME)
    return False


def _write(path: Path, folder: Path) -> None:
    """An archive of a folder, the same for the same content: in order, without times and owners."""
    files = sorted(each for part in ("runs", "tables") for each in (folder / part).rglob("*") if each.is_file())
    size = tarfile.RECORDSIZE + sum(
        tarfile.BLOCKSIZE * (1 + math.ceil(each.stat().st_size / tarfile.BLOCKSIZE)) for each in files
    )
    if len(files) > MOST_FILES or size > LARGEST_ARCHIVE:
        raise ValueError(
            f"{path} would hold {len(files):,} files of {size:,} bytes; at most {MOST_FILES:,} and {LARGEST_ARCHIVE:,} "
            "are read again, so pack into several files"
        )
    with atomic_files.atomic_write(path) as temporary, tarfile.open(temporary, mode="w:xz") as tar:
        for each in files:
            member = tarfile.TarInfo(each.relative_to(folder).as_posix())
            member.size = each.stat().st_size
            with each.open("rb") as content:
                tar.addfile(member, content)
