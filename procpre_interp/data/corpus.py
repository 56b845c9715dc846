"""Corpora: real text as documents, with a hash of the files that it was read from.

A corpus reads its documents in place. The content hash of a document decides its split, so copies of a
document share a split, and a document keeps its split when others come or go. `documents.py` splits them, and
`token_file.py` packs them into tokens.
"""

import abc
import dataclasses
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from procpre_interp.core.registry import Registry

END_OF_DOCUMENT = "<|endoftext|>"
"""How an end of document is written, as in GPT-2: in a .txt file of several, and in a printed example."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    name: str
    """Path within the corpus, with forward slashes: part of the corpus's identity, as its folder is not."""
    path: Path


State = Literal["in place", "in the cache", "to be made", "to be fetched", "yours"]
"""Where a corpus's files are. What is "to be made" needs no network, what is "to be fetched" does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a corpus declares of itself."""

    domain: Literal["language", "code", "mathematics", "any"]
    source: str
    """Where the text comes from, and how it gets here."""
    licence: str
    size: str
    """Documents and megabytes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Corpus(abc.ABC):
    """A source of documents.

    `CORPORA.register(name)` enters a subclass; its one field, if it has any, is what follows the colon, and may be
    left out where it has a default. `version` is raised when the same files would give other documents than before.
    """

    registry: ClassVar["Registry[Corpus]"]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    asks: ClassVar[bool] = False
    """Whether its documents are questions, each with its answer on a second line."""
    about: ClassVar[About] = About(domain="any", source="a plugin", licence="not stated", size="not stated")

    @abc.abstractmethod
    def files(self) -> list[SourceFile]:
        """The files to read, in order, fetched first where they are not here."""

    def state(self) -> State:
        """Where the files are, found without fetching them."""
        return "in place"

    @abc.abstractmethod
    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        """The documents in the files' (name, content), in order. `skipped` counts what cannot be read."""

    def separator(self, name: str) -> bytes | None:
        """What a large file may be cut behind, into parts that `documents` is given one after the other under the same
        name, with no document changed. Default: None, the file is read whole."""
        return None

    def versions(self) -> dict[str, str]:
        """What the text came with, to be recorded: package and version."""
        return {}

    def __str__(self) -> str:
        given = [f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default]
        return ":".join([self.name, *(str(getattr(self, name)) for name in given)])


CORPORA: Registry[Corpus] = Registry("corpus")
Corpus.registry = CORPORA


def build_corpus(spec: str) -> Corpus:
    """The corpus that "python-stdlib", "docstrings" or "files:PATH" names.

    Raises `ValueError` for an unknown name, and for a missing or superfluous part after the colon.
    """
    name, colon, argument = spec.partition(":")
    cls = CORPORA[name]
    fields = dataclasses.fields(cls)
    if not colon and not needs_a_name(name):
        return cls()
    if bool(argument) != bool(fields):
        right = ":".join([name, *(f.name.upper() for f in fields)])
        raise ValueError(f"corpus {spec!r}: write {right}")
    return cls(**{f.name: argument for f in fields})


def needs_a_name(name: str) -> bool:
    """Whether something must follow the colon after a corpus's name."""
    return any(field.default is dataclasses.MISSING for field in dataclasses.fields(CORPORA[name]))


def sample_document(corpus: Corpus, least: int) -> str | None:
    """The first document with this many characters, line ends and other blanks counted once; None where there is none.

    Fetches the corpus where it is not here.
    """
    contents = ((file.name, file.path.read_bytes()) for file in corpus.files() if file.path.is_file())
    documents = corpus.documents(contents, Counter())
    return next((document for document in documents if len(" ".join(document.split())) >= least), None)


def whole_files(contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
    """Each file's text as one document; those that are not UTF-8 are counted."""
    for _, content in contents:
        if (text := decode(content, skipped)) is not None:
            yield text


def walk(root: Path, suffixes: Container[str], *, prefix: str = "", without: Container[str] = ()) -> list[SourceFile]:
    """The files below `root` with one of the `suffixes`, sorted by name.

    Left out are what is hidden, folders named in `without`, and links to folders (which can form circles).
    """

    def refuse(problem: OSError) -> None:  # by default, os.walk passes over a folder that it may not list
        raise problem

    found: list[SourceFile] = []
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if name not in without and not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in suffixes and not name.startswith("."):
                found.append(SourceFile(prefix + path.relative_to(root).as_posix(), path))
    return sorted(found, key=lambda file: file.name)


def decode(content: bytes, skipped: Counter[str]) -> str | None:
    """The text of UTF-8 bytes, or None, counted, where they are none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        skipped["not UTF-8"] += 1
        return None
