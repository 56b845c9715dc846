"""Embeddings in closed form: their mean, and a code for positions."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Generator

from procpre_interp.model import HookedTransformer, flat_mask
from procpre_interp.train.closed_form.base import Initialisation, mean_of, root_mean_square
from procpre_interp.train.interventions import INTERVENTIONS

MOST_PICKS = 100_000
"""Choices of frequencies that are all tried, some seconds; 4 heads of d_model 64 would have 8 million."""


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
        return cls(rms=mean_of([root_mean_square(model.embed.W_E.mean(0)) for model in models]))

    def write(self, model: HookedTransformer, generator: Generator) -> None:
        row = model.embed.W_E.mean(0)
        row = row * (self.rms / root_mean_square(row))
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
    """Which head of layer 0 reads the previous position (kind previous)."""
    lead: float = 1.0
    """Nats by which the score of the previous position is above the next best one, where tokens add nothing."""

    @classmethod
    def fit(
        cls, models: Sequence[HookedTransformer], kind: Literal["sinusoidal", "previous"] = "sinusoidal"
    ) -> "PositionCode":
        """Only the size is fitted: of the positions' own part of W_pos, without its mean row."""
        rows = [model.pos_embed.W_pos.detach() for model in models]
        return cls(kind=kind, rms=mean_of([root_mean_square(row - row.mean(0)) for row in rows]))

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
        # The vector of ones comes first, so that all others are orthogonal to it: LayerNorm takes the mean away, and
        # would take a part of any direction that has one.
        directions = torch.linalg.qr(torch.cat([ones, fresh.T], dim=1))[0][:, 1 : 2 * n + 1]
        cosines, sines = directions[:, :n], directions[:, n:]
        angle = torch.arange(config.n_ctx, device=w_pos.device)[:, None] * frequencies
        # A row has norm^2 = sum over n frequencies of cos^2 + sin^2 = n, so an rms of sqrt(n / d_model) before scaling.
        w_pos.copy_(self.rms * (config.d_model / n) ** 0.5 * (angle.cos() @ cosines.T + angle.sin() @ sines.T))
        if self.kind == "sinusoidal":
            return
        chosen, gap = _telling_apart(frequencies.tolist(), min(config.d_head // 2, n), config.n_ctx)
        block = model.block(0)
        gain = float(block.ln1.w.mean())
        # LayerNorm makes each row's rms the gain, hence each cosine's amplitude gain sqrt(d_model / n), and
        #     score(i, j) = size gain^2 (d_model / n) sum_f cos(f (i - 1 - j)) / sqrt(d_head).
        # The sum is k at j = i - 1 and at most k - gap elsewhere: size is what makes that difference `lead`.
        size = self.lead * config.d_head**0.5 * n / (config.d_model * gap * gain**2)
        cosine, sine, step = cosines[:, chosen], sines[:, chosen], frequencies[chosen]
        query, key = torch.zeros_like(block.attn.W_Q[0]), torch.zeros_like(block.attn.W_K[0])
        # cos(f (i - 1) - f j) = cos(f (i - 1)) cos(f j) + sin(f (i - 1)) sin(f j), and W_Q turns by one step:
        #     cos(f (i - 1)) = cos(f i) cos f + sin(f i) sin f,   sin(f (i - 1)) = sin(f i) cos f - cos(f i) sin f.
        k = len(chosen)
        query[:, :k] = cosine * step.cos() + sine * step.sin()
        query[:, k : 2 * k] = sine * step.cos() - cosine * step.sin()
        key[:, :k], key[:, k : 2 * k] = cosine, sine
        block.attn.W_Q[self.head], block.attn.W_K[self.head] = size**0.5 * query, size**0.5 * key


def _telling_apart(frequencies: list[float], n: int, n_ctx: int) -> tuple[list[int], float]:
    """The n frequencies whose summed cosines fall furthest below n at every shift but 0, and how far that is.

    Among more than `MOST_PICKS` choices: such n that no exchange of one for another falls further.
    """
    cosines = np.cos(np.outer(frequencies, np.arange(1, n_ctx)))

    def gap(pick: Sequence[int]) -> float:
        return n - float(cosines[list(pick)].sum(0).max())

    everything = range(len(frequencies))
    if math.comb(len(frequencies), n) <= MOST_PICKS:
        best = max(itertools.combinations(everything, n), key=gap)
        return list(best), gap(best)
    best = [i * len(frequencies) // n for i in range(n)]
    while True:
        rest = [i for i in everything if i not in best]
        exchanged = [sorted({*best, new} - {old}) for old in best for new in rest]
        if gap(found := max(exchanged, key=gap)) <= gap(best):
            return best, gap(best)
        best = found
