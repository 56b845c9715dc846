"""Tokenizers trained on several corpora, so that none of them costs many more tokens than the others."""

import contextlib
import hashlib
import itertools
import json
import logging
from contextlib import ExitStack
from pathlib import Path

from procpre_interp.core import atomic_files, locks, regular_files
from procpre_interp.core.config import ID_LENGTH
from procpre_interp.core.plain_values import load_json
from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.documents import SAMPLE_BYTES, cache_errors, corpus_hash, pieces, read_documents
from procpre_interp.data.semantic.tokenizers import Tokenizer, load_tokenizer, parse_tokenizer, train_tokenizer

FORMAT = 1
"""Raised when the same corpora would give another tokenizer than before."""

log = logging.getLogger(__name__)


def shared_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer "bpe:SIZE@CORPUS+CORPUS", trained unless it is in the cache.

    It learns from equal amounts of each corpus's training split: about as much as the smallest has, and all together
    at most `SAMPLE_BYTES`. Raises `ValueError` for a corpus without documents, and `OSError` where the cache cannot be
    written.
    """
    hashes = {name: corpus_hash(build_corpus(name)) for name in parse_tokenizer(spec).corpora}
    identity = json.dumps([FORMAT, parse_tokenizer(spec).d_vocab, list(hashes.values())])
    key = hashlib.sha256(identity.encode()).hexdigest()[:ID_LENGTH]
    path = atomic_files.cache_folder() / "tokenizers" / f"{key}.json"
    with ExitStack() as stack:
        with cache_errors(", ".join(hashes)):
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locks.locked(path.with_suffix(".lock")))
        if (found := _read(path, spec)) is not None:
            return found
        log.info("training the tokenizer %s", spec)
        tokenizer = _train(spec, hashes, path.parent)
        with cache_errors(", ".join(hashes)):
            kept = {"hash": tokenizer.hash, "corpora": hashes, "tokenizer": tokenizer.to_json()}
            atomic_files.write_json(path, kept)
        return tokenizer


def _read(path: Path, spec: str) -> Tokenizer | None:
    """The tokenizer in a file; None where there is none, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = load_json(regular_files.read_regular(path))
        tokenizer = load_tokenizer(spec, kept["tokenizer"])
        if tokenizer.hash == kept["hash"]:
            return tokenizer
    return None


def _train(spec: str, hashes: dict[str, str], folder: Path) -> Tokenizer:
    with ExitStack() as opened:
        read = {name: opened.enter_context(read_documents(build_corpus(name), folder)) for name in hashes}
        for name, documents in read.items():
            if documents.hash != hashes[name]:
                raise ValueError(f"corpus {name}: its files changed while they were read; try again")
            if not documents.by_split["train"]:
                raise ValueError(f"tokenizer {spec}: corpus {name} has no document in its training split")
        train = [documents.by_split["train"] for documents in read.values()]
        limit = min(SAMPLE_BYTES // len(train), *(part.bytes for part in train))
        texts = itertools.chain.from_iterable(part.sample(limit) for part in train)
        return train_tokenizer(spec, (piece for text in texts for piece in pieces(text)))
