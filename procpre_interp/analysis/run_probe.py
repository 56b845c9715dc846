"""Probes of whole runs, for `procpre-interp probe`: what no single model has."""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from procpre_interp.analysis.attention_timeline import timelines
from procpre_interp.analysis.hidden_progress import CURVE, hidden_progress, lead_times
from procpre_interp.core.messages import unknown_name
from procpre_interp.probe.base import PROBES, Declared
from procpre_interp.store.store import Run, RunStore

GENERAL = ("entropy_bits", "entropy_relative", "distance")
"""Scores of attention that have no target."""


class RunProbe(Declared, abc.ABC):
    """A measurement of stored runs; registered in `PROBES` as others are."""

    @abc.abstractmethod
    def measure_runs(self, runs: Sequence[Run], store: RunStore, *, sequences: int) -> pd.DataFrame:
        """The table of all runs: the column `run`, and those that are declared."""


@PROBES.register("timeline")
@dataclass(frozen=True, kw_only=True)
class TimelineProbe(RunProbe):
    """Attention at every kept step of both phases."""

    keys = ("task", "phase", "step", "layer", "head")
    values = ("value", "uniform")
    figure = "timeline_figure"

    score: str = "entropy_relative"
    """The score that is followed, or a target such as value."""

    def measure_runs(self, runs: Sequence[Run], store: RunStore, *, sequences: int) -> pd.DataFrame:
        targets = () if self.score in GENERAL else (self.score,)
        table = timelines(runs, store, n_sequences=sequences, targets=targets)
        rows = table.loc[table["score"] == self.score].reset_index(drop=True)
        if rows.empty:
            raise unknown_name("score of these runs' tasks", self.score, list(dict.fromkeys(table["score"])))
        return rows


@PROBES.register("progress")
@dataclass(frozen=True, kw_only=True)
class ProgressProbe(RunProbe):
    """Repetition, collapse and participation of each kept step, and their lead over the breakthrough.

    On text they lead over half of the fall of the validation loss.
    """

    keys = ("task", "phase", "step", "measure", "layer", "head")
    values = ("value", "reference", "lead_steps")
    dots = ("value", "reference")

    def measure_runs(self, runs: Sequence[Run], store: RunStore, *, sequences: int) -> pd.DataFrame:
        table = hidden_progress(runs, store, n_sequences=sequences)
        if table["breakthrough_step"].isna().to_numpy().all():
            return table.assign(lead_steps=math.nan)
        return table.merge(lead_times(table)[[*CURVE, "lead_steps"]], on=CURVE, how="left")
