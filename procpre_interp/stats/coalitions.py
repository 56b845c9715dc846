"""Players of a transfer map and their coalitions: which are compared, and their names.

A coalition is the set of players that were transferred: a tuple of them in the order of `players`; () is nothing
transferred. A player is a selector of `core/selectors.py`, or `pos` or `embed`.
"""

import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.core.selectors import head_terms

Coalition = tuple[str, ...]
"""Players that were transferred, in the order of all players."""
Method = Literal["add_one_in", "leave_one_out", "shapley"]
Grain = Literal["component", "layer", "layer_component", "head", "key_value", "matrix", "head_matrix"]

MAX_EXACT_PLAYERS = 5
"""Players up to which Shapley values are exact by default (32 coalitions)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Which coalitions Shapley values and interactions are computed from, in each replicate."""

    n_orders: int = 4
    """Sampled orders of the players, where there are too many for all coalitions."""
    exact_up_to: int = MAX_EXACT_PLAYERS
    """Players up to which all 2^n coalitions are computed."""
    interactions: bool = False
    """Whether interactions of pairs are wanted: sampled orders are balanced then, and need some more coalitions."""

    def is_exact(self, players: Sequence[str]) -> bool:
        """Whether all coalitions of these players are computed."""
        return len(players) <= self.exact_up_to


SAMPLING = Sampling()
"""The default, and that of maps stored before there was a choice."""


class Marginal(NamedTuple):
    """What a player adds to a coalition, and its share in the player's effect."""

    player: str
    larger: Coalition
    smaller: Coalition
    weight: float


class Square(NamedTuple):
    """A pair of players beside a coalition without them, and its share in the pair's interaction.

    With v the outcome, it is v(both) - v(first) - v(second) + v(neither).
    """

    pair: tuple[str, str]
    both: Coalition
    first: Coalition
    second: Coalition
    neither: Coalition
    weight: float


def coalition_of(chosen: Iterable[str], players: Sequence[str]) -> Coalition:
    """The chosen players in the order of `players`. Raises `ValueError` for one that is none of these."""
    _check(players)
    chosen = set(chosen)
    for name in sorted(chosen - set(players)):
        raise unknown_name("player", name, list(players))
    return _among(chosen, players)


def shown_coalition(coalition: Iterable[str]) -> str:
    """What people read: "{attn, ln}"."""
    return f"{{{', '.join(coalition)}}}"


def condition_name(phase1: str, chosen: Iterable[str], given: str = "") -> str:
    """What a sweep calls the transfer of these players from a pretraining, beside what every coalition is `given`."""
    return f"{phase1} {shown_coalition(chosen)}" + (f" + {given}" if given else "")


def orders(players: Sequence[str], *, replicate: int, n_orders: int = 4) -> list[tuple[str, ...]]:
    """Random orders of the players, in pairs of an order and its reverse; more of them begin with the same ones.

    Source: Mitchell et al. 2022, Sampling permutations for Shapley value estimation (antithetic sampling).
    """
    if n_orders < 2 or n_orders % 2:
        raise ValueError(f"{n_orders=}; orders are drawn in pairs, so give an even number from 2 on")
    generator = numpy_stream(replicate, "orders of players")
    drawn = [tuple(players[int(i)] for i in generator.permutation(len(players))) for _ in range(n_orders // 2)]
    return [order for one in drawn for order in (one, one[::-1])]


def balanced_orders(players: Sequence[str], *, replicate: int, n_orders: int = 4) -> list[tuple[str | None, ...]]:
    """Random orders in which any two players are neighbours equally often: once per round of n/2 orders (rounded up).

    None is an empty seat, which an odd number of players needs; those on both sides of it are no neighbours. Each round
    takes the players in a random order, so that what precedes a pair is a random coalition: of each size equally
    often, and every one of a size. That is the weight of Shapley's interaction index, and each replicate estimates all
    pairs without bias.

    Source: the zigzag paths are Walecki's decomposition of the complete graph.
    """
    seats: list[str | None] = [*players, *([None] if len(players) % 2 else [])]
    n_seats, per_round = len(seats), len(seats) // 2
    if n_orders < 1 or n_orders % per_round:
        raise ValueError(
            f"{n_orders=}; interactions of {len(players)} players need a multiple of {per_round} orders, so that all "
            "pairs are neighbours equally often"
        )
    generator = numpy_stream(replicate, "balanced orders of players")
    zigzag = [-(step // 2) if step % 2 == 0 else (step + 1) // 2 for step in range(n_seats)]
    found = []
    for _ in range(n_orders // per_round):
        seated = [seats[int(i)] for i in generator.permutation(n_seats)]
        found += [tuple(seated[(turn + step) % n_seats] for step in zigzag) for turn in range(per_round)]
    return found


def comparisons(
    method: str, players: Sequence[str], *, replicate: int, sampling: Sampling = SAMPLING
) -> list[Marginal]:
    """Pairs of coalitions whose outcomes a method compares; a player's effect is the weighted sum of the differences.

    `add_one_in`: {i} and nothing. `leave_one_out`: the whole, and the whole without i. `shapley`: every coalition
    without i, and the same with i; where there are too many (`Sampling`), those before i in sampled orders, which each
    replicate draws anew: intervals over replicates then cover the sampling of the orders too.
    """
    _check(players)
    if method == "add_one_in":
        return [Marginal(player, (player,), (), 1.0) for player in players]
    if method == "leave_one_out":
        return [Marginal(one, tuple(players), _among(set(players) - {one}, players), 1.0) for one in players]
    if method != "shapley":
        raise unknown_name("method", method, list(get_args(Method)))
    n = len(players)
    if sampling.is_exact(players):
        return [
            Marginal(player, _among({*some, player}, players), some, 1 / (n * math.comb(n - 1, len(some))))
            for player in players
            for some in _subsets([other for other in players if other != player])
        ]
    n_orders, found = sampling.n_orders, []
    drawn = orders if not sampling.interactions else balanced_orders
    for order in drawn(players, replicate=replicate, n_orders=n_orders):
        line = [player for player in order if player is not None]
        prefixes = [_among(line[:size], players) for size in range(n + 1)]
        found += [Marginal(*triple, 1 / n_orders) for triple in zip(line, prefixes[1:], prefixes)]
    return found


def squares(players: Sequence[str], *, replicate: int, sampling: Sampling) -> list[Square]:
    """The coalitions that Shapley's interaction index of each pair needs, pair by pair.

    The index of i and j is the mean over sizes, and over the coalitions S of a size that have neither, of
    v(S + i + j) - v(S + i) - v(S + j) + v(S). All S, or those before the pair in the `balanced_orders`, where S takes
    part in as many squares of a pair as there are rounds.

    Source: Grabisch and Roubens 1999, An axiomatic approach to the concept of interaction among players.
    """
    _check(players)
    n = len(players)
    found = []
    if sampling.is_exact(players):
        for pair in itertools.combinations(players, 2):
            for some in _subsets([other for other in players if other not in pair]):
                found.append(_square(pair, some, players, 1 / ((n - 1) * math.comb(n - 2, len(some)))))
        return found
    lines = balanced_orders(players, replicate=replicate, n_orders=sampling.n_orders)
    rounds = len(lines) // ((n + 1) // 2)
    for line in lines:
        for place, (one, other) in enumerate(itertools.pairwise(line)):
            if one is not None and other is not None:
                first, second = _among({one, other}, players)
                found.append(_square((first, second), [each for each in line[:place] if each], players, 1 / rounds))
    return found


def coalitions(
    players: Sequence[str], methods: Sequence[str], *, replicate: int, sampling: Sampling = SAMPLING
) -> list[Coalition]:
    """The coalitions that the methods compare in one replicate, none twice, nothing and the whole first."""
    found = [(), coalition_of(players, players)]
    for method in methods:
        for each in comparisons(method, players, replicate=replicate, sampling=sampling):
            found += [each.smaller, each.larger]
    if sampling.interactions:
        for square in squares(players, replicate=replicate, sampling=sampling):
            found += [square.neither, square.first, square.second, square.both]
    return list(dict.fromkeys(found))


def coverage(players: Sequence[str], methods: Sequence[str], *, replicate: int, sampling: Sampling) -> str:
    """How many coalitions a map has in a replicate, in a sentence."""
    n, total = len(coalitions(players, methods, replicate=replicate, sampling=sampling)), 2 ** len(players)
    said = f"{n:,} of {total:,} coalitions of {len(players)} players per replicate"
    if n == total:
        return f"All {total:,} coalitions of {len(players)} players in each replicate."
    if "shapley" not in methods and not sampling.interactions:
        return f"{said}."
    kind = "balanced orders, the same for interactions" if sampling.interactions else "orders and reversed orders"
    return f"{said}: Shapley values are estimated from {sampling.n_orders} random {kind}, drawn anew in each replicate."


def selector_grid(grain: str, n_layers: int, n_heads: int) -> list[str]:
    """The players at a grain (see `Grain`) of a model with so many layers, and so many heads in each.

    They cover the model only in part: `matrix` and `layer_component`, for example, leave LayerNorms out.
    """
    if min(n_layers, n_heads) < 1:
        raise ValueError(f"{n_layers=}, {n_heads=}; a model has at least 1 of each")
    layers = [f"blocks.{layer}" for layer in range(n_layers)]
    heads = head_terms(n_layers, n_heads)
    per_layer = [f"attn.{matrix}" for matrix in ("W_Q", "W_K", "W_V", "W_O")] + ["mlp.W_in", "mlp.W_out"]
    grids = {
        "component": ["attn", "mlp", "ln", "pos", "embed"],
        "layer": layers,
        "layer_component": [f"{layer}.{part}" for layer in layers for part in ("attn", "mlp")],
        "head": heads,
        "key_value": [f"{layer}.mlp.{part}" for layer in layers for part in ("keys", "values")],
        "matrix": [f"{layer}.{matrix}" for layer in layers for matrix in per_layer],
        "head_matrix": [f"{head}.{matrix}" for head in heads for matrix in ("W_Q", "W_K", "W_V", "W_O")],
    }
    if grain not in grids:
        raise unknown_name("grain", grain, list(grids))
    return grids[grain]


def _square(pair: tuple[str, str], neither: Iterable[str], players: Sequence[str], weight: float) -> Square:
    first, second = pair
    without = _among(set(neither), players)
    both, one, other = (_among({*without, *more}, players) for more in (pair, (first,), (second,)))
    return Square(pair, both, one, other, without, weight)


def _subsets(players: Sequence[str]) -> Iterator[Coalition]:
    """All coalitions of some players, the smallest first."""
    return itertools.chain.from_iterable(itertools.combinations(players, size) for size in range(len(players) + 1))


def _among(chosen: Collection[str], players: Sequence[str]) -> Coalition:
    return tuple(player for player in players if player in chosen)


def _check(players: Sequence[str]) -> None:
    if not players or len(set(players)) < len(players) or not all(players):
        raise ValueError(f"players {list(players)}; give one or more names, none twice, none empty")
