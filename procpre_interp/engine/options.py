"""The options of commands that say where runs are computed. Loads nothing, so that a command can speak first."""

from dataclasses import dataclass, field
from typing import Literal

from procpre_interp.core.environment import usable_cores


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where runs are computed."""

    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each; of a Slurm cluster, jobs at once. Does not change the numbers."""
    engine: Literal["processes", "serial", "stacked", "ray", "slurm"] = "processes"
    """processes: each run in one of the worker processes. serial: one after the other, in this one. ray, slurm: on the
    nodes of a cluster, which share the folder of the runs. stacked (sweep alone): runs of one shape as one computation
    in one process, which is for a GPU. These have kernel stacked, so they are other runs; those whose file names a
    kernel keep it."""
    address: str | None = None
    """Address of a Ray cluster, or auto for the one that this machine belongs to (--engine ray). Default: $RAY_ADDRESS,
    otherwise a Ray of this machine alone, with as many CPUs as workers."""
    mirror: str | None = None
    """URL beside the folder of the runs, anything that fsspec opens, such as s3://bucket/runs: runs that are there are
    fetched instead of computed, and what is finished goes there at once. Nodes of a cluster then share no folder."""

    def check(self) -> None:
        """Raise `ValueError` for options that contradict one another."""
        if self.workers < 1:
            raise ValueError(f"workers={self.workers}; there must be at least 1")
        if self.address is not None and self.engine != "ray":
            raise ValueError(f"--address {self.address} is for --engine ray; give that too")
