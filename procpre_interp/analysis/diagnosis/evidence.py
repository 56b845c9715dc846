"""What a store holds to compare a run with: its baseline, its replicates, and runs that differ in one factor."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pandas as pd

from procpre_interp.core.config import ORIGIN
from procpre_interp.stats.transfer_map import OUTCOMES
from procpre_interp.store.run import DamagedRun, Run, UnknownRun, of_whole_task, parents_of
from procpre_interp.store.store import RunStore

DEFAULTS = {"token_embedding": "average", "unembedding": "average", "positions": "carry", "embedding_parent": 0}
DEFAULTS |= {"positions_parent": None, "overlap": "refuse", "layers": "same", "width": "same"}
"""Options of a transfer at their defaults, which stored configs leave out."""

SAME_RESULT = ("kernel", "kernel_version", "threads", "device")
"""How a run was computed. This changes last bits, and so is no reason against a comparison."""

LENGTH = ("steps", "stop_after")
"""How long a run is trained at most; `step` tells runs apart that differ in nothing else."""

HARMLESS = ("shuffle_heads", "shuffle_neurons")
"""Ablations that permute heads or neurons whole, after which the model computes the same."""


class Evidence:
    """A store read once: the summaries of all runs, and the configs of those that a comparison needs.

    Damaged and unfinished runs do not count. Two runs are comparable when task, model and training are the same.
    """

    def __init__(self, store: RunStore, summaries: pd.DataFrame | None = None) -> None:
        self.store, self.table = store, store.query() if summaries is None else summaries
        self.n_damaged = int((self.table["status"] == "damaged").to_numpy().sum())
        self._runs: dict[str, Run | None] = {}
        self._keys: dict[str, str] = {}

    def open(self, run_id: str) -> Run | None:
        """The run, or None where it is missing, damaged or unfinished."""
        if run_id not in self._runs:
            try:
                self._runs[run_id] = self.store.open(run_id, verify=False)
            except (UnknownRun, DamagedRun):
                self._runs[run_id] = None
        return self._runs[run_id]

    def comparable(self, run: Run, **equals: Any) -> Iterator[Run]:
        """Other runs that are comparable, and whose summaries have these values (None for no value).

        Summaries narrow the choice first: configs are slow to read.
        """
        table = self.table.loc[self.table["status"].isin(["finished", "diverged"])]
        equals = {name: run.summary.get(name) for name in ("task", "n_layers", "d_model")} | equals
        for column, value in equals.items():
            if column in table:
                none = table[column].isna() | table[column].map(lambda found: found in ("", ()))
                table = table.loc[none if value is None else table[column] == value]
        setting = _setting(run)
        opened = (self.open(name) for name in table["run"] if name != run.id)
        return (other for other in opened if other is not None and _setting(other) == setting)

    def baselines(self, run: Run) -> dict[int, Run]:
        """The comparable runs without parents, by seed."""
        return {each.seed: each for each in self.comparable(run, parents=None) if not parents_of(each)}

    def replicates(self, run: Run) -> dict[int, Run]:
        """This run and the others of its condition, by seed."""
        others = self.comparable(run, components=run.summary.get("components"))
        return {each.seed: each for each in others if self.key(each) == self.key(run)} | {run.seed: run}

    def key(self, run: Run) -> str:
        """The configs of the run and its ancestors without seeds: the same in every replicate.

        A parent whose seed is not its child's may have children of several seeds: it counts by its id.
        """
        if run.id not in self._keys:
            self._keys[run.id] = run.id  # for configs that go in a circle, which no run of ours does
            lines = [_setting(run), *(str(factor(run, name)) for name in DEFAULTS)]
            for entry in parents_of(run):
                parent = self.open(entry["run"])
                paired = parent is not None and parent.seed == run.seed
                lines += [self.key(parent) if parent is not None and paired else entry["run"]]
                lines += [json.dumps({**entry, "run": ""}, sort_keys=True)]
            self._keys[run.id] = "\n".join(lines)
        return self._keys[run.id]

    def siblings(self, run: Run) -> list[tuple[Run, frozenset[str]]]:
        """Comparable runs of the same seed and parents that have a score, with the factors in which they differ.

        Factors: the fields of `DEFAULTS`, selector, step and ablation. A parent trained for fewer or more steps, with
        all else the same, differs in step; one trained on the same task with shuffled sequences, in sequences.
        """
        found = []
        for other in self.comparable(run, seed=run.summary.get("seed")):
            factors = self._differences(run, other)
            if factors and score_of(other) is not None:
                found.append((other, factors))
        return found

    def step(self, entry: Mapping[str, Any]) -> int | None:
        """Steps of phase 1 behind the weights that a parent gave."""
        parent = self.open(entry["run"])
        if (step := entry.get("step")) is not None:
            return step
        return None if parent is None else parent.summary["steps"]

    def validation(self, run: Run, step: int | None) -> pd.DataFrame:
        """The run's evaluations on the whole task up to a step; none where its history is damaged."""
        try:
            history = of_whole_task(run.history())
        except (UnknownRun, DamagedRun):
            return pd.DataFrame(columns=["step", "loss_nats", "accuracy", "tokens"])
        until = history["step"] <= (history["step"].max() if step is None else step)
        return history.loc[(history["split"] == "validation") & until]

    def damage(self, run: Run, children: frozenset[str] = frozenset()) -> list[str]:
        """Where sequences were shuffled or weights damaged in the run's lineage, in words, the nearest first."""
        found = []
        for entry in parents_of(run):
            ablation = entry.get("ablation") or {}
            if ablation and ablation["name"] not in HARMLESS and ablation.get("noise_std") != 0:
                fields = {name: value for name, value in ablation.items() if name not in {"name", *ORIGIN}}
                shown = f" ({', '.join(f'{name}={value}' for name, value in fields.items())})" if fields else ""
                found.append(f"the weights of {entry['run']} were damaged by {ablation['name']}{shown}")
            if (parent := self.open(entry["run"])) is not None and parent.id not in children:
                task = parent.config.get("task")
                if _unshuffled(task) != task:
                    found.append(f"{parent.id} was trained on shuffled sequences")
                found += self.damage(parent, children | {run.id})
        return found

    def _differences(self, run: Run, other: Run) -> frozenset[str]:
        """The factors in which two transfers differ; none also where they have different parents."""
        mine, theirs = parents_of(run), parents_of(other)
        factors = {name for name in DEFAULTS if factor(run, name) != factor(other, name)}
        if len(mine) != len(theirs):
            return frozenset()
        for a, b in zip(mine, theirs):
            factors |= {name for name in ("selector", "ablation") if a.get(name) != b.get(name)}
            if a["run"] != b["run"]:
                parents = self.open(a["run"]), self.open(b["run"])
                if parents[0] is None or parents[1] is None or _kin(parents[0]) != _kin(parents[1]):
                    return frozenset()
                factors |= {"sequences"} if parents[0].config.get("task") != parents[1].config.get("task") else set()
            factors |= {"step"} if self.step(a) != self.step(b) else set()
        return frozenset(factors)


def selector_of(run: Run) -> str:
    """What its parents gave, as a person would write it."""
    return ", ".join(entry.get("selector", "all") for entry in parents_of(run)) or "nothing"


def factor(run: Run, name: str) -> Any:
    """An option of the transfer, at its default where the config leaves it out."""
    return run.config.get("transfer", {}).get(name, DEFAULTS[name])


def score_name(run: Run) -> Literal["loss_nats", "accuracy"]:
    """What tells how good a run is: its accuracy, or on text, where gains are small shares of it, its loss."""
    return "loss_nats" if "perplexity" in run.summary else "accuracy"


def score_word(run: Run) -> str:
    """What people call that score."""
    return "loss" if score_name(run) == "loss_nats" else "accuracy"


def score_of(run: Run) -> float | None:
    """The score on the test set, more being better: a share, or minus nats per token. None of a diverged run."""
    value = run.summary.get(score_name(run))
    if run.summary["status"] == "diverged" or value is None:
        return None
    return value if OUTCOMES[score_name(run)].higher_is_better else -value


def _setting(run: Run) -> str:
    """Task, model and training of the run. Not which draw of fresh weights it began with: a transfer has another than
    its baseline where a parent had the first one (`RunConfig.draw`)."""
    config = {name: value for name, value in run.config.items() if name not in ("seed", "draw", "parents", "transfer")}
    train = {name: value for name, value in run.config.get("train", {}).items() if name not in SAME_RESULT}
    return json.dumps(config | {"train": train}, sort_keys=True)


def _kin(run: Run) -> str:
    """The run's config without its number of steps, its task with sequences in order."""
    train = {name: value for name, value in run.config.get("train", {}).items() if name not in (*LENGTH, *SAME_RESULT)}
    return json.dumps(run.config | {"train": train, "task": _unshuffled(run.config.get("task"))}, sort_keys=True)


def _unshuffled(task: Any) -> Any:
    """The task's config, with shuffled tasks replaced by those that they shuffle."""
    if isinstance(task, list):
        return [_unshuffled(each) for each in task]
    if not isinstance(task, dict):
        return task
    if task.get("name") == "shuffled":
        return _unshuffled(task.get("task"))
    return {k: _unshuffled(v) for k, v in task.items()}
