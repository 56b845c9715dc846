"""What training does to its process: thread count and signals, put back afterwards."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and its state is saved."""


_THREAD_COUNT = threading.RLock()
"""Held by whoever has set torch's number of threads, which belongs to the whole process."""


@contextmanager
def run_threads(threads: int) -> Iterator[None]:
    """torch with `threads` CPU threads, and with as many as before afterwards.

    The number belongs to the process, and changes the last bits of sums: another Python thread waits here until it is
    put back, so that its results are those that it would get alone.
    """
    with _THREAD_COUNT:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def deferred_interrupts() -> Iterator[list[int]]:
    """A list that holds a signal once Ctrl-C or SIGTERM came, so that the step under way can end; a second one raises.

    Outside the main thread, where Python handles no signals, the list stays empty. An ignored signal stays ignored.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    heeded = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
