"""The tensors of a training state in files of several processes, which any number of processes can read.

They are safetensors, written and read by `torch.distributed.checkpoint`; nothing is unpickled. They lie in a folder per
state, next to the state itself, which has their hashes.
"""

import errno
import os
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.torch_version import TorchVersion

from procpre_interp.core import checksums
from procpre_interp.core.atomic_files import remove
from procpre_interp.core.messages import one_line

PARTS = ("flat", "adam.exp_avg", "adam.exp_avg_sq")
"""What a state keeps of each weight, by the names that it has where it is not in shards."""
STEPS = "adam.step"
OLDEST_TORCH = TorchVersion("2.9")
"""The first version whose `torch.distributed.checkpoint` writes each process's safetensors."""
_NAME = re.compile(r"step_\d+/[\w-]+\.safetensors")


def shard_key(part: str, index: int, name: str) -> str:
    """Name of a tensor: keys of a part, sorted, are in the order of the flat vector."""
    return f"{part}/{index:06}/{name}"


def shards_folder(state_path: Path) -> Path:
    """Folder with a folder for each state at `state_path` whose tensors are in shards."""
    return state_path.with_name("shards")


def need_shards() -> None:
    """Raise `RuntimeError` where this torch can neither write nor read shards."""
    if torch.__version__ < OLDEST_TORCH:
        raise RuntimeError(f"weights in shards need torch {OLDEST_TORCH} or newer, and this is {torch.__version__}")


def write_shards(folder: Path, tensors: Mapping[str, Tensor], own: str) -> dict[str, str]:
    """Write the processes' tensors into a new folder; the hashes of those files that begin with `own`.

    All processes of the group must call it.
    """
    import torch.distributed.checkpoint as dcp

    with _one_problem(folder):
        dcp.save(dict(tensors), storage_writer=dcp.HuggingFaceStorageWriter(str(folder), save_distributed=True))
    names = sorted(name for name in os.listdir(folder) if name.startswith(own))
    return {f"{folder.name}/{name}": checksums.sha256(folder / name) for name in names}


def read_shards(folder: Path, tensors: Mapping[str, Tensor], *, alone: bool = False) -> None:
    """Fill tensors, each process's part of distributed ones, from a folder that any number of processes has written.

    All processes of the group must call it, unless one reads `alone`.
    """
    import torch.distributed.checkpoint as dcp

    with _one_problem(folder), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
        dcp.load(dict(tensors), storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=alone)


@contextmanager
def _one_problem(folder: Path) -> Iterator[None]:
    """What goes wrong in any of the processes is an `OSError`; torch's own error is no `Exception`."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as problem:
        errors = [error for error, _ in problem.failures.values()]
        number = next((error.errno for error in errors if isinstance(error, OSError)), None)
        raise OSError(number or errno.EIO, one_line(errors[0]), str(folder)) from None


def check_shards(state_path: Path, shards: Mapping[str, str]) -> Path:
    """The folder of a state's shards. Raises `ValueError` where they are not those that were written."""
    folders = {name.partition("/")[0] for name in shards}
    if len(folders) != 1 or not all(_NAME.fullmatch(name) for name in shards):
        raise ValueError(f"{state_path.name}: names of shards that are none")
    folder = shards_folder(state_path) / folders.pop()
    for name, digest in shards.items():
        try:
            found = checksums.sha256(shards_folder(state_path) / name)
        except OSError as problem:
            raise ValueError(f"{name} cannot be read ({problem.strerror})") from None
        if found != digest:
            raise ValueError(f"{name} has changed since it was written")
    if more := {f"{folder.name}/{name}" for name in os.listdir(folder)} - shards.keys():
        raise ValueError(f"{min(more)} is no shard of this state")
    return folder


def whole_tensors(folder: Path) -> dict[str, Float[Tensor, "..."]]:
    """What a training state holds that is not in shards: the flat vectors, and the number of the optimiser's steps."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    described = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    tensors = {key: torch.zeros(tuple(found.size)) for key, found in described.items()}  # pyright: ignore[reportAttributeAccessIssue]
    read_shards(folder, tensors, alone=True)
    whole = {STEPS: tensors[STEPS][0]}
    for part in PARTS:
        whole[part] = torch.cat([tensors[key].flatten() for key in sorted(tensors) if key.startswith(f"{part}/")])
    return whole


def remove_other_shards(state_path: Path, kept: Collection[str]) -> None:
    """Remove the shards of all states but those that name them."""
    folder, needed = shards_folder(state_path), {name.partition("/")[0] for name in kept}
    for name in os.listdir(folder):
        if name not in needed:
            remove(folder / name)
