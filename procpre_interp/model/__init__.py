"""The model, and the map from its components to its weights."""

from procpre_interp.model.components import WeightSlice, flat_mask, matrix_parameters, parameter_names, select
from procpre_interp.model.hooked_transformer import HookedTransformer, ModelConfig

__all__ = [
    "HookedTransformer",
    "ModelConfig",
    "WeightSlice",
    "flat_mask",
    "matrix_parameters",
    "parameter_names",
    "select",
]
