"""Elementary cellular automata: a random row of cells, then the rows that a rule makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Generator, Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, choose
from procpre_interp.data.task import TASKS, Batch, Task
from procpre_interp.data.vocab import Token, Vocab


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
class CellularAutomaton(Task):
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
    cells: int = 32
    """Cells in a row."""
    bits: int = 4
    """Cells in a symbol, the leftmost the highest bit: there are 2^bits symbols."""
    rows: int = 16
    """Rows in a sequence, the random one included."""

    causes: ClassVar[Mapping[str, str]] = {
        "cell": "one cell of the first row, and what the rule makes of it in later ones; read at any symbol that it "
        "reaches"
    }

    def __post_init__(self) -> None:
        if not 0 <= self.rule <= 255:
            raise ValueError(f"rule={self.rule} is no elementary rule; rule must lie between 0 and 255")
        if not 1 <= self.bits <= 14:
            raise ValueError(f"bits={self.bits} cells in a symbol; bits must lie between 1 and 14")
        if self.cells < self.bits or self.cells % self.bits:
            raise ValueError(
                f"cells={self.cells} cannot be cut into symbols of bits={self.bits}; cells must be a multiple"
            )
        if self.rows < 2:
            raise ValueError(f"rows={self.rows}; rows must be at least 2, the first being given")

    @property
    def ids(self) -> Vocab:
        return Vocab(2**self.bits, has_separator=False)

    @property
    def d_vocab(self) -> int:
        return self.ids.size

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        return {symbol: Token(f"{symbol:0{self.bits}b}", "cells") for symbol in range(2**self.bits)}

    @property
    def n_ctx(self) -> int:
        return self.rows * self.cells // self.bits

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.history(self.first_rows(n, generator=generator))

    def first_rows(self, n: int, *, generator: Generator) -> Bool[Tensor, "batch cell"]:
        """Uniformly random rows."""
        return torch.randint(2, (n, self.cells), generator=generator, dtype=torch.int8).bool()

    def history(self, state: Bool[Tensor, "batch cell"]) -> Batch:
        """The sequences that begin with these rows."""
        n = len(state)
        rows = [state]
        for _ in range(self.rows - 1):
            rows.append(state := evolve(state, self.rule))
        grouped = rearrange(torch.stack(rows, 1), "batch row (symbol bit) -> batch (row symbol) bit", bit=self.bits)
        tokens = torch.zeros(n, self.n_ctx, dtype=torch.int16)
        for bit in range(self.bits):
            tokens = tokens * 2 + grouped[..., bit]
        return Batch.from_sequences(tokens, torch.full((n,), self.n_ctx), self.cells // self.bits - 1, self.ids.pad)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        if self.rule in (0, 255):
            raise ValueError(
                f"rule={self.rule} makes the same of every row; cause {cause!r} of {self.name} needs a rule that looks "
                "at the cells, 1 to 254"
            )
        first = self.first_rows(n, generator=generator)
        flipped = below(torch.full((n,), self.cells), generator=generator)
        clean = self.history(first)
        corrupted = self.history(first.scatter(1, flipped[:, None], ~first.gather(1, flipped[:, None])))
        differ = (clean.targets != corrupted.targets) & clean.loss_mask
        return Pairs.from_sequences(clean.tokens, corrupted.tokens, choose(differ, generator=generator), differ.any(1))

    def example(self, tokens: list[int]) -> str:
        cells = "".join(f"{token:0{self.bits}b}" for token in tokens).translate({ord("0"): ".", ord("1"): "#"})
        return " ".join(cells[start : start + self.cells] for start in range(0, len(cells), self.cells))
