"""Runs as jobs of a Slurm cluster, by submitit (`pip install 'procpre-interp[slurm]'`), imported when it is asked for.

Partition, account and time limit are given by Slurm's own variables, such as SBATCH_PARTITION.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from procpre_interp.engine.events import Event
from procpre_interp.engine.processes import SAVE_SECONDS
from procpre_interp.engine.remote import Lost, Task, compute, execute_remotely, needed
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.store import RunStore

FOLDER = "slurm"
"""Folder of the store with the logs of its jobs."""


def execute_on_slurm(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    jobs: int,
    cluster: str = "slurm",
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
    url: str | None = None,
) -> dict[str, str]:
    """Execute runs as jobs, so many at once, of `cluster`, submitit's name for it; see `remote.execute_remotely`."""
    submitit = needed("submitit", "slurm")
    try:
        executor = submitit.AutoExecutor(store.path.resolve() / FOLDER, cluster=cluster)
    except RuntimeError as problem:
        raise ValueError(f"--engine slurm: {problem}") from None
    return execute_remotely(
        configs, store, _Jobs(executor, jobs), on_event=on_event, may_start=may_start, whole=whole, url=url
    )


class _Jobs:
    """The jobs of one driver: one per run."""

    def __init__(self, executor: Any, most: int) -> None:
        self.executor, self.most = executor, most
        self.jobs: dict[str, Any] = {}
        self.queued: dict[str, int] = {}
        """Jobs not seen at work yet, with the steps of their runs."""

    def room(self) -> int:
        return self.most

    def submit(self, task: Task) -> None:
        gpus = {"gpus_per_node": 1} if task.on_gpu else {}
        self.executor.update_parameters(name=task.run, cpus_per_task=task.threads, **gpus)
        self.queued[task.run] = task.steps
        self.jobs[task.run] = self.executor.submit(compute, task, _tell_nobody)

    def events(self, seconds: float) -> Iterator[Event | Lost]:
        time.sleep(seconds)
        for run, job in list(self.jobs.items()):
            if job.done():
                del self.jobs[run]
                yield _outcome(run, job)
            elif run in self.queued and job.state == "RUNNING":
                yield Event(run, "started", 0, self.queued.pop(run))

    def recall(self, runs: Iterable[str]) -> None:
        for run in list(runs):
            if run in self.jobs:
                self.jobs.pop(run).cancel()

    def stop(self, runs: Iterable[str]) -> None:
        asked = {run: self.jobs[run] for run in runs if run in self.jobs}
        for job in asked.values():
            job.cancel()
        limit = time.monotonic() + SAVE_SECONDS
        while not all(job.done() for job in asked.values()) and time.monotonic() < limit:
            time.sleep(0.1)
        self.jobs.clear()


def _outcome(run: str, job: Any) -> Event | Lost:
    if (problem := job.exception()) is None:
        return job.result() or Lost(run, "its job was asked to stop")
    return Lost(run, f"its job {job.job_id} was lost ({type(problem).__name__}; logs: {job.paths.folder})")


def _tell_nobody(event: Event) -> None:
    """Progress of a job, which Slurm has no way to report."""
