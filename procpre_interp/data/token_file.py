"""Token files: the splits of a corpus as flat arrays of ids on disk, mapped into memory when read.

A folder for each pair of (content of the corpus's files, tokenizer) holds train.bin, validation.bin and
test.bin (little-endian ids, each document followed by its end), tokenizer.json, meta.json, sources.json, and
a manifest of sizes and hashes. It is whole or absent, and built once however many processes ask at once. Each
process compares the contents with their hashes once, at its first use of a folder; a large file only where it has
changed since a process did so.
"""

import functools
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt
from numpy.lib.stride_tricks import sliding_window_view

from procpre_interp.core import atomic_files, checksums, locks, regular_files
from procpre_interp.core.config import ID_LENGTH
from procpre_interp.core.plain_values import load_json, parse_json
from procpre_interp.data.corpus import Corpus
from procpre_interp.data.documents import SAMPLE_BYTES, SHORTEST_BLOCK, Documents, cache_errors, pieces, read_documents
from procpre_interp.data.semantic.tokenizers import (
    Tokenizer,
    load_tokenizer,
    parse_tokenizer,
    token_dtype,
    train_tokenizer,
    vocabulary_size,
)
from procpre_interp.data.shared_tokenizer import shared_tokenizer

FORMAT = 1
"""Raised when the same corpus and tokenizer would give other files than before."""

WINDOWS_AT_ONCE = 1024
"""Windows copied from one mapping of a file. The system maps up to 64 KB around each that it has in memory."""

LARGE_BYTES = 2**26
"""A file beyond this is hashed when it is new or has changed: a gigabyte takes two seconds, for which a run would
wait."""
SETTLED_SECONDS = 2.0
"""A file that was written less than this ago could change again without a new time of change."""
CHECKED = "checked.json"
"""Inode, size, time of change and hash of the large files, as they were when they were hashed."""

DOCUMENTS_AT_ONCE = 256
CHARACTERS_AT_ONCE = 2**21
"""Most that is encoded at once, so that memory does not grow with the corpus; a longer piece is encoded alone."""

_REQUIRED = ("train.bin", "validation.bin", "test.bin", "tokenizer.json", "meta.json")
_OWN = re.compile(r"(train|validation|test)\.bin|(tokenizer|meta|sources)\.json")
"""The files of a folder; whatever else lies there is another program's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SplitSize:
    """What a split holds."""

    documents: int
    tokens: int
    """One end for each document included: predicting it costs nats too."""
    bytes: int
    """UTF-8 bytes of the documents: the measure that no tokenizer changes."""


@dataclass(frozen=True, slots=True)
class TokenFile:
    """An intact folder."""

    folder: Path
    corpus_hash: str
    tokenizer_spec: str
    tokenizer_hash: str
    splits: dict[str, SplitSize]

    def tokens(self, split: str) -> UInt[np.ndarray, " token"]:
        """The split's tokens, read from disk as they are used."""
        dtype = token_dtype(vocabulary_size(self.tokenizer_spec))
        return np.memmap(self.folder / f"{split}.bin", dtype, mode="r")

    def windows(self, split: str, starts: Int64[np.ndarray, " window"], length: int) -> Int64[np.ndarray, "window pos"]:
        """The `length` tokens from each of these places on."""
        rows = np.empty((len(starts), length), np.int64)
        for first in range(0, len(starts), WINDOWS_AT_ONCE):
            part = slice(first, first + WINDOWS_AT_ONCE)
            # Mapped anew each time, which gives back the memory that pages of the file took.
            rows[part] = sliding_window_view(self.tokens(split), length)[starts[part]]
        return rows

    def tokenizer(self) -> Tokenizer:
        text = regular_files.read_regular(self.folder / "tokenizer.json").decode()
        return load_tokenizer(self.tokenizer_spec, text)


def find_token_file(corpus_hash: str, tokenizer: str, tokenizer_hash: str = "") -> TokenFile | None:
    """The token file, or None where there is none or it is damaged.

    One of a tokenizer that learnt from other corpora is found by the tokenizer's hash, too.
    """
    folder = _folder(corpus_hash, tokenizer, tokenizer_hash)
    if not folder.is_dir():
        return None
    try:
        return _read(folder, corpus_hash, tokenizer)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class PackedText:
    """What the cache holds of a corpus, as its folder says."""

    tokenizer: str
    tokens: int
    """Tokens of the training split."""


def packed_texts(corpus: str) -> list[PackedText]:
    """The token files of a corpus by its name, whatever its files held then: largest first, one per tokenizer."""
    found: dict[str, PackedText] = {}
    for path in (atomic_files.cache_folder() / "tokens").glob("*/meta.json"):
        try:
            meta = parse_json(regular_files.read_regular(path))
            name, packed = meta["corpus"], PackedText(str(meta["tokenizer"]), int(meta["splits"]["train"]["tokens"]))
        except (OSError, ValueError, LookupError, TypeError):  # half written, or another program's
            continue
        if name == corpus and packed.tokens >= found.get(packed.tokenizer, packed).tokens:
            found[packed.tokenizer] = packed
    return sorted(found.values(), key=lambda packed: -packed.tokens)


def build_token_file(corpus: Corpus, corpus_hash: str, tokenizer: str) -> TokenFile:
    """The token file of a corpus whose files hash to `corpus_hash`, built unless it is there and intact.

    Raises `ValueError` where a split would have no document, and `OSError` where the cache cannot be written, or
    GPT-2's tokenizer cannot be fetched.
    """
    shared = shared_tokenizer(tokenizer) if parse_tokenizer(tokenizer).corpora else None
    folder = _folder(corpus_hash, tokenizer, shared.hash if shared else "")
    if found := find_token_file(corpus_hash, tokenizer, shared.hash if shared else ""):
        atomic_files.remove_leftovers_of(folder, folder.with_suffix(".lock"))
        return found
    with ExitStack() as stack:
        with cache_errors(corpus):
            folder.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.locked(folder.with_suffix(".lock")))
        if folder.exists():
            try:
                return _read(folder, corpus_hash, tokenizer)  # built by another process while this one waited
            except ValueError as problem:
                log.warning("the token file %s is damaged (%s): it is built again", folder, problem)
        log.info("building the token file of corpus %s, tokenizer %s", corpus, tokenizer)
        documents = stack.enter_context(read_documents(corpus, folder.parent))
        if documents.hash != corpus_hash:
            raise ValueError(f"corpus {corpus}: its files changed while they were read; try again")
        _check_splits(corpus, documents)
        # Trained on the training split alone: merges learnt from held-out text would leak it.
        sample = documents.by_split["train"].sample(SAMPLE_BYTES)
        trained = shared or train_tokenizer(tokenizer, (piece for text in sample for piece in pieces(text)))
        with cache_errors(corpus), atomic_files.rebuilt_folder(folder) as temporary:
            _fill(temporary, corpus, documents, tokenizer, trained)
    return _read(folder, corpus_hash, tokenizer)


def _read(folder: Path, corpus_hash: str, tokenizer: str) -> TokenFile:
    """Raises `ValueError` that says what is missing or damaged."""
    for name, entry in checksums.read_manifest(folder, _REQUIRED).items():
        try:
            found = os.stat(folder / name, follow_symlinks=False)
        except OSError as problem:
            raise ValueError(f"{name} cannot be read ({problem.strerror})") from None
        if _sha256(str(folder / name), found.st_ino, found.st_size, found.st_mtime_ns) != entry["sha256"]:
            raise ValueError(f"the content of {name} has changed since it was written")
    meta = load_json(regular_files.read_regular(folder / "meta.json"))
    splits = {split: SplitSize(**size) for split, size in meta["splits"].items()}
    return TokenFile(folder, corpus_hash, tokenizer, meta["tokenizer_hash"], splits)


@functools.lru_cache(maxsize=256)
def _sha256(path: str, inode: int, size: int, modified: int) -> str:
    """The hash of a file, computed once in a process, since every batch asks, and of a large one once at all."""
    if size <= LARGE_BYTES:
        return checksums.sha256(path)
    kept, name, stamp = Path(path).with_name(CHECKED), Path(path).name, [inode, size, modified]
    try:
        checked = dict(load_json(regular_files.read_regular(kept)))
        if name in checked and checked[name]["stamp"] == stamp:
            return checked[name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):  # no note, or one that is none
        checked = {}
    found = checksums.sha256(path)
    if time.time() - modified / 1e9 > SETTLED_SECONDS:
        with suppress(OSError):  # a cache that cannot be written
            atomic_files.write_json(kept, checked | {name: {"stamp": stamp, "sha256": found}})
    return found


def _folder(corpus_hash: str, tokenizer: str, tokenizer_hash: str) -> Path:
    # What a tokenizer learnt from the corpus itself follows from the corpus.
    own = [tokenizer_hash] if parse_tokenizer(tokenizer).corpora else []
    key = hashlib.sha256(json.dumps([FORMAT, corpus_hash, tokenizer, *own]).encode()).hexdigest()[:ID_LENGTH]
    return atomic_files.cache_folder() / "tokens" / key


def _check_splits(corpus: Corpus, documents: Documents) -> None:
    n = sum(len(texts) for texts in documents.by_split.values())
    reasons = [f"{count} x {reason}" for reason, count in sorted(documents.skipped.items())]
    left_out = ", ".join(reasons) or "nothing"
    if documents.skipped:
        log.warning("corpus %s: %d documents; left out: %s", corpus, n, left_out)
    if n == 0:
        raise ValueError(f"corpus {corpus}: no document in {len(documents.files)} files; left out: {left_out}")
    for split, texts in documents.by_split.items():
        if not texts:
            raise ValueError(
                f"corpus {corpus}: it is too short: even cut into {n} pieces none is in the {split} split. A hash puts "
                f"14 of 16 in training, 1 each in validation and test, so about 100 pieces of {SHORTEST_BLOCK} "
                "characters are needed"
            )
    if documents.cut is not None:
        log.warning(
            "corpus %s: its documents are too few for training, validation and test, so they are cut into %d blocks of "
            "at least %d characters (blocks of one text are alike, so validation is easier than on unseen texts)",
            corpus,
            n,
            documents.cut,
        )


def _fill(folder: Path, corpus: Corpus, documents: Documents, spec: str, tokenizer: Tokenizer) -> None:
    splits: dict[str, SplitSize] = {}
    for split, texts in documents.by_split.items():
        with (folder / f"{split}.bin").open("wb") as file:
            n_bytes = sum(file.write(ids.tobytes()) for ids in _encoded(tokenizer, texts))
        splits[split] = SplitSize(len(texts), n_bytes // tokenizer.dtype.itemsize, texts.bytes)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    meta = {
        "format": FORMAT,
        "corpus": str(corpus),
        "corpus_hash": documents.hash,
        "tokenizer": spec,
        "tokenizer_hash": tokenizer.hash,
        "versions": corpus.versions(),
        "skipped": documents.skipped,
        "cut_characters": documents.cut,
        "splits": {split: asdict(size) for split, size in splits.items()},
    }
    atomic_files.write_json(folder / "meta.json", meta)
    # Apart, since there can be thousands, and every batch reads meta.json.
    atomic_files.write_json(folder / "sources.json", documents.files)
    checksums.seal(folder, _OWN)


def _encoded(tokenizer: Tokenizer, documents: Iterable[str]) -> Iterator[UInt[np.ndarray, " token"]]:
    end = np.array([tokenizer.end_of_document], tokenizer.dtype)
    for group in _groups(documents):
        encoded = tokenizer.encode([piece for piece, _ in group])
        for ids, (_, is_last) in zip(encoded, group):
            yield ids
            if is_last:
                yield end


def _groups(documents: Iterable[str]) -> Iterator[list[tuple[str, bool]]]:
    """Pieces of the documents to be encoded at once, each with whether it is the last one of its document."""
    group: list[tuple[str, bool]] = []
    characters = 0
    for document in documents:
        *first, last = pieces(document)
        for piece, is_last in [*((piece, False) for piece in first), (last, True)]:
            if group and (len(group) == DOCUMENTS_AT_ONCE or characters + len(piece) > CHARACTERS_AT_ONCE):
                yield group
                group, characters = [], 0
            group.append((piece, is_last))
            characters += len(piece)
    if group:
        yield group
