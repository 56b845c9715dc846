"""Neural cellular automata: rows of cells that a small random network updates."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from procpre_interp.core.seeding import stream
from procpre_interp.data.procedural.automata import DIGITS, Automaton
from procpre_interp.data.task import TASKS

LARGEST_WEIGHT = 127
MOST_HIDDEN = 2**16
LARGEST_TABLE = 2**20
"""Most neighbourhoods, over all rules, that are tabulated."""


@dataclass(frozen=True, slots=True)
class UpdateNetwork:
    """Scores of a cell's next state from its neighbourhood, whose states s stand at the inputs n_states i + s, one-hot:
    W_out sign(W_in x + b_in). Weights are integers, so that the scores are exact on every machine."""

    W_in: Int[Tensor, "hidden input"]
    b_in: Int[Tensor, " hidden"]
    W_out: Int[Tensor, "state hidden"]


def update_network(seed: int, *, n_states: int, radius: int, hidden: int) -> UpdateNetwork:
    """The network of a rule: uniform integer weights from -127 to 127."""
    generator = stream(seed, "neural_ca", "network")

    def weights(*shape: int) -> Tensor:
        return torch.randint(-LARGEST_WEIGHT, LARGEST_WEIGHT + 1, shape, generator=generator)

    return UpdateNetwork(weights(hidden, n_states * (2 * radius + 1)), weights(hidden), weights(n_states, hidden))


@functools.lru_cache(maxsize=16)
def rule_tables(seed: int, *, rules: int, n_states: int, radius: int, hidden: int) -> Int[Tensor, " neighbourhood"]:
    """The next state in each neighbourhood, rule after rule; a neighbourhood is a number to the base `n_states`.

    The state with the highest score, the smallest of those with equal scores.
    """
    width = 2 * radius + 1
    places = n_states ** torch.arange(width - 1, -1, -1)
    states = torch.arange(n_states**width)[:, None] // places % n_states
    tables = []
    for rule in range(rules):
        network = update_network(seed + rule, n_states=n_states, radius=radius, hidden=hidden)
        scores = network.b_in.repeat(len(states), 1)
        for place in range(width):
            scores += network.W_in.T[n_states * place + states[:, place]]
        # Equal scores go to the smallest state: each score is multiplied, and the state's number taken away.
        ranked = (scores.sign() @ network.W_out.T) * n_states - torch.arange(n_states)
        tables.append(ranked.argmax(1))
    return torch.cat(tables).to(torch.int8)


@TASKS.register("neural_ca")
@dataclass(frozen=True, kw_only=True, slots=True)
class NeuralAutomaton(Automaton):
    """Rows of a neural cellular automaton, cut into symbols; all rows after the first are scored.

    A random network with one hidden layer reads a cell and its neighbours, and the best-scored state is the cell's
    next: no noise, and integer weights, so a rule is a table. Random rules range from rows that freeze at once to rows
    that look random: the default is one in between. With `rules` above 1 a sequence follows one of several, which a
    model must infer from its rows. Source: 2603.10055, where rows are two-dimensional grids of 10 states, a symbol is a
    patch of 2 x 2, every sequence has a rule of its own, next states are drawn, and rules are chosen by how well gzip
    compresses their sequences.
    """

    in_words: ClassVar[str] = (
        "Rows of a neural cellular automaton: a small random network, always the same, makes each row from the row "
        "before."
    )

    cells: int = 16
    """Cells in a row."""
    states: int = 4
    """States of a cell."""
    radius: int = 1
    """Cells to the left and to the right that a cell's next state depends on."""
    group: int = 2
    """Cells in a symbol, the leftmost the highest digit: there are states^group symbols."""
    hidden: int = 16
    """Hidden units of the network."""
    rule_seed: int = 3
    """Seed of the network's weights: the rule."""
    rules: int = 1
    """Number of rules, of seeds rule_seed, rule_seed + 1 and so on. Each sequence follows one, all equally likely."""

    def __post_init__(self) -> None:
        if not 2 <= self.states <= len(DIGITS):
            raise ValueError(f"states={self.states} of a cell; states must lie between 2 and {len(DIGITS)}")
        for name in ("radius", "group", "hidden", "rules"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be at least 1")
        if self.hidden > MOST_HIDDEN:
            raise ValueError(f"hidden={self.hidden}; at most {MOST_HIDDEN:,}")
        if self.group > 14 or self.states**self.group > 2**14:
            raise ValueError(f"states={self.states} and group={self.group} give more than {2**14} symbols; take fewer")
        if self.radius > 9 or self.rules * self.states ** (2 * self.radius + 1) > LARGEST_TABLE:
            raise ValueError(
                f"rules={self.rules} over neighbourhoods of radius={self.radius} with states={self.states} are more "
                f"than {LARGEST_TABLE:,} cases; take fewer"
            )
        Automaton.__post_init__(self)

    @property
    def n_states(self) -> int:
        return self.states

    @property
    def per_symbol(self) -> int:
        return self.group

    @property
    def n_neighbours(self) -> int:
        return 2 * self.radius + 1

    @property
    def rule_name(self) -> str:
        return f"Network {self.rule_seed}" if self.rules == 1 else f"One of {self.rules} networks"

    def first_rows(self, n: int, *, generator: Generator) -> Int[Tensor, "batch cell"]:
        return torch.randint(self.states, (n, self.cells), generator=generator, dtype=torch.int8)

    def choose_rules(self, n: int, *, generator: Generator) -> Int[Tensor, " batch"]:
        if self.rules == 1:
            return torch.zeros(n, dtype=torch.int64)
        return torch.randint(self.rules, (n,), generator=generator)

    def successors(self, cells: Int[Tensor, "batch cell"], rules: Int[Tensor, " batch"]) -> Int[Tensor, "batch cell"]:
        shape = {"n_states": self.states, "radius": self.radius, "hidden": self.hidden}
        table = rule_tables(self.rule_seed, rules=self.rules, **shape)
        neighbourhood = rules.int()[:, None].expand(-1, self.cells)
        for offset in range(-self.radius, self.radius + 1):
            neighbourhood = neighbourhood * self.states + cells.roll(-offset, 1)
        return table[neighbourhood]
