"""Whether a run fits into memory and onto the disk, told before anything of it is made."""

import os
import shutil
from pathlib import Path

import torch

from procpre_interp.model.flops import parameter_count
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.store.store import RunStore

BYTES_PER_PARAMETER = 16
"""Weight, gradient, and AdamW's two moments, in float32; in bfloat16 the weight has a copy in float32, too."""
BYTES_PER_TOKEN = 8
BYTES_PER_LAYER = 100_000
"""What the modules, hooks and tensors of a layer take, however few its parameters."""
BYTES_OF_A_KEPT_PARAMETER = 4
FEWEST_BYTES = 2**30
"""Kept weights that the disk is asked for beforehand: with fewer, what else is written decides whether it is full."""


def check_memory(config: RunConfig, *, shares: int = 1) -> None:
    """Raise `ValueError` where the device has less memory than the least that the run needs, or where that is sharded
    among processes, this part of it.

    Activations are not counted, so what passes may still be too large.
    """
    layers, n_parameters, length = config.model.n_layers, parameter_count(model_config(config)), config.task.n_ctx
    sequences = max(config.train.batch_size, config.train.evaluate_examples)
    needed = n_parameters * BYTES_PER_PARAMETER // shares + sequences * length * BYTES_PER_TOKEN
    needed += layers * BYTES_PER_LAYER
    there = memory_of(config.train.device)
    if there is not None and needed > there:
        raise ValueError(
            f"the run needs more than {_gigabytes(needed)} GB of memory, for a model of {layers:,} layers "
            f"with {n_parameters:,} parameters and {sequences:,} sequences of {length:,} tokens at once (batch_size or "
            f"evaluate_examples); {config.train.device} has {_gigabytes(there)} GB"
        )


def check_disk(config: RunConfig, store: RunStore) -> None:
    """Raise `ValueError` where the store's disk has less room than the weights that the run keeps will take, a gigabyte
    or more."""
    train, n_parameters = config.train, parameter_count(model_config(config))
    steps = len(train.kept_steps)
    needed = steps * n_parameters * BYTES_OF_A_KEPT_PARAMETER
    if needed < FEWEST_BYTES:
        return
    begun = (store.path / "partial" / config.run_id).rglob("*.safetensors")
    there = free_disk(store.path) + sum(path.stat().st_size for path in begun)
    if needed > there:
        raise ValueError(
            f"the run keeps {_gigabytes(needed)} GB of weights, at {steps:,} steps {n_parameters:,} parameters each "
            f"(checkpoints={train.checkpoints}); the disk of {store.path} has {_gigabytes(there)} GB for them"
        )


def free_disk(folder: Path) -> int:
    """Bytes that are free on the disk of a folder, or where it will be."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def memory_of(device: str) -> int | None:
    """Bytes of the device's memory; None where nothing tells."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f}"
