"""A sweep whose runs can share stacks."""

import dataclasses

from procpre_interp.sweep.chains import with_training
from procpre_interp.sweep.config import Sweep
from procpre_interp.train import TrainConfig


def stacked_sweep(sweep: Sweep, device: str | None = None) -> Sweep:
    """The sweep with kernel stacked for every run whose kernel its file leaves open, on `device` (default: as in the
    file). The kernel and the device are part of a run's identity, so these are other runs, parents included.
    """

    def train(given: TrainConfig) -> TrainConfig:
        if given.kernel not in ("auto", "stacked"):
            return given
        return dataclasses.replace(given, kernel="stacked", device=given.device if device is None else device)

    return with_training(sweep, train)
