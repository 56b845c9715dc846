"""Players of a transfer map and their coalitions: which are compared, and their names.

A coalition is the set of players that were transferred: a tuple of them in the order of `players`; () is nothing
transferred. A player is a selector of `core/selectors.py`, or `pos` or `embed`.
"""

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Literal, get_args

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.core.selectors import head_terms

Coalition = tuple[str, ...]
"""Players that were transferred, in the order of all players."""
Method = Literal["add_one_in", "leave_one_out", "shapley"]
Grain = Literal["component", "layer", "layer_component", "head", "matrix", "head_matrix"]

MAX_EXACT_PLAYERS = 5
"""Players up to which Shapley values are exact (32 coalitions)."""


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


def comparisons(
    method: str, players: Sequence[str], *, replicate: int, n_orders: int = 4
) -> list[tuple[str, Coalition, Coalition]]:
    """Pairs of coalitions whose outcomes a method compares: (player, with it, without it), equally many a player.

    A player's effect is the mean difference of its pairs. `add_one_in`: {i} and nothing. `leave_one_out`: the whole,
    and the whole without i. `shapley`: for each order of the players, those before i with and without i. All orders up
    to `MAX_EXACT_PLAYERS` players; beyond, those of `orders`, which each replicate draws anew: a bootstrap over
    replicates then covers the sampling of the orders too.
    """
    _check(players)
    if method == "add_one_in":
        return [(player, (player,), ()) for player in players]
    if method == "leave_one_out":
        return [(one, tuple(players), _among(set(players) - {one}, players)) for one in players]
    if method != "shapley":
        raise unknown_name("method", method, list(get_args(Method)))
    exact = len(players) <= MAX_EXACT_PLAYERS
    some = itertools.permutations(players) if exact else orders(players, replicate=replicate, n_orders=n_orders)
    grown = [(order, [_among(order[:size], players) for size in range(len(players) + 1)]) for order in some]
    return [triple for order, prefixes in grown for triple in zip(order, prefixes[1:], prefixes)]


def coalitions(players: Sequence[str], methods: Sequence[str], *, replicate: int, n_orders: int = 4) -> list[Coalition]:
    """The coalitions that the methods compare in one replicate, none twice, nothing and the whole first."""
    found = [(), coalition_of(players, players)]
    for method in methods:
        for _, larger, smaller in comparisons(method, players, replicate=replicate, n_orders=n_orders):
            found += [smaller, larger]
    return list(dict.fromkeys(found))


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
        "matrix": [f"{layer}.{matrix}" for layer in layers for matrix in per_layer],
        "head_matrix": [f"{head}.{matrix}" for head in heads for matrix in ("W_Q", "W_K", "W_V", "W_O")],
    }
    if grain not in grids:
        raise unknown_name("grain", grain, list(grids))
    return grids[grain]


def _among(chosen: Collection[str], players: Sequence[str]) -> Coalition:
    return tuple(player for player in players if player in chosen)


def _check(players: Sequence[str]) -> None:
    if not players or len(set(players)) < len(players) or not all(players):
        raise ValueError(f"players {list(players)}; give one or more names, none twice, none empty")
