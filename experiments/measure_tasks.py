"""How complex is each task? gzip, entropy rate, and the area under the loss curve of a small model, at default fields.

    python experiments/measure_tasks.py [--seeds 3] [--tasks dyck set]

Takes two minutes on a free core. The measures go into the package, from where `procpre-interp tasks` and the explorer
show them: to be run for a task that is new or whose version rises. Tasks that are not measured keep theirs.
"""

import math
import sys

import torch
import tyro

from procpre_interp.analysis.loss_area import loss_area_nats
from procpre_interp.core.config import content_hash
from procpre_interp.core.terminal import run_script
from procpre_interp.data import TASKS
from procpre_interp.data.complexity import (
    StoredComplexity,
    measure_complexity,
    store_complexities,
    stored_complexities,
)

NEED_OTHERS = {"mixture", "shuffled"}
"""Tasks that are made of others, and so have no default fields."""


def measure(name: str, seeds: int) -> StoredComplexity:
    """Every measure of a task at its default fields, the area for the seeds 0 .. seeds - 1."""
    default = TASKS.build(name)
    task = default.resolve()
    task.prepare()
    return StoredComplexity(
        task=content_hash(default),
        sample=measure_complexity(task),
        loss_areas_nats=tuple(loss_area_nats(task, seed) for seed in range(seeds)),
        guess_nats=math.log(task.d_vocab),
    )


def main(seeds: int = 3, tasks: tuple[str, ...] = ()) -> None:
    """Measure the tasks (default: all that have default fields), with `seeds` runs each; each is stored at once."""
    if seeds < 2:
        raise ValueError(f"seeds={seeds}; a spread takes at least 2")
    torch.set_num_threads(1)
    for name in tasks or [name for name in TASKS if name not in NEED_OTHERS]:
        found = measure(name, seeds)
        store_complexities({**stored_complexities(), name: found})
        stored_complexities.cache_clear()
        area = f"{found.mean_loss_area:.1%} +- {found.loss_area_std:.1%}"
        sample = found.sample
        print(
            f"{name}: gzip {sample.gzip_ratio:.1%} (shuffled {sample.shuffled_gzip_ratio:.1%}), "
            f"{sample.entropy_bits:.2f} bits per token, loss area {area} of a guess",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(run_script("measure_tasks", lambda: tyro.cli(main) or 0))
