"""Initial weights without training: a few numbers, fitted on phase-1 models, in place of phase 1 itself.

Each is an intervention on the weights before the first step, a function of its numbers and of the fresh draw, whose
directions stand wherever the recipe leaves one open; several of them are one recipe, done in the order that they are
listed in. `fit` gives the numbers as means over models; they are fields,
and so part of a run's identity. What phase 1 did beyond these numbers is gone: that is the question.
"""

import abc
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.core.config import unknown_name
from procpre_interp.model import HookedTransformer, flat_mask, select, torch_defaults
from procpre_interp.core.seeding import stream
from procpre_interp.train.interventions.base import INTERVENTIONS, Initial, Intervention

PerHead = tuple[tuple[float, ...], ...]
"""Layers x heads."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Initialisation(Intervention):
    """A closed-form initialisation: subclasses say how numbers are `fit`, and `write` them."""

    selector: str = "all"
    """Of what it would write, only this is changed."""

    @classmethod
    @abc.abstractmethod
    def fit(cls, models: Sequence[HookedTransformer]) -> "Initialisation":
        """The recipe with its numbers as means over these models, which are of one shape."""

    @abc.abstractmethod
    def write(self, model: HookedTransformer, generator: Generator) -> None:
        """Change the model's fresh weights in place."""

    @torch_defaults()
    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        with torch.no_grad():
            before = model.flat.clone()
            self.write(model, stream(initial.seed, "closed form", self.name))
            chosen = flat_mask(model, self.selector).to(before.device)
            model.flat.copy_(torch.where(chosen, model.flat, before))


@INTERVENTIONS.register("tensor_scale")
@dataclass(frozen=True, kw_only=True, slots=True)
class TensorScale(Initialisation):
    """Each tensor is the fresh one, scaled to a given root mean square: only how large weights are is taken over.

    Changes: one factor a tensor. LayerNorm gains, which are all 1 in a fresh model, become one constant each (selector
    ln); biases, which are all 0, become normal numbers. Holds fixed: the directions of everything else.
    """

    rms: tuple[tuple[str, float], ...]
    """Tensor and its root mean square."""

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer], selector: str = "all") -> "TensorScale":
        names = dict.fromkeys(piece.parameter for piece in select(models[0].config, selector))
        rms = [(name, _mean([_rms(model.get_parameter(name)) for model in models])) for name in names]
        return cls(selector=selector, rms=tuple(rms))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        _check_names(model, (name for name, _ in self.rms))
        if wrong := [name for name, rms in self.rms if not rms >= 0]:
            raise ValueError(f"rms of {wrong[0]} is negative; a root mean square is not")

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        for name, rms in self.rms:
            tensor = model.get_parameter(name)
            if not tensor.any():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            tensor *= rms / _rms(tensor)


@INTERVENTIONS.register("spectrum_law")
@dataclass(frozen=True, kw_only=True, slots=True)
class SpectrumLaw(Initialisation):
    """Each matrix (of each head) has singular values top * i^-exponent, i = 1, 2, ..., and fresh singular vectors.

    Changes: two numbers a tensor, so its size and how few directions carry it. Holds fixed: directions, vectors.
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
            logs = values.clamp_min(1e-6).log().reshape(-1, values.shape[-1]).double().mean(0).cpu().numpy()
            slope, intercept = (
                np.polyfit(np.log(np.arange(1, len(logs) + 1)), logs, 1) if len(logs) > 1 else (0, logs[0])
            )
            law.append((name, _rounded(np.exp(intercept)), _rounded(-slope)))
        return cls(selector=selector, law=tuple(law))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        _check_names(model, (name for name, _, _ in self.law))
        if wrong := [name for name, top, _ in self.law if not top >= 0]:
            raise ValueError(f"top of {wrong[0]} is negative; a singular value is not")

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        for name, top, exponent in self.law:
            tensor = model.get_parameter(name)
            left, values, right = torch.linalg.svd(tensor, full_matrices=False)
            wanted = top * torch.arange(1, values.shape[-1] + 1, device=tensor.device) ** -exponent
            tensor.copy_(left * wanted @ right)


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
            tuple(tuple(_rounded(x) for x in layer) for layer in means[:, index].tolist()) for index in range(4)
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
        """By moments: the identity's factor from the trace, the noise's from the norm of what is left.

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
            query_key_noise=_rounded(qk_noise),
            query_key_identity=_rounded(qk_identity),
            value_output_noise=_rounded(vo_noise),
            value_output_identity=_rounded(-vo_identity),
        )

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
                strength = sums.diagonal(dim1=-2, dim2=-1).mean(-1)
                rest = sums - strength[:, None, None] * torch.eye(sums.shape[-1], dtype=sums.dtype, device=sums.device)
                strengths[index].append(_rounded(strength.mean()))
                kept = torch.linalg.svdvals(rest)[:, :rank].mean(0)
                values[index].append(tuple(_rounded(x) for x in kept.tolist()))
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
                left, _, right = torch.linalg.svd(circuit.sum(0))
                kept = torch.tensor(values, dtype=left.dtype, device=left.device)
                wanted = strength * torch.eye(len(left), dtype=left.dtype, device=left.device)
                wanted += left[:, : len(kept)] * kept @ right[: len(kept)]
                left, size, right = torch.linalg.svd(wanted)
                n_heads = model.config.n_heads
                for head in range(n_heads):
                    reads[head] = left[:, head::n_heads] * size[head::n_heads].sqrt()
                    writes[head] = size[head::n_heads].sqrt()[:, None] * right[head::n_heads]


@INTERVENTIONS.register("mean_embedding")
@dataclass(frozen=True, kw_only=True, slots=True)
class MeanEmbedding(Initialisation):
    """All tokens have one and the same embedding and unembedding: the mean of the fresh rows, scaled.

    What `average` does in a transfer, without a parent. Changes: W_E and, where it is not tied, W_U. Holds fixed: the
    direction of the mean fresh row, all else.
    """

    selector: str = "embed+unembed"
    rms: float
    """Root mean square of the one row."""

    @classmethod
    def fit(cls, models: Sequence[HookedTransformer]) -> "MeanEmbedding":
        return cls(rms=_mean([_rms(model.embed.W_E.mean(0)) for model in models]))

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        row = model.embed.W_E.mean(0)
        row = row * (self.rms / _rms(row))
        model.embed.W_E.copy_(row.expand_as(model.embed.W_E))
        if not model.config.tied:
            model.unembed.W_U.copy_(row[:, None].expand_as(model.unembed.W_U))


@INTERVENTIONS.register("position_code")
@dataclass(frozen=True, kw_only=True, slots=True)
class PositionCode(Initialisation):
    """Position embeddings as sinusoids, and, if asked for, a head that reads the previous position off them.

    Changes: W_pos, row i of which is the sum over frequencies f of cos(f i) and sin(f i) along two directions each, all
    of them orthonormal and free of mean, from the fresh W_pos; frequencies fall geometrically from 1 (see `spacing`).
    kind previous: W_Q and W_K of one head of layer 0 too, which compare position i - 1 with position j in the two or
    more frequencies that tell positions apart best, as far as d_head goes. Holds fixed: all else, biases included.

    Source: sinusoids as in Vaswani et al. (arXiv 1706.03762); the previous-position head is the rotation by one step.
    """

    selector: str = "pos+attn"
    kind: Literal["sinusoidal", "previous"] = "sinusoidal"
    """sinusoidal: positions alone; previous: with the head."""
    rms: float
    """Root mean square of W_pos."""
    base: float = 10_000.0
    """Which power of it a frequency is, `spacing` says."""
    spacing: Literal["pairs", "paper"] = "pairs"
    """Frequency i is base^(-i / n), where n = (d_model - 1) // 2 pairs of directions are free of mean; or, as in the
    paper, base^(-2 i / d_model), of which there are n here and not d_model / 2."""
    head: int = 0
    """Of layer 0, with kind previous."""
    lead: float = 1.0
    """Nats by which the score of the previous position is above the next best one, where tokens add nothing."""

    @classmethod
    def fit(
        cls, models: Sequence[HookedTransformer], kind: Literal["sinusoidal", "previous"] = "sinusoidal"
    ) -> "PositionCode":
        """Only the size is fitted: of the positions' own part of W_pos, without its mean row."""
        rows = [model.pos_embed.W_pos.detach() for model in models]
        return cls(kind=kind, rms=_mean([_rms(row - row.mean(0)) for row in rows]))

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        if not (self.rms > 0 and self.base > 1 and self.lead > 0):
            raise ValueError(f"rms={self.rms}, base={self.base}, lead={self.lead}; above 0, above 1 and above 0")
        if model.config.d_model < 3 or (self.kind == "previous" and model.config.d_head < 2):
            raise ValueError("a sinusoid takes two directions, and they must be free of mean: d_model is too small")
        if not 0 <= self.head < model.config.n_heads:
            raise ValueError(f"head={self.head}; there are {model.config.n_heads}, counted from 0")

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        config, w_pos = model.config, model.pos_embed.W_pos
        n = (config.d_model - 1) // 2
        steps = n if self.spacing == "pairs" else config.d_model / 2
        frequencies = self.base ** -(torch.arange(n, device=w_pos.device) / steps)
        ones = torch.ones(config.d_model, 1, dtype=w_pos.dtype, device=w_pos.device)
        fresh = model.pos_embed.W_pos[: 2 * n]
        if len(fresh) < 2 * n:
            raise ValueError(f"a context of {config.n_ctx} is too short to take {2 * n} directions from its rows")
        directions = torch.linalg.qr(torch.cat([ones, fresh.T], dim=1))[0][:, 1 : 2 * n + 1]
        cosines, sines = directions[:, :n], directions[:, n:]
        angle = torch.arange(config.n_ctx, device=w_pos.device)[:, None] * frequencies
        w_pos.copy_(self.rms * (config.d_model / n) ** 0.5 * (angle.cos() @ cosines.T + angle.sin() @ sines.T))
        if self.kind == "sinusoidal":
            return
        chosen, gap = _telling_apart(frequencies.tolist(), min(config.d_head // 2, n), config.n_ctx)
        block = model.block(0)
        gain = float(block.ln1.w.mean())
        size = self.lead * config.d_head**0.5 * n / (config.d_model * gap * gain**2)
        cosine, sine, step = cosines[:, chosen], sines[:, chosen], frequencies[chosen]
        query, key = torch.zeros_like(block.attn.W_Q[0]), torch.zeros_like(block.attn.W_K[0])
        # cos(f (i - 1) - f j) = cos(f (i - 1)) cos(f j) + sin(f (i - 1)) sin(f j), in the rows' own coordinates
        k = len(chosen)
        query[:, :k] = cosine * step.cos() + sine * step.sin()
        query[:, k : 2 * k] = sine * step.cos() - cosine * step.sin()
        key[:, :k], key[:, k : 2 * k] = cosine, sine
        block.attn.W_Q[self.head], block.attn.W_K[self.head] = size**0.5 * query, size**0.5 * key


def _telling_apart(frequencies: list[float], n: int, n_ctx: int) -> tuple[list[int], float]:
    """The n frequencies whose summed cosines fall furthest below n at every shift but 0, and how far that is."""
    shift = np.arange(1, n_ctx)
    cosines = np.cos(np.outer(frequencies, shift))
    gaps = {
        pick: n - float(cosines[list(pick)].sum(0).max()) for pick in itertools.combinations(range(len(frequencies)), n)
    }
    best = max(gaps, key=lambda pick: gaps[pick])
    return list(best), gaps[best]


def _circuits(
    model: HookedTransformer, layer: int
) -> tuple[Float[Tensor, "head d_model d_model"], Float[Tensor, "head d_model d_model"]]:
    """W_Q W_K^T and W_V W_O of each head."""
    attn = model.block(layer).attn
    return (attn.W_Q @ attn.W_K.mT).detach(), (attn.W_V @ attn.W_O).detach()


def _size_and_share(circuit: Float[Tensor, "head d_model d_model"], d_head: int) -> tuple[Tensor, Tensor]:
    norm = torch.linalg.matrix_norm(circuit)
    return norm, circuit.diagonal(dim1=-2, dim2=-1).sum(-1) / (norm * d_head**0.5).clamp_min(1e-12)


def _moments(circuits: Float[Tensor, "circuit d_model d_model"], rank: int) -> tuple[Tensor, Tensor]:
    """Factors a and b, means over circuits, of a Z + b I of this rank: b = tr / rank, a^2 + b^2 = ||.||^2 / rank."""
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
    size = (norm / n**0.5) ** 0.5
    return size * own, size * (share * own + max(0.0, 1 - share**2) ** 0.5 * other)


def _rms(tensor: Tensor) -> float:
    return float(tensor.detach().double().square().mean().sqrt())


def _rounded(x: Tensor | float) -> float:
    """Four digits: more would say nothing, and a run's config is read by people."""
    return float(f"{float(x):.4g}")


def _mean(values: Sequence[float]) -> float:
    return _rounded(float(np.mean(values)))


def _check_names(model: HookedTransformer, names: Iterable[str]) -> None:
    known = dict(model.named_parameters())
    for name in names:
        if name not in known:
            raise unknown_name("tensor", name, list(known))
