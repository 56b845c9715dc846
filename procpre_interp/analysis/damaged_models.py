"""Damage done to finished models: what a solution tolerates, without training it again."""

from collections.abc import Sequence

import pandas as pd

from procpre_interp.ablate import Ablation, copy_labels, damaged_copies
from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Task
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.execute import held_out, load_model, load_task
from procpre_interp.store.store import Run
from procpre_interp.train import evaluate_copies


def damage_table(
    run: Run, ablations: Sequence[Ablation], *, n_draws: int = 10, n_examples: int = 1000, threads: int = 1
) -> pd.DataFrame:
    """Test scores of damaged copies of a run's final model, one row per copy: `damage_scores` behind a column `run`.

    The damage is drawn from the run's own seed. Draws are no replicates: those are runs of other seeds.
    """
    table = damage_scores(
        load_model(run),
        load_task(run),
        ablations,
        n_draws=n_draws,
        n_examples=n_examples,
        seed=run.seed,
        threads=threads,
    )
    table.insert(0, "run", run.id)
    return table


def damage_scores(
    model: HookedTransformer,
    task: Task,
    ablations: Sequence[Ablation],
    *,
    n_draws: int,
    n_examples: int,
    seed: int,
    threads: int = 1,
) -> pd.DataFrame:
    """Test scores of damaged copies of a model, one row per copy.

    Columns: those of `copy_labels` (ablation, its fields, draw), loss_nats, accuracy, exact_match. All copies see the
    same held-out examples of the task.
    """
    batch = held_out(task, "test", seed=seed, n=n_examples)
    copies = damaged_copies(model, ablations, n_draws=n_draws, seed=seed)
    scored = evaluate_copies(model, copies, batch, threads=threads).drop(columns="copy")
    return copy_labels(ablations, n_draws=n_draws).join(scored)


def refusals(model: HookedTransformer, ablations: Sequence[Ablation]) -> dict[str, str]:
    """The ablations, by name, that have nothing to damage in what they select of this model, and why."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    found: dict[str, str] = {}
    for ablation in ablations:
        try:
            ablation.apply(weights, model.config, generator=stream(0, "refusals"))
        except ValueError as problem:
            found[ablation.name] = str(problem)
    return found
