"""Closed forms of size: the scale of each tensor, and its spectrum."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator

from procpre_interp.model import HookedTransformer, flat_mask, select
from procpre_interp.train.closed_form.base import Initialisation, check_names, mean_of, root_mean_square, rounded
from procpre_interp.train.interventions import INTERVENTIONS


@INTERVENTIONS.register("tensor_scale")
@dataclass(frozen=True, kw_only=True, slots=True)
class TensorScale(Initialisation):
    """Each tensor is the fresh one, scaled to a given root mean square: only how large weights are is taken over.

    Changes: one factor per tensor. LayerNorm gains, which are all 1 in a fresh model, become one constant each
    (selector ln); biases, which are all 0, become normal numbers. Holds fixed: the directions of everything else. After
    a transfer it is the transferred tensor that is scaled.
    """

    rms: tuple[tuple[str, float], ...]
    """Tensor and its root mean square."""

    @property
    def draws(self) -> bool:
        """Biases, where they have a size."""
        return any(rms > 0 and name.rpartition(".")[2].startswith("b") for name, rms in self.rms)

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer], selector: str = "all") -> "TensorScale":
        names = dict.fromkeys(piece.parameter for piece in select(models[0].config, selector))
        rms = [(name, mean_of([root_mean_square(model.get_parameter(name)) for model in models])) for name in names]
        return cls(selector=selector, rms=tuple(rms))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        check_names(model, (name for name, _ in self.rms))
        if wrong := [name for name, rms in self.rms if not rms >= 0]:
            raise ValueError(f"rms of {wrong[0]} is negative; a root mean square is not")

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        for name, rms in self.rms:
            tensor = model.get_parameter(name)
            if not tensor.any():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            tensor *= rms / root_mean_square(tensor)


@INTERVENTIONS.register("spectrum_law")
@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrumLaw(Initialisation):
    """Each matrix (of each head) has singular values top * i^-exponent, i = 1, 2, ..., and fresh singular vectors.

    Changes: two numbers per tensor, so its size and how few directions carry it. Holds fixed: directions, vectors.
    """

    law: tuple[tuple[str, float, float], ...]
    """Tensor, top and exponent."""

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer], selector: str = "attn") -> "SpectrumLaw":
        law = []
        for name in dict.fromkeys(piece.parameter for piece in select(models[0].config, selector)):
            if not name.rpartition(".")[2].startswith("W"):
                continue
            values = torch.stack([torch.linalg.svdvals(model.get_parameter(name).detach()) for model in models])
            # s_i = top i^-exponent is the line log s_i = log top - exponent log i: least squares over the mean logs,
            # which weigh a small singular value as much as a large one.
            logs = values.clamp_min(1e-6).log().reshape(-1, values.shape[-1]).double().mean(0).cpu().numpy()
            slope, intercept = (
                np.polyfit(np.log(np.arange(1, len(logs) + 1)), logs, 1) if len(logs) > 1 else (0, logs[0])
            )
            law.append((name, rounded(np.exp(intercept)), rounded(-slope)))
        return cls(selector=selector, law=tuple(law))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        check_names(model, (name for name, _, _ in self.law))
        if wrong := [name for name, top, _ in self.law if not top >= 0]:
            raise ValueError(f"top of {wrong[0]} is negative; a singular value is not")

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        for name, top, exponent in self.law:
            tensor = model.get_parameter(name)
            # U diag(top i^-exponent) V^T, with the fresh tensor's U and V: its directions stay, their weights do not.
            left, values, right = torch.linalg.svd(tensor, full_matrices=False)
            wanted = top * torch.arange(1, values.shape[-1] + 1, device=tensor.device) ** -exponent
            tensor.copy_(left * wanted @ right)
