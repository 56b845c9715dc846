"""The processes that train one run together: who they are, and what they tell one another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from procpre_interp.core.launch import Launch
from procpre_interp.train.loss import Share

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, who may be writing a checkpoint, before it gives up."""
_last: list[object] = []
"""Torch's last group, which must outlive whatever computed with it. The end of a group waits for the group's threads;
they may be waiting for Python's lock, to let go of a tensor. A module of DDP that is the last to hold its group ends it
while it has that lock, and both wait for ever; a group that Python lets go of ends without it."""


class FailedElsewhere(RuntimeError):
    """Another process failed, and says why; this one stops with it."""


class Group:
    """The processes of a run. Every method but the properties must be called by all of them, in the same order."""

    def __init__(self, launch: Launch, device: torch.device) -> None:
        self.launch, self.device = launch, device

    @property
    def share(self) -> Share:
        """Which rows of every batch are this process's."""
        return Share(rank=self.launch.rank, size=self.launch.size)

    @property
    def size(self) -> int:
        return self.launch.size

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's folder, and speaks."""
        return self.launch.rank == 0

    def add(self, x: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
        """The sum of the processes' tensors, the same bits in each of them."""
        total = x.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(x.device)

    def any(self, *flags: bool) -> list[bool]:
        """Whether one of the processes has it, for each flag."""
        return [total > 0 for total in self.add(torch.tensor(flags, dtype=torch.float32)).tolist()]

    def together(self, act: Callable[[], T]) -> T:
        """What `act` returns here, once it has succeeded everywhere.

        Where it fails, no process goes on: the first that failed raises its error, all others `FailedElsewhere`.
        """
        result, problem = None, None
        try:
            result = act()
        except Exception as error:
            problem = error
        failed = self.gather(problem is not None)
        if not any(failed):
            return result  # pyright: ignore[reportReturnType]
        if problem is not None and failed.index(True) == self.launch.rank:
            raise problem
        raise FailedElsewhere(f"process {failed.index(True)} of the run failed")

    def first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process, told to all. An error there stops all, as in `together`."""
        made: list[Any] = [self.together(lambda: make() if self.is_first else None)]
        dist.broadcast_object_list(made, src=0)
        return made[0]

    def gather(self, mine: T) -> list[T]:
        """What each process has, in their order."""
        all_of_them: list[Any] = [None] * self.size
        dist.all_gather_object(all_of_them, mine)
        return all_of_them

    def spread(self, x: Tensor) -> None:
        """Overwrite a tensor with that of the first process."""
        dist.broadcast(x, src=0)


@contextmanager
def joined(launch: Launch, device: str) -> Iterator[Group]:
    """The group of the processes that were started together, on CPUs (gloo) or with a GPU each (NCCL).

    Raises `ValueError` where this process has no GPU of its own, or the device is one that processes cannot share.
    """
    kind = torch.device(device)
    if kind.type not in ("cpu", "cuda") or kind.index is not None:
        raise ValueError(f"device={device} with {launch.size} processes; give cpu, or cuda for a GPU per process")
    if kind.type == "cuda":
        if launch.local_rank >= (gpus := torch.cuda.device_count()):
            raise ValueError(f"{launch.local_size} processes, but this machine has {gpus} GPUs; start one per GPU")
        torch.cuda.set_device(launch.local_rank)
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo", timeout=PATIENCE)
    _last[:] = [dist.group.WORLD]
    try:
        yield Group(launch, kind)
    finally:
        dist.destroy_process_group()
