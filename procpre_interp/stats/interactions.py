"""Interactions of the players of a transfer map: what two are worth together beyond what they are worth apart."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from procpre_interp.stats.coalitions import SAMPLING, Coalition, Sampling, squares
from procpre_interp.stats.map_outcomes import nothing_complete, outcome_games, without_rounding
from procpre_interp.stats.transfer_map import decided_effects

COLUMNS = ["player", "other", "outcome", "estimate", "low", "high", "n", "p_holm", "decision"]
"""What a table of interactions has at least."""


def are_known(players: Sequence[str], methods: Sequence[str], sampling: Sampling) -> bool:
    """Whether the coalitions of a map hold what the interactions of its players need."""
    return len(players) > 1 and (sampling.interactions or (sampling.is_exact(players) and "shapley" in methods))


def interaction_table(
    table: pd.DataFrame, players: Sequence[str], outcome: str = "accuracy", *, sampling: Sampling = SAMPLING
) -> pd.DataFrame:
    """Shapley's interaction index of each pair of players (`coalitions.squares`), with 95 % bounds and a test.

    One row per pair, player and other, in the order of the players. Above 0: the two are worth more together than
    apart, as parts that need one another; below 0: less, as parts that replace one another. `table`, bounds, test and
    adjustment are those of `transfer_map`; the pairs are one family. A pair's n counts the replicates that have all
    that its index needs.

    Raises `ValueError` for fewer than two players, or a table without a single complete replicate of any pair.
    """
    if len(players) < 2:
        raise ValueError(f"players {list(players)}; an interaction needs two")
    games, pairs = outcome_games(table, outcome), list(itertools.combinations(players, 2))
    found = [_indices(v, players, replicate, sampling) for replicate, v in games.values.items()]
    keys = pd.MultiIndex.from_tuples([("interaction", *pair) for pair in pairs], names=["method", "player", "other"])
    effects = pd.DataFrame(found, columns=keys).dropna(how="all")
    if effects.empty:
        some = squares(players, replicate=next(iter(games.values)), sampling=sampling)
        needed = dict.fromkeys(each for square in some for each in (square.both, square.first, square.second))
        raise nothing_complete(games, list(needed), outcome)
    # Two differences of outcomes, with opposite signs at most.
    return decided_effects(effects, outcome, 2 * games.reach).drop(columns="method")


def _indices(v: Mapping[Coalition, float], players: Sequence[str], replicate: int, sampling: Sampling) -> list[float]:
    """The index of each pair in one replicate; NaN where a coalition that it needs is missing."""
    sums = dict.fromkeys(itertools.combinations(players, 2), 0.0)
    for each in squares(players, replicate=replicate, sampling=sampling):
        both, first, second, neither = (
            v.get(some, np.nan) for some in (each.both, each.first, each.second, each.neither)
        )
        sums[each.pair] += each.weight * (both - first - second + neither)
    return without_rounding(list(sums.values()), v.values()).tolist()
