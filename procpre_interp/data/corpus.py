"""Corpora: real text as documents, with a hash of the files that it was read from.

A corpus reads its documents in place. The content hash of a document decides its split, so copies of a
document share a split, and a document keeps its split when others come or go. `token_file.py` packs the
documents into tokens.
"""

import abc
import dataclasses
import hashlib
import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from procpre_interp.core.config import ID_LENGTH
from procpre_interp.core.registry import Registry
from procpre_interp.data.task import SPLIT_SIXTEENTHS

BLOCKS = 256
"""Blocks into which documents are cut that are too few: about 16 each for validation and test."""
SHORTEST_BLOCK = 200
"""Characters of such a block at least."""
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
    if not colon and all(f.default is not dataclasses.MISSING for f in fields):
        return cls()
    if bool(argument) != bool(fields):
        right = ":".join([name, *(f.name.upper() for f in fields)])
        raise ValueError(f"corpus {spec!r}: write {right}")
    return cls(**{f.name: argument for f in fields})


@dataclass(frozen=True, slots=True)
class Documents:
    """A corpus as read at one time."""

    by_split: dict[str, list[str]]
    files: dict[str, str]
    """SHA-256 of each file's content, its first 16 hexadecimal digits."""
    hash: str
    skipped: Counter[str]
    """Why files or rows were left out, and how many."""
    cut: int | None = None
    """Fewest characters of a block, if the documents were too few for three splits and were cut; otherwise None."""


def corpus_hash(corpus: Corpus) -> str:
    """Hash of the names and contents of the corpus's files, 16 hexadecimal digits.

    Of the files, not of the documents: those of `docstrings` take 15 seconds to find, their files .3 to read.
    """
    files: dict[str, str] = {}
    for _ in _contents(corpus, files, Counter()):
        pass
    return _hash_files(corpus, files)


def read_documents(corpus: Corpus) -> Documents:
    """All documents, by split, blank ones left out. Held in memory: meant for a gigabyte, not for C4."""
    by_split: dict[str, list[str]] = {split: [] for split in SPLIT_SIXTEENTHS}
    files: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    for document in corpus.documents(_contents(corpus, files, skipped), skipped):
        if not document or document.isspace():
            continue
        try:
            split = document_split(document)
        except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no encoding of text has
            skipped["not Unicode"] += 1
            continue
        by_split[split].append(document)
    whole = Documents(by_split, files, _hash_files(corpus, files), skipped)
    return whole if all(by_split.values()) else cut_documents(whole)


def cut_documents(documents: Documents) -> Documents:
    """The same text as about `BLOCKS` blocks, each with a split of its own: for a few long documents, such as books.

    Blocks of one text are more alike than texts are, so validation is easier than on unseen texts.
    """
    texts = [text for texts in documents.by_split.values() for text in texts]
    size = max(SHORTEST_BLOCK, sum(map(len, texts)) // BLOCKS)
    by_split: dict[str, list[str]] = {split: [] for split in SPLIT_SIXTEENTHS}
    for text in texts:
        for block in blocks(text, size):
            if not block.isspace():
                by_split[document_split(block)].append(block)
    return dataclasses.replace(documents, by_split=by_split, cut=size)


def blocks(text: str, size: int) -> Iterator[str]:
    """The text in pieces of `size` characters to twice as many, the last one to three times: each ends with a
    paragraph where it can, or else with a line, or a word."""
    start = 0
    while len(text) - start > 3 * size:
        ends = (text.find(boundary, start + size, start + 2 * size) + len(boundary) for boundary in ("\n\n", "\n", " "))
        end = next((end for end in ends if end > start + size), start + size)
        yield text[start:end]
        start = end
    yield text[start:]


def document_split(document: str) -> str:
    """The split that a document's content decides, in the shares of every task: 14, 1 and 1 of 16."""
    sixteenth = hashlib.sha256(document.encode()).digest()[0] & 15
    return next(split for split, members in SPLIT_SIXTEENTHS.items() if sixteenth in members)


def _contents(corpus: Corpus, files: dict[str, str], skipped: Counter[str]) -> Iterator[tuple[str, bytes]]:
    for file in corpus.files():
        try:
            content = file.path.read_bytes()
        except OSError:
            if file.path.exists():
                raise
            skipped["broken link"] += 1
            continue
        files[file.name] = hashlib.sha256(content).hexdigest()[:ID_LENGTH]
        yield file.name, content


def _hash_files(corpus: Corpus, files: dict[str, str]) -> str:
    own = [plugin] if (plugin := getattr(corpus, "plugin", None)) else []
    identity = json.dumps([corpus.name, corpus.version, sorted(files.items()), *own])
    return hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]


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
