"""Controls of the spectrum: singular values without their vectors, and vectors without their values.

They act on single matrices, each head's in attention (W_Q[h], not the product W_Q[h] W_K[h]^T), and on those of the
MLP. Biases and LayerNorms have no spectrum and stay unchanged.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.pieces import edited, matrices
from procpre_interp.model import ModelConfig, Weights, WeightSlice

Spectrum = Float[Tensor, "*head direction"]


@ABLATIONS.register("random_singular_vectors")
@dataclass(frozen=True, kw_only=True, slots=True)
class RandomSingularVectors(Ablation):
    """Each matrix U S V^T becomes A S B^T, with A and B drawn uniformly among frames of orthonormal columns.

    Keeps every singular value, so norm, rank and conditioning; biases and LayerNorms. Destroys every direction: what
    a matrix reads and writes, and how one matrix's output meets the next one's input.
    """

    keeps: ClassVar[str] = "singular values of each matrix (of each head); biases, LayerNorms"
    destroys: ClassVar[str] = "singular vectors: what is read and written"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        def redrawn(_: WeightSlice, values: Tensor) -> Tensor:
            s = torch.linalg.svdvals(values)
            *heads, rows, columns = values.shape
            left, right = (random_frame((*heads, n, s.shape[-1]), generator) for n in (rows, columns))
            return left * s.unsqueeze(-2) @ right.mT

        return edited(weights, matrices(config, self.selector), redrawn)


@ABLATIONS.register("flat_spectrum")
@dataclass(frozen=True, kw_only=True, slots=True)
class FlatSpectrum(Ablation):
    """Each matrix's singular values all become their root mean square: every direction counts alike.

    Keeps the singular vectors and the Frobenius norm; biases and LayerNorms. Destroys which directions are strong.
    Nothing is random. Directions that the matrix lacks (singular value 0) are chosen by the decomposition.
    """

    keeps: ClassVar[str] = "singular vectors and norm of each matrix (of each head); biases, LayerNorms"
    destroys: ClassVar[str] = "singular values: which directions are strong"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return with_spectra(
            weights, matrices(config, self.selector), lambda s: s.square().mean(-1, True).sqrt().expand(s.shape)
        )


@ABLATIONS.register("reversed_spectrum")
@dataclass(frozen=True, kw_only=True, slots=True)
class ReversedSpectrum(Ablation):
    """Each matrix's singular values swap places, the largest with the smallest: weak directions become strong.

    Keeps the singular vectors and the set of singular values, so the norm; biases and LayerNorms. Destroys which value
    belongs to which direction. Nothing is random; twice restores the matrix.
    """

    keeps: ClassVar[str] = "singular vectors and the set of singular values of each matrix; biases, LayerNorms"
    destroys: ClassVar[str] = "which direction has which singular value: strong and weak trade places"

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return with_spectra(weights, matrices(config, self.selector), lambda s: s.flip(-1))


@ABLATIONS.register("low_rank")
@dataclass(frozen=True, kw_only=True, slots=True)
class LowRank(Ablation):
    """Each matrix cut to its strongest singular directions: the best approximation of that rank in Frobenius norm.

    Keeps these directions with their singular values; biases and LayerNorms. Destroys the others. Nothing is random.
    """

    keeps: ClassVar[str] = "strongest singular directions of each matrix (of each head); biases, LayerNorms"
    destroys: ClassVar[str] = "weak singular directions"

    share: float = 0.5
    """Kept share of each matrix's min(rows, columns) directions, rounded and at least one; 1 changes nothing."""

    def __post_init__(self) -> None:
        _check_share(self.share)

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return with_spectra(weights, matrices(config, self.selector), lambda s: _strongest_share(s, self.share))


@ABLATIONS.register("without_strongest")
@dataclass(frozen=True, kw_only=True, slots=True)
class WithoutStrongest(Ablation):
    """Each matrix without its strongest singular directions: exactly what `low_rank` of the same share keeps.

    Keeps the others with their singular values; biases and LayerNorms. Nothing is random.
    """

    keeps: ClassVar[str] = "weak singular directions of each matrix (of each head); biases, LayerNorms"
    destroys: ClassVar[str] = "strongest singular directions"

    share: float
    """Share of each matrix's min(rows, columns) directions that goes, rounded and at least one; 1 leaves none."""

    def __post_init__(self) -> None:
        _check_share(self.share)

    def apply(self, weights: Weights, config: ModelConfig, *, generator: Generator) -> Weights:
        return with_spectra(weights, matrices(config, self.selector), lambda s: s - _strongest_share(s, self.share))


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ValueError(f"share={share}; share must be above 0 and at most 1")


def _strongest_share(spectrum: Spectrum, share: float) -> Spectrum:
    """The first singular values, this share of them, rounded and at least one, and 0 in place of the others."""
    return strongest(spectrum, max(1, round(share * spectrum.shape[-1])))


def strongest(spectrum: Spectrum, rank: int) -> Spectrum:
    """The first `rank` singular values, and 0 in place of the others."""
    return torch.cat([spectrum[..., :rank], torch.zeros_like(spectrum[..., rank:])], -1)


def with_spectra(weights: Weights, pieces: Iterable[WeightSlice], change: Callable[[Spectrum], Spectrum]) -> Weights:
    """New weights: each of these matrices has `change` of its singular values, and its own singular vectors."""

    def recomposed(_: WeightSlice, values: Tensor) -> Tensor:
        left, s, right = torch.linalg.svd(values, full_matrices=False)
        changed = change(s)
        # A spectrum that stays leaves the matrix bit for bit, which its recomposition would round.
        return values if torch.equal(changed, s) else left * changed.unsqueeze(-2) @ right

    return edited(weights, pieces, recomposed)


def random_frame(shape: tuple[int, ...], generator: Generator) -> Float[Tensor, "*head row direction"]:
    """Orthonormal columns, uniformly distributed: of each head, `row` long."""
    q, r = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64))
    # LAPACK's choice of signs would make the columns prefer a half space (Mezzadri 2007, section 5).
    return q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
