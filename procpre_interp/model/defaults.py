"""Torch's global defaults belong to the caller: what a run id stands for must not depend on them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Tensors made without a dtype or device are float32 and on the CPU, and products are exact to their dtype.

    Also a decorator: for whatever makes weights, trains or tests them. Sets nothing where the caller's defaults are
    torch's own, so that threads side by side do not meet; puts back what it found.
    """
    dtype, precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
    # A default device costs time in every call, so that one is set against another only.
    device = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    if dtype != torch.float32:
        torch.set_default_dtype(torch.float32)
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with device:
            yield
    finally:
        if dtype != torch.float32:
            torch.set_default_dtype(dtype)
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)
