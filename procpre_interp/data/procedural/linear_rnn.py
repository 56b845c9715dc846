"""Text of a random linear recurrent network: each token is drawn from what the state makes of all before it."""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from procpre_interp.core.seeding import stream
from procpre_interp.data.draws import words
from procpre_interp.data.procedural.sequence import narrowest
from procpre_interp.data.task import TASKS, Batch, Task, clip_length
from procpre_interp.data.vocab import Vocab

# All numbers are integers: a state is a multiple of 1 / STATE_UNIT, a weight of 1 / WEIGHT_UNIT, a logit of
# 1 / LOGIT_UNIT. They are kept in float64, whose products are then exact in any order (all sums stay below 2^53), so
# that the same generator gives the same tokens on every machine.
STATE_UNIT = 2**14
WEIGHT_UNIT = 2**14
LOGIT_UNIT = 64
LEAST_LOGIT = -13 * LOGIT_UNIT
"""Logits further below a row's largest count as this: e^-13 is a chance of 2e-6."""
CHANCE_UNIT = 2**20
MOST_SYMBOLS = 1024
MOST_STATES = 256
ROWS_AT_ONCE = 512
"""Sequences that are drawn together, so that what belongs to a step stays in the cache."""


@dataclass(frozen=True, slots=True)
class LinearNetwork:
    """A linear recurrent network: h' = A h + B[token], logits C h before the temperature. In real numbers."""

    A: Float[Tensor, "state state"]
    """Radius times an orthogonal matrix, rounded to multiples of 1 / WEIGHT_UNIT."""
    B: Float[Tensor, "symbol state"]
    """What a token adds to the state; entries of mean square 1, multiples of 1 / STATE_UNIT."""
    C: Float[Tensor, "symbol state"]
    """Entries of such a mean square that a logit's is 1 in the steady state, multiples of 1 / WEIGHT_UNIT."""


@functools.lru_cache(maxsize=16)
def linear_network(seed: int, *, n_symbols: int, d_state: int, radius: float) -> LinearNetwork:
    """The network of a seed, made of uniform integers by operations that are exactly rounded everywhere."""
    generator = stream(seed, "linear_rnn", "network")

    def integers(*shape: int) -> list[list[int]]:
        return (2 * torch.randint(-64, 64, shape, generator=generator) + 1).tolist()  # odd, so never zero

    # A product of as many reflections as dimensions. Python's own sums: those of libraries differ in their last bits.
    orthogonal = [[float(i == j) for j in range(d_state)] for i in range(d_state)]
    for normal in integers(d_state, d_state):
        square = sum(x * x for x in normal)
        for row in orthogonal:
            along = 2 * math.fsum(x * y for x, y in zip(row, normal)) / square
            row[:] = [x - along * y for x, y in zip(row, normal)]
    # Uniform odd integers from -127 to 127 have the mean square (128^2 - 1) / 3.
    size = math.sqrt((128**2 - 1) / 3)
    state_size = math.sqrt(d_state / (1 - radius**2))

    def rounded(rows: list[list[int]] | list[list[float]], factor: float, unit: int) -> Tensor:
        return torch.tensor([[round(x * factor * unit) / unit for x in row] for row in rows], dtype=torch.float64)

    B = rounded(integers(n_symbols, d_state), 1 / size, STATE_UNIT)
    C = rounded(integers(n_symbols, d_state), 1 / (size * state_size), WEIGHT_UNIT)
    return LinearNetwork(rounded(orthogonal, radius, WEIGHT_UNIT), B, C)


@functools.lru_cache(maxsize=1)
def chances() -> Int[Tensor, " logit"]:
    """e^(-i / LOGIT_UNIT) in units of 1 / CHANCE_UNIT, for i from 0 to -LEAST_LOGIT."""
    return torch.tensor([round(CHANCE_UNIT * math.exp(-i / LOGIT_UNIT)) for i in range(1 - LEAST_LOGIT)])


@TASKS.register("linear_rnn")
@dataclass(frozen=True, kw_only=True, slots=True)
class LinearRNN(Task):
    """Tokens drawn from a random stable linear recurrent network; every next token is scored.

    The state starts at zero, a token is drawn from softmax(C h / temperature), and then h = A h + B[token]. A is
    `radius` times a random orthogonal matrix, so a token's trace shrinks by that factor per step, whatever its
    direction. The network is fixed; its weights come from `network_seed`. Numbers are rounded (states to 2^-14, logits
    to 1/64) and the arithmetic is exact. Accuracy stays far below 100 %: the next token is a draw. Source of the idea:
    2605.10129; sizes, weights and rounding are our own.
    """

    in_words: ClassVar[str] = (
        "Random tokens from a fixed linear recurrent network: what came before shifts the odds of the next token, and "
        "fades. No token can be predicted for certain, so accuracy stays far below 100 %."
    )
    why_no_causes: ClassVar[str] = "its next token is drawn, so nothing before it decides it"

    vocab: int = 32
    """Symbols, 0 .. vocab - 1."""
    length: int = 128
    """Tokens of a sequence."""
    d_state: int = 16
    """Dimensions of the state."""
    radius: float = 0.9
    """Factor by which a token's trace in the state shrinks per step, below 1."""
    temperature: float = 0.5
    """Divides the logits, whose standard deviation over the long run is about 1 before that."""
    network_seed: int = 0
    """Seed of the network's weights."""

    def __post_init__(self) -> None:
        if not 2 <= self.vocab <= MOST_SYMBOLS:
            raise ValueError(f"vocab={self.vocab} symbols; vocab must lie between 2 and {MOST_SYMBOLS}")
        if self.length < 2:
            raise ValueError(f"length={self.length} tokens; length must be at least 2")
        if not 1 <= self.d_state <= MOST_STATES:
            raise ValueError(f"d_state={self.d_state}; d_state must lie between 1 and {MOST_STATES}")
        if not 0 <= self.radius <= 0.999:
            raise ValueError(f"radius={self.radius}; a stable network has a radius from 0 to .999")
        if not 0.01 <= self.temperature <= 100:
            raise ValueError(f"temperature={self.temperature}; temperature must lie between .01 and 100")

    @property
    def ids(self) -> Vocab:
        return Vocab(self.vocab, has_separator=False)

    @property
    def d_vocab(self) -> int:
        return self.ids.size

    @property
    def n_ctx(self) -> int:
        return self.length

    @property
    def valid_lengths(self) -> range:
        return range(2, self.length + 1)

    def at_length(self, length: int) -> "Task":
        return dataclasses.replace(self, length=clip_length(length, self.valid_lengths))

    @property
    def network(self) -> LinearNetwork:
        return linear_network(self.network_seed, n_symbols=self.vocab, d_state=self.d_state, radius=self.radius)

    def batch(self, n: int, *, generator: Generator) -> Batch:
        draws = words(self.length, n, generator=generator)
        parts = [self.sample(draws[:, start : start + ROWS_AT_ONCE]) for start in range(0, n, ROWS_AT_ONCE)]
        tokens = torch.cat(parts or [draws.to(narrowest(self.d_vocab))], 1).T.contiguous()
        return Batch.from_sequences(tokens, torch.full((n,), self.length), 0, self.ids.pad)

    def sample(self, draws: Int[Tensor, "pos batch"]) -> Int[Tensor, "pos batch"]:
        """The tokens that uniform words of 31 bits make, each the first whose cumulative chance exceeds its word."""
        network, table = self.network, chances()
        # The state and B are whole numbers of their unit, C of its own; A is left in fractions, whose unit is a power
        # of two, so that products are as exact.
        A, B, C = network.A.T, network.B * STATE_UNIT, network.C.T * WEIGHT_UNIT
        logit_scale = LOGIT_UNIT / (WEIGHT_UNIT * STATE_UNIT) / self.temperature
        n = draws.shape[1]
        state = torch.zeros(n, self.d_state, dtype=torch.float64)
        tokens = torch.empty(self.length, n, dtype=narrowest(self.d_vocab))
        for t in range(self.length):
            # Elementwise operations are exactly rounded everywhere, so this product too.
            logits = (state @ C).mul_(logit_scale).round_()
            below_best = logits.sub_(logits.amax(1, keepdim=True)).clamp_(min=LEAST_LOGIT).neg_().long()
            # Four times as fast as to index by the whole matrix.
            upto = table.index_select(0, below_best.view(-1)).view(n, self.vocab).cumsum(1)
            drawn = (draws[t].long() * upto[:, -1]) >> 31
            token = torch.searchsorted(upto, drawn[:, None], right=True)[:, 0]
            tokens[t] = token
            state = (state @ A).round_().add_(B.index_select(0, token))
        return tokens
