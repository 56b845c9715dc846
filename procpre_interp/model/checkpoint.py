"""A model on disk: a safetensors file whose header holds the ModelConfig as JSON. Reading one runs no code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from procpre_interp.core.atomic_files import atomic_write
from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import parse_json
from procpre_interp.model.defaults import torch_defaults
from procpre_interp.model.flops import parameter_count
from procpre_interp.model.hooked_transformer import HookedTransformer, ModelConfig

CONFIG_KEY = "model_config"
"""Entry of the header that holds the ModelConfig."""

Weights = dict[str, Float[Tensor, "..."]]
"""Parameters by name, as in `HookedTransformer.named_parameters()`."""


def save_weights(model: HookedTransformer, path: str | Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write a model's weights and config, and return the SHA-256 of the file.

    It is complete or absent, whenever the process dies.
    """
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    return save_parameters(weights, model.config, path, metadata)


def save_parameters(
    weights: Weights, config: ModelConfig, path: str | Path, metadata: Mapping[str, str] | None = None
) -> str:
    """`save_weights` of a model that is nowhere whole."""
    content = save(weights, {**(metadata or {}), CONFIG_KEY: json.dumps(to_dict(config, defaults=True))})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@torch_defaults()
def load_weights(path: str | Path) -> HookedTransformer:
    """The model that `save_weights` wrote, in eval mode on the CPU.

    Raises:
        ValueError: the file is damaged, or of another origin.
    """
    config, weights = _read_config(path), read_weights(path)
    held, needed = sum(tensor.numel() for tensor in weights.values()), parameter_count(config)
    if held < needed:  # said before a model is made, which could be of any size
        raise ValueError(f"{path}: its config is of a model of {needed:,} parameters, but it holds {held:,} numbers")
    model = HookedTransformer(config, generator=torch.Generator())
    fill_parameters(model, weights, where=str(path))
    return model


def read_weights(path: str | Path) -> Weights:
    """The tensors of a safetensors file by name, on the CPU.

    Raises:
        ValueError: the file is damaged, or of another format.
    """
    refuse_pipes(path)
    try:
        return load_file(path)
    except SafetensorError as problem:
        raise ValueError(f"{path}: damaged, or no safetensors file ({one_line(problem)})") from None


def with_weights(model: HookedTransformer, weights: Mapping[str, Tensor]) -> HookedTransformer:
    """`model` with these parameters."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return model


def read_metadata(path: str | Path) -> dict[str, str]:
    """The header's own entries: what was passed to `save_weights` as `metadata`, and the config."""
    refuse_pipes(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as problem:
        raise ValueError(f"{path}: damaged, or no safetensors file ({one_line(problem)})") from None


def refuse_pipes(path: str | Path) -> None:
    """Raise `ValueError` for a pipe or a device, since opening one may wait for ever. Links are followed."""
    if not (path := Path(path)).is_file() and path.exists():
        raise ValueError(f"{path}: not a regular file")


def _read_config(path: str | Path) -> ModelConfig:
    metadata = read_metadata(path)
    if CONFIG_KEY not in metadata:
        raise ValueError(f"{path}: no {CONFIG_KEY} in its header; read a file of other origin with from_huggingface")
    try:
        described = parse_json(metadata[CONFIG_KEY].encode())
    except ValueError as problem:
        raise ValueError(f"{path}: the {CONFIG_KEY} in its header is damaged ({one_line(problem)})") from None
    if not isinstance(described, dict):
        raise ValueError(f"{path}: the {CONFIG_KEY} in its header holds no fields")
    return from_dict(ModelConfig, described, where=str(path))


@torch.no_grad()
def fill_parameters(model: HookedTransformer, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Copy `weights` into the model; they must be its parameters, neither more nor fewer."""
    parameters = dict(model.named_parameters())
    if unmatched := sorted(parameters.keys() ^ weights.keys()):
        raise ValueError(f"{where}: weights do not fit the model; missing or left over: {', '.join(unmatched)}")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(f"{where}: {name} has shape {tuple(weights[name].shape)}, not {tuple(parameter.shape)}")
        parameter.copy_(weights[name])
