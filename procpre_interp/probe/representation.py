"""How alike the activations of two models are: CKA of every pair of sites, overlap of principal subspaces.

A site is an activation at one place, `point.layer` or, of one head, `point.layer.head`: "resid_pre.0", "mlp_out.1",
"z.0.2". Points are TransformerLens's names.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer

HEAD_POINTS = ("q", "k", "v", "z")
"""Points with an axis for heads; of a layer without a head, the heads stand side by side."""
POINTS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "pre", "post", *HEAD_POINTS)

MIN_ROWS = 4
"""The unbiased estimate of HSIC divides by n - 3."""

ROUNDING = 16
"""Relative error of an activation that may be rounding, in epsilons of its type. Models of 12 layers had up to 2."""
SUMMATION = 1000
"""Relative error of the sums of HSIC, which are made in double precision, in its epsilons. They had up to 5."""


def residual_sites(n_layers: int, *, mid: bool = True) -> list[str]:
    """Every state of the residual stream once, in order: before block 0, then after each attention and each MLP.

    Without `mid` only between blocks. The stream before block 1 is that after block 0 and is called "resid_post.0".
    """
    points = ("resid_mid", "resid_post") if mid else ("resid_post",)
    return ["resid_pre.0", *(f"{point}.{layer}" for layer in range(n_layers) for point in points)]


def real_positions(batch: Batch) -> Bool[Tensor, "batch pos"]:
    """Where there is a token and no padding."""
    return torch.arange(batch.tokens.shape[1], device=batch.lengths.device) < batch.lengths[:, None]


@torch.no_grad()
def activations(
    model: HookedTransformer,
    tokens: Int[Tensor, "batch pos"],
    kept: Bool[Tensor, "batch pos"],
    sites: Sequence[str],
    *,
    max_sequences: int = 64,
) -> dict[str, Float[Tensor, "row _"]]:
    """Activations at the `kept` positions, row by row of the batch, by site. They stay on the model's device.

    `max_sequences` run at once, which bounds what is held besides the result and changes no number.

    Raises:
        ValueError: a site does not exist in the model.
    """
    places = {site: _place(model, site) for site in sites}
    parts: dict[str, list[Tensor]] = {site: [] for site in sites}
    for start in range(0, len(tokens), max_sequences):
        rows = slice(start, start + max_sequences)
        inside = kept[rows].to(model.flat.device)
        names = sorted({name for name, _ in places.values()})
        _, cache = model.run_with_cache(tokens[rows].to(model.flat.device), names_filter=names, return_type=None)
        for site, (name, head) in places.items():
            x = cache[name][inside]
            parts[site].append(x.flatten(1) if head is None else x[:, head])
    return {site: torch.cat(blocks) for site, blocks in parts.items()}


@torch.no_grad()
def cka(
    first: HookedTransformer,
    second: HookedTransformer,
    batch: Batch,
    *,
    sites: Sequence[str] | None = None,
    max_positions: int = 4096,
    max_sequences: int = 64,
) -> pd.DataFrame:
    """Linear CKA of each site of `first` with each of `second`, at most 1, one row per pair: site, other, cka, n.

    CKA(X, Y) = HSIC(X, Y) / sqrt(HSIC(X, X) HSIC(Y, Y)), where X and Y have one row per real token. Each HSIC is the
    unbiased estimate of Song et al. 2012 for linear kernels, over all n tokens at once. So unrelated representations
    have 0 in the mean, however many their dimensions, and a single value may lie below 0. NaN where all tokens at a
    site are alike, or all but one: HSIC(X, X) is 0 there, and what is left of it is rounding.

    `site` belongs to `first`, `other` to `second`; by default they are the residual streams between blocks. The batch's
    first sequences are used, as many as have `max_positions` tokens together: the activations of two models at n tokens
    are held at once.

    Raises:
        ValueError: there are fewer than 4 tokens, or a site does not exist.

    Source: Kornblith et al. 2019 (CKA); Song et al. 2012, eq. 5 (HSIC); Nguyen et al. 2021, who average that estimate
    over small batches of examples.
    """
    batch = _first_sequences(batch, max_positions)
    left, right = (_at_real_tokens(model, batch, sites, max_sequences) for model in (first, second))
    n = int(batch.lengths.sum())
    if n < MIN_ROWS:
        raise ValueError(f"{n} tokens; CKA needs at least {MIN_ROWS}, so give more or longer sequences")
    own_left, own_right = ({site: own_hsic(x) for site, x in side.items()} for side in (left, right))
    rows = []
    for site, x in left.items():
        for other, y in right.items():
            scale = (own_left[site] * own_right[other]) ** 0.5
            rows.append({"site": site, "other": other, "cka": hsic(x, y.to(x.device)) / scale, "n": n})
    return pd.DataFrame(rows)


def hsic(x: Float[Tensor, "row feature"], y: Float[Tensor, "row other_feature"]) -> float:
    """Hilbert-Schmidt independence criterion of linear kernels, unbiased: 0 in the mean for independent x and y.

    With centred rows, a = |x_i|^2 and b = |y_i|^2 it is (|X^T Y|_F^2 - n/(n-2) sum a b + sum a sum b / ((n-1)(n-2))) /
    (n(n-3)), which needs no n times n matrix. Source: Song et al. 2012, eq. 5, with the kernels written out.
    """
    joint, paired, apart = _hsic_terms(_centred(x), _centred(y))
    return (joint - paired + apart) / (len(x) * (len(x) - 3))


def own_hsic(x: Float[Tensor, "row feature"]) -> float:
    """HSIC of x with itself; NaN where rounding could have made it, of activations (`ROUNDING`) or sums (`SUMMATION`).

    Errors e_i of the rows change their products x_i.x_j, and HSIC by the mean square of these changes: with S = sum
    |x_i|^2, centred, and E = sum |e_i|^2 at most about (S E + E^2) / (n(n-3)).
    """
    n, centred = len(x), _centred(x)
    joint, paired, apart = _hsic_terms(centred, centred)
    error = (ROUNDING * torch.finfo(x.dtype).eps) ** 2 * float(x.double().square().sum())
    reach = float(centred.square().sum()) * error + error**2
    reach += SUMMATION * torch.finfo(torch.float64).eps * (joint + paired + apart)
    total = joint - paired + apart
    return total / (n * (n - 3)) if total > reach else float("nan")


def _hsic_terms(x: Float[Tensor, "row feature"], y: Float[Tensor, "row other_feature"]) -> tuple[float, float, float]:
    """The three sums of `hsic` over centred rows."""
    n = len(x)
    a, b = x.square().sum(1), y.square().sum(1)
    paired, apart = n / (n - 2) * (a * b).sum(), a.sum() * b.sum() / ((n - 1) * (n - 2))
    return float((x.mT @ y).square().sum()), float(paired), float(apart)


@torch.no_grad()
def subspace_overlap(
    first: HookedTransformer,
    second: HookedTransformer,
    batch: Batch,
    *,
    rank: int,
    sites: Sequence[str] | None = None,
    max_positions: int = 4096,
    max_sequences: int = 64,
) -> pd.DataFrame:
    """Overlap of the top principal subspaces of two models' activations, 0 to 1, one row per site.

    Columns: site, rank, overlap, chance, variance_share, other_variance_share, n. `overlap` is the mean squared cosine
    of the principal angles between the first `rank` principal components at the site in `first` and in `second`;
    `chance` is that of random subspaces, rank / dimensions. The shares are of the variance, over tokens, that the
    subspaces hold in `first` and in `second`. Unlike CKA it asks for the same directions: a rotation changes it.

    Sites and tokens are those of `cka`.

    Raises:
        ValueError: `rank` is below 1 or above the dimensions in which the activations vary, or a site does not exist
            or differs in width between the models.
    """
    from transformer_lens.tools import analysis

    batch = _first_sequences(batch, max_positions)
    left, right = (_at_real_tokens(model, batch, sites, max_sequences) for model in (first, second))
    rows = []
    for site, x in left.items():
        y = right[site].to(x.device)
        width = x.shape[1]
        if y.shape[1] != width:
            raise ValueError(f"{site} has {width} and {y.shape[1]} dimensions; overlap needs two models of one width")
        bases = [analysis.orthonormal_subspace(_covariance(values, rank, site), rank=rank) for values in (x, y)]
        shares = [float(basis.singular_values[:rank].sum() / basis.singular_values.sum()) for basis in bases]
        rows.append(
            {
                "site": site,
                "rank": rank,
                "overlap": float(analysis.projection_kernel(*bases).score) / rank,
                "chance": analysis.random_projection_kernel_moments(width, rank).mean / rank if width > 1 else 1.0,
                "variance_share": shares[0],
                "other_variance_share": shares[1],
                "n": len(x),
            }
        )
    return pd.DataFrame(rows)


def _covariance(x: Float[Tensor, "row feature"], rank: int, site: str) -> Float[Tensor, "feature feature"]:
    """The singular value decomposition of centred rows; its singular vectors are the principal components."""
    centred = _centred(x)
    covariance = centred.mT @ centred / len(x)
    most = int(torch.linalg.matrix_rank(covariance, rtol=1e-12, hermitian=True))
    if not 1 <= rank <= most:
        raise ValueError(f"rank={rank}; rank must be in 1..{most}, the dimensions in which {site} varies here")
    return covariance


def _centred(x: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature"]:
    """Minus the mean row, in double precision; exactly 0 where all rows agree."""
    x = x.double() - x[:1].double()
    return x - x.mean(0)


def _first_sequences(batch: Batch, max_positions: int) -> Batch:
    """The first sequences that have `max_positions` real tokens together, at least one. Sequences are drawn alike, so
    any will do."""
    n = int((batch.lengths.cumsum(0) <= max_positions).sum())
    return batch[: max(1, n)]


def _at_real_tokens(
    model: HookedTransformer, batch: Batch, sites: Sequence[str] | None, max_sequences: int
) -> dict[str, Float[Tensor, "row _"]]:
    if sites is None:
        sites = residual_sites(model.config.n_layers, mid=False)
    return activations(model, batch.tokens, real_positions(batch), sites, max_sequences=max_sequences)


def _place(model: HookedTransformer, site: str) -> tuple[str, int | None]:
    """The hook point of a site, and its head."""
    from transformer_lens.utilities import get_act_name

    point, *numbers = site.split(".")
    if point not in POINTS:
        raise unknown_name("activation", point, list(POINTS))
    most = 2 if point in HEAD_POINTS else 1
    limits = (model.config.n_layers, model.config.n_heads)
    if not 1 <= len(numbers) <= most or not all(i.isdecimal() and int(i) < n for i, n in zip(numbers, limits)):
        form = f"{point}.layer or {point}.layer.head" if most == 2 else f"{point}.layer"
        raise ValueError(f"site {site!r}; write {form}, with {limits[0]} layers and {limits[1]} heads counted from 0")
    return get_act_name(point, int(numbers[0])), int(numbers[1]) if len(numbers) == 2 else None
