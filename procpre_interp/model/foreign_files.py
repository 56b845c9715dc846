"""Tensors in files of other origin: torch's and safetensors', whole or in shards. No code of a file runs."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from procpre_interp.core.plain_values import load_json
from procpre_interp.model.checkpoint import Weights, read_weights, refuse_pipes


def read_folder(folder: Path) -> Weights:
    """The tensors of the files that `save_pretrained` writes; other files of the folder are not read.

    Raises `ValueError` for a folder without such files or with two sets of them, and for a tensor that the shards hold
    twice, or that the index promises and no shard holds.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        whole, index = folder / name, folder / f"{name}.index.json"
        promised = _read_index(index) if index.is_file() else {}
        shards = [folder / file for file in sorted(set(promised.values()))]
        if whole.is_file() and any(shard.is_file() for shard in shards):
            raise ValueError(
                f"{folder}: {whole.name} and the shards of {index.name}; remove those that are out of date"
            )
        if whole.is_file():  # an index without any of its shards was left by an older save
            return _read_mapping(whole)
        if shards:
            return _read_shards(shards, promised)
    found = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))[:8])
    raise ValueError(
        f"{folder}: no model.safetensors, pytorch_model.bin or index of shards, as save_pretrained writes them"
        + (f"; of {found} give the file that is the model's, and n_heads" if found else "")
    )


def _read_index(path: Path) -> dict[str, str]:
    """Tensor -> file of the same folder that holds it."""
    try:
        promised = load_json(path.read_bytes())["weight_map"]
        files = {str(name): str(file) for name, file in promised.items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"{path}: damaged, no weight_map from tensors to files") from None
    if outside := [file for file in files.values() if Path(file).name != file]:
        raise ValueError(f"{path}: {outside[0][:100]!r} is no file of the same folder")
    return files


def _read_shards(shards: list[Path], promised: Mapping[str, str]) -> Weights:
    weights: Weights = {}
    for shard in shards:
        if not shard.is_file():
            raise ValueError(f"{shard.parent}: the index names {shard.name}, which is missing")
        tensors = _read_mapping(shard)
        if twice := sorted(weights.keys() & tensors.keys()):
            raise ValueError(f"{shard}: {', '.join(twice[:8])} occurs in another shard as well")
        weights |= tensors
    if missing := sorted(promised.keys() - weights.keys()):
        raise ValueError(f"{shards[0].parent}: the index promises {', '.join(missing[:8])}, which no shard holds")
    return weights


def _read_mapping(path: Path) -> Weights:
    tensors = read_tensors(path)
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{path}: holds no tensors by name")
    return dict(tensors)


def read_tensors(path: Path) -> Any:
    """What a file holds: tensors by name in a safetensors file, tensors and plain values in one of torch's."""
    if path.suffix == ".safetensors":
        return read_weights(path)
    refuse_pipes(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STANDING_IN):
            # About pickle protocols, when the file is something else altogether.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:
        # Damage shows as any error. torch's message would propose to unpickle, which can run the file's code.
        if found := _foreign_classes(path):
            raise ValueError(
                f"{path}: holds {found} beside tensors and plain values; only its state dict can be read, so save that "
                "alone"
            ) from None
        raise ValueError(f"{path}: damaged, or holds more than tensors and plain values") from None


def _foreign_classes(path: Path) -> str:
    """Names of what a torch file wants to make besides tensors, plain values and numbers; empty where none is found."""
    try:
        with torch.serialization.safe_globals(_STANDING_IN):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no torch file, or one that is damaged
        return ""
    return ", ".join(sorted(names))[:100]


class _NumberType:
    """Stands in for numpy.dtype in a checkpoint: the type of a plain number, and of nothing else.

    numpy's own would take flags from the file that its C code trusts.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[biuf][1248]", code):
            raise ValueError(f"numpy.dtype({code!r}) is no plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: _NumberType, content: bytes) -> float | int | bool:
    """A numpy scalar in a checkpoint, as Python's own."""
    return np.frombuffer(content, kind.dtype, count=1)[0].item()


_STANDING_IN: list[Any] = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy._core.multiarray.scalar"),
    (_number, "numpy.core.multiarray.scalar"),  # numpy 1's name
]
"""What training scripts store besides weights, such as an accuracy that is a numpy mean. No code of the file runs."""
