"""Operations on a stack or a queue, and what they leave: `7 3 5 0 | 3 7` and `7 3 5 0 | 3 5`."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.data.draws import below, coins, other_than
from procpre_interp.data.procedural.sequence import SequenceTask, narrowest
from procpre_interp.data.ragged import Ragged, keep_only
from procpre_interp.data.task import TASKS

POP = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSymbols(SequenceTask):
    """Operations (a symbol pushes itself, 0 pops), then what is stored.

    A push when at most one symbol is stored. Else, in the first two thirds of the operations (rounded down, as in the
    released code), a push with probability `p_push`, and then a pop with the same probability. The last operation is a
    pop when more than one symbol is stored. No symbol is stored twice: a push is uniform over the symbols that are not,
    and where all are, one is popped. Which operations are pushes does not depend on which end a pop takes from. Source:
    P1, table of tasks and released code.
    """

    p_push: ClassVar[float] = 0.75
    first_in_first_out: ClassVar[bool]
    """Whether a pop takes the symbol that was pushed first of those stored, and not the last."""

    def __post_init__(self) -> None:
        SequenceTask.__post_init__(self)
        if self.vocab < 3:
            raise ValueError(
                f"vocab={self.vocab} leaves one symbol to push, and an empty {self.name}; vocab must be at least 3"
            )

    @property
    def longest_answer(self) -> int:
        # Of three or more operations one is a pop (the last, if no other), and a pop undoes a push.
        shortest = self.length if self.min_length is None else self.min_length
        depths = [length if length <= 2 else length - 2 for length in range(shortest, self.length + 1)]
        return min(max(depths), self.vocab - 1)

    def inputs(self, lengths: Int[Tensor, " batch"], *, generator: Generator) -> list[Ragged]:
        n, n_symbols = len(lengths), self.vocab - 1
        # A ring of the symbols of which `depth` entries from `first` on are stored and the others are free: a push
        # swaps a random free one behind the stored ones, so it never needs a second try.
        order = torch.arange(1, self.vocab, dtype=narrowest(self.d_vocab)).repeat(n, 1)
        operations = torch.zeros(n, self.length, dtype=order.dtype)
        first = depth = torch.zeros(n, dtype=torch.int64)
        likely = coins(self.p_push, self.length, n, generator=generator)
        for t in range(self.length):
            push = torch.where(t < 2 * lengths // 3, likely[t], ~likely[t])
            push = ((depth <= 1) | (push & (t < lengths - 1))) & (depth < n_symbols)
            end = first + depth
            chosen = end + torch.where(push, below(n_symbols - depth, generator=generator), 0)
            end, chosen = (place.remainder(n_symbols)[:, None] for place in (end, chosen))
            symbol, displaced = order.gather(1, chosen), order.gather(1, end)
            order.scatter_(1, chosen, displaced).scatter_(1, end, symbol)
            operations[:, t] = torch.where(push, symbol[:, 0], POP)
            depth = depth + torch.where(push, 1, -1)
            if self.first_in_first_out:
                first = first + (~push).long()
        return [Ragged(operations, lengths)]

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        shortest = self.length if self.min_length is None else self.min_length
        self.check_cause(
            cause,
            "a symbol that is not " + ("in the queue" if self.first_in_first_out else "on the stack"),
            vocab=3 if shortest == 1 else 4,
        )
        (operations,) = inputs
        stored = self.answer(operations)
        place = below(stored.lengths, generator=generator)[:, None]
        old = stored.tokens.gather(1, place)
        new = 1 + other_than(old[:, 0] - 1, self.vocab - 1, generator=generator)[:, None]
        step = torch.arange(operations.tokens.shape[1])
        # It was pushed the last time that its symbol was: while it is stored, that cannot be pushed again.
        pushed = torch.where((operations.tokens == old) & operations.real, step, 0).amax(1, keepdim=True)
        later = (operations.tokens == new) & operations.real & (step > pushed)
        stands_in_the_way = later.any(1) | self.was_stored(operations, stored, place, pushed, new)
        return [operations.replaced(pushed[:, 0], new[:, 0])], ~stands_in_the_way

    @abc.abstractmethod
    def was_stored(
        self,
        operations: Ragged,
        stored: Ragged,
        place: Int[Tensor, "batch 1"],
        pushed: Int[Tensor, "batch 1"],
        symbol: Int[Tensor, "batch 1"],
    ) -> Bool[Tensor, " batch"]:
        """Whether `symbol` was stored at the step `pushed`, which pushed what is at `place` in the answer."""


@TASKS.register("stack")
@dataclass(frozen=True, kw_only=True, slots=True)
class Stack(StoredSymbols):
    """Operations (a symbol pushes itself, 0 pops), then the stack from top to bottom: operations | stack.

    How operations are drawn is said in `StoredSymbols`; a pop takes the latest symbol. Source: P1, table of tasks and
    released code.
    """

    in_words: ClassVar[str] = "Operations on a stack, and the stack that results."

    first_in_first_out: ClassVar[bool] = False
    causes: ClassVar[Mapping[str, str]] = {
        "top": "a symbol that stays on the stack is another; read where it is the next, all above it being out"
    }

    def answer(self, *inputs: Ragged) -> Ragged:
        (operations,) = inputs
        stack = torch.zeros_like(operations.tokens)
        depth = torch.zeros_like(operations.lengths)
        for t in range(self.length):
            operation = operations.tokens[:, t]
            running = t < operations.lengths
            push = running & (operation != POP)
            # A pop leaves its symbol behind, above the top, where the next push overwrites it.
            top = depth.clamp(max=self.length - 1)[:, None]
            stack.scatter_(1, top, torch.where(push, operation, stack.gather(1, top)[:, 0])[:, None])
            depth += torch.where(push, 1, -1) * running
        return Ragged(stack[:, : self.longest_answer], depth).reversed()

    def was_stored(
        self,
        operations: Ragged,
        stored: Ragged,
        place: Int[Tensor, "batch 1"],
        pushed: Int[Tensor, "batch 1"],
        symbol: Int[Tensor, "batch 1"],
    ) -> Bool[Tensor, " batch"]:
        # What was beneath it then still is.
        beneath = torch.arange(stored.tokens.shape[1]) > place
        return ((stored.tokens == symbol) & stored.real & beneath).any(1)


@TASKS.register("queue")
@dataclass(frozen=True, kw_only=True, slots=True)
class Queue(StoredSymbols):
    """Operations (a symbol joins, 0 takes the first one out), then the queue from front to back: operations | queue.

    The stack's rival: alphabet, layout and the law of the operations are those of `stack`, draw by draw, but for which
    symbols are free to be pushed; a pop takes the earliest symbol instead of the latest. What is left is the latest
    symbols of the operations in their order. Our own, for comparisons in which only the discipline differs.
    """

    in_words: ClassVar[str] = (
        "Operations on a queue, and the queue that results: like the stack, but who came first leaves first."
    )

    first_in_first_out: ClassVar[bool] = True
    causes: ClassVar[Mapping[str, str]] = {
        "front": "a symbol that stays in the queue is another; read where it is the next, all before it being out"
    }

    def answer(self, *inputs: Ragged) -> Ragged:
        (operations,) = inputs
        pushes = (operations.tokens != POP) & operations.real
        pops = ((operations.tokens == POP) & operations.real).sum(1, keepdim=True)
        # A pop takes the earliest, so that of the pushes those are out that are no later than the number of pops.
        left = keep_only(operations.tokens, pushes & (pushes.cumsum(1) > pops))
        return Ragged(left.tokens[:, : self.longest_answer], left.lengths)

    def was_stored(
        self,
        operations: Ragged,
        stored: Ragged,
        place: Int[Tensor, "batch 1"],
        pushed: Int[Tensor, "batch 1"],
        symbol: Int[Tensor, "batch 1"],
    ) -> Bool[Tensor, " batch"]:
        # Some of what stood before it then may have left since.
        before = torch.arange(operations.tokens.shape[1]) < pushed
        number = (operations.tokens != POP).cumsum(1)
        pops = ((operations.tokens == POP) & before).sum(1, keepdim=True)
        return ((operations.tokens == symbol) & before & (number > pops)).any(1)
