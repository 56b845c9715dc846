"""Code corpora: the standard library, installed packages, and Java's own library."""

import io
import os
import platform
import re
import shutil
import sysconfig
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from procpre_interp.core.messages import one_line
from procpre_interp.data.corpus import CORPORA, About, Corpus, SourceFile, State, decode, walk, whole_files
from procpre_interp.data.semantic.packaged import PackagedCorpus
from procpre_interp.data.semantic.packages import Deb, Package

NOT_LIBRARY = frozenset(
    {"test", "tests", "idle_test", "lib2to3", "site-packages", "dist-packages", "lib-dynload", "__pycache__"}
)
"""Folders left out: tests, a deprecated parser with its grammar, and what is not the standard library."""

GENERATED = ("_sysconfigdata", "config-")
"""What building the interpreter generated starts so: it would make the hash differ between like machines."""


@CORPORA.register("python-stdlib")
@dataclass(frozen=True, kw_only=True, slots=True)
class PythonStdlib(Corpus):
    """The running interpreter's own standard library, one document a module: about 660 documents, 12 MB."""

    about = About(
        domain="code",
        source="this Python's standard library, read in place",
        licence="PSF-2.0",
        size="660 documents, 12 MB",
    )

    def files(self) -> list[SourceFile]:
        library = walk(Path(sysconfig.get_path("stdlib")), {".py"}, without=NOT_LIBRARY)
        return [file for file in library if not file.name.startswith(GENERATED)]

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        return whole_files(contents, skipped)

    def versions(self) -> dict[str, str]:
        return {platform.python_implementation(): platform.python_version()}


NOT_PACKAGES = frozenset({"test", "tests", "testing", "__pycache__"})
"""Folders left out of installed packages."""

REPETITIVE = ("transformers/models/", "procpre_interp/")
"""Left out: hundreds of copies of a few models, and this project itself, which changes with every version."""


@CORPORA.register("python-packages")
@dataclass(frozen=True, kw_only=True, slots=True)
class PythonPackages(Corpus):
    """Every installed package without its tests, one document per module.

    Machines differ, and so do the files and their hash, which are recorded.
    """

    about = About(
        domain="code",
        source="the Python packages installed here, read in place",
        licence="theirs (mostly BSD, MIT, Apache-2.0)",
        size="differs: about 15,000 documents, 200 MB",
    )

    def files(self) -> list[SourceFile]:
        folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
        found = [file for folder in folders for file in walk(Path(folder), {".py"}, without=NOT_PACKAGES)]
        unique = {file.name: file for file in found if not file.name.startswith(REPETITIVE)}
        return [unique[name] for name in sorted(unique)]

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        return whole_files(contents, skipped)

    def versions(self) -> dict[str, str]:
        # Of a distribution whose metadata is broken there is no name.
        names = {each.name: each.version for each in metadata.distributions() if each.name}
        return dict(sorted(names.items()))


NOT_CODE = ("jdk.localedata/", "jdk.charsets/")
"""Modules left out: tables of locales and of character sets."""

_NOTICE = re.compile(r"\s*/\*(?:(?!\*/).)*?Copyright.*?\*/\s*", re.DOTALL)


@CORPORA.register("java")
@dataclass(frozen=True, kw_only=True, slots=True)
class Java(PackagedCorpus):
    """Java's class library, one document per source file; without tables, resources, and each file's licence notice.

    The notice is a tenth of the text, and the same in all files.
    """

    about = About(
        domain="code",
        source="lib/src.zip of the JDK installed here, or Debian package openjdk-17-source, by apt-get",
        licence="GPL-2.0 with Classpath exception",
        size="differs by release: about 13,000 documents, 150 MB",
    )
    package: ClassVar[Package] = Deb(
        name="openjdk-17-source",
        others=("openjdk-21-source", "openjdk-25-source"),
        keep=r"usr/lib/jvm/[^/]+/lib/src\.zip",
        megabytes=47.1,
    )

    def files(self) -> list[SourceFile]:
        if (installed := installed_sources()) is not None:
            return [SourceFile("src.zip", installed)]
        return [SourceFile("src.zip", file.path) for file in PackagedCorpus.files(self)]

    def state(self) -> State:
        return "in place" if installed_sources() is not None else PackagedCorpus.state(self)

    def versions(self) -> dict[str, str]:
        # JDK/lib/src.zip, and JDK/release says which one it is.
        if (installed := installed_sources()) is None:
            return PackagedCorpus.versions(self)
        release = installed.resolve().parents[1] / "release"
        text = release.read_text(encoding="utf-8", errors="replace") if release.is_file() else ""
        return {"java": found[1]} if (found := re.search(r'JAVA_VERSION="(.*?)"', text)) else {}

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        for name, content in contents:
            try:
                with zipfile.ZipFile(io.BytesIO(content)) as sources:
                    for member in filter(_is_code, sources.namelist()):
                        if (text := decode(sources.read(member), skipped)) is not None:
                            yield _NOTICE.sub("", text, count=1) if _NOTICE.match(text) else text
            except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
                raise ValueError(f"corpus {self}, {name}: a damaged zip file: {one_line(problem)[:200]}") from None


def _is_code(member: str) -> bool:
    return member.endswith(".java") and not member.startswith(NOT_CODE) and "/resources/" not in member


def installed_sources() -> Path | None:
    """The source archive of a JDK: of $JAVA_HOME's, of the one on the path, or of another. A link may lead nowhere."""
    homes: list[Path] = [Path(home)] if (home := os.environ.get("JAVA_HOME")) else []
    if (program := shutil.which("java")) is not None:
        homes.append(Path(program).resolve().parents[1])
    homes += sorted(JDKS.glob("*"))
    return next(filter(zipfile.is_zipfile, (home / "lib" / "src.zip" for home in homes)), None)


JDKS = Path("/usr/lib/jvm")
"""Where distributions install JDKs."""
