"""What training does to its process: thread count and signals, put back afterwards."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
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

    Outside the main thread, where Python handles no signals, the list stays empty. An ignored signal stays ignored,
    and one that a program around Python handles stays its own.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    with _handled((signal.SIGINT, signal.SIGTERM), note):
        yield received


@contextmanager
def ignored_interrupts() -> Iterator[None]:
    """Ctrl-C is ignored, also by child processes that are started here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handled((signal.SIGINT,), signal.SIG_IGN):
        yield


@contextmanager
def _handled(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None] | int
) -> Iterator[None]:
    """Signals handled in this way, but for those that are ignored, or handled in C.

    Python has no object for a handler that it did not install (None), and so could not put it back.
    """
    heeded = [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def check_device(device: str) -> None:
    """Raise `ValueError` where torch cannot use the device."""
    try:
        made = torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(f"device {device!r} cannot be used: {str(problem).splitlines()[0]}") from None
    if made.is_meta:
        raise ValueError(f"device {device!r} cannot be used: it holds shapes and no numbers")
