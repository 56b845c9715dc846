"""Tokenizers: bytes, characters of ASCII, GPT-2's, and byte-level BPE trained on training splits.

Ids are the tokenizer's own from 0 up. The last of d_vocab ids is the end of a document; no text can spell it.
"""

import abc
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from jaxtyping import UInt
from tokenizers import Tokenizer as Model
from tokenizers import decoders, models, pre_tokenizers, trainers

from procpre_interp.core.config import ID_LENGTH
from procpre_interp.data.corpus import CORPORA, END_OF_DOCUMENT, build_corpus
from procpre_interp.data.semantic import gpt2
from procpre_interp.data.vocab import TextVocab

BYTES_AND_END = TextVocab.N_BYTES + 1
CHARACTERS = "".join(map(chr, range(32, 127))) + "\n"
"""The ids of `characters`, in order: the 95 printable characters of ASCII, and the end of a line. Questions and answers
of DeepMind-Math have no others. Source: Saxton et al. (2019)."""

KINDS = "byte, bpe:SIZE (bpe:4096, say), bpe:SIZE@CORPUS+CORPUS, characters, gpt2"


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """What the name of a tokenizer says of it, known before training."""

    kind: Literal["byte", "characters", "gpt2", "bpe"]
    d_vocab: int
    """The end of a document included."""
    corpora: tuple[str, ...] = ()
    """What BPE is trained on. Default: the corpus that it cuts into tokens."""


def parse_tokenizer(spec: str) -> TokenizerSpec:
    """What "byte", "bpe:SIZE", "bpe:SIZE@CORPUS+CORPUS", "characters" or "gpt2" stands for.

    Raises `ValueError` for anything else.
    """
    if spec == "byte":
        return TokenizerSpec("byte", BYTES_AND_END)
    if spec == "characters":
        return TokenizerSpec("characters", len(CHARACTERS) + 1)
    if spec == "gpt2":
        return TokenizerSpec("gpt2", gpt2.D_VOCAB)
    found = re.fullmatch("bpe:([1-9][0-9]{0,6})(?:@(.*))?", spec, re.DOTALL)
    if found is None:
        raise ValueError(f"unknown tokenizer {spec!r}. There are: {KINDS}")
    size, listed = int(found[1]), found[2]
    if size < BYTES_AND_END:
        raise ValueError(f"tokenizer {spec!r}: at least {BYTES_AND_END} ids: each byte and the end of a document")
    if listed is None:
        return TokenizerSpec("bpe", size)
    # A path may hold a plus, too: one separates corpora where the name of a corpus follows it.
    names = "|".join(map(re.escape, CORPORA))
    corpora = re.split(rf"\+(?=(?:{names})(?:[:+]|$))", listed)
    for corpus in corpora:
        build_corpus(corpus)
    if len(set(corpora)) < len(corpora):
        raise ValueError(f"tokenizer {spec!r} names a corpus twice")
    return TokenizerSpec("bpe", size, tuple(corpora))


def vocabulary_size(spec: str) -> int:
    """d_vocab of a tokenizer. Raises `ValueError` for an unknown one."""
    return parse_tokenizer(spec).d_vocab


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


class CharacterTokenizer(Tokenizer):
    """One id for each of `CHARACTERS`, and no other character."""

    d_vocab = len(CHARACTERS) + 1

    def __init__(self) -> None:
        self._ids = np.full(256, self.d_vocab, self.dtype)
        self._ids[np.frombuffer(CHARACTERS.encode(), np.uint8)] = np.arange(len(CHARACTERS))

    def encode(self, documents: list[str]) -> list[UInt[np.ndarray, " token"]]:
        """Raises `ValueError` for any other character: an id for all unknown ones could not be turned back into text,
        and would make the loss of a corpus with many of them too low."""
        return [self._encode(document) for document in documents]

    def _encode(self, document: str) -> UInt[np.ndarray, " token"]:
        ids = self._ids[np.frombuffer(document.encode(), np.uint8)]
        if (ids == self.d_vocab).any():
            place = next(i for i, character in enumerate(document) if character not in CHARACTERS)
            raise ValueError(
                f"tokenizer characters: {document[place]!r} is neither printable ASCII nor the end of a line, in "
                f"{document[max(0, place - 20) : place + 20]!r}; take byte or bpe:SIZE for this corpus"
            )
        return ids

    def _decode(self, tokens: list[int]) -> str:
        return "".join(CHARACTERS[token] for token in tokens)

    def to_json(self) -> str:
        return json.dumps({"type": "characters", "characters": CHARACTERS})


class BytePairTokenizer(Tokenizer):
    """Byte-level BPE, with GPT-2's way of cutting text into words. No text is read as a special token."""

    def __init__(self, model: Model, d_vocab: int) -> None:
        self.model, self.d_vocab = model, d_vocab

    @classmethod
    def train(cls, documents: Iterable[str], d_vocab: int) -> "BytePairTokenizer":
        """A text too small for `d_vocab` merges leaves ids unused."""
        model = byte_level(models.BPE())
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


def byte_level(merges: models.BPE) -> Model:
    """BPE on bytes, within GPT-2's words."""
    model = Model(merges)
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    return model


def train_tokenizer(spec: str, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer `spec`, trained on `documents` where it has anything to learn.

    Raises `OSError` where it is GPT-2's, which is not in the cache and cannot be fetched.
    """
    parsed = parse_tokenizer(spec)
    if parsed.kind == "gpt2":
        vocabulary, merges = gpt2.gpt2_merges()
        return BytePairTokenizer(byte_level(models.BPE(vocabulary, merges)), parsed.d_vocab)
    if parsed.kind == "bpe":
        return BytePairTokenizer.train(documents, parsed.d_vocab)
    return CharacterTokenizer() if parsed.kind == "characters" else ByteTokenizer()


def load_tokenizer(spec: str, text: str) -> Tokenizer:
    """The inverse of `to_json`."""
    parsed = parse_tokenizer(spec)
    if parsed.kind in ("bpe", "gpt2"):
        return BytePairTokenizer(cast(Model, Model.from_str(text)), parsed.d_vocab)
    return CharacterTokenizer() if parsed.kind == "characters" else ByteTokenizer()
