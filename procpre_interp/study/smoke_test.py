"""A sweep cut down to a smoke test: to see that everything works."""

import dataclasses

from procpre_interp.sweep.chains import with_training
from procpre_interp.sweep.config import Sweep
from procpre_interp.train import TrainConfig


def shortened(sweep: Sweep) -> Sweep:
    """One replicate of a few steps, with a tuning seed."""
    return dataclasses.replace(with_training(sweep, few_steps), replicates=1, first_seed=0)


def few_steps(train: TrainConfig) -> TrainConfig:
    """The training of a smoke test."""
    return dataclasses.replace(
        train, steps=20, batch_size=32, warmup_steps=5, evaluate_every=10, evaluate_examples=100, patience=None
    )
