"""The engines: each computes the same runs into the same store, and differs in where and how many at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypedDict, Unpack

from procpre_interp.engine.events import Event
from procpre_interp.engine.options import EngineOptions
from procpre_interp.engine.processes import execute_all
from procpre_interp.engine.ray_tasks import execute_on_ray, ray_cpus
from procpre_interp.engine.slurm_jobs import execute_on_slurm
from procpre_interp.engine.stacks import STACK, execute_in_stacks
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.store.store import RunStore
from procpre_interp.train.process import run_threads


class Told(TypedDict, total=False):
    """What every engine is told beside its runs."""

    on_event: Callable[[Event], None]
    may_start: Callable[[], bool]
    whole: Collection[str]


class Engine(ABC):
    """Computes runs."""

    @property
    @abstractmethod
    def at_once(self) -> int:
        """Runs that are computed at the same time, as far as that is known before."""

    @abstractmethod
    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        """Execute runs, given by id, parents before their children, and return the problems of those that failed.

        Runs that are finished in the store are not repeated, a failed run fails its descendants alone, and none starts
        once `may_start()` is false (default: all do); `on_event` is told what happens. Copies without weights
        (`store.archive`) are computed again where another run needs these, or they are in `whole`. Raises
        `Interrupted` after Ctrl-C, with all states saved.
        """


@dataclass(frozen=True, slots=True)
class Processes(Engine):
    """Single-thread worker processes of this machine."""

    workers: int = 1

    @property
    def at_once(self) -> int:
        return self.workers

    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        return execute_all(configs, store, workers=self.workers, **told)


ONE_WORKER = Processes()
"""The engine where none is chosen."""


@dataclass(frozen=True, slots=True)
class Serial(Engine):
    """One run after the other in this process, on one thread: to debug, and to profile."""

    @property
    def at_once(self) -> int:
        return 1

    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        with run_threads(1):  # as in a worker process, so that the bits of a run are the same
            return execute_in_stacks(configs, store, stack=1, **told)


@dataclass(frozen=True, slots=True)
class Stacked(Engine):
    """This process, where up to `stack` runs of one shape and of kernel stacked are one computation."""

    stack: int = STACK

    @property
    def at_once(self) -> int:
        return self.stack

    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        return execute_in_stacks(configs, store, stack=self.stack, **told)


@dataclass(frozen=True, slots=True)
class Ray(Engine):
    """Tasks of a Ray cluster; `workers` are the CPUs of a Ray that is started here, where there is no address.
    With a `url` its nodes share no folder (`mirror`)."""

    address: str | None = None
    workers: int = 1
    url: str | None = None

    @property
    def at_once(self) -> int:
        return ray_cpus(self.address, self.workers)

    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        return execute_on_ray(configs, store, self.address, self.workers, url=self.url, **told)


@dataclass(frozen=True, slots=True)
class Slurm(Engine):
    """Jobs of a Slurm cluster, `jobs` of them at once. `cluster` is submitit's name for where they go. With a `url` its
    nodes share no folder but that of submitit's own files (`mirror`)."""

    jobs: int = 1
    cluster: str = "slurm"
    url: str | None = None

    @property
    def at_once(self) -> int:
        return self.jobs

    def execute(self, configs: Mapping[str, RunConfig], store: RunStore, **told: Unpack[Told]) -> dict[str, str]:
        return execute_on_slurm(configs, store, self.jobs, self.cluster, url=self.url, **told)


def chosen_engine(options: EngineOptions) -> Engine:
    """The engine that was asked for, of those that leave runs as they are.

    Raises `ValueError` for stacked, whose runs are others (`sweep.stacked.stacked_sweep`).
    """
    options.check()
    match options.engine:
        case "processes":
            return Processes(options.workers)
        case "serial":
            return Serial()
        case "ray":
            return Ray(options.address, options.workers, options.mirror)
        case "slurm":
            return Slurm(options.workers, url=options.mirror)
        case "stacked":
            raise ValueError("--engine stacked is for sweep: its runs have a kernel of their own, so they are others")
