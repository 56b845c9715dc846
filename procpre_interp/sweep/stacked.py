"""A sweep whose runs can share stacks."""

import dataclasses

from procpre_interp.sweep.config import Sweep
from procpre_interp.sweep.phases import Phase
from procpre_interp.train import TrainConfig


def stacked_sweep(sweep: Sweep, device: str | None = None) -> Sweep:
    """The sweep with kernel stacked for every run whose kernel its file leaves open, on `device` (default: as in the
    file). The kernel and the device are part of a run's identity, so these are other runs, parents included.
    """

    def train(given: TrainConfig) -> TrainConfig:
        if given.kernel not in ("auto", "stacked"):
            return given
        return dataclasses.replace(given, kernel="stacked", device=given.device if device is None else device)

    def phases(given: tuple[Phase, ...]) -> tuple[Phase, ...]:
        return tuple(dataclasses.replace(each, train=train(each.train)) for each in given)

    return dataclasses.replace(
        sweep,
        phase1=tuple(dataclasses.replace(each, train=train(each.train)) for each in sweep.phase1),
        train=train(sweep.train),
        then=phases(sweep.then),
        conditions=tuple(
            dataclasses.replace(
                each,
                train=None if each.train is None else train(each.train),
                then=None if each.then is None else phases(each.then),
            )
            for each in sweep.conditions
        ),
    )
