"""Mimetic initialisation: query-key and value-output circuits with a given likeness to the identity."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.closed_form.base import Initialisation, PerHead, rounded
from procpre_interp.train.interventions import INTERVENTIONS


@INTERVENTIONS.register("mimetic")
@dataclass(frozen=True, kw_only=True, slots=True)
class Mimetic(Initialisation):
    """Each head's W_Q W_K^T and W_V W_O have a given size and a given likeness to the identity.

    A circuit M of a head has norm ||M|| (Frobenius) and identity share tr(M) / (||M|| sqrt(d_head)), from -1 to 1: the
    cosine between M and the multiples of the identity within its own d_head directions. Changes: W_Q, W_K, W_V and W_O,
    so that both are as given: M = a (share P + sqrt(1 - share^2) R), with P the projection on what the fresh W_Q reads
    and R an isometry from there to what the fresh W_K reads beside it. Holds fixed: these directions, biases, all else.
    `fit` orders a layer's heads by their query-key share, since the number of a head means nothing.

    Source: our variation on mimetic initialisation (Trockman and Kolter, arXiv 2305.09828): both numbers are each
    head's own, and exact. `mimetic_paper` is theirs, where value and output of a layer's heads together are the
    negative identity.
    """

    query_key_norm: PerHead
    query_key_share: PerHead
    value_output_norm: PerHead
    value_output_share: PerHead

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer]) -> "Mimetic":
        measured = []
        for model in models:
            layers = []
            for layer in range(model.config.n_layers):
                norms_shares = torch.stack(
                    [x for circuit in _circuits(model, layer) for x in _size_and_share(circuit, model.config.d_head)]
                )
                layers.append(norms_shares[:, norms_shares[1].argsort(descending=True)])
            measured.append(torch.stack(layers))
        means = torch.stack(measured).double().mean(0)  # layer, (norm and share of both circuits), head
        qk_norm, qk_share, vo_norm, vo_share = (
            tuple(tuple(rounded(x) for x in layer) for layer in means[:, index].tolist()) for index in range(4)
        )
        return cls(
            query_key_norm=qk_norm,
            query_key_share=qk_share,
            value_output_norm=vo_norm,
            value_output_share=vo_share,
        )

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        config = model.config
        for name in ("query_key_norm", "query_key_share", "value_output_norm", "value_output_share"):
            values = getattr(self, name)
            if [len(layer) for layer in values] != [config.n_heads] * config.n_layers:
                raise ValueError(f"{name} needs {config.n_heads} numbers in each of {config.n_layers} layers")
            low, high = (-1.0, 1.0) if name.endswith("share") else (0.0, float("inf"))
            if not all(low <= x <= high for layer in values for x in layer):
                raise ValueError(f"{name}={values}; a share is in [-1, 1], a norm not negative")
        if 2 * config.d_head > config.d_model:
            raise ValueError(
                f"mimetic needs two heads or more, to leave directions beside a head's own ({config.n_heads})"
            )

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        for layer in range(model.config.n_layers):
            attn = model.block(layer).attn
            for head in range(model.config.n_heads):
                query, key = _pair(
                    attn.W_Q[head], attn.W_K[head], self.query_key_norm[layer][head], self.query_key_share[layer][head]
                )
                value, output = _pair(
                    attn.W_V[head],
                    attn.W_O[head].T,
                    self.value_output_norm[layer][head],
                    self.value_output_share[layer][head],
                )
                attn.W_Q[head], attn.W_K[head], attn.W_V[head], attn.W_O[head] = query, key, value, output.T


@INTERVENTIONS.register("mimetic_paper")
@dataclass(frozen=True, kw_only=True, slots=True)
class MimeticPaper(Initialisation):
    """Mimetic initialisation as its paper has it: circuits that are noise beside the identity, one strength for all.

    With Z a new matrix of normal numbers of variance 1 / d_model each time, and U S V^T the singular values of the sum:

        value_output_noise Z - value_output_identity I = U S V^T,  W_V = U sqrt(S),  W_O = sqrt(S) V^T

    for a layer, whose heads take d_head directions each, the strongest first; so the sum over heads of W_V W_O is the
    left side exactly. For each head the same of query_key_noise Z + query_key_identity I, of which W_Q and W_K keep the
    d_head strongest directions. Changes: W_Q, W_K, W_V and W_O. Holds fixed: biases, all else.

    Source: Trockman and Kolter, Mimetic initialization of self-attention layers (arXiv 2305.09828).
    """

    query_key_noise: float
    """Factor of the noise in each head's W_Q W_K^T."""
    query_key_identity: float
    """Factor of the identity there."""
    value_output_noise: float
    """Factor of the noise in the sum over heads of W_V W_O."""
    value_output_identity: float
    """Factor of the *negative* identity there."""

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer]) -> "MimeticPaper":
        """Fits by moments: the identity's factor from the trace, the noise's from the norm of what is left.

        For query and key both are per direction that a head has, as if the strongest directions were any.
        """
        factors = []
        for model in models:
            config = model.config
            for layer in range(config.n_layers):
                query_key, value_output = (circuit.double() for circuit in _circuits(model, layer))
                numbers = [*_moments(query_key, config.d_head), *_moments(value_output.sum(0)[None], config.d_model)]
                factors.append(torch.stack(numbers))
        qk_noise, qk_identity, vo_noise, vo_identity = torch.stack(factors).mean(0).tolist()
        return cls(
            query_key_noise=rounded(qk_noise),
            query_key_identity=rounded(qk_identity),
            value_output_noise=rounded(vo_noise),
            value_output_identity=rounded(-vo_identity),
        )

    @property
    def draws(self) -> bool:
        return True

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        if not min(self.query_key_noise, self.value_output_noise) >= 0:
            raise ValueError(
                f"query_key_noise={self.query_key_noise}, value_output_noise={self.value_output_noise}; a factor of "
                "noise is 0 or more"
            )

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        width, d_head = model.config.d_model, model.config.d_head

        def halves(noise: float, identity: float, like: Tensor) -> tuple[Tensor, Tensor]:
            """A and B with A B^T = noise Z + identity I, the strongest directions first."""
            z = torch.randn(width, width, generator=generator) / width**0.5
            left, size, right = torch.linalg.svd((noise * z + identity * torch.eye(width)).to(like))
            return left * size.sqrt(), right.T * size.sqrt()

        for layer in range(model.config.n_layers):
            attn = model.block(layer).attn
            value, output = halves(self.value_output_noise, -self.value_output_identity, attn.W_V)
            for head in range(model.config.n_heads):
                own = slice(head * d_head, (head + 1) * d_head)
                attn.W_V[head], attn.W_O[head] = value[:, own], output[:, own].T
                query, key = halves(self.query_key_noise, self.query_key_identity, attn.W_Q)
                attn.W_Q[head], attn.W_K[head] = query[:, :d_head], key[:, :d_head]


def _circuits(
    model: HookedTransformer, layer: int
) -> tuple[Float[Tensor, "head d_model d_model"], Float[Tensor, "head d_model d_model"]]:
    """W_Q W_K^T and W_V W_O of each head."""
    attn = model.block(layer).attn
    return (attn.W_Q @ attn.W_K.mT).detach(), (attn.W_V @ attn.W_O).detach()


def _size_and_share(circuit: Float[Tensor, "head d_model d_model"], d_head: int) -> tuple[Tensor, Tensor]:
    # cos(M, P) = tr(M) / (||M|| ||P||), with ||P|| = sqrt(d_head) for the projection P on a head's own directions: a
    # circuit of rank d_head cannot be nearer to the identity than P is.
    norm = torch.linalg.matrix_norm(circuit)
    return norm, circuit.diagonal(dim1=-2, dim2=-1).sum(-1) / (norm * d_head**0.5).clamp_min(1e-12)


def _moments(circuits: Float[Tensor, "circuit d_model d_model"], rank: int) -> tuple[Tensor, Tensor]:
    """Factors a and b, means over circuits, of a Z + b I of this rank: b = tr / rank, a^2 + b^2 = ||.||^2 / rank."""
    # Entries of Z are independent with variance 1 / d_model: tr(Z) is 0 in the mean, ||Z||^2 is d_model and <Z, I> is
    # 0, so trace and squared norm tell the two factors apart.
    identity = circuits.diagonal(dim1=-2, dim2=-1).sum(-1) / rank
    size = circuits.square().sum((-2, -1)) / rank
    return (size - identity.square()).clamp_min(0).sqrt().mean(), identity.mean()


def _pair(
    first: Float[Tensor, "d_model d_head"], second: Float[Tensor, "d_model d_head"], norm: float, share: float
) -> tuple[Float[Tensor, "d_model d_head"], Float[Tensor, "d_model d_head"]]:
    """A and B with ||A B^T|| = norm and tr(A B^T) = share norm sqrt(d_head); A spans what `first` does."""
    n = first.shape[1]
    frame = torch.linalg.qr(torch.cat([first, second], dim=1))[0]
    own, other = frame[:, :n], frame[:, n : 2 * n]
    # `own` and `other` are orthonormal and orthogonal to one another, so with c = share and s = sqrt(1 - share^2)
    #     A B^T = size^2 own (c own + s other)^T,   tr = size^2 c n,   ||A B^T|| = size^2 sqrt(n):
    # hence size^2 = norm / sqrt(n), half of it on either side, and tr / (norm sqrt(n)) = c, whatever the frame.
    size = (norm / n**0.5) ** 0.5
    return size * own, size * (share * own + max(0.0, 1 - share**2) ** 0.5 * other)
