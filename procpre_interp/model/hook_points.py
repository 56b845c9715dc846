"""Hook points that cost nothing while nobody listens, and the lock that keeps threads out of each other's hooks."""

import threading

import torch
from torch import Tensor

from procpre_interp.model import upstream


class HookLock:
    """Reentrant lock that the thread holds whose hooks are on a model. A copied or unpickled one is new and free."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *problem: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type["HookLock"], tuple[()]]:
        return HookLock, ()


class HookPoint(upstream.HookPoint):
    """Upstream's, with the lock of its model."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = HookLock()
        """One for all points of a model, see `LensInterface.setup`."""

    @property
    def hooked(self) -> bool:
        """Whether anything is hooked to the point, forwards or backwards."""
        return bool(self._forward_hooks or self._backward_hooks or self._forward_pre_hooks or self._backward_pre_hooks)


def listens(*points: HookPoint) -> bool:
    """Whether anything is hooked to one of the points, forwards or backwards.

    Hooks of another thread's `with model.hooks(...)` are none of this thread's business: it waits until they are gone.
    Asking for the lock only where there are hooks costs a run without any nothing.
    """
    if not any(point.hooked for point in points):
        return False
    with points[0].lock:
        return any(point.hooked for point in points)


def observed(point: HookPoint, x: Tensor) -> Tensor:
    """`x` as its hooks leave it.

    They get a copy: an edit in place then changes what later readers see, and neither a weight, nor what an
    earlier hook has stored, nor a tensor that autograd keeps.
    """
    if not listens(point):
        return x
    with point.lock:
        return point(x.clone(memory_format=torch.contiguous_format))
