"""Cellular automata on a ring: a random row of cells, then the rows that a rule makes of it."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, choose
from procpre_interp.data.task import TASKS, Batch, Task
from procpre_interp.data.vocab import Token, Vocab

CELL_MARKS = {2: ".#", 3: ".+#"}
"""How the states are written, by their number; where there are more, as digits or letters."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Automaton(Task):
    """Rows of a cellular automaton, cut into symbols; all rows after the first are scored.

    The first row is uniformly random, the boundary periodic. A symbol is a number to the base `n_states` with a digit
    for each of its cells, the leftmost the highest.
    """

    cells: int = 32
    """Cells in a row."""
    rows: int = 16
    """Rows in a sequence, the random one included."""

    causes: ClassVar[Mapping[str, str]] = {
        "cell": "one cell of the first row, and what the rule makes of it in later ones; read at any symbol that it "
        "reaches"
    }

    def __post_init__(self) -> None:
        if self.cells < self.per_symbol or self.cells % self.per_symbol:
            raise ValueError(
                f"cells={self.cells} cannot be cut into symbols of {self.per_symbol}; cells must be a multiple"
            )
        if self.rows < 2:
            raise ValueError(f"rows={self.rows}; rows must be at least 2, the first being given")

    @property
    @abc.abstractmethod
    def n_states(self) -> int:
        """States of a cell, which are 0 .. n_states - 1."""

    @property
    @abc.abstractmethod
    def per_symbol(self) -> int:
        """Cells in a symbol."""

    @property
    @abc.abstractmethod
    def n_neighbours(self) -> int:
        """Cells that a cell's next state depends on, itself included."""

    @property
    @abc.abstractmethod
    def rule_name(self) -> str:
        """What figures call the rule."""

    @property
    def ids(self) -> Vocab:
        return Vocab(self.n_states**self.per_symbol, has_separator=False)

    @property
    def d_vocab(self) -> int:
        return self.ids.size

    def digits(self, symbol: int) -> list[int]:
        """States of the symbol's cells."""
        return [symbol // self.n_states**place % self.n_states for place in reversed(range(self.per_symbol))]

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        names = ("".join(DIGITS[state] for state in self.digits(symbol)) for symbol in range(self.ids.n_symbols))
        return {symbol: Token(name, "cells") for symbol, name in enumerate(names)}

    @property
    def n_ctx(self) -> int:
        return self.rows * self.cells // self.per_symbol

    @abc.abstractmethod
    def first_rows(self, n: int, *, generator: Generator) -> Tensor:
        """Uniformly random rows, batch x cell."""

    @abc.abstractmethod
    def choose_rules(self, n: int, *, generator: Generator) -> Int[Tensor, " batch"]:
        """The number of each sequence's rule; draws nothing where there is one rule."""

    @abc.abstractmethod
    def successors(self, cells: Tensor, rules: Int[Tensor, " batch"]) -> Tensor:
        """The next rows of these."""

    def batch(self, n: int, *, generator: Generator) -> Batch:
        rules = self.choose_rules(n, generator=generator)
        return self.history(self.first_rows(n, generator=generator), rules)

    def history(self, state: Tensor, rules: Int[Tensor, " batch"]) -> Batch:
        """The sequences that begin with these rows."""
        n = len(state)
        rows = [state]
        for _ in range(self.rows - 1):
            rows.append(state := self.successors(state, rules))
        cut = "batch row (symbol cell) -> batch (row symbol) cell"
        grouped = rearrange(torch.stack(rows, 1), cut, cell=self.per_symbol)
        tokens = torch.zeros(n, self.n_ctx, dtype=torch.int16)
        for cell in range(self.per_symbol):
            tokens = tokens * self.n_states + grouped[..., cell]
        lengths = torch.full((n,), self.n_ctx)
        return Batch.from_sequences(tokens, lengths, self.cells // self.per_symbol - 1, self.ids.pad)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        rules = self.choose_rules(n, generator=generator)
        first = self.first_rows(n, generator=generator)
        changed = below(torch.full((n,), self.cells), generator=generator)[:, None]
        old = first.gather(1, changed)
        new = (old.long() + 1 + self.shifts(n, generator=generator)[:, None]) % self.n_states
        clean = self.history(first, rules)
        corrupted = self.history(first.scatter(1, changed, new.to(first.dtype)), rules)
        differ = (clean.targets != corrupted.targets) & clean.loss_mask
        return Pairs.from_sequences(clean.tokens, corrupted.tokens, choose(differ, generator=generator), differ.any(1))

    def shifts(self, n: int, *, generator: Generator) -> Int[Tensor, " batch"]:
        """Integers uniform in 0 .. n_states - 2: which of the other states a changed cell takes."""
        if self.n_states == 2:
            return torch.zeros(n, dtype=torch.int64)
        return below(torch.full((n,), self.n_states - 1), generator=generator)

    def example(self, tokens: list[int]) -> str:
        marks = CELL_MARKS.get(self.n_states, DIGITS)
        cells = "".join(marks[state] for token in tokens for state in self.digits(token))
        return " ".join(cells[start : start + self.cells] for start in range(0, len(cells), self.cells))


def evolve(cells: Bool[Tensor, "batch cell"], rule: int) -> Bool[Tensor, "batch cell"]:
    """The next row under Wolfram's rule number, the row closed to a ring.

    Bit 4 left + 2 own + 1 right of `rule` is the cell's next state.
    """
    own = cells.to(torch.uint8)
    neighbourhood = 4 * own.roll(1, 1) + 2 * own + own.roll(-1, 1)
    # At most eight comparisons of bytes: ten times as fast as to look the neighbourhood up in a table.
    alive = torch.zeros_like(cells)
    for pattern in range(8):
        if rule >> pattern & 1:
            alive |= neighbourhood == pattern
    return alive


@TASKS.register("eca")
@dataclass(frozen=True, kw_only=True, slots=True)
class ElementaryAutomaton(Automaton):
    """Rows of an elementary cellular automaton, cut into symbols; all rows after the first are scored.

    The first row is uniformly random, the boundary periodic. The paper projects rows of 100 cells linearly to
    the residual stream, one row per position, for 60 time steps, and has released no code for it. Here a row
    becomes `cells / bits` symbols, so that the model is an ordinary one with a token embedding. A row then
    takes several positions, so the default is narrower and shorter: 16 rows of 8 symbols fill 128 tokens, as
    in Dyck. Source: P1, table of tasks.
    """

    in_words: ClassVar[str] = "Rows of an elementary cellular automaton, each following from the row before."

    rule: int = 110
    """Wolfram's number of the rule, 0 to 255."""
    bits: int = 4
    """Cells in a symbol, the leftmost the highest bit: there are 2^bits symbols."""

    def __post_init__(self) -> None:
        if not 0 <= self.rule <= 255:
            raise ValueError(f"rule={self.rule} is no elementary rule; rule must lie between 0 and 255")
        if not 1 <= self.bits <= 14:
            raise ValueError(f"bits={self.bits} cells in a symbol; bits must lie between 1 and 14")
        Automaton.__post_init__(self)

    @property
    def n_states(self) -> int:
        return 2

    @property
    def per_symbol(self) -> int:
        return self.bits

    @property
    def n_neighbours(self) -> int:
        return 3

    @property
    def rule_name(self) -> str:
        return f"Rule {self.rule}"

    def first_rows(self, n: int, *, generator: Generator) -> Bool[Tensor, "batch cell"]:
        return torch.randint(2, (n, self.cells), generator=generator, dtype=torch.int8).bool()

    def choose_rules(self, n: int, *, generator: Generator) -> Int[Tensor, " batch"]:
        return torch.full((n,), self.rule)

    def successors(self, cells: Bool[Tensor, "batch cell"], rules: Int[Tensor, " batch"]) -> Bool[Tensor, "batch cell"]:
        return evolve(cells, self.rule)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        if self.rule in (0, 255):
            raise ValueError(
                f"rule={self.rule} makes the same of every row; cause {cause!r} of {self.name} needs a rule that looks "
                "at the cells, 1 to 254"
            )
        return Automaton.draw_pairs(self, cause, n, generator=generator)
