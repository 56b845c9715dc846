"""Circuits as a low-rank identity."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator

from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.closed_form.base import Initialisation, PerHead, rounded
from procpre_interp.train.closed_form.mimetic import _circuits
from procpre_interp.train.interventions import INTERVENTIONS


@INTERVENTIONS.register("low_rank_identity")
@dataclass(frozen=True, kw_only=True, slots=True)
class LowRankIdentity(Initialisation):
    """A layer's heads together have a circuit of a multiple of the identity and a few strong random directions.

    The circuits are the sums over heads of W_Q W_K^T and of W_V W_O. Changes: W_Q, W_K, W_V and W_O, so that each sum
    is strength * I + U diag(values) V^T; U and V are the strongest singular directions of the fresh sum, and the
    directions of the result are dealt to the heads in turn. Holds fixed: U and V, biases, all else.

    Source: our choice; a transformer's circuits are often described as low rank beside an identity.
    """

    query_key_strength: tuple[float, ...]
    """A layer: of the identity in the sum over heads of W_Q W_K^T."""
    query_key_values: PerHead
    """A layer: singular values of the rest, those that are kept."""
    value_output_strength: tuple[float, ...]
    """A layer: of the identity in the sum over heads of W_V W_O."""
    value_output_values: PerHead
    """A layer: singular values of the rest."""

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer], rank: int = 4) -> "LowRankIdentity":
        strengths: tuple[list[float], list[float]] = ([], [])
        values: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
        for layer in range(models[0].config.n_layers):
            for index in range(2):
                sums = torch.stack([_circuits(model, layer)[index].sum(0) for model in models]).double()
                # tr(M) / d_model is the multiple of the identity nearest to M: what is left of M is orthogonal to I.
                strength = sums.diagonal(dim1=-2, dim2=-1).mean(-1)
                rest = sums - strength[:, None, None] * torch.eye(sums.shape[-1], dtype=sums.dtype, device=sums.device)
                strengths[index].append(rounded(strength.mean()))
                kept = torch.linalg.svdvals(rest)[:, :rank].mean(0)
                values[index].append(tuple(rounded(x) for x in kept.tolist()))
        return cls(
            query_key_strength=tuple(strengths[0]),
            query_key_values=tuple(values[0]),
            value_output_strength=tuple(strengths[1]),
            value_output_values=tuple(values[1]),
        )

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        config = model.config
        for name in ("query_key", "value_output"):
            strength, values = getattr(self, f"{name}_strength"), getattr(self, f"{name}_values")
            if not len(strength) == len(values) == config.n_layers:
                raise ValueError(
                    f"{name}_strength and {name}_values need an entry for each of {config.n_layers} layers"
                )
            if any(len(each) > config.d_model for each in values):
                raise ValueError(f"{name}_values: a circuit has {config.d_model} singular values, no more")

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        for layer in range(model.config.n_layers):
            attn, (query_key, value_output) = model.block(layer).attn, _circuits(model, layer)
            for reads, writes, circuit, strength, values in (
                (attn.W_Q, attn.W_K.mT, query_key, self.query_key_strength[layer], self.query_key_values[layer]),
                (attn.W_V, attn.W_O, value_output, self.value_output_strength[layer], self.value_output_values[layer]),
            ):
                # wanted = strength I + U diag(values) V^T, with U and V the leading directions of the fresh sum.
                left, _, right = torch.linalg.svd(circuit.sum(0))
                kept = torch.tensor(values, dtype=left.dtype, device=left.device)
                wanted = strength * torch.eye(len(left), dtype=left.dtype, device=left.device)
                wanted += left[:, : len(kept)] * kept @ right[: len(kept)]
                # wanted = sum over directions i of u_i s_i v_i^T = sum over heads of reads_h writes_h, exactly: each
                # direction is one head's, with sqrt(s_i) on either side. Dealt in turn, no head has only the weak ones.
                left, size, right = torch.linalg.svd(wanted)
                n_heads = model.config.n_heads
                for head in range(n_heads):
                    reads[head] = left[:, head::n_heads] * size[head::n_heads].sqrt()
                    writes[head] = size[head::n_heads].sqrt()[:, None] * right[head::n_heads]
