"""The documents of a corpus, read once and kept on disk by split, so that a corpus may be larger than memory.

Files that a corpus lets be cut are read in parts; every other file, and every document, must fit into memory.
"""

import dataclasses
import hashlib
import io
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from procpre_interp.core import atomic_files
from procpre_interp.core.config import ID_LENGTH
from procpre_interp.data.corpus import Corpus
from procpre_interp.data.task import SPLIT_SIXTEENTHS, Split

BLOCKS = 256
"""Blocks into which documents are cut that are too few: about 16 each for validation and test."""
SHORTEST_BLOCK = 200
"""Characters of such a block at least."""
PART_BYTES = 2**24
"""About how much of a large file is in memory at once, where its corpus lets it be cut."""
MEMORY_BYTES = 2**24
"""A split's documents lie in a temporary file once they take more than this."""
SAMPLE_BYTES = 2**27
"""How much of the training split a tokenizer learns from: all where it is no larger, otherwise about this, in documents
that their content hash chooses."""
PIECE_CHARACTERS = 2**20
"""Documents longer than this are handed on in pieces of about this length."""

_LENGTH_BYTES = 8
_WORD_END = re.compile("(?<=[A-Za-z]) (?=[A-Za-z])")


class DocumentFile:
    """Documents in order, in a temporary file that goes when it is closed, or with its process.

    The file lies in `folder`, by default the system's for temporary files. One reader at a time.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=folder and str(folder))  # noqa: SIM115  (its owner closes it)
        self.documents = self.bytes = self.characters = 0
        """How many there are, and how long they are together; bytes are those of UTF-8."""

    def __len__(self) -> int:
        return self.documents

    def append(self, content: bytes, characters: int) -> None:
        """Add a document, given in UTF-8."""
        self._file.write(len(content).to_bytes(_LENGTH_BYTES, "little") + content)
        self.documents += 1
        self.bytes += len(content)
        self.characters += characters

    def __iter__(self) -> Iterator[str]:
        return (content.decode() for content in self._contents())

    def sample(self, limit: int) -> Iterator[str]:
        """All documents where they take at most `limit` bytes; otherwise about as many as do.

        A document's content hash decides, so the sample depends on the documents alone.
        """
        share = limit / max(self.bytes, 1)
        for content in self._contents():
            # Not the first byte, which decides the split.
            if share >= 1 or int.from_bytes(hashlib.sha256(content).digest()[1:9], "big") < share * 2**64:
                yield content.decode()

    def _contents(self) -> Iterator[bytes]:
        self._file.seek(0)
        while length := self._file.read(_LENGTH_BYTES):
            yield self._file.read(int.from_bytes(length, "little"))
        self._file.seek(0, io.SEEK_END)

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class Documents:
    """A corpus as read at one time. Used in a `with`, or closed, it leaves no temporary file open."""

    by_split: dict[Split, DocumentFile]
    files: dict[str, str]
    """SHA-256 of each file's content, its first 16 hexadecimal digits."""
    hash: str
    skipped: Counter[str]
    """Why files or rows were left out, and how many."""
    cut: int | None = None
    """Fewest characters of a block, if the documents were too few for three splits and were cut; otherwise None."""

    def __enter__(self) -> "Documents":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for documents in self.by_split.values():
            documents.close()


def corpus_hash(corpus: Corpus) -> str:
    """Hash of the names and contents of the corpus's files, 16 hexadecimal digits.

    Of the files, not of the documents: those of `docstrings` take 15 seconds to find, their files .3 to read.
    """
    files: dict[str, str] = {}
    for _ in _contents(corpus, files, Counter(), whole=False):
        pass
    return _hash_files(corpus, files)


def read_documents(corpus: Corpus, folder: Path | None = None) -> Documents:
    """All documents, by split, blank ones left out; they lie in temporary files in `folder`.

    Raises `OSError` where a file cannot be read, or `folder` cannot be written.
    """
    by_split: dict[Split, DocumentFile] = {split: DocumentFile(folder) for split in SPLIT_SIXTEENTHS}
    files: dict[str, str] = {}
    skipped: Counter[str] = Counter()
    with ExitStack() as opened:
        for part in by_split.values():
            opened.callback(part.close)
        for document in corpus.documents(_contents(corpus, files, skipped), skipped):
            if not document or document.isspace():
                continue
            try:
                content = document.encode()
            except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, which no encoding of text has
                skipped["not Unicode"] += 1
                continue
            with cache_errors(corpus):
                by_split[content_split(content)].append(content, len(document))
        whole = Documents(by_split, files, _hash_files(corpus, files), skipped)
        if not all(by_split.values()):
            with cache_errors(corpus):
                return cut_documents(whole, folder)
        opened.pop_all()
    return whole


def cut_documents(documents: Documents, folder: Path | None = None) -> Documents:
    """The same text as about `BLOCKS` blocks, each with a split of its own: for a few long documents, such as books.

    Blocks of one text are more alike than texts are, so validation is easier than on unseen texts.
    """
    size = max(SHORTEST_BLOCK, sum(part.characters for part in documents.by_split.values()) // BLOCKS)
    by_split: dict[Split, DocumentFile] = {split: DocumentFile(folder) for split in SPLIT_SIXTEENTHS}
    for texts in documents.by_split.values():
        for block in (block for text in texts for block in blocks(text, size) if not block.isspace()):
            content = block.encode()
            by_split[content_split(content)].append(content, len(block))
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


def pieces(document: str) -> Iterator[str]:
    """A document in pieces of about `PIECE_CHARACTERS`, which make the same tokens as the whole.

    Cut before a space between two ASCII letters, where no tokenizer's word goes on. Where a document has none, as in
    Chinese, it is one piece.
    """
    start = 0
    while found := _WORD_END.search(document, start + PIECE_CHARACTERS):
        yield document[start : found.start()]
        start = found.start()
    yield document[start:]


def document_split(document: str) -> Split:
    """The split that a document's content decides, in the shares of every task: 14, 1 and 1 of 16."""
    return content_split(document.encode())


def content_split(content: bytes) -> Split:
    sixteenth = hashlib.sha256(content).digest()[0] & 15
    return next(split for split, members in SPLIT_SIXTEENTHS.items() if sixteenth in members)


@contextmanager
def cache_errors(corpus: object) -> Iterator[None]:
    """An `OSError` in the block says that the cache cannot be written, and what to do."""
    try:
        yield
    except OSError as problem:
        raise OSError(
            f"cannot write the token file of corpus {corpus} in {atomic_files.cache_folder()}: "
            f"{problem.strerror or problem}; set PROCPRE_CACHE to a folder that can be written and has room"
        ) from problem


def _contents(
    corpus: Corpus, files: dict[str, str], skipped: Counter[str], *, whole: bool = True
) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, whose hash is entered into `files` once it was read.

    A large file comes in parts, one after the other under one name: where the corpus lets it be cut, or, unless
    `whole`, anywhere.
    """
    for file in corpus.files():
        try:
            opened = file.path.open("rb")
        except OSError:
            if file.path.exists():
                raise
            skipped["broken link"] += 1
            continue
        digest = hashlib.sha256()
        with opened:
            for part in _parts(opened, corpus.separator(file.name) if whole else b""):
                digest.update(part)
                yield file.name, part
        files[file.name] = digest.hexdigest()[:ID_LENGTH]


def _parts(file: io.BufferedReader, separator: bytes | None) -> Iterator[bytes]:
    """The content in parts that end behind a separator, the last one excepted; whole where there is none."""
    if separator is None:
        yield file.read()
        return
    held = bytearray(file.read(PART_BYTES))
    while fresh := file.read(PART_BYTES):
        held += fresh
        # The separator may lie across two reads.
        found = held.rfind(separator, max(0, len(held) - len(fresh) - len(separator)))
        if found >= 0:
            yield bytes(held[: found + len(separator)])
            del held[: found + len(separator)]
    yield bytes(held)


def _hash_files(corpus: Corpus, files: dict[str, str]) -> str:
    own = [plugin] if (plugin := getattr(corpus, "plugin", None)) else []
    identity = json.dumps([corpus.name, corpus.version, sorted(files.items()), *own])
    return hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]
