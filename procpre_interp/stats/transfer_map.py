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
from procpre_interp.stats.confidence_sequence import Limits, method_for, sequence_interval, sequential_test
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.map_outcomes import OUTCOMES, Outcome, nothing_complete, outcome_games, without_rounding
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
) -> pd.DataFrame:
    """Effect of each player on an outcome, with 95 % bounds and a test against 0: one row per method and player.

    In each replicate, with v(S) the outcome after the transfer of coalition S: `add_one_in` is v({i}) - v({}),
    `leave_one_out` v(all) - v(all without i), and `shapley` the mean over orders of the players of what i adds to those
    before it, so that the values of all players sum to v(all) - v({}). Bounds and p are those of confidence sequences
    over replicates in the order of their seeds (`interval` says which), so that replicates may be added until enough is
    decided: betting for outcomes with a range, a t mixture for losses. `p_holm` is adjusted over the players of a
    method: a map is read player by player, so that no error among them is wanted (Holm), where e-BH would bound only
    their share; p-values of sequences may be adjusted so whatever the dependence between players is.

    `table` has one row per coalition (a tuple of players) and replicate with its status, and the columns of the
    outcome. A diverged run has no accuracy, loss or area, and counts as no breakthrough; one of another status than
    that or finished is missing.
    Replicates that miss a coalition are left out of the rows that need it (for Shapley values: of all players, to keep
    their sum), and n counts the rest; p is NaN where n is 0. Times and tokens count up to the smallest limit.

    One replicate has no bounds, and neither has a loss whose effect is the same in all replicates (`constant`), since
    its range is not known, nor one whose replicates leave no mean in the sequence; both have p = 1.

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
    return decided_effects(effects, outcome, games.reach)


def decided_effects(effects: pd.DataFrame, outcome: str, reach: float) -> pd.DataFrame:
    """Bounds, test and decision of each column of a table of effects (replicates x method and whose effect it is).

    `reach` is the largest that an effect could be. Tests are adjusted within a method.
    """
    limits = Limits(low=-reach, high=reach) if np.isfinite(reach) else None
    tested = [_tested(effects.iloc[:, index].dropna().to_numpy(), limits) for index in range(effects.shape[1])]
    result = pd.concat([effects.columns.to_frame(index=False), pd.DataFrame(tested)], axis=1)
    result.insert(effects.columns.nlevels, "outcome", outcome)
    tests = result.loc[result["n"] > 0, ["method", "p", "smallest_p", "n"]].rename(columns={"method": "family"})
    result = result.join(decide_tests(tests)[["p_holm", "smallest_p_holm", "decision", "undecided_reason"]])
    return result.fillna({"decision": Decision.UNDECIDED, "undecided_reason": "no complete replicate"})


def _tested(effects: np.ndarray, limits: Limits | None) -> dict[str, object]:
    """One player's effect over replicates: estimate, bounds, n, p, and whether it is the same in all of them."""
    interval = sequence_interval(effects, limits)
    reach = 1.0 if limits is None else limits.high
    constant = interval.n > 1 and bool(np.ptp(effects) <= 1e-12 * reach)
    is_empty = interval.low > interval.high  # no mean is left in it: the replicates do not have the same one
    bounded = interval.n > 1 and not (constant and limits is None) and not is_empty
    test = sequential_test(effects, 0.0, limits) if interval.n else None
    return {
        "estimate": interval.estimate,
        "low": interval.low if bounded else np.nan,
        "high": interval.high if bounded else np.nan,
        "n": interval.n,
        "interval": method_for(limits),
        "constant": constant,
        # Without any spread a t mixture would be certain of an effect whose range is not known.
        "p": np.nan if test is None else 1.0 if is_empty or (constant and limits is None) else test.p,
        "smallest_p": np.nan if test is None else test.smallest_p,
    }


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
