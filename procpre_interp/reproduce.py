"""The paper's headline: does pretraining on Dyck brackets teach a tiny transformer to find a needle in a haystack?

A replicate is a fresh seed of both phases, carried through all conditions. Conditions that transfer anything carry
the same positions and average the embeddings in the same way, so that they differ in one property only.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from procpre_interp.ablate import ShuffleWithinTensors
from procpre_interp.data import TASKS
from procpre_interp.pipeline import Architecture, Parent, RunConfig
from procpre_interp.runs import DamagedRun, RunStore
from procpre_interp.train import TrainConfig

FIRST_CONFIRMATION_SEED = 1000
"""Seeds from here on confirm; 0-99 were used for tuning."""

ProtocolName = Literal["cheap", "paper"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How both phases are trained."""

    name: str
    text: str
    phase1: TrainConfig
    phase2: TrainConfig


_PHASE1 = TrainConfig(
    steps=20_000,
    batch_size=32,
    learning_rate=2e-3,
    schedule="constant",
    warmup_steps=100,
    weight_decay=0.1,
    decay="all",
    evaluate_every=1000,
    evaluate_examples=256,
)
_PHASE2 = TrainConfig(schedule="cosine", warmup_steps=500, weight_decay=1e-3, decay="matrices", evaluate_every=50)

PROTOCOLS: dict[ProtocolName, Protocol] = {
    "cheap": Protocol(
        name="cheap",
        text="Cheap protocol (not the paper's). Phase 1: 16-Dyck of length 128, 20,000 steps of batch 32, lr 2e-3 "
        "constant after 100 warm-up steps, decay .1 on everything, tied. Phase 2: haystack, 5,000 steps of batch 250, "
        "lr 3e-3 constant after 500 warm-up steps (a cosine ends the search for late seeds), decay 1e-3 on matrices, "
        "untied.",
        phase1=_PHASE1,
        phase2=dataclasses.replace(
            _PHASE2, steps=5_000, batch_size=250, learning_rate=3e-3, schedule="constant", evaluate_every=100
        ),
    ),
    "paper": Protocol(
        name="paper",
        text="The paper's phase 2: haystack, 10,000 steps of batch 1000, lr 1e-3 cosine after 500 warm-up steps, decay "
        "1e-3 on matrices, untied. Phase 1: 16-Dyck of length 128, 20,000 steps of batch 32, lr 2e-3 constant after "
        "100 warm-up steps, decay .1 on everything, tied (the paper: up to 1,000,000 steps of batch 256 at 5e-5).",
        phase1=_PHASE1,
        phase2=dataclasses.replace(_PHASE2, steps=10_000, batch_size=1000, learning_rate=1e-3),
    ),
}

ARCHITECTURE = Architecture(n_layers=2, n_heads=4, d_model=16)
"""The paper's diagnostic model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One way to start phase 2."""

    name: str
    label: str
    phase1: Literal["dyck", "shuffled"] | None
    parent: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of the `Parent`: what is taken, and the damage done to it."""
    paper_accuracy: float | None = None
    """The paper's accuracy on haystack, share; none: it gives no number for this."""
    paper_note: str = ""


CONDITIONS = (
    Condition(name="none", label="no pretraining", phase1=None, paper_accuracy=0.113),
    Condition(name="dyck_full", label="Dyck, full transfer", phase1="dyck", paper_accuracy=0.969),
    Condition(
        name="dyck_shuffled_weights",
        label="Dyck, weights shuffled within each tensor",
        phase1="dyck",
        parent={"ablation": ShuffleWithinTensors()},
        paper_note="the paper: accuracy drops dramatically (shuffled a layer, no number)",
    ),
    Condition(name="attention_ln", label="Dyck, attention + LN", phase1="dyck", parent={"selector": "attn + ln"}),
    Condition(name="mlp_ln", label="Dyck, MLP + LN", phase1="dyck", parent={"selector": "mlp + ln"}),
    Condition(
        name="shuffled_sequences",
        label="Dyck with shuffled sequences, full transfer",
        phase1="shuffled",
        paper_accuracy=0.103,
        paper_note="the paper's best of its shuffled tasks",
    ),
)
QUICK = ("none", "dyck_full", "dyck_shuffled_weights")
"""Conditions of `--quick`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All runs of the experiment, and which run is which condition of which replicate."""

    protocol: Protocol
    conditions: tuple[Condition, ...]
    seeds: tuple[int, ...]
    configs: dict[str, RunConfig]
    """By run id: parents before children, the first replicate first."""
    cells: pd.DataFrame
    """One row a cell: condition, label, replicate, phase1_run (empty without one), run."""

    @property
    def table_name(self) -> str:
        """Name of the stored result: the same for the same runs."""
        runs = json.dumps(sorted(self.cells["run"]))
        return f"reproduce-{hashlib.sha256(runs.encode()).hexdigest()[:8]}"


def plan(protocol: Protocol, *, replicates: int, quick: bool, first_seed: int = FIRST_CONFIRMATION_SEED) -> Plan:
    """The runs of `replicates` seeds through all conditions, or through those of `QUICK`."""
    if replicates < 1:
        raise ValueError(f"replicates={replicates}; there must be at least 1")
    conditions = tuple(c for c in CONDITIONS if not quick or c.name in QUICK)
    seeds = tuple(range(first_seed, first_seed + replicates))
    configs: dict[str, RunConfig] = {}
    rows = []
    for seed in seeds:
        parents = {kind: phase1(protocol, kind, seed) for kind in ("dyck", "shuffled")}
        for condition in conditions:
            parent = parents[condition.phase1] if condition.phase1 else None
            child = phase2(protocol, seed, [Parent(run=parent.run_id, **condition.parent)] if parent else [])
            for config in (parent, child):
                if config is not None:
                    configs[config.run_id] = config
            rows.append(
                {
                    "condition": condition.name,
                    "label": condition.label,
                    "replicate": seed,
                    "phase1_run": parent.run_id if parent else "",
                    "run": child.run_id,
                }
            )
    return Plan(protocol=protocol, conditions=conditions, seeds=seeds, configs=configs, cells=pd.DataFrame(rows))


def phase1(protocol: Protocol, kind: Literal["dyck", "shuffled"], seed: int) -> RunConfig:
    """Procedural pretraining on Dyck, or on the same sequences with their tokens in random order."""
    task = TASKS.build("dyck", k=16, length=128)
    if kind == "shuffled":
        task = TASKS.build("shuffled", task=task)
    return RunConfig(task=task, seed=seed, model=dataclasses.replace(ARCHITECTURE, tied=True), train=protocol.phase1)


def phase2(protocol: Protocol, seed: int, parents: Sequence[Parent]) -> RunConfig:
    """Haystack from these parents."""
    return RunConfig(
        task=TASKS.build("haystack"),
        seed=seed,
        model=ARCHITECTURE,
        train=protocol.phase2,
        parents=tuple(parents),
    )


def results(plan: Plan, store: RunStore) -> pd.DataFrame:
    """One row a finished cell: condition, replicate, runs, and what came out. Shares in 0 to 1, times in steps."""
    rows = []
    for cell in plan.cells.to_dict("records"):
        if not all(is_whole(store, run) for run in (cell["run"], *cell["phase1_run"].split())):
            continue
        outcome = store.open(cell["run"], verify=False).summary
        parents = [store.open(run, verify=False).summary for run in cell["phase1_run"].split()]
        rows.append({**cell, **scores(outcome, parents)})
    return pd.DataFrame(rows)


def scores(outcome: Mapping[str, Any], parents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What came out of a cell, from the summaries of its run and of the run's parents.

    The lowest phase-1 accuracy of several parents, and their seconds together.
    """
    breakthrough = outcome["breakthrough_step"]
    return {
        "status": outcome["status"],
        "accuracy": outcome["accuracy"],
        "exact_match": outcome["exact_match"],
        "breakthrough_step": math.nan if breakthrough is None else float(breakthrough),
        "limit": outcome["breakthrough_limit"],
        "seconds": outcome["seconds"],
        "phase1_seconds": sum((parent["seconds"] for parent in parents), 0.0),
        "tokens": outcome["tokens"],
        "phase1_accuracy": min((parent["accuracy"] for parent in parents), default=math.nan),
    }


def is_whole(store: RunStore, run: str) -> bool:
    """Whether the run is finished and undamaged."""
    try:
        return store.is_finished(run)
    except DamagedRun:
        return False


def cost(plan: Plan, store: RunStore) -> dict[str, float | int]:
    """What the runs of the plan cost, each counted once: their number, CPU-seconds and tokens."""
    return cost_of(plan.configs, store)


def cost_of(runs: Iterable[str], store: RunStore) -> dict[str, float | int]:
    """What those of the runs cost that are finished: their number, CPU-seconds and tokens."""
    summaries = [store.open(run, verify=False).summary for run in runs if is_whole(store, run)]
    return {
        "runs": len(summaries),
        "cpu_seconds": sum(summary["seconds"] * summary["threads"] for summary in summaries),
        "tokens": sum(summary["tokens"] for summary in summaries),
    }
