"""The measured complexity of a task: what the estimators find in a fixed sample, and how long it takes to learn.

The sample is cheap and measured when asked for. The area under the loss curve takes training, so that of every task at
its default fields is stored with the package, in `complexity.json`; `experiments/measure_tasks.py` writes it.
"""

import dataclasses
import functools
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from procpre_interp.core.atomic_files import write_json
from procpre_interp.core.config import content_hash
from procpre_interp.core.seeding import stream
from procpre_interp.data.estimators import entropy_rate_bits, gzip_ratio, shuffled_tokens
from procpre_interp.data.task import Task

SAMPLE_TOKENS = 2**16
"""Tokens of the sample with the padding, which is then left out; whole sequences, so that there may be a few more."""
STORED = Path(__file__).with_name("complexity.json")


@dataclass(frozen=True, slots=True)
class Complexity:
    """What a sample of a task's sequences shows, one behind the other and without padding."""

    gzip_ratio: float
    """Compressed bytes per byte, at one byte per token up to 256 ids and at two beyond. Share, rarely above 1."""
    shuffled_gzip_ratio: float
    """The same for the sample's tokens in random order."""
    entropy_bits: float
    """Entropy rate, estimated from above: bits per token."""
    tokens: int
    """Tokens of the sample."""


@dataclass(frozen=True, slots=True)
class StoredComplexity:
    """The measures of a task at its default fields."""

    task: str
    """Hash of the task's config, its version included."""
    sample: Complexity
    loss_areas_nats: tuple[float, ...]
    """Mean training loss per scored token over the steps of `analysis.loss_area`, one per seed: the area under the loss
    curve, per step."""
    guess_nats: float
    """Loss of a uniform guess."""

    @property
    def mean_loss_area(self) -> float:
        """Mean of the areas, as a share of the area under a uniform guess."""
        return statistics.fmean(self.loss_areas_nats) / self.guess_nats

    @property
    def loss_area_std(self) -> float:
        """Standard deviation of the areas over seeds, as such a share."""
        return statistics.stdev(self.loss_areas_nats) / self.guess_nats


def measure_complexity(task: Task, seed: int = 0) -> Complexity:
    """The measures of a sample that depends on the seed and the task alone."""
    rows = max(2, math.ceil(SAMPLE_TOKENS / task.n_ctx))
    batch = task.batch(rows, generator=stream(seed, "complexity", task.stream_label))
    lengths = batch.lengths.numpy()
    tokens = batch.tokens.numpy()[np.arange(task.n_ctx) < lengths[:, None]]
    return Complexity(
        gzip_ratio=gzip_ratio(tokens, task.d_vocab),
        shuffled_gzip_ratio=gzip_ratio(shuffled_tokens(tokens, seed), task.d_vocab),
        entropy_bits=entropy_rate_bits(tokens, lengths, task.d_vocab),
        tokens=len(tokens),
    )


@functools.lru_cache(maxsize=1)
def stored_complexities() -> Mapping[str, StoredComplexity]:
    """What is stored with the package, by the task's name."""
    stored: Mapping[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return {
        name: StoredComplexity(
            task=found["task"],
            sample=Complexity(**found["sample"]),
            loss_areas_nats=tuple(found["loss_areas_nats"]),
            guess_nats=found["guess_nats"],
        )
        for name, found in stored.items()
    }


def stored_complexity(task: Task) -> StoredComplexity | None:
    """What is stored for a task; None for other fields than the defaults, another version and tasks of plugins."""
    found = stored_complexities().get(task.name)
    return found if found is not None and found.task == content_hash(task) else None


def store_complexities(measured: Mapping[str, StoredComplexity], path: Path = STORED) -> None:
    """Write the measures of all tasks, rounded to what the estimators are good for."""
    plain = {name: dataclasses.asdict(found) for name, found in sorted(measured.items())}
    write_json(path, _rounded(plain))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value
