"""The devices that device tests run on: the CPU in the fast suite, a GPU with `make test-cuda`."""

import pandas as pd
import pandas.testing
import pytest
import torch

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def usable(device: str) -> str:
    """The device; skips the test where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU: torch.cuda.is_available() is False")
    return device


def agree(found: pd.DataFrame, expected: pd.DataFrame, *, rtol: float = 2e-3, atol: float = 2e-4) -> None:
    """Two tables of the same measurement on different devices: sums are made in another order, and nothing else."""
    pandas.testing.assert_frame_equal(found, expected, rtol=rtol, atol=atol, check_exact=False)
