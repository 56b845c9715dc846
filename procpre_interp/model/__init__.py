"""The model, the map from its components to its weights, and its files."""

from procpre_interp.model.bridge import to_bridge
from procpre_interp.model.checkpoint import (
    Weights,
    load_weights,
    read_metadata,
    read_weights,
    save_parameters,
    save_weights,
    with_weights,
)
from procpre_interp.model.components import (
    WeightSlice,
    flat_mask,
    matrix_parameters,
    overlap,
    parameter_names,
    select,
)
from procpre_interp.model.defaults import torch_defaults
from procpre_interp.model.hooked_transformer import HookedTransformer, ModelConfig
from procpre_interp.model.huggingface import from_huggingface, save_huggingface, to_huggingface

__all__ = [
    "HookedTransformer",
    "ModelConfig",
    "WeightSlice",
    "Weights",
    "flat_mask",
    "from_huggingface",
    "load_weights",
    "matrix_parameters",
    "overlap",
    "parameter_names",
    "read_metadata",
    "read_weights",
    "save_huggingface",
    "save_parameters",
    "save_weights",
    "select",
    "to_bridge",
    "to_huggingface",
    "torch_defaults",
    "with_weights",
]
