"""The options of commands that compute claims. Loads nothing, so that a command can speak first."""

from dataclasses import dataclass
from pathlib import Path

from procpre_interp.engine.options import EngineOptions


@dataclass(frozen=True, kw_only=True)
class RunOptions(EngineOptions):
    """How claims are computed, and for how long."""

    minutes: float | None = None
    """Stop starting runs after this many minutes; those under way are finished. Default: no limit."""
    quick: bool = False
    """One replicate of a few steps, to see that everything works: the verdict is always undecided."""
    until_decided: bool = False
    """Add replicates, one seed after another, until the primary contrast is decided. Intervals allow for looking."""
    most_replicates: int = 40
    """Replicates after which a claim is left undecided (--until-decided)."""
    primary_only: bool = False
    """Only what the primary contrast and its premise need is computed (--until-decided). Default: what undecided
    secondary ones need as well."""
    results: Path | None = None
    """Folder for the cells as CSV and the judged claim as JSON, like those of experiments/results/claims. Default: no
    such files. The store has both in any case."""

    @property
    def given(self) -> list[str]:
        """The options of how runs are added that are not as they are by default, as they are written."""
        names = ("minutes", "quick", "until_decided", "primary_only", "most_replicates")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != getattr(RunOptions, name)]

    def check(self) -> None:
        """Raise `ValueError` for options that contradict one another, or say nothing without another."""
        super().check()
        if self.quick and self.until_decided:
            raise ValueError("a smoke test decides nothing; leave out --quick or --until-decided")
        if self.most_replicates < 1:
            raise ValueError(f"most_replicates={self.most_replicates}; there must be at least 1")
        for option in ("--most-replicates", "--primary-only"):
            if option in self.given and not self.until_decided:
                raise ValueError(f"{option} says how --until-decided adds runs; give that as well")


MOST_REPLICATES = RunOptions.most_replicates
"""Replicates after which a claim is left undecided."""
