"""Tokenizers: bytes, and byte-level BPE trained on the corpus's training split.

Ids are the tokenizer's own from 0 up. The last of d_vocab ids is the end of a document; no text can spell it.
"""

import abc
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
from jaxtyping import UInt
from tokenizers import Tokenizer as Model
from tokenizers import decoders, models, pre_tokenizers, trainers

from procpre_interp.core.config import ID_LENGTH
from procpre_interp.data.corpus import END_OF_DOCUMENT
from procpre_interp.data.vocab import TextVocab

BYTES_AND_END = TextVocab.N_BYTES + 1


def vocabulary_size(spec: str) -> int:
    """d_vocab of the tokenizer "byte" or "bpe:SIZE", the end of a document included, known before training.

    Raises `ValueError` for anything else.
    """
    kind, _, size = spec.partition(":")
    if kind == "byte" and not size:
        return BYTES_AND_END
    if kind == "bpe" and re.fullmatch("[1-9][0-9]{0,6}", size):
        if int(size) >= BYTES_AND_END:
            return int(size)
        raise ValueError(f"tokenizer {spec!r}: at least {BYTES_AND_END} ids: each byte and the end of a document")
    raise ValueError(f"unknown tokenizer {spec!r}. There are: byte, bpe:SIZE (bpe:4096, say)")


class Tokenizer(abc.ABC):
    """Text to ids and back, without loss."""

    d_vocab: int

    @property
    def end_of_document(self) -> int:
        return TextVocab(self.d_vocab).end_of_document

    @property
    def dtype(self) -> np.dtype:
        """How a token is stored."""
        return token_dtype(self.d_vocab)

    @abc.abstractmethod
    def encode(self, documents: list[str]) -> list[UInt[np.ndarray, " token"]]:
        """The ids of each document, without its end."""

    @abc.abstractmethod
    def to_json(self) -> str:
        """All that `load_tokenizer` needs."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`; a character that the ends of a window have cut becomes U+FFFD."""
        parts: list[list[int]] = [[]]
        for token in tokens:
            if token == self.end_of_document:
                parts.append([])
            else:
                parts[-1].append(token)
        return END_OF_DOCUMENT.join(self._decode(part) for part in parts)

    @abc.abstractmethod
    def _decode(self, tokens: list[int]) -> str:
        """The text of tokens within one document."""

    @property
    def hash(self) -> str:
        """16 hexadecimal digits: equal hashes give equal tokens."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:ID_LENGTH]


def token_dtype(d_vocab: int) -> np.dtype:
    """Little-endian, 2 bytes where that is enough."""
    return np.dtype("<u2" if d_vocab <= 2**16 else "<u4")


class ByteTokenizer(Tokenizer):
    """The bytes of UTF-8."""

    d_vocab = BYTES_AND_END

    def encode(self, documents: list[str]) -> list[UInt[np.ndarray, " token"]]:
        return [np.frombuffer(document.encode(), np.uint8).astype(self.dtype) for document in documents]

    def _decode(self, tokens: list[int]) -> str:
        return bytes(tokens).decode(errors="replace")

    def to_json(self) -> str:
        return json.dumps({"type": "byte"})


class BytePairTokenizer(Tokenizer):
    """Byte-level BPE, with GPT-2's way of cutting text into words. No text is read as a special token."""

    def __init__(self, model: Model, d_vocab: int) -> None:
        self.model, self.d_vocab = model, d_vocab

    @classmethod
    def train(cls, documents: Iterable[str], d_vocab: int) -> "BytePairTokenizer":
        """A text too small for `d_vocab` merges leaves ids unused."""
        model = Model(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=d_vocab - 1, initial_alphabet=alphabet, show_progress=False)
        model.train_from_iterator(documents, trainer)
        return cls(model, d_vocab)

    def encode(self, documents: list[str]) -> list[UInt[np.ndarray, " token"]]:
        encodings = self.model.encode_batch_fast(documents, add_special_tokens=False)
        return [np.array(encoding.ids, self.dtype) for encoding in encodings]

    def _decode(self, tokens: list[int]) -> str:
        return self.model.decode(tokens, skip_special_tokens=False)

    def to_json(self) -> str:
        return self.model.to_str()


def train_tokenizer(spec: str, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer `spec`, trained on `documents` where it has anything to learn."""
    return ByteTokenizer() if spec == "byte" else BytePairTokenizer.train(documents, vocabulary_size(spec))


def load_tokenizer(spec: str, text: str) -> Tokenizer:
    """The inverse of `to_json`."""
    if spec == "byte":
        return ByteTokenizer()
    return BytePairTokenizer(cast(Model, Model.from_str(text)), vocabulary_size(spec))
