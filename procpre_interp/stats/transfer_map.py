"""Transfer maps: which players (components, layers, heads) carry the gain of a transfer. Tables in, tables out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from procpre_interp.core.messages import unknown_name
from procpre_interp.stats.coalitions import (
    MAX_EXACT_PLAYERS,
    Coalition,
    Grain,
    Method,
    coalition_of,
    coalitions,
    comparisons,
    condition_name,
    orders,
    selector_grid,
    shown_coalition,
)
from procpre_interp.stats.confidence_sequence import Limits, method_for, sequence_interval, sequential_test
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.resampling import replicate_matrix
from procpre_interp.stats.summary import decide_tests
from procpre_interp.stats.survival import restricted_time

__all__ = [
    "MAX_EXACT_PLAYERS",
    "OUTCOMES",
    "Coalition",
    "Grain",
    "Method",
    "Outcome",
    "coalition_of",
    "coalitions",
    "condition_name",
    "orders",
    "selector_grid",
    "transfer_map",
]

NOT_OF_DIVERGED_RUNS = ["accuracy", "loss_nats", "area", "breakthrough_step", "tokens_to_target"]
"""Columns of a results table that count as NaN where the status is diverged."""

LIMITS = {"limit", "token_limit"}
"""Columns that say up to where a run was observed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A quantity with one value per run (a row of a results table)."""

    columns: tuple[str, ...]
    """The columns that it is made of."""
    measure: Callable[[pd.DataFrame], np.ndarray]
    """Its value in each row; NaN where there is none."""
    description: str
    unit: str
    """Unit of its values."""
    reach: Callable[[pd.DataFrame], float]
    """The largest difference that two runs of the table could have."""
    is_share: bool = False
    """Whether its values are shares, so that people read its differences in percentage points."""
    higher_is_better: bool = True
    """Whether a positive effect is an improvement."""

    @property
    def scale(self) -> float:
        """Factor from a stored effect to the one that people read."""
        return 100.0 if self.is_share else 1.0

    @property
    def effect_unit(self) -> str:
        """Unit of the effect that people read."""
        return "percentage points" if self.is_share else self.unit


def _token_limit(runs: pd.DataFrame) -> float:
    """The smallest token limit. That of a diverged run is only where it ended, so it does not count."""
    limits, diverged = runs["token_limit"].to_numpy(dtype=float), (runs["status"] == "diverged").to_numpy()
    return float(limits.min() if diverged.all() else limits[~diverged].min())


def _accuracy(name: str, description: str) -> Outcome:
    """A column of shares of answer tokens, as it stands."""
    return Outcome(
        columns=(name,),
        measure=lambda runs: runs[name].to_numpy(dtype=float),
        description=description,
        unit="share of answer tokens",
        reach=lambda runs: 1.0,
        is_share=True,
    )


OUTCOMES: dict[str, Outcome] = {
    "accuracy": _accuracy("accuracy", "accuracy"),
    "loss_nats": Outcome(
        columns=("loss_nats",),
        measure=lambda runs: runs["loss_nats"].to_numpy(dtype=float),
        description="loss (below 0: better)",
        unit="nats per scored token",
        reach=lambda runs: np.inf,
        higher_is_better=False,
    ),
    "area": _accuracy("area", "mean validation accuracy over training"),
    "restricted_time_steps": Outcome(
        columns=("breakthrough_step", "limit"),
        measure=restricted_time,
        description="time to breakthrough, at most the limit (below 0: sooner)",
        unit="steps",
        reach=lambda runs: float(runs["limit"].to_numpy().min()),
        higher_is_better=False,
    ),
    "breakthrough_share": Outcome(
        columns=("breakthrough_step", "limit"),
        measure=lambda runs: (runs["breakthrough_step"] <= runs["limit"].to_numpy().min()).to_numpy(dtype=float),
        description="runs that broke through",
        unit="share of runs",
        reach=lambda runs: 1.0,
        is_share=True,
    ),
    "tokens_to_target": Outcome(
        columns=("tokens_to_target", "token_limit"),
        measure=lambda runs: np.fmin(runs["tokens_to_target"].to_numpy(dtype=float), _token_limit(runs)),
        description="tokens to the target, at most the limit (below 0: sooner)",
        unit="tokens",
        reach=_token_limit,
        higher_is_better=False,
    ),
}


def transfer_map(
    table: pd.DataFrame,
    players: Sequence[str],
    methods: Sequence[str],
    outcome: str = "accuracy",
    *,
    n_orders: int = 4,
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
    its range is not known.

    Raises `ValueError` for a table without a single complete replicate.
    """
    methods = list(dict.fromkeys(methods))
    if not methods:
        raise ValueError("no methods; give one or more of add_one_in, leave_one_out, shapley")
    runs = _runs(table, outcome)
    reach, measured = OUTCOMES[outcome].reach(runs), OUTCOMES[outcome].measure(runs)
    # Columns of tuples would become a MultiIndex; these names serve the message about a cell that is there twice.
    names = {shown_coalition(each): each for each in runs["coalition"]}
    values = replicate_matrix(runs.assign(condition=runs["coalition"].map(shown_coalition), value=measured), "value")
    there = [names[str(name)] for name in values]
    replicates = [int(replicate) for replicate in values.index.tolist()]
    rows = zip((dict(zip(there, row)) for row in values.to_numpy(dtype=float).tolist()), replicates)
    keys = pd.MultiIndex.from_product([methods, players], names=["method", "player"])
    effects = pd.DataFrame([_effects(v, players, methods, i, n_orders) for v, i in rows], columns=keys)
    effects = effects.dropna(how="all")
    if effects.empty:
        needed = coalitions(players, methods, replicate=replicates[0], n_orders=n_orders)
        lacking = ", ".join([shown_coalition(each) for each in needed if each not in there][:3])
        raise ValueError(
            f"{len(replicates)} replicates, none with all that one effect on {outcome} needs"
            f"{f'; the table lacks the coalitions {lacking}' if lacking else ''}; finish their runs"
        )
    limits = Limits(low=-reach, high=reach) if np.isfinite(reach) else None
    tested = [_tested(effects.iloc[:, index].dropna().to_numpy(), limits) for index in range(len(keys))]
    result = pd.concat([keys.to_frame(index=False), pd.DataFrame(tested)], axis=1)
    result.insert(2, "outcome", outcome)
    tests = result.loc[result["n"] > 0, ["method", "p", "smallest_p", "n"]].rename(columns={"method": "family"})
    result = result.join(decide_tests(tests)[["p_holm", "smallest_p_holm", "decision", "undecided_reason"]])
    return result.fillna({"decision": Decision.UNDECIDED, "undecided_reason": "no complete replicate"})


def _tested(effects: np.ndarray, limits: Limits | None) -> dict[str, object]:
    """One player's effect over replicates: estimate, bounds, n, p, and whether it is the same in all of them."""
    interval = sequence_interval(effects, limits)
    reach = 1.0 if limits is None else limits.high
    constant = interval.n > 1 and bool(np.ptp(effects) <= 1e-12 * reach)
    bounded = interval.n > 1 and not (constant and limits is None)
    test = sequential_test(effects, 0.0, limits) if interval.n else None
    return {
        "estimate": interval.estimate,
        "low": interval.low if bounded else np.nan,
        "high": interval.high if bounded else np.nan,
        "n": interval.n,
        "interval": method_for(limits),
        "constant": constant,
        # Without any spread a t mixture would be certain of an effect whose range is not known.
        "p": np.nan if test is None else 1.0 if constant and limits is None else test.p,
        "smallest_p": np.nan if test is None else test.smallest_p,
    }


def _effects(
    v: Mapping[Coalition, float], players: Sequence[str], methods: Sequence[str], replicate: int, n_orders: int
) -> list[float]:
    """Each player's effect in one replicate, method by method; NaN where a coalition that it needs is missing."""
    effects, largest = [], max((abs(value) for value in v.values() if not np.isnan(value)), default=0.0)
    for method in methods:
        pairs, sums = comparisons(method, players, replicate=replicate, n_orders=n_orders), dict.fromkeys(players, 0.0)
        for player, larger, smaller in pairs:
            sums[player] += v.get(larger, np.nan) - v.get(smaller, np.nan)
        means = np.array(list(sums.values())) * len(players) / len(pairs)
        # Rounding errors in place of 0 have signs, which the test would count.
        means[np.abs(means) <= 1e-12 * largest] = 0.0
        # The values of some players alone would no longer sum to the gain.
        whole = method != "shapley" or not np.isnan(means).any()
        effects += (means if whole else np.full(len(players), np.nan)).tolist()
    return effects


def _runs(table: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """The rows that count, checked; what a diverged run does not have is NaN."""
    if outcome not in OUTCOMES:
        raise unknown_name("outcome", outcome, list(OUTCOMES))
    columns = OUTCOMES[outcome].columns
    if lacking := [name for name in ("coalition", "replicate", "status", *columns) if name not in table]:
        raise ValueError(f"a table without {', '.join(lacking)}; {outcome} needs a row per coalition and replicate")
    runs = table.loc[table["status"].isin(["finished", "diverged"]).to_numpy()].copy()
    if runs.empty:
        raise ValueError(f"{len(table)} rows, none of them of a run that finished or diverged; finish the runs first")
    if odd := [each for each in runs["coalition"] if not isinstance(each, tuple)]:
        raise ValueError(f"coalition {odd[0]!r}; give each as a tuple of its players, () for none")
    gone = [name for name in columns if name in NOT_OF_DIVERGED_RUNS]
    runs[gone] = runs[gone].astype(float).mask(runs["status"] == "diverged")
    for name in columns:
        if name in LIMITS and not (runs[name] > 0).to_numpy().all():
            raise ValueError(f"{name} {runs[name].unique().tolist()}; give runs with a {name} above 0")
    return runs
