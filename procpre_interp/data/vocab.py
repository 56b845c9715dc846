"""The only home of special token ids, and what a named token is. Symbols come first, then the specials."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Token:
    """An id's name, unique within its task and without blanks, and its role."""

    name: str
    role: str


SEPARATOR = Token("|", "separator")
PADDING = Token("·", "padding")


@dataclass(frozen=True, slots=True)
class Vocab:
    """Token ids of a procedural task: `n_symbols` symbols, then the separator if there is one, then the pad.

    Source: P1, released code: separator = vocab, pad = vocab + 1; Dyck has no separator, so its pad is 2k.
    """

    n_symbols: int
    has_separator: bool = True

    @property
    def separator(self) -> int:
        """Id between the input and the output. Raises `ValueError` where the task has none."""
        if not self.has_separator:
            raise ValueError("this vocabulary has no separator")
        return self.n_symbols

    @property
    def pad(self) -> int:
        return self.n_symbols + self.has_separator

    @property
    def size(self) -> int:
        """d_vocab: all ids, the specials included."""
        return self.n_symbols + self.has_separator + 1


class HaystackVocab:
    """Ids of needle in a haystack; 0 pads, and of 256 ids 188..255 never occur. Source: P1, released code."""

    PAD = 0
    FIRST_VALUE, LAST_VALUE = 1, 127
    FIRST_KEY = 128
    N_KEYS = 30
    TWIN_OFFSET = 30
    """The query for key s is the symbol s + 30: its twin, never the key itself."""
    SIZE = 256


class ArithmeticVocab:
    """Ids of the arithmetic tasks: operand digits are 0..9, answer digits symbols of their own.

    Source: P1, released code.
    """

    PLUS = TIMES = 10
    EQUALS = 11
    PAD = 12
    FIRST_ANSWER_DIGIT = 20
    STOP = 30
    SIZE = 31


@dataclass(frozen=True, slots=True)
class TextVocab:
    """Ids of text: what the tokenizer makes of it, then, last of all `size`, the end of a document."""

    size: int

    N_BYTES: ClassVar[int] = 256

    @property
    def end_of_document(self) -> int:
        return self.size - 1
