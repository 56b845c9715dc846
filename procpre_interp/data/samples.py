"""What a trained model is measured on: sequences and counterfactual pairs, the same ones wherever a seed is named."""

from procpre_interp.core.seeding import stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.task import Batch, Task

SEQUENCES = 128
"""Usual number of sequences."""
PAIRS = 64
"""Usual number of counterfactual pairs."""
MOST_SEQUENCES = 100_000
"""More at once than anything is measured on, and few enough for the memory of a small machine."""


def sample(task: Task, seed: int, n: int = SEQUENCES) -> Batch:
    """`n` generated sequences: those of `procpre-interp probe` with this seed."""
    return task.probe_batch(n, generator=stream(seed, "probe", task.stream_label))


def pairs_of(task: Task, cause: str | None, seed: int = 0, n: int = PAIRS) -> Pairs:
    """`n` pairs of a cause, or of every cause: those of `procpre-interp patch` with this seed."""
    generator = stream(seed, "pairs", task.stream_label)
    if cause is None:
        return task.counterfactuals(n, generator=generator)
    return task.counterfactual(cause, n, generator=generator)
