"""What weights say without data: size and rank of every matrix, composition of heads, and what training changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.model import HookedTransformer

EMBEDDINGS = {"W_E": ("embed", "embed.W_E"), "W_pos": ("pos", "pos_embed.W_pos"), "W_U": ("unembed", "unembed.W_U")}
"""Component and parameter of the matrices outside the blocks, whose size follows vocabulary and context."""

HELD_ENERGY = 0.9
"""Share of |W|_F^2 that the top singular directions of `drift` hold, unless their number is given."""


class _Product(NamedTuple):
    """A B, of narrow factors. (What is done with it here is several times faster than with `FactoredMatrix`.)"""

    A: Float[Tensor, "matrix row inner"]
    B: Float[Tensor, "matrix inner column"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.A.shape[:-1], self.B.shape[-1])


@dataclass(frozen=True)
class _Matrices:
    """One matrix, or the same one of every head of a layer, in double precision."""

    component: str
    parameter: str
    """Name; of a head's matrix without the head."""
    layer: int | None
    values: Float[Tensor, "matrix row column"] | _Product
    per_head: bool

    def labels(self) -> list[dict[str, str | int | None]]:
        """The first columns of the tables, one row per matrix."""
        matrix = self.parameter.rpartition(".")[2]
        suffixes = [f".head.{i}" if self.per_head else "" for i in range(self.values.shape[0])]
        return [
            {
                "name": f"{self.component}{suffix}.{matrix}" if self.per_head else self.parameter,
                "component": self.component + suffix,
                "layer": self.layer,
                "head": i if self.per_head else None,
                "matrix": matrix,
            }
            for i, suffix in enumerate(suffixes)
        ]


@torch.no_grad()
def weight_table(model: HookedTransformer) -> pd.DataFrame:
    """Size and rank of every matrix, of heads each head's, one row per matrix.

    Columns: name, component, layer, head, matrix, frobenius, spectral, stable_rank, effective_rank, rms, n_entries.
    Matrices are W_Q, W_K, W_V, W_O and the products QK = W_Q W_K^T and OV = W_V W_O of each head, W_in and W_out of
    each layer, W_E, W_pos and, where it is no transposed W_E, W_U. With singular values s:

    - frobenius |W|_F = sqrt(sum s^2), and rms, the root mean square entry |W|_F / sqrt(n_entries)
    - spectral: the largest s
    - stable_rank |W|_F^2 / spectral^2
    - effective_rank exp(-sum p log p) of p = s^2 / sum s^2: how many directions share the energy

    The ranks of a zero matrix are NaN. Source: Roy & Vetterli 2007 for the effective rank, who have p = s / sum s; with
    squares it is, as the stable rank, about energy.
    """
    rows = []
    for matrices in _all_matrices(model):
        s = _singular_values(matrices)
        energy = s.square().sum(-1, keepdim=True)
        columns = {
            "frobenius": energy.sqrt().squeeze(-1),
            "spectral": s[:, 0],
            "stable_rank": energy.squeeze(-1) / s[:, 0].square(),
            "effective_rank": torch.special.entr(s.square() / energy).sum(-1).exp(),
        }
        n_entries = matrices.values.shape[1] * matrices.values.shape[2]
        for i, labels in enumerate(matrices.labels()):
            numbers = {name: float(values[i]) for name, values in columns.items()}
            rows.append({**labels, **numbers, "rms": numbers["frobenius"] / n_entries**0.5, "n_entries": n_entries})
    return _table(rows)


@torch.no_grad()
def spectra(model: HookedTransformer) -> pd.DataFrame:
    """Singular values of every matrix, one row per value: name, component, layer, head, matrix, index, singular_value,
    rounding.

    The matrices are those of `weight_table`; index 0 is the largest value. A value at or below `rounding` may be 0:
    that is the largest value times the longer side of the matrix and the spacing of floating point numbers at 1, in the
    precision of the stored weights. Source: Golub & Van Loan, Matrix Computations, "Numerical rank".
    """
    eps, rows = torch.finfo(model.flat.dtype).eps, []
    for matrices in _all_matrices(model):
        longer = max(matrices.values.shape[1:])
        for labels, values in zip(matrices.labels(), _singular_values(matrices).tolist()):
            same = {**labels, "rounding": values[0] * longer * eps}
            rows += [{**same, "index": i, "singular_value": value} for i, value in enumerate(values)]
    columns = ["name", "component", "layer", "head", "matrix", "index", "singular_value", "rounding"]
    return _table(rows).loc[:, columns]


@torch.no_grad()
def composition_scores(model: HookedTransformer) -> pd.DataFrame:
    """How much of what a head writes a later head reads: |A B|_F / (|A|_F |B|_F), 0 to 1, one row per pair of heads.

    Columns: kind, layer, head (the earlier), to_layer, to_head, score, baseline. A is the OV of the earlier head. B is
    of the later head: for kind "q" its QK, which the query side multiplies, for "k" the transposed QK, for "v" its OV.
    LayerNorms are left out. `baseline` is 1 / sqrt(d_model), the root mean square score of the same two matrices
    turned against each other at random: it holds for any singular values, since a random rotation spreads each
    singular direction of A evenly over all of B's space. A model of one layer has no rows.

    Source: Elhage et al. 2021, "Two kinds of composition" and its appendix, who subtract the mean of random matrices.
    """
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    # Only small factors matter: with A = Q R, where Q has orthonormal columns, |A B| is |R B|.
    w_q, w_k, w_v, w_o = (_normalised(getattr(model, name).double()) for name in ("W_Q", "W_K", "W_V", "W_O"))
    earlier = _normalised(_triangle(w_v) @ w_o)
    later = {"q": w_q @ _triangle(w_k).mT, "k": w_k @ _triangle(w_q).mT, "v": w_v @ _triangle(w_o.mT).mT}
    rows = []
    for kind, values in later.items():
        normalised = _normalised(values)
        for layer, to_layer in combinations(range(n_layers), 2):
            shapes = "head rank d_model, to_head d_model to_rank -> head to_head rank to_rank"
            scores = _norm(einsum(earlier[layer], normalised[to_layer], shapes)).tolist()
            for head, to_head in product(range(n_heads), repeat=2):
                place = {"layer": layer, "head": head, "to_layer": to_layer, "to_head": to_head}
                rows.append({"kind": kind, **place, "score": scores[head][to_head]})
    table = pd.DataFrame(rows, columns=["kind", "layer", "head", "to_layer", "to_head", "score"])
    return table.astype({"score": float}).assign(baseline=model.config.d_model**-0.5)


@torch.no_grad()
def drift(before: HookedTransformer, after: HookedTransformer, *, rank: int | None = None) -> pd.DataFrame:
    """How far and in which directions each matrix moved from `before` to `after`, one row per matrix (of each head).

    Columns: name, component, layer, head, matrix, note, relative_change, cosine, in_subspace, turned_in_subspace,
    expected, rank. The matrices are those of `weight_table`. With W before, W' after and D = W' - W:

    - relative_change |D|_F / |W|_F, and cosine <W, W'> / (|W|_F |W'|_F)
    - in_subspace |U^T D V|_F^2 / |D|_F^2: the share of the change within W's top `rank` left and right singular
      directions U and V; NaN where nothing changed
    - turned_in_subspace: the same of D - W <D, W> / |W|_F^2, the change apart from growth or shrinkage of W as a
      whole. All but the tail of a shrinkage lies within W's top directions, and so does the part -W of D where
      training has replaced W by something else: this one tells whether the new lies there too
    - expected: that share for a change without preferred direction, rank^2 / (rows columns)

    `rank` is cut to what a matrix has; by default it is for each matrix the smallest that holds 90 % of |W|_F^2. A
    W_E, W_pos or W_U whose shape changed, as from one vocabulary to another, has a `note` and NaN.

    Raises:
        ValueError: the blocks of the two differ in shape, or `rank` is below 1.
    """
    check_equal_blocks(before, after)
    if rank is not None and rank < 1:
        raise ValueError(f"rank={rank}; rank must be at least 1")
    tied = before.config.tied and after.config.tied
    rows = []
    for old, new in zip(_all_matrices(before, tied=tied), _all_matrices(after, tied=tied)):
        if old.values.shape == new.values.shape:
            columns, note = _drift_of(old, _dense(new).to(before.flat.device), rank), ""
        else:
            columns, note = {}, f"shape {tuple(old.values.shape[1:])} before, {tuple(new.values.shape[1:])} after"
        for i, labels in enumerate(old.labels()):
            numbers = {name: float(values[i]) for name, values in columns.items()}
            rows.append({**labels, "note": note, **numbers})
    return _table(rows).astype({"rank": "Int64"})


def check_equal_blocks(before: HookedTransformer, after: HookedTransformer) -> None:
    """Raise `ValueError` where the blocks of the two differ in shape."""
    for name in ("n_layers", "n_heads", "d_model", "d_hidden"):
        sizes = [getattr(model.config, name) for model in (before, after)]
        if sizes[0] != sizes[1]:
            raise ValueError(f"{name}={sizes[0]} before and {sizes[1]} after; to compare them takes equal blocks")


def held_ranks(s: Float[Tensor, "*matrix index"], share: float | int) -> Int[Tensor, "*matrix"]:
    """The smallest number of the first singular values that holds this share of the sum of their squares."""
    held = s.square().cumsum(-1) / s.square().sum(-1, keepdim=True)
    return (held < share).sum(-1) + 1


def _drift_of(
    before: _Matrices, new: Float[Tensor, "matrix row column"], rank: int | None
) -> dict[str, Float[Tensor, " matrix"]]:
    """The numbers of `drift` for matrices of one shape."""
    old = _dense(before)
    change = new - old
    left, s, right = _decomposed(before)
    if rank is None:
        ranks = held_ranks(s, HELD_ENERGY)
    else:
        ranks = torch.full_like(s[:, 0], min(rank, s.shape[-1]), dtype=torch.long)
    kept = (torch.arange(s.shape[-1], device=s.device) < ranks[:, None]).to(s.dtype)

    def share_inside(x: Tensor) -> Tensor:
        inside = left.mT @ x @ right * kept[:, :, None] * kept[:, None, :]
        return (_norm(inside) / _norm(x)).square()

    growth = (change * old).sum((-2, -1)) / _norm(old).square()
    return {
        "relative_change": _norm(change) / _norm(old),
        "cosine": (old * new).sum((-2, -1)) / (_norm(old) * _norm(new)),
        "in_subspace": share_inside(change),
        "turned_in_subspace": share_inside(change - growth[:, None, None] * old),
        "expected": ranks.double().square() / (old.shape[1] * old.shape[2]),
        "rank": ranks.double(),
    }


def _all_matrices(model: HookedTransformer, *, tied: bool | None = None) -> Iterator[_Matrices]:
    """Layer by layer, so that little is held in double precision; W_U is left out when `tied`."""
    for layer, block in enumerate(model.blocks):
        place = f"blocks.{layer}.attn"
        w = {name: getattr(block.attn, name).double() for name in ("W_Q", "W_K", "W_V", "W_O")}
        products = {"QK": _Product(w["W_Q"], w["W_K"].mT), "OV": _Product(w["W_V"], w["W_O"])}
        for name, values in (w | products).items():
            yield _Matrices(place, f"{place}.{name}", layer, values, per_head=True)
        for name in ("W_in", "W_out"):
            place = f"blocks.{layer}.mlp"
            yield _Matrices(place, f"{place}.{name}", layer, getattr(block.mlp, name).double()[None], per_head=False)
    for name, (component, parameter) in EMBEDDINGS.items():
        if name != "W_U" or not (model.config.tied if tied is None else tied):
            yield _Matrices(component, parameter, None, getattr(model, name).double()[None], per_head=False)


def _dense(matrices: _Matrices) -> Float[Tensor, "matrix row column"]:
    values = matrices.values
    return values if isinstance(values, Tensor) else values.A @ values.B


def _decomposed(
    matrices: _Matrices,
) -> tuple[Float[Tensor, "matrix row index"], Float[Tensor, "matrix index"], Float[Tensor, "matrix column index"]]:
    """U, s and V of W = U diag(s) V^T."""
    if isinstance(matrices.values, Tensor):
        left, s, right = torch.linalg.svd(matrices.values, full_matrices=False)
        return left, s, right.mT
    # `FactoredMatrix.svd` decomposes both tall factors.
    (left, left_core), (right, right_core) = torch.linalg.qr(matrices.values.A), torch.linalg.qr(matrices.values.B.mT)
    left_turn, s, right_turn = torch.linalg.svd(left_core @ right_core.mT)
    return left @ left_turn, s, right @ right_turn.mT


def _singular_values(matrices: _Matrices) -> Float[Tensor, "matrix index"]:
    """Largest first; a product has as many as its inner dimension, the others being 0."""
    w = matrices.values
    return torch.linalg.svdvals(w if isinstance(w, Tensor) else _triangle(w.A) @ _triangle(w.B.mT).mT)


def _triangle(x: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch index column"]:
    """R of x = Q R."""
    return torch.linalg.qr(x, mode="r").R


def _norm(x: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch"]:
    return x.norm(dim=(-2, -1))


def _normalised(x: Float[Tensor, "*batch row column"]) -> Float[Tensor, "*batch row column"]:
    return x / _norm(x)[..., None, None]


def _table(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})
