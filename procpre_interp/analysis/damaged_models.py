"""Damage done to finished models: what a solution tolerates, without training it again."""

from collections.abc import Sequence

import pandas as pd

from procpre_interp.ablate import Ablation, copy_labels, damaged_copies
from procpre_interp.pipeline.execute import held_out, load_model, load_task
from procpre_interp.store.store import Run
from procpre_interp.train import evaluate_copies


def damage_table(
    run: Run, ablations: Sequence[Ablation], *, n_draws: int = 10, n_examples: int = 1000, threads: int = 1
) -> pd.DataFrame:
    """Test scores of damaged copies of a run's final model, one row per copy.

    Columns: run, those of `copy_labels` (ablation, its fields, draw), loss_nats, accuracy, exact_match. All copies see
    the same held-out examples, and the damage is drawn from the run's own seed. Draws are no replicates: those are
    runs of other seeds.
    """
    model, seed = load_model(run), run.seed
    batch = held_out(load_task(run), "test", seed=seed, n=n_examples)
    copies = damaged_copies(model, ablations, n_draws=n_draws, seed=seed)
    scored = evaluate_copies(model, copies, batch, threads=threads).drop(columns="copy")
    table = copy_labels(ablations, n_draws=n_draws).join(scored)
    table.insert(0, "run", run.id)
    return table
