"""How long does a fixed small model take to learn a task? The area under its loss curve."""

import statistics

from procpre_interp.data.task import Task
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train import TrainConfig, Trainer

TRAINING = TrainConfig(
    steps=200,
    batch_size=16,
    learning_rate=3e-3,
    warmup_steps=20,
    weight_decay=0.01,
    evaluate_every=50,
    evaluate_examples=16,
)
"""Few steps of small batches: what is measured is how fast the loss falls, not where it ends."""


def loss_area_nats(task: Task, seed: int, config: TrainConfig = TRAINING) -> float:
    """Area under the curve of the training loss, divided by the number of steps: mean loss per scored token, in nats.

    The model has 2 layers, 4 heads and d_model 32. Every batch is new, so the loss of a step is of targets that the
    model has not seen: what a learner needs to encode them. Low for a task that is simple for it, and close to the loss
    of a guess for one that is random or too hard for so few steps. Raises `ValueError` for a run that diverges.
    """
    model_config = ModelConfig(n_layers=2, n_heads=4, d_model=32, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    model = HookedTransformer.from_seed(model_config, seed, "loss area")
    state = Trainer(model, task, config, seed=seed).run()
    if state.status != "finished":
        raise ValueError(f"{task.name}, seed {seed}: {state.stop_reason}")
    # Each row holds the mean over the steps since the row before.
    rows = [row for row in state.history if row["split"] == "train"]
    ends = [row["step"] for row in rows]
    steps = [end - start for start, end in zip([0, *ends], ends)]
    return statistics.fmean((row["loss_nats"] for row in rows), weights=steps)
