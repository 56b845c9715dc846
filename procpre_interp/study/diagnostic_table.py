"""The runs of the paper's diagnostic table: every way to start phase 2, on every downstream task."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import Parent, RunConfig
from procpre_interp.stats.paper_comparison import CHEAP_DIFFERS
from procpre_interp.study.protocols import ALGORITHMIC, ARCHITECTURE, PROCEDURAL, PROTOCOLS
from procpre_interp.study.smoke_test import few_steps
from procpre_interp.sweep.config import FIRST_CONFIRMATION_SEED
from procpre_interp.train import TrainConfig

SELECTORS = {"full": "all", "attention": "attn", "attention+LN": "attn + ln", "MLP": "mlp", "MLP+LN": "mlp + ln"}
"""What is transferred. `full` is everything but the embeddings, which are treated alike in all five."""

DOWNSTREAM = ("haystack", "addition", "reversed_addition", "sorting")

_HAYSTACK = PROTOCOLS["cheap"].phase2

PROTOCOL = (
    "Cheap protocol, not the paper's. Phase 1, tied, constant learning rate: Dyck 20,000 steps of batch 32 at lr "
    "2e-3; at lr 5e-3 Dyck shuffle and ECA 10,000 of batch 32, and identity, set and stack 40,000 of batch 64; all "
    "but Dyck end earlier at a plateau of the validation loss. Phase 2, untied, batch 250, lr 3e-3: haystack 5,000 "
    "steps at a constant rate, the others 2,000 with a cosine. In every transfer token embeddings are averaged and "
    "positions carried where the parent's context is long enough; in the paper in the full one only. Answers are "
    "scored whole; the paper leaves out the first digit of sums."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All runs, parents before children and the first replicate first, and which run is which cell."""

    configs: dict[str, RunConfig]
    cells: pd.DataFrame
    """One row per cell: replicate, phase1, transfer, task, differs, phase1_run (tuple of ids; may be empty), run."""


def plan(*, replicates: int, quick: bool = False) -> Plan:
    """The table's runs; with `quick` a few cells of a few steps."""
    if replicates < 1:
        raise ValueError(f"replicates={replicates}; there must be at least 1")
    configs: dict[str, RunConfig] = {}
    rows = []
    for seed in range(FIRST_CONFIRMATION_SEED, FIRST_CONFIRMATION_SEED + replicates):
        parents = {name: phase1(name, seed, quick=quick) for name in PROCEDURAL}
        for start, transfer, selectors in starts(quick):
            donors = [parents[name] for name in selectors]
            configs |= {donor.run_id: donor for donor in donors}
            for task in DOWNSTREAM[:2] if quick else DOWNSTREAM:
                taken = [Parent(run=parents[name].run_id, selector=part) for name, part in selectors.items()]
                child = phase2(task, seed, taken, quick=quick)
                configs[child.run_id] = child
                cell = {"replicate": seed, "phase1": start, "transfer": transfer, "task": task}
                cell["differs"] = CHEAP_DIFFERS
                rows.append({**cell, "phase1_run": tuple(p.run for p in taken), "run": child.run_id})
    return Plan(configs=configs, cells=pd.DataFrame(rows))


def starts(quick: bool) -> list[tuple[str, str, dict[str, str]]]:
    """Every way to start phase 2: start, transfer, and the selector of each parent."""
    if quick:
        return [("none", "", {}), ("set", "full", {"set": "all"}), ("set", "attention", {"set": "attn"})]
    single = [(name, transfer, {name: selector}) for name in PROCEDURAL for transfer, selector in SELECTORS.items()]
    return [("none", "", {}), *single, ("set+eca", "attention+MLP", {"set": "attn", "eca": "mlp"})]


def phase1(name: str, seed: int, *, quick: bool = False) -> RunConfig:
    """Procedural pretraining."""
    recipe = PROCEDURAL[name]
    return RunConfig(task=recipe.task, seed=seed, model=recipe.model, train=shortened(recipe.train, quick))


def phase2(task: str, seed: int, parents: Sequence[Parent], *, quick: bool = False) -> RunConfig:
    """A downstream task from these parents. An assembly has the embeddings and positions of the first."""
    train = shortened(_HAYSTACK if task == "haystack" else ALGORITHMIC, quick)
    return RunConfig(task=TASKS.build(task), seed=seed, model=ARCHITECTURE, train=train, parents=tuple(parents))


def shortened(train: TrainConfig, quick: bool) -> TrainConfig:
    """Next to nothing, with `quick`."""
    return few_steps(train) if quick else train
