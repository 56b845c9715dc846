"""Code corpora."""

import platform
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from procpre_interp.data.corpus import CORPORA, Corpus, SourceFile, decode, walk

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

    def files(self) -> list[SourceFile]:
        library = walk(Path(sysconfig.get_path("stdlib")), {".py"}, without=NOT_LIBRARY)
        return [file for file in library if not file.name.startswith(GENERATED)]

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        for _, content in contents:
            if (text := decode(content, skipped)) is not None:
                yield text

    def versions(self) -> dict[str, str]:
        return {platform.python_implementation(): platform.python_version()}
