"""Stack operations and what they leave: `7 3 0 5 | 5 7`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.data.draws import below, coins, other_than
from procpre_interp.data.procedural.sequence import SequenceTask, narrowest
from procpre_interp.data.ragged import Ragged
from procpre_interp.data.task import TASKS

POP = 0


@TASKS.register("stack")
@dataclass(frozen=True, kw_only=True, slots=True)
class Stack(SequenceTask):
    """Operations (a symbol pushes itself, 0 pops), then the stack from top to bottom: operations | stack.

    A push when at most one symbol is on the stack. Else, in the first two thirds of the operations (rounded
    down, as in the released code), a push with probability `p_push`, and then a pop with the same
    probability. The last operation is a pop when more than one symbol is on the stack. No symbol is on the
    stack twice: a push is uniform over the symbols that are not on it, and a full stack pops. Source: P1,
    table of tasks and released code.
    """

    in_words: ClassVar[str] = "Operations on a stack, and the stack that results."

    p_push: ClassVar[float] = 0.75
    causes: ClassVar[Mapping[str, str]] = {
        "top": "a symbol that stays on the stack is another; read where it is the next, all above it being out"
    }

    def __post_init__(self) -> None:
        SequenceTask.__post_init__(self)
        if self.vocab < 3:
            raise ValueError(
                f"vocab={self.vocab} leaves one symbol to push, and an empty stack; vocab must be at least 3"
            )

    @property
    def longest_answer(self) -> int:
        # Of three or more operations one is a pop (the last, if no other), and a pop undoes a push.
        shortest = self.length if self.min_length is None else self.min_length
        depths = [length if length <= 2 else length - 2 for length in range(shortest, self.length + 1)]
        return min(max(depths), self.vocab - 1)

    def inputs(self, lengths: Int[Tensor, " batch"], *, generator: Generator) -> list[Ragged]:
        n, n_symbols = len(lengths), self.vocab - 1
        # A permutation of the symbols whose first `depth` entries are the stack and whose others are free: a
        # push swaps a random free one to the top, so it never needs a second try.
        order = torch.arange(1, self.vocab, dtype=narrowest(self.d_vocab)).repeat(n, 1)
        operations = torch.zeros(n, self.length, dtype=order.dtype)
        depth = torch.zeros(n, dtype=torch.int64)
        likely = coins(self.p_push, self.length, n, generator=generator)
        for t in range(self.length):
            push = torch.where(t < 2 * lengths // 3, likely[t], ~likely[t])
            push = ((depth <= 1) | (push & (t < lengths - 1))) & (depth < n_symbols)
            top = depth.clamp(max=n_symbols - 1)[:, None]
            chosen = top + torch.where(push, below(n_symbols - depth, generator=generator), 0)[:, None]
            symbol, displaced = order.gather(1, chosen), order.gather(1, top)
            order.scatter_(1, chosen, displaced).scatter_(1, top, symbol)
            operations[:, t] = torch.where(push, symbol[:, 0], POP)
            depth += torch.where(push, 1, -1)
        return [Ragged(operations, lengths)]

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

    def change(
        self, cause: str, inputs: list[Ragged], *, generator: Generator
    ) -> tuple[list[Ragged], Bool[Tensor, " batch"]]:
        shortest = self.length if self.min_length is None else self.min_length
        self.check_cause(cause, "a symbol that is not on the stack", vocab=3 if shortest == 1 else 4)
        (operations,) = inputs
        stack = self.answer(operations)
        place = below(stack.lengths, generator=generator)[:, None]
        old = stack.tokens.gather(1, place)
        new = 1 + other_than(old[:, 0] - 1, self.vocab - 1, generator=generator)[:, None]
        step, height = torch.arange(operations.tokens.shape[1]), torch.arange(stack.tokens.shape[1])
        # It was pushed the last time that its symbol was: while it is on the stack, that cannot be pushed again.
        pushed = torch.where((operations.tokens == old) & operations.real, step, 0).amax(1, keepdim=True)
        beneath = (stack.tokens == new) & stack.real & (height > place)
        later = (operations.tokens == new) & operations.real & (step > pushed)
        return [operations.replaced(pushed[:, 0], new[:, 0])], ~(beneath.any(1) | later.any(1))
