"""The family `input | answer`: draw an input, work out an answer, score the answer.

A new task of the family is one method: `answer`, from the drawn input (`Reverse` is a good one to copy).
Tasks with another input than uniform symbols override `inputs` too, and with it `causes` and `change`.
"""

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, other_than
from procpre_interp.data.ragged import Ragged, constant, join
from procpre_interp.data.task import Batch, Task, clip_length
from procpre_interp.data.vocab import PADDING, SEPARATOR, Token, Vocab


def narrowest(d_vocab: int) -> torch.dtype:
    """The integer type that tokens are made in: int16 where the ids fit."""
    return torch.int16 if d_vocab <= torch.iinfo(torch.int16).max else torch.int32


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceTask(Task):
    """Input symbols, a separator, and an answer that they determine. Only the answer is scored.

    Source: P1, released code. There is no token for the end of an answer, so where to stop is never scored.
    """

    vocab: int = 100
    """Symbols are 1 .. vocab - 1; the separator is vocab and the padding vocab + 1."""
    length: int = 20
    """Input symbols before the last separator, exactly; with `min_length`, at most."""
    min_length: int | None = None
    """Least number of input symbols: lengths are then uniform in min_length .. length. The paper's small
    models have lengths 4-20 (identity, stack) and 2-20 (set)."""

    causes: ClassVar[Mapping[str, str]] = {"symbol": "one input symbol is another; read where the answers first differ"}
    first_symbol: ClassVar[int] = 1
    shortest: ClassVar[int] = 1
    length_step: ClassVar[int] = 1
    n_separators: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.vocab <= self.first_symbol:
            raise ValueError(f"vocab={self.vocab} leaves no symbol; vocab must be at least {self.first_symbol + 1}")
        for field in ("length", "min_length"):
            value = getattr(self, field)
            if value is not None and (value < self.shortest or value % self.length_step):
                even = " and even" if self.length_step == 2 else ""
                raise ValueError(f"{field}={value} input symbols; {self.name} needs at least {self.shortest}{even}")
        if self.min_length is not None and self.min_length > self.length:
            raise ValueError(f"min_length={self.min_length} exceeds length={self.length}")

    @property
    def ids(self) -> Vocab:
        return Vocab(self.vocab)

    @property
    def d_vocab(self) -> int:
        return self.ids.size

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        symbols = {symbol: Token(str(symbol), "symbol") for symbol in range(self.ids.n_symbols)}
        return {**symbols, self.ids.separator: SEPARATOR, self.ids.pad: PADDING}

    @property
    def n_ctx(self) -> int:
        return self.length + self.n_separators + self.longest_answer

    @property
    def longest_answer(self) -> int:
        """Tokens of the longest answer."""
        return self.length

    @property
    def valid_lengths(self) -> range:
        return range(self.shortest, self.length + 1, self.length_step)

    def at_length(self, length: int) -> "Task":
        return dataclasses.replace(self, length=clip_length(length, self.valid_lengths), min_length=None)

    def symbols(self, lengths: Int[Tensor, " batch"], width: int, *, generator: Generator) -> Ragged:
        """Uniform symbols, repeats allowed."""
        shape = (len(lengths), width)
        drawn = torch.randint(self.first_symbol, self.vocab, shape, generator=generator, dtype=narrowest(self.d_vocab))
        return Ragged(drawn, lengths)

    def inputs(self, lengths: Int[Tensor, " batch"], *, generator: Generator) -> list[Ragged]:
        """What stands before the last separator, as the parts that separators divide."""
        return [self.symbols(lengths, self.length, generator=generator)]

    @abc.abstractmethod
    def answer(self, *inputs: Ragged) -> Ragged:
        """What follows the last separator."""

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.lay_out(self.draw_inputs(n, generator=generator))

    def draw_inputs(self, n: int, *, generator: Generator) -> list[Ragged]:
        """`inputs` of drawn lengths."""
        lengths = torch.full((n,), self.length)
        if self.min_length is not None:
            choices = (self.length - self.min_length) // self.length_step + 1
            lengths -= self.length_step * torch.randint(choices, (n,), generator=generator)
        return self.inputs(lengths, generator=generator)

    def lay_out(self, inputs: list[Ragged]) -> Batch:
        """The whole sequences: the inputs, what divides them, and their answer."""
        answer = self.answer(*inputs)
        separator = (
            [constant(self.ids.separator, len(answer.lengths), answer.tokens.dtype)] if self.n_separators else []
        )
        parts = [piece for part in inputs for piece in [part, *separator]]
        whole = join([*parts, answer], width=self.n_ctx, pad=self.ids.pad)
        # The token before the answer, a separator where there is one, predicts the answer's first token.
        return Batch.from_sequences(whole.tokens, whole.lengths, whole.lengths - answer.lengths - 1, self.ids.pad)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        inputs = self.draw_inputs(n, generator=generator)
        changed, possible = self.change(cause, inputs, generator=generator)
        clean, corrupted = self.lay_out(inputs), self.lay_out(changed)
        # Only where both sequences go on: an answer has no token for its end.
        differ = (clean.targets != corrupted.targets) & clean.loss_mask & corrupted.loss_mask
        return Pairs.from_sequences(clean.tokens, corrupted.tokens, differ.int().argmax(1), possible & differ.any(1))

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        """The inputs with another cause, and in which rows they are valid ones that differ in the cause."""
        self.check_cause(cause, "a second symbol", vocab=self.first_symbol + 2)
        (x,) = inputs
        position = below(x.lengths, generator=generator)
        old = x.tokens.gather(1, position[:, None])[:, 0] - self.first_symbol
        new = other_than(old, self.vocab - self.first_symbol, generator=generator)
        return [x.replaced(position, new + self.first_symbol)], torch.ones_like(position, dtype=torch.bool)
