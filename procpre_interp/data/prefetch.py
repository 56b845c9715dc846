"""Training data made ahead, in a thread of its own, while the model trains on what is there."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from procpre_interp.core.environment import usable_cores
from procpre_interp.data.stream import TaskStream
from procpre_interp.data.task import Batch

VARIABLE = "PROCPRE_PREFETCH"
"""Environment variable that says whether data are made ahead: 1 or 0. A sweep sets it for its workers."""


def has_spare_core(threads: int) -> bool:
    """Whether a process that computes with so many threads leaves a core without work; see `VARIABLE`."""
    chosen = os.environ.get(VARIABLE)
    return threads < usable_cores() if chosen in (None, "") else chosen != "0"


def _compute_alone() -> None:
    """Give this thread, which is new, one thread for torch's operations."""
    torch.get_num_threads()  # its first call takes the process's number, and would do so later
    torch.set_num_threads(1)


class Prefetch:
    """Batches of a stream, the next block of which is drawn while this one is read.

    They are those of the stream itself, bit for bit. A block that cannot be drawn is an error when its first batch is
    read, and not before. Used outside its `with`, or without a spare core, it draws when it is asked, in this thread.
    """

    def __init__(self, *, threads: int, end: int) -> None:
        """`threads`: CPU threads of the training itself. No batch from number `end` on is drawn ahead."""
        self.threads, self.end = threads, end
        self._pool: ThreadPoolExecutor | None = None
        self._stream: TaskStream | None = None
        self._next: tuple[int, Future[Batch]] | None = None
        """The block that is being drawn, or has been."""

    def __enter__(self) -> "Prefetch":
        if has_spare_core(self.threads):
            self._pool = ThreadPoolExecutor(1, "prefetch", _compute_alone)
            self._pool.submit(int).result()  # it starts, and sets its number of threads
            # torch gives every new thread the number that was set last, by whichever thread.
            torch.set_num_threads(torch.get_num_threads())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._stream = self._next = None

    def batch(self, stream: TaskStream, index: int) -> Batch:
        """Batch `index` of the stream. What was drawn for another stream, such as a shorter length's, is dropped."""
        if self._pool is None:
            return stream.batch(index)
        if stream is not self._stream:
            self._stream, self._next = stream, None
        block = index // stream.batches_per_block
        if self._next is not None and self._next[0] <= block:
            drawn, self._next = self._next, None
            if drawn[0] == block:
                stream.hold(block, drawn[1].result())
        batch = stream.batch(index)
        if self._next is None and (block + 1) * stream.batches_per_block < self.end:
            self._next = block + 1, self._pool.submit(stream.draw, block + 1)
        return batch
