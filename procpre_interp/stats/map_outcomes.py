"""Outcomes that transfer maps explain, and their values: one per coalition and replicate."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from procpre_interp.core.messages import unknown_name
from procpre_interp.stats.coalitions import Coalition, shown_coalition
from procpre_interp.stats.resampling import replicate_matrix
from procpre_interp.stats.survival import restricted_time

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Games:
    """The outcomes of coalitions, in each replicate."""

    values: dict[int, dict[Coalition, float]]
    """Replicate -> coalition -> outcome; NaN where it is missing."""
    reach: float
    """The largest difference that two outcomes could have."""


def outcome_games(table: pd.DataFrame, outcome: str) -> Games:
    """An outcome of each coalition in each replicate of a table such as `transfer_map` takes."""
    runs = _runs(table, outcome)
    measured = OUTCOMES[outcome].measure(runs)
    # Columns of tuples would become a MultiIndex; these names serve the message about a cell that is there twice.
    names = {shown_coalition(each): each for each in runs["coalition"]}
    values = replicate_matrix(runs.assign(condition=runs["coalition"].map(shown_coalition), value=measured), "value")
    there = [names[str(name)] for name in values]
    replicates = [int(replicate) for replicate in values.index.tolist()]
    rows = values.to_numpy(dtype=float).tolist()
    games = {replicate: dict(zip(there, row)) for replicate, row in zip(replicates, rows)}
    return Games(values=games, reach=OUTCOMES[outcome].reach(runs))


def nothing_complete(games: Games, needed: Sequence[Coalition], outcome: str) -> ValueError:
    """The mistake of a table without a single complete replicate, and some coalitions that it lacks altogether."""
    there = next(iter(games.values.values()))
    lacking = ", ".join([shown_coalition(each) for each in needed if each not in there][:3])
    return ValueError(
        f"{len(games.values)} replicates, none with all that one effect on {outcome} needs"
        f"{f'; the table lacks the coalitions {lacking}' if lacking else ''}; finish their runs"
    )


def without_rounding(effects: Sequence[float], outcomes: Iterable[float]) -> Float[np.ndarray, " effect"]:
    """Effects with 0 in place of rounding errors, whose signs a test would count."""
    means, largest = np.array(effects), max((abs(value) for value in outcomes if not np.isnan(value)), default=0.0)
    return np.where(np.abs(means) <= 1e-12 * largest, 0.0, means)


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
