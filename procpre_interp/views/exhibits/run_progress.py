"""How far runs have come that are being computed or were interrupted, and how long a run will take."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from procpre_interp.store.partial_run import saved_state
from procpre_interp.store.run import DamagedRun, UnknownRun
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import saved_step, unfinished_config
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.exhibits.run_details import curves, measured

MOST_UNFINISHED = 20
"""Unfinished runs of which configs are read."""

DEFAULT_BATCH = 1000
"""Sequences per step of a config that does not say; a test compares it with the trainer's, which needs torch."""


def troubles(runs: pd.DataFrame, store: RunStore) -> list[tuple[str, pd.DataFrame]]:
    """What is damaged in a list and what is not finished: a line each, and the table behind it.

    An unfinished run has the step that it has saved, and of how many, where that is known; of many, the newest
    `MOST_UNFINISHED`, since their files are read.
    """
    damaged = runs.loc[runs["status"] == "damaged", ["run", "problem"]]
    found = [(f"{_count(damaged)} damaged and not used", damaged)] if len(damaged) else []
    for status, said in (("running", "being written"), ("interrupted", "interrupted: repeat the command to go on")):
        some = runs.loc[runs["status"] == status]
        if len(some):
            rows = [_unfinished(row, store) for row in some.head(MOST_UNFINISHED).to_dict("records")]
            found.append((f"{_count(some)} {said}", pd.DataFrame(rows).convert_dtypes()))
    return found


@dataclass(frozen=True, slots=True)
class Writing:
    """A run that a process is computing."""

    run: str
    task: str
    saved: int
    """The step of the last saved state; 0 before the first."""
    steps: int
    seconds: float = 0.0
    """Time spent on the saved steps."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)
    """Its evaluations up to there."""
    first: int = 0
    """The step that it started from."""

    @property
    def share(self) -> float:
        """Share of its steps that are saved, 0 to 1."""
        return min(1.0, max(0, self.saved - self.first) / max(1, self.steps - self.first))

    @property
    def seconds_left(self) -> float | None:
        """Seconds left at the speed so far; None before there is one."""
        taken = self.saved - self.first
        return self.seconds / taken * max(0, self.steps - self.saved) if taken > 0 and self.seconds else None

    @property
    def curve(self) -> Exhibit | None:
        """Its validation loss so far; None before the first evaluation is saved."""
        if self.history.empty or "split" not in self.history:
            return None
        labels = {"condition": self.run, "label": f"{self.run[:8]}, {self.task}", "replicate": 0, "run": self.run}
        evaluations = self.history.assign(**labels)
        return curves(evaluations, "loss_nats") if "loss_nats" in measured(evaluations) else None


def being_written(runs: pd.DataFrame, store: RunStore) -> list[Writing]:
    """The runs of a list that are being computed, those that say how long they are; the newest `MOST_UNFINISHED`."""
    rows = runs.loc[runs["status"] == "running"].head(MOST_UNFINISHED).to_dict("records")
    found = []
    for row in (_unfinished(row, store) for row in rows):
        if isinstance(row["of steps"], int):
            run, task, steps = str(row["run"]), str(row["task"]), int(row["of steps"])
            folder = store.path / "partial" / run
            config, state = unfinished_config(folder) or {}, saved_state(folder)
            first = config.get("train", {}).get("start_at", 0)
            if state is None:
                found.append(Writing(run, task, 0, steps, first=first))
            else:
                found.append(Writing(run, task, state.step, steps, state.seconds, state.history, first))
    return found


def finished_between(runs: pd.DataFrame, start: str, end: str) -> list[str]:
    """The runs of a list that were finished between two times, to the second; the newest first."""
    done = runs.loc[runs["status"].isin(["finished", "diverged"])]
    created = pd.to_datetime(done["created"], utc=True, format="ISO8601", errors="coerce")
    since, until = (pd.to_datetime(time, utc=True, errors="coerce") for time in (start, end))
    return done.loc[(created >= since) & (created < until + pd.Timedelta(seconds=1)), "run"].tolist()


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a run will take, by the speed of one like it."""

    seconds: float
    run: str
    """The run whose speed it is."""


def estimate(
    runs: pd.DataFrame, store: RunStore, *, task: str, steps: int, batch_size: int, n_layers: int, d_model: int
) -> Estimate | None:
    """Time of `steps` steps at the speed of the newest finished run of the task and shape; None where there is none."""
    alike = runs.reindex(columns=["run", "status", "task", "n_layers", "d_model", "steps", "seconds"])
    alike = alike.loc[
        (alike["status"] == "finished")
        & (alike["task"] == task)
        & (alike["n_layers"] == n_layers)
        & (alike["d_model"] == d_model)
        & (alike["steps"] > 0)
        & (alike["seconds"] > 0)
    ]
    for run_id, seconds, n in alike[["run", "seconds", "steps"]].head(MOST_UNFINISHED).itertuples(index=False):
        try:
            run = store.open(run_id, verify=False)
        except (UnknownRun, DamagedRun):
            continue
        known, taken = (run.config.get("train") or {}).get("batch_size", DEFAULT_BATCH), n - run.first_step
        if taken > 0:
            return Estimate(float(seconds) / (float(taken) * float(known)) * steps * batch_size, run_id)
    return None


def _count(runs: pd.DataFrame) -> str:
    return "1 run is" if len(runs) == 1 else f"{len(runs):,} runs are"


def _unfinished(row: Mapping[str, Any], store: RunStore) -> dict[str, Any]:
    config = unfinished_config(store.path / "partial" / row["run"]) or {}
    task, train = config.get("task", {}), config.get("train", {})
    of_steps = train.get("steps")
    saved = saved_step(store.path / "partial" / row["run"])
    steps = {"saved step": saved, "of steps": of_steps if isinstance(of_steps, int) else None}
    return {"run": row["run"], "task": task.get("name"), **steps, "changed": row["created"]}
