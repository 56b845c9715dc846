"""Torch's global defaults belong to the caller: what a run id stands for must not depend on them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Tensors made without a dtype or device are float32 and on the CPU, products are exact to their dtype, gradients
    are recorded, and nothing is cast by itself.

    Also a decorator: for whatever makes weights, trains or tests them. Sets nothing where the caller's defaults are
    torch's own, so that threads side by side do not meet; puts back what it found.
    """
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with _modes():
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


def _modes() -> ExitStack:
    """What takes the caller's modes away; nothing where there are none, since a default device slows every call."""
    modes = ExitStack()
    if torch.get_default_device().type != "cpu":
        modes.enter_context(torch.device("cpu"))
    if torch.is_inference_mode_enabled():
        modes.enter_context(torch.inference_mode(False))
    if not torch.is_grad_enabled():
        modes.enter_context(torch.enable_grad())
    for device in ("cpu", "cuda"):
        if torch.is_autocast_enabled(device):
            modes.enter_context(torch.autocast(device, enabled=False))
    return modes
