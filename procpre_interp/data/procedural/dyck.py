"""Bracket languages: k-Dyck `( [ ] ) { }`, and the k-Dyck shuffle `( [ ) ]`, whose types interleave."""

import abc
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, choose, coins, other_than
from procpre_interp.data.procedural.sequence import narrowest
from procpre_interp.data.task import TASKS, Batch, Task, clip_length
from procpre_interp.data.vocab import PADDING, Token, Vocab

FAMILIAR = ("()", "[]", "{}", "<>")
"""Brackets of up to four types; where there are more, they are numbered: (0 and )0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BracketTask(Task):
    """Sequences of k types of brackets, opens 0 .. k-1 and closes k .. 2k-1. Every next token is scored."""

    k: int = 16
    """Bracket types."""
    length: int = 128
    """Tokens of a sequence."""

    length_step: ClassVar[int] = 1
    interleaves: ClassVar[bool] = False
    """Whether a close may match any open of its type, and not only the latest of all."""

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"k={self.k} bracket types; k must be at least 1")
        if self.length < 2 or self.length % self.length_step:
            even = " and even, since the brackets balance" if self.length_step == 2 else ""
            raise ValueError(f"length={self.length} tokens; length must be at least 2{even}")

    @property
    def ids(self) -> Vocab:
        return Vocab(2 * self.k, has_separator=False)

    @property
    def d_vocab(self) -> int:
        return self.ids.size

    @property
    def n_ctx(self) -> int:
        return self.length

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        named = {self.ids.pad: PADDING}
        for kind in range(self.k):
            pair = FAMILIAR[kind] if self.k <= len(FAMILIAR) else (f"({kind}", f"){kind}")
            named[kind], named[self.k + kind] = Token(pair[0], "opens"), Token(pair[1], "closes")
        return named

    @property
    def valid_lengths(self) -> range:
        return range(2, self.length + 1, self.length_step)

    def at_length(self, length: int) -> "Task":
        return dataclasses.replace(self, length=clip_length(length, self.valid_lengths))

    @abc.abstractmethod
    def draw(self, n: int, *, generator: Generator) -> Int[Tensor, "pos batch"]:
        """The sequences, position first: each step of the loop then writes one contiguous row."""

    def batch(self, n: int, *, generator: Generator) -> Batch:
        tokens = self.draw(n, generator=generator).T.contiguous()
        return Batch.from_sequences(tokens, torch.full((n,), self.length), 0, self.ids.pad)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        """Another bracket closes at the read position, so the type must be looked up, not copied from there."""
        self.check_cause(cause, "a second type", k=2)
        self.check_cause(cause, "a bracket that is open while another closes", length=4)
        tokens = self.batch(n, generator=generator).tokens
        closing = tokens >= self.k
        change = 1 - 2 * closing.long()
        read = closing.roll(1, 1) & closing  # a sequence never starts with a close, so nothing comes around
        if self.interleaves:
            read &= change.cumsum(1) == 0
        close = choose(read, generator=generator)[:, None]
        kind = tokens.gather(1, close) - self.k
        if self.interleaves:
            change *= tokens % self.k == kind
        # The open is the latest that led to the depth before the close. Where types interleave, that is the depth of
        # its own type: all its closes in between then find others open, and stay right.
        depth = change.cumsum(1)
        t = torch.arange(self.length)
        opens = (change == 1) & (depth == depth.gather(1, close) + 1) & (t < close)
        opened = torch.where(opens, t, 0).amax(1, keepdim=True)
        other = other_than(kind[:, 0], self.k, generator=generator)[:, None]
        corrupted = tokens.scatter(1, opened, other).scatter_(1, close, other + self.k)
        return Pairs.from_sequences(tokens, corrupted, close[:, 0] - 1, read.any(1))

    def check_probability(self, p_open: float) -> None:
        if not 0 <= p_open <= 1:
            raise ValueError(f"p_open={p_open} is no probability; it must lie between 0 and 1")


@TASKS.register("dyck")
@dataclass(frozen=True, kw_only=True, slots=True)
class Dyck(BracketTask):
    """Balanced brackets of k types, each close matching the latest open.

    A bracket opens when nothing is open and closes when what remains is just enough to close everything; else
    it opens with probability `p_open`, of a uniform type. Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = (
        "Balanced brackets of several kinds: each closing bracket must match the latest one that is still "
        "open. Where the next token is an opening bracket it cannot be predicted, so accuracy stays well "
        "below 100 %."
    )

    p_open: float = 0.49
    """Probability of opening where both are possible."""

    length_step: ClassVar[int] = 2
    causes: ClassVar[Mapping[str, str]] = {
        "type": "the innermost open bracket has another type; read where its close follows, behind another close"
    }

    def __post_init__(self) -> None:
        BracketTask.__post_init__(self)
        self.check_probability(self.p_open)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        if self.p_open == 0:
            raise ValueError(f"p_open=0; cause {cause!r} of {self.name} needs nested brackets, so p_open above 0")
        return BracketTask.draw_pairs(self, cause, n, generator=generator)

    def draw(self, n: int, *, generator: Generator) -> Int[Tensor, "pos batch"]:
        dtype = narrowest(self.d_vocab)
        may_open = coins(self.p_open, self.length, n, generator=generator)
        types = torch.randint(self.k, (self.length, n), generator=generator, dtype=dtype)
        tokens = torch.empty(self.length, n, dtype=dtype)
        stack = torch.zeros(self.length // 2, n, dtype=dtype)
        depth = torch.zeros(n, dtype=torch.int64)
        for t in range(self.length):
            opens = (may_open[t] & (depth < self.length - t - 1)).logical_or_(depth == 0)
            # Where this bracket's type stands in the stack: on top of it when it opens, the top itself when
            # it closes.
            beneath = depth - 1
            level = torch.where(opens, depth, beneath)[None]
            kind = torch.where(opens, types[t], stack.gather(0, level)[0])
            stack.scatter_(0, level, kind[None])
            torch.where(opens, kind, kind + self.k, out=tokens[t])
            depth = torch.where(opens, depth + 1, beneath)
        return tokens


@TASKS.register("dyck_shuffle")
@dataclass(frozen=True, kw_only=True, slots=True)
class DyckShuffle(BracketTask):
    """Brackets of k types that interleave freely, each close matching an open of its own type.

    A bracket opens when nothing is open and closes at `max_depth`; else it opens with probability `p_open`,
    of a uniform type. A close is uniform over the types that are open. The sequence is cut at `length`, so it
    need not balance. Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = "Brackets of several kinds that may cross: each closes an open one of its own kind."

    p_open: float = 0.5
    """Probability of opening where both are possible."""
    max_depth: int = 16
    """Brackets open at a time, over all types."""

    interleaves: ClassVar[bool] = True
    causes: ClassVar[Mapping[str, str]] = {
        "type": "the only open bracket has another type; read where its close follows, behind another close"
    }

    def __post_init__(self) -> None:
        BracketTask.__post_init__(self)
        self.check_probability(self.p_open)
        if self.max_depth < 1:
            raise ValueError(f"max_depth={self.max_depth} open brackets; max_depth must be at least 1")

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        self.check_cause(cause, "a bracket that is open while another closes", max_depth=2)
        if self.p_open in (0, 1):
            raise ValueError(
                f"p_open={self.p_open}; cause {cause!r} of {self.name} needs one open bracket after two, so p_open "
                "between 0 and 1"
            )
        return BracketTask.draw_pairs(self, cause, n, generator=generator)

    def draw(self, n: int, *, generator: Generator) -> Int[Tensor, "pos batch"]:
        dtype = narrowest(self.d_vocab)
        may_open = coins(self.p_open, self.length, n, generator=generator)
        types = torch.randint(self.k, (self.length, n), generator=generator, dtype=dtype)
        tokens = torch.empty(self.length, n, dtype=dtype)
        # The open types of each row, in any order, as a list whose first `n_types` entries count.
        open_types = torch.zeros(self.k + 1, n, dtype=dtype)
        n_types = torch.zeros(n, dtype=torch.int64)
        n_open = torch.zeros(self.k, n, dtype=dtype)
        depth, one = torch.zeros(n, dtype=dtype), torch.ones(n, dtype=dtype)
        for t in range(self.length):
            opens = (may_open[t] & (depth < self.max_depth)).logical_or_(depth == 0)
            entry = below(n_types, generator=generator)
            kind = torch.where(opens, types[t], open_types.gather(0, entry[None])[0])
            row = kind.long()[None]
            before = n_open.gather(0, row)[0]
            change = torch.where(opens, one, -one)
            n_open.scatter_(0, row, (before + change)[None])
            depth += change
            # A new type is appended; one whose last bracket closes gives its entry to the last of the list.
            # (A type that is open already is written behind the end, where it has no meaning.)
            closed = ~opens & (before == 1)
            last = open_types.gather(0, (n_types - 1).clamp_(min=0)[None])[0]
            written = torch.where(closed, last, kind)
            open_types.scatter_(0, torch.where(opens, n_types, entry)[None], written[None])
            n_types = torch.where(opens & (before == 0), n_types + 1, torch.where(closed, n_types - 1, n_types))
            torch.where(opens, kind, kind + self.k, out=tokens[t])
        return tokens
