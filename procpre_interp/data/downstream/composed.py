"""Chained primitives: `reverse set | 7 3 3 9 | 3 | 9 3 7`, a program, its input, and what it makes of the input."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.data.draws import below, other_than
from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.procedural.sets import first_appearances
from procpre_interp.data.procedural.sorting import ascending
from procpre_interp.data.ragged import Ragged, keep_only
from procpre_interp.data.task import TASKS
from procpre_interp.data.vocab import Token, Vocab

PRIMITIVES = ("identity", "reverse", "sort", "set", "delete", "rotate")
"""The steps, in the order of their ids."""

HELD_OUT_DISTANCE = 2
"""Step a before step b is a held-out pair where (b - a) mod 6 is this: each step is first in one pair and second in
one, and stands in both places in five others that are seen."""

MOST_PRIMITIVES = 3

Programs = Literal["seen", "unseen", "all"]
Naming = Literal["composed", "permuted"]


def is_held_out(program: tuple[int, ...]) -> bool:
    """Whether a program has a held-out pair of steps in a row."""
    return any((b - a) % len(PRIMITIVES) == HELD_OUT_DISTANCE for a, b in itertools.pairwise(program))


@cache
def programs(n_primitives: int, which: Programs = "all") -> tuple[tuple[int, ...], ...]:
    """The programs of so many steps, as indices of `PRIMITIVES`, in the order of those."""
    every = itertools.product(range(len(PRIMITIVES)), repeat=n_primitives)
    return tuple(program for program in every if which == "all" or is_held_out(program) == (which == "unseen"))


@cache
def permuted_names(n_primitives: int) -> tuple[tuple[int, ...], ...]:
    """What the programs of `programs(n_primitives)` do in the control: each what another one says, or itself.

    The one permutation that the control has ever had, of seen and of unseen programs among themselves, so that training
    on the seen ones has the same answers in another assignment. Single steps keep their names.
    """
    every = programs(n_primitives)
    if n_primitives == 1:
        return every
    meaning: dict[tuple[int, ...], tuple[int, ...]] = {}
    for which in ("seen", "unseen"):
        some = programs(n_primitives, which)
        order = numpy_stream(0, "composed", "permuted", which, n_primitives).permutation(len(some))
        meaning |= {program: some[place] for program, place in zip(some, order)}
    return tuple(meaning[program] for program in every)


@TASKS.register("composed")
@dataclass(frozen=True, kw_only=True, slots=True)
class Composed(SequenceTask):
    """A program of one to three steps, an input, a symbol of it, and what the steps make of the input, in turn.

    identity; reverse; sort (ascending); set (without repeats, in order of first appearance); delete (without the first
    appearance of the symbol that is given, where there is still one); rotate (the first symbol goes to the end). Steps
    are tokens of their own. Some pairs of steps are held out (`is_held_out`): `programs` is what a model trains on
    (seen), what is never shown to it (unseen), or both. With `naming` permuted, the control, a program of two or three
    steps does what another one says: sequences, steps and answers have the same statistics, and nothing composes.
    The symbols are uniform, but that an input of one symbol alone gets another in the second place, so that no answer
    is empty. Source: P1 asks for chained primitives and gives no task; all of this is our choice.
    """

    in_words: ClassVar[str] = "Small programs of one to three steps and what they make of an input, step by step."

    vocab: int = 50
    """Symbols are 1 .. vocab - 1; the six steps follow from vocab on, then separator and padding."""
    length: int = 8
    """Input symbols, exactly; with `min_length`, at most."""
    n_primitives: int = 2
    """Steps of a program, 1 to 3."""
    programs: Programs = "seen"
    """Which programs: seen, unseen (those with a held-out pair of steps) or all."""
    naming: Naming = "composed"
    """composed, or permuted: the control in which the names of steps say nothing of the program."""

    shortest: ClassVar[int] = 2
    n_separators: ClassVar[int] = 3
    causes: ClassVar[Mapping[str, str]] = {
        "symbol": "one input symbol is another; read where the answers first differ",
        "step": "one step of the program is another; read where the answers first differ",
    }

    def __post_init__(self) -> None:
        # As the class is made anew for its slots, `super()` without arguments would not find it.
        super(Composed, self).__post_init__()
        if self.vocab < 3:
            raise ValueError(f"vocab={self.vocab}; composed needs two symbols, so vocab must be at least 3")
        if not 1 <= self.n_primitives <= MOST_PRIMITIVES:
            raise ValueError(f"n_primitives={self.n_primitives}; a program has 1 to {MOST_PRIMITIVES} steps")
        if not programs(self.n_primitives, self.programs):
            raise ValueError("programs='unseen' with n_primitives=1; of single steps none is held out")

    @property
    def first_step(self) -> int:
        """Token id of the first of `PRIMITIVES`."""
        return self.vocab

    @property
    def ids(self) -> Vocab:
        return Vocab(self.vocab + len(PRIMITIVES))

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        # As the class is made anew for its slots, `super()` without arguments would not find it.
        steps = {self.first_step + i: Token(name, "step") for i, name in enumerate(PRIMITIVES)}
        return {**super(Composed, self).named_tokens, **steps}

    @property
    def n_ctx(self) -> int:
        return self.n_primitives + self.length + 1 + self.n_separators + self.longest_answer

    def inputs(self, lengths: Int[Tensor, " batch"], *, generator: Generator) -> list[Ragged]:
        """Program, symbols, and the one of them that is given to delete."""
        n = len(lengths)
        choices = torch.tensor(programs(self.n_primitives, self.programs))
        steps = choices[below(torch.full((n,), len(choices)), generator=generator)]
        x = self.symbols(lengths, self.length, generator=generator)
        first = x.tokens[:, 0].long()
        second = other_than(first - 1, self.vocab - 1, generator=generator) + 1
        place = torch.ones_like(lengths)
        x = Ragged(torch.where(_has_two(x)[:, None], x.tokens, x.replaced(place, second).tokens), lengths)
        target = x.tokens.gather(1, below(lengths, generator=generator)[:, None])
        steps = (steps + self.first_step).to(x.tokens.dtype)
        return [Ragged(steps, torch.full((n,), self.n_primitives)), x, Ragged(target, place)]

    def answer(self, *inputs: Ragged) -> Ragged:
        named, x, target = inputs
        steps = self.meaning(named.tokens.long() - self.first_step)
        tokens, lengths = x.tokens.clone(), x.lengths.clone()
        for step in range(self.n_primitives):
            for index, name in enumerate(PRIMITIVES):
                rows = (steps[:, step] == index).nonzero()[:, 0]
                done = self._apply(name, Ragged(tokens[rows], lengths[rows]), target.tokens[rows])
                tokens[rows], lengths[rows] = done.tokens, done.lengths
        return Ragged(tokens, lengths)

    def meaning(self, steps: Int[Tensor, "batch step"]) -> Int[Tensor, "batch step"]:
        """What programs do, as indices of `PRIMITIVES`: what they say, or, in the control, what another one says."""
        if self.naming == "composed":
            return steps
        return torch.tensor(permuted_names(self.n_primitives))[self._place(steps)]

    def _place(self, steps: Int[Tensor, "batch step"]) -> Int[Tensor, " batch"]:
        """Where programs stand in `programs(n_primitives)`."""
        return (steps * len(PRIMITIVES) ** torch.arange(self.n_primitives - 1, -1, -1)).sum(1)

    def _apply(self, name: str, x: Ragged, target: Int[Tensor, "batch 1"]) -> Ragged:
        if name == "reverse":
            return x.reversed()
        if name == "sort":
            # What has no meaning must be an id all the same, for the steps that follow.
            return Ragged(torch.where(x.real, ascending(x).tokens, 0), x.lengths)
        if name == "set":
            return keep_only(x.tokens, first_appearances(x, self.d_vocab))
        if name == "delete":
            found = (x.tokens == target) & x.real
            return keep_only(x.tokens, x.real & ~(found & (found.cumsum(1) == 1)))
        if name == "rotate":
            source = (torch.arange(x.tokens.shape[1]) + 1).expand(len(x.tokens), -1)
            return Ragged(x.tokens.gather(1, torch.where(source < x.lengths[:, None], source, 0)), x.lengths)
        return x

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        named, x, target = inputs
        if cause == "step":
            place = below(named.lengths, generator=generator)
            old = named.tokens.gather(1, place[:, None])[:, 0].long() - self.first_step
            new = other_than(old, len(PRIMITIVES), generator=generator) + self.first_step
            changed = named.replaced(place, new)
            held_out = torch.tensor([is_held_out(program) for program in programs(self.n_primitives)])
            is_unseen = held_out[self._place(changed.tokens.long() - self.first_step)]
            wanted = {"seen": ~is_unseen, "unseen": is_unseen, "all": torch.ones_like(is_unseen)}
            return [changed, x, target], wanted[self.programs]
        self.check_cause(cause, "a third symbol", vocab=4)
        position = below(x.lengths, generator=generator)
        old = x.tokens.gather(1, position[:, None])[:, 0] - 1
        changed = x.replaced(position, other_than(old, self.vocab - 1, generator=generator) + 1)
        # The symbol that is given must still be one of the input.
        given = ((changed.tokens == target.tokens) & changed.real).any(1)
        return [named, changed, target], given & _has_two(changed)


def _has_two(x: Ragged) -> Bool[Tensor, " batch"]:
    """Whether a row has two distinct symbols."""
    return ((x.tokens != x.tokens[:, :1]) & x.real).any(1)
