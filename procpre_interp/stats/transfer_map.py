"""Transfer maps: which players (components, layers, heads) carry the gain of a transfer. Tables in, tables out."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from procpre_interp.stats.coalitions import (
    MAX_EXACT_PLAYERS,
    SAMPLING,
    Coalition,
    Grain,
    Method,
    Sampling,
    coalition_of,
    coalitions,
    comparisons,
    condition_name,
    orders,
    selector_grid,
)
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.map_outcomes import OUTCOMES, Outcome, nothing_complete, outcome_games, without_rounding
from procpre_interp.stats.resampling import constant_bounds, replicate_bootstrap
from procpre_interp.stats.significance import sign_flip_test
from procpre_interp.stats.summary import decide_tests

__all__ = [
    "MAX_EXACT_PLAYERS",
    "OUTCOMES",
    "Coalition",
    "Grain",
    "Method",
    "Outcome",
    "Sampling",
    "coalition_of",
    "coalitions",
    "condition_name",
    "orders",
    "selector_grid",
    "transfer_map",
]


def transfer_map(
    table: pd.DataFrame,
    players: Sequence[str],
    methods: Sequence[str],
    outcome: str = "accuracy",
    *,
    sampling: Sampling = SAMPLING,
    generator: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Effect of each player on an outcome, with 95 % bounds and a sign-flip test: one row per method and player.

    In each replicate, with v(S) the outcome after the transfer of coalition S: `add_one_in` is v({i}) - v({}),
    `leave_one_out` v(all) - v(all without i), and `shapley` the mean over orders of the players of what i adds to those
    before it, so that the values of all players sum to v(all) - v({}). Whole replicates are resampled, the same for
    all rows. `p_holm` is adjusted over the players of a method.

    `table` has one row per coalition (a tuple of players) and replicate with its status, and the columns of the
    outcome. A diverged run has no accuracy, loss or area, and counts as no breakthrough; one of another status than
    that or finished is missing.
    Replicates that miss a coalition are left out of the rows that need it (for Shapley values: of all players, to keep
    their sum), and n counts the rest; p is NaN where n is 0. Times and tokens count up to the smallest limit.

    Effects that are the same in all replicates (`constant`) have the bounds of `resampling.constant_bounds`, and NaN
    for a loss, whose range is not known.

    Raises `ValueError` for a table without a single complete replicate.
    """
    methods = list(dict.fromkeys(methods))
    if not methods:
        raise ValueError("no methods; give one or more of add_one_in, leave_one_out, shapley")
    games = outcome_games(table, outcome)
    keys = pd.MultiIndex.from_product([methods, players], names=["method", "player"])
    found = [_effects(v, players, methods, replicate, sampling) for replicate, v in games.values.items()]
    effects = pd.DataFrame(found, columns=keys).dropna(how="all")
    if effects.empty:
        needed = coalitions(players, methods, replicate=next(iter(games.values)), sampling=sampling)
        raise nothing_complete(games, needed, outcome)
    return decided_effects(effects, outcome, games.reach, generator=generator)


def decided_effects(
    effects: pd.DataFrame, outcome: str, reach: float, *, generator: np.random.Generator | None = None
) -> pd.DataFrame:
    """Bounds, test and decision of each column of a table of effects (replicates x method and whose effect it is).

    `reach` is the largest that an effect could be. Tests are adjusted within a method.
    """
    result = replicate_bootstrap(effects, generator=generator).reset_index()
    result.insert(effects.columns.nlevels, "outcome", outcome)
    result["constant"], result["p"], result["smallest_p"] = False, np.nan, np.nan
    for index in np.flatnonzero(result["n"].to_numpy() > 0).tolist():
        complete = effects.iloc[:, index].dropna().to_numpy()
        test = sign_flip_test(complete, generator=generator)
        result.loc[index, ["p", "smallest_p"]] = [test.p, test.smallest_p]
        if test.n > 1 and np.ptp(complete) <= 1e-12 * (reach if np.isfinite(reach) else 1):
            result.loc[index, ["low", "high"]] = constant_bounds(test.statistic, test.n, reach)
            result.loc[index, "constant"] = True
    tests = result.loc[result["n"] > 0, ["method", "p", "smallest_p", "n"]].rename(columns={"method": "family"})
    result = result.join(decide_tests(tests)[["p_holm", "smallest_p_holm", "decision", "undecided_reason"]])
    return result.fillna({"decision": Decision.UNDECIDED, "undecided_reason": "no complete replicate"})


def _effects(
    v: Mapping[Coalition, float], players: Sequence[str], methods: Sequence[str], replicate: int, sampling: Sampling
) -> list[float]:
    """Each player's effect in one replicate, method by method; NaN where a coalition that it needs is missing."""
    effects = []
    for method in methods:
        sums = dict.fromkeys(players, 0.0)
        for each in comparisons(method, players, replicate=replicate, sampling=sampling):
            sums[each.player] += each.weight * (v.get(each.larger, np.nan) - v.get(each.smaller, np.nan))
        means = without_rounding(list(sums.values()), v.values())
        # The values of some players alone would no longer sum to the gain.
        whole = method != "shapley" or not np.isnan(means).any()
        effects += (means if whole else np.full(len(players), np.nan)).tolist()
    return effects
