"""Runs as tasks of a Ray cluster (`pip install 'procpre-interp[ray]'`), which is imported when it is asked for."""

import os
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from procpre_interp.engine.events import Event
from procpre_interp.engine.mailbox import Mailbox
from procpre_interp.engine.processes import SAVE_SECONDS
from procpre_interp.engine.remote import Lost, Task, compute, execute_remotely, needed
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.store import RunStore

ADDRESS = "RAY_ADDRESS"
"""Environment variable that names a cluster where no address is given."""


def execute_on_ray(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    address: str | None,
    workers: int,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    may_start: Callable[[], bool] = lambda: True,
    whole: Collection[str] = (),
    url: str | None = None,
) -> dict[str, str]:
    """Execute runs as tasks of a Ray cluster, or of a Ray that is started here; see `remote.execute_remotely`."""
    tasks = _Tasks(connected(address, workers))
    try:
        return execute_remotely(configs, store, tasks, on_event=on_event, may_start=may_start, whole=whole, url=url)
    finally:
        tasks.close()


def ray_cpus(address: str | None, workers: int) -> int:
    """CPUs of the cluster as it is now."""
    return max(1, int(connected(address, workers).cluster_resources().get("CPU", 1)))


def connected(address: str | None, workers: int) -> Any:
    """The package ray, connected to a cluster. Raises `ValueError` where there is none at the address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    ray = needed("ray", "ray")
    if ray.is_initialized():
        return ray
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None and ADDRESS not in os.environ:
        os.environ.setdefault("RAY_worker_niceness", "0")  # as worker processes have it; else 15
        ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
        return ray
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, TimeoutError) as problem:
        name = address or os.environ[ADDRESS]
        raise ValueError(f"no Ray cluster at {name}: {str(problem).splitlines()[0]}") from None
    return ray


class _Tasks:
    """The tasks of one driver, which the cluster itself never repeats, since the driver tells what was lost."""

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.runs: dict[Any, str] = {}
        """Reference to a task's result -> its run."""
        # It lives where the driver does, and so as long.
        here = ray.get_runtime_context().get_node_id()
        place = needed("ray.util.scheduling_strategies", "ray").NodeAffinitySchedulingStrategy(here, soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": place}
        self.mailbox = ray.remote(Mailbox).options(**options).remote()
        self.asked = self.mailbox.take.remote()
        """Reference to the letters that were asked for last, which may take their time: the actor has to start."""
        self.compute = ray.remote(_compute)

    def room(self) -> int:
        """Twice as many as there are CPUs: no worker waits for the driver, and a cluster that grows with what is asked
        of it sees that more is."""
        return 2 * max(1, int(self.ray.cluster_resources().get("CPU", 1)))

    def submit(self, task: Task) -> None:
        asked = self.compute.options(num_cpus=task.threads, num_gpus=int(task.on_gpu), max_retries=0)
        self.runs[asked.remote(task, self.mailbox)] = task.run

    def events(self, seconds: float) -> Iterator[Event | Lost]:
        ended = self.ray.wait(list(self.runs), timeout=seconds)[0] if self.runs else []
        if self.ray.wait([self.asked], timeout=0)[0]:
            letters, self.asked = self.ray.get(self.asked), self.mailbox.take.remote()
            for letter in letters:
                yield pickle.loads(letter)
        for reference in ended:
            if (run := self.runs.pop(reference, None)) is not None:  # else it was recalled meanwhile
                yield self._outcome(run, reference)

    def _outcome(self, run: str, reference: Any) -> Event | Lost:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference) or Lost(run, "its worker was asked to stop")
        except errors.RayTaskError as problem:  # it could not even begin: the package is not there, say
            return Event(run, "failed", problem=f"on a node: {str(problem).strip().splitlines()[-1]}")
        except errors.RayError as problem:
            return Lost(run, f"its worker was lost ({type(problem).__name__})")

    def recall(self, runs: Iterable[str]) -> None:
        chosen = set(runs)
        for reference in [reference for reference, run in self.runs.items() if run in chosen]:
            self.ray.cancel(reference)  # Ctrl-C, where it runs
            del self.runs[reference]

    def stop(self, runs: Iterable[str]) -> None:
        references = list(self.runs)
        for reference in references:
            self.ray.cancel(reference)
        if references:
            self.ray.wait(references, num_returns=len(references), timeout=SAVE_SECONDS)
        self.runs.clear()

    def close(self) -> None:
        with suppress(Exception):  # the cluster may be gone
            self.ray.kill(self.mailbox)


def _compute(task: Task, mailbox: Any) -> Event | None:
    """A task on its node."""
    return compute(task, lambda event: mailbox.put.remote(pickle.dumps(event)))
