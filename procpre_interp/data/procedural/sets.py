"""Sets: set `7 3 3 | 7 3`, union `7 3 | 3 5 | 7 3 5`, delete `7 3 5 3 | 3 | 7 5 3`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.data.draws import below
from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.ragged import Ragged, join, keep_only
from procpre_interp.data.task import TASKS


def first_appearances(x: Ragged, d_vocab: int) -> Bool[Tensor, "batch pos"]:
    """Where a token stands for the first time in its row."""
    seen = torch.zeros(len(x.lengths), d_vocab, dtype=torch.bool)
    tokens = x.tokens.long()
    new = x.real
    for t in range(tokens.shape[1]):
        token = tokens[:, t : t + 1]
        new[:, t] &= ~seen.gather(1, token)[:, 0]
        # Meaningless tokens follow all real ones of their row, so marking them as seen does no harm.
        seen.scatter_(1, token, True)
    return new


def repeat_or_new(
    x: Ragged,
    position: Int[Tensor, " batch"],
    earlier: Int[Tensor, " batch"],
    drawn: Int[Tensor, " batch"],
    d_vocab: int,
) -> Int[Tensor, " batch"]:
    """The symbol that makes a repeat of a new one at `position`, or the other way around.

    It is the symbol at the place `earlier` in place of a new one, and the one `drawn` in place of a repeat. That may be
    a repeat too, which changes no answer.
    """
    is_new = first_appearances(x, d_vocab).gather(1, position[:, None])[:, 0]
    return torch.where(is_new, x.tokens.gather(1, earlier[:, None])[:, 0], drawn)


@TASKS.register("set")
@dataclass(frozen=True, kw_only=True, slots=True)
class Set(SequenceTask):
    """The input without repeats, in order of first appearance: x | set x.

    Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = "A sequence, and its symbols without repeats."

    causes: ClassVar[Mapping[str, str]] = {
        "repeat": "an input symbol is a repeat or a new one; read where the answer has the new one or leaves it out"
    }

    def answer(self, *inputs: Ragged) -> Ragged:
        (x,) = inputs
        return keep_only(x.tokens, first_appearances(x, self.d_vocab))

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        self.check_cause(cause, "a symbol before the one that changes and another behind it", length=3, vocab=4)
        (x,) = inputs
        # In a row of one symbol nothing can be a repeat.
        position = (1 + below(x.lengths - 1, generator=generator)).clamp(max=x.lengths - 1)
        earlier = below(position, generator=generator)
        drawn = self.symbols(x.lengths, 1, generator=generator).tokens[:, 0]
        symbol = repeat_or_new(x, position, earlier, drawn, self.d_vocab)
        return [x.replaced(position, symbol)], position > 0


@TASKS.register("union")
@dataclass(frozen=True, kw_only=True, slots=True)
class Union(SequenceTask):
    """Two halves, then both together without repeats, in order of first appearance: a | b | union.

    `length` counts both halves together, so it is even; each half is uniform, and may repeat itself.
    Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = "Two sequences, and the symbols of both without repeats."

    shortest: ClassVar[int] = 2
    length_step: ClassVar[int] = 2
    n_separators: ClassVar[int] = 2
    causes: ClassVar[Mapping[str, str]] = {
        "repeat": "a symbol of the second half is a repeat or a new one; read where the answer has the new one or "
        "leaves it out"
    }

    def inputs(self, lengths: Int[Tensor, " batch"], *, generator: Generator) -> list[Ragged]:
        return [self.symbols(lengths // 2, self.length // 2, generator=generator) for _ in range(2)]

    def answer(self, *inputs: Ragged) -> Ragged:
        both = join(list(inputs))
        return keep_only(both.tokens, first_appearances(both, self.d_vocab))

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        """A repeat that is put in has its like in the first half."""
        self.check_cause(cause, "a symbol in the second half and another behind it", length=4, vocab=4)
        a, b = inputs
        place, earlier = below(b.lengths, generator=generator), below(a.lengths, generator=generator)
        drawn = self.symbols(b.lengths, 1, generator=generator).tokens[:, 0]
        symbol = repeat_or_new(join([a, b]), a.lengths + place, earlier, drawn, self.d_vocab)
        return [a, b.replaced(place, symbol)], torch.ones_like(place, dtype=torch.bool)


@TASKS.register("delete")
@dataclass(frozen=True, kw_only=True, slots=True)
class Delete(SequenceTask):
    """The input without the first appearance of a given symbol: x | t | x without the first t.

    t is the symbol at a uniform position of x, so it always occurs. (The released code draws it from the
    whole vocabulary: with 100 symbols and short inputs it then rarely occurs, and the task is mostly a copy.)
    Source: P1, table of tasks.
    """

    in_words: ClassVar[str] = "A sequence, a symbol, and the sequence without that symbol's first appearance."

    shortest: ClassVar[int] = 2
    """Smallest length: with one symbol nothing would be left to score."""
    n_separators: ClassVar[int] = 2
    causes: ClassVar[Mapping[str, str]] = {
        "target": "another symbol of the same input is to be deleted; read where the answers first differ"
    }

    @property
    def n_ctx(self) -> int:
        return 2 * self.length + 2

    def inputs(self, lengths: Int[Tensor, " batch"], *, generator: Generator) -> list[Ragged]:
        x = self.symbols(lengths, self.length, generator=generator)
        position = below(lengths, generator=generator)
        return [x, Ragged(x.tokens.gather(1, position[:, None]), torch.ones_like(lengths))]

    def answer(self, *inputs: Ragged) -> Ragged:
        x, target = inputs
        first = (x.tokens == target.tokens).to(torch.int8).argmax(1, keepdim=True)
        return keep_only(x.tokens, x.real.scatter_(1, first, False))

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        self.check_cause(cause, "a second symbol", vocab=3)
        x, target = inputs
        other = x.tokens.gather(1, below(x.lengths, generator=generator)[:, None])
        return [x, Ragged(other, target.lengths)], (other != target.tokens)[:, 0]
