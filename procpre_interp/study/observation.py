"""Observations: what is measured on the models of finished runs, as further rows and columns of a claim's table."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from procpre_interp.claims.compared import OBSERVED
from procpre_interp.core.seeding import stream
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.pipeline.lineage import starting_model
from procpre_interp.probe import attention_entropy
from procpre_interp.store.store import Run, RunStore
from procpre_interp.sweep.ranked_heads import PROBE_SEQUENCES
from procpre_interp.train.process import run_threads

Measured = Mapping[str, Mapping[str, float]]
"""Condition -> measure -> value."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """A measurement on the runs of one replicate."""

    needs: tuple[str, ...]
    """Conditions of the sweep whose runs it reads; a replicate without one of them is measured as `parts` allows."""
    conditions: Mapping[str, str]
    """What is measured but is no run of its own, such as a model before training: name -> what people read."""
    measure: Callable[[Mapping[str, Run], RunStore], Measured]
    """Measures the runs, given by condition: values for `conditions`, and for those of the sweep that it needs."""
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Condition of the sweep -> the conditions that its own measurement reads, itself included. With these `measure`
    gets the runs that there are, and measures the conditions that have all of theirs."""
    reads_models: bool = True
    """Whether it measures models, and not only what came out of the runs, which copies without weights have too."""

    @property
    def whole(self) -> tuple[str, ...]:
        """The conditions whose runs it needs with their weights."""
        return self.needs if self.reads_models else ()

    def needed_for(self, conditions: Iterable[str]) -> set[str]:
        """The conditions whose runs it reads to measure these."""
        return set().union(*(self.parts.get(name, self.needs) for name in conditions))

    def can_measure(self, there: Iterable[str]) -> bool:
        """Whether anything is measured where runs of these conditions are there."""
        return any(set(needs) <= set(there) for needs in (self.needs, *self.parts.values()))


def observe(
    observation: Observation, table: pd.DataFrame, planned: pd.DataFrame, store: RunStore
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table of cells with what was observed, and the cells that there should be.

    What is observed in a replicate is planned wherever all that it needs is.
    """
    trained = table.assign(**{OBSERVED: False})
    rows = []
    for replicate, cells in table.loc[table["status"] == "finished"].groupby("replicate"):
        runs = {
            name: store.open(run) for name, run in zip(cells["condition"], cells["run"]) if name in observation.needs
        }
        if not observation.can_measure(runs):
            continue
        with run_threads(1):
            found = observation.measure(runs, store)
        for condition, values in found.items():
            own = (trained["replicate"] == replicate) & (trained["condition"] == condition)
            if condition in observation.conditions:
                about = {"condition": condition, "label": observation.conditions[condition], "replicate": replicate}
                rows.append({**about, "phase1_run": (), "run": "", "status": "finished", OBSERVED: True, **values})
            else:
                trained.loc[own, list(values)] = [float(value) for value in values.values()]
    whole = planned.loc[planned["condition"].isin(observation.needs)].groupby("replicate")["condition"].nunique()
    wanted = [
        {"condition": condition, "label": label, "replicate": replicate, "phase1_run": (), "run": "", "problem": ""}
        for replicate in whole.index[whole == len(observation.needs)]
        for condition, label in observation.conditions.items()
    ]
    frames = [trained, *([pd.DataFrame(rows)] if rows else [])]
    return pd.concat(frames, ignore_index=True), pd.concat([planned, pd.DataFrame(wanted)], ignore_index=True)


def remembered(observation: Observation) -> Observation:
    """The observation, which measures the same runs only once."""
    known: dict[tuple[str, ...], Measured] = {}

    def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
        ids = tuple(run.id for run in runs.values())
        if ids not in known:
            known[ids] = observation.measure(runs, store)
        return known[ids]

    return dataclasses.replace(observation, measure=measure)


def entropy_observation(*conditions: str) -> Observation:
    """Attention entropy before the first step (`entropy_start`) and after the last (`entropy_relative`) of these.

    Over its causal maximum, 0 to 1, mean over rows and heads, on fresh sequences of the runs' task.
    """

    def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
        found = {}
        for name, run in runs.items():
            batch = load_task(run).batch(PROBE_SEQUENCES, generator=stream(run.seed, "head entropy"))
            moments = {"entropy_start": starting_model(run, store), "entropy_relative": load_model(run)}
            found[name] = {
                measure: attention_entropy(model, batch)["entropy_relative"].to_numpy().mean().item()
                for measure, model in moments.items()
            }
        return found

    return Observation(needs=conditions, conditions={}, measure=measure)
