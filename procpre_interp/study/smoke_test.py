"""A sweep cut down to a smoke test: to see that everything works."""

import dataclasses

from procpre_interp.sweep.chains import with_training
from procpre_interp.sweep.config import Sweep
from procpre_interp.train import TrainConfig


def shortened(sweep: Sweep) -> Sweep:
    """One replicate of a few steps, with a tuning seed."""
    fair = sweep.fair
    if fair is not None:  # one trial, on another seed
        one = {"learning_rates": fair.learning_rates[:1], "initial_scales": fair.initial_scales[:1]}
        fair = dataclasses.replace(fair, **one, tuning_replicates=1, first_tuning_seed=1)
    return dataclasses.replace(with_training(sweep, few_steps), replicates=1, first_seed=0, fair=fair)


def few_steps(train: TrainConfig) -> TrainConfig:
    """The training of a smoke test."""
    return dataclasses.replace(
        train, steps=20, batch_size=32, warmup_steps=5, evaluate_every=10, evaluate_examples=100, patience=None
    )
