"""Activation patching: what the output becomes when one activation is replaced by another run's."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.patch.gap import Gap, prefers_answer
from procpre_interp.patch.metrics import metric_named
from procpre_interp.patch.patched_stream import Patch, patched_stream
from procpre_interp.patch.replacement import Direction, Replacement, Source, check_direction
from procpre_interp.patch.replay import OF_THE_QUERY, PER_HEAD, RESIDUAL, Replay, score

MAX_BYTES = 2**26
"""Bytes of activations computed at a time. More is not faster: a core's cache is smaller."""


def activation_patching(
    model: HookedTransformer,
    pairs: Pairs,
    *,
    sites: Sequence[str] = ("resid_pre", "attn_out", "mlp_out", "z"),
    by_position: bool = True,
    layers: Sequence[int] | None = None,
    direction: Direction = "denoise",
    replacement: Replacement = "other",
    metric: str = "logit_difference",
    generator: torch.Generator | None = None,
    max_bytes: int = MAX_BYTES,
) -> pd.DataFrame:
    """Effect of replacing one activation on the metric at the read position; one row per patch.

    `denoise` runs the corrupted sequences and `noise` the clean ones; what comes in is the activation of the pair's
    `other` sequence, `zero`, the `mean` over the pairs, or that of another pair (`resample`, drawn by `generator`).
    A patch is one position of a site (all queries and keys of a pattern's row are one), or with `by_position=False`
    the whole site; q, k, v, z and pattern are patched head by head.

    Columns: site, layer, head, position (<NA> where there is none), metric, direction, replacement, value (mean over
    pairs), effect (value minus that of the run without a patch), share (effect over the distance to the other run's
    value: 1 restores it; NaN in a model at chance), clean and corrupted (the runs' own values), and those of `Gap`,
    which say whether it is. `max_bytes` bounds the memory; it changes the numbers by no more than rounding.

    Equal to the functions of `transformer_lens.patching`, which run the model once a patch.
    Source: Meng et al. 2022 (causal tracing); Heimersheim and Nanda 2024 (denoising and noising).
    """
    values, places, runs = _sweep(
        model, pairs, sites, by_position, layers, direction, replacement, metric, generator, max_bytes
    )
    base, goal = (runs["corrupted"], runs["clean"])[:: 1 if direction == "denoise" else -1]
    gap = Gap.between(metric, base, goal, prefers_answer(model, pairs))
    table = pd.DataFrame(places).astype({"head": "Int64", "position": "Int64"})
    values, base, goal = values.double().cpu().mean(1), base.double().cpu().mean(), goal.double().cpu().mean()
    effect = values - base
    return table.assign(
        metric=metric,
        direction=direction,
        replacement=replacement,
        value=values.numpy(),
        effect=effect.numpy(),
        share=gap.defined(effect / (goal - base)).numpy(),
        clean=float(runs["clean"].mean()),
        corrupted=float(runs["corrupted"].mean()),
    ).assign(**gap.columns())


def patched_values(
    model: HookedTransformer,
    pairs: Pairs,
    site: str,
    *,
    by_position: bool = True,
    direction: Direction = "denoise",
    replacement: Replacement = "other",
    metric: str = "logit_difference",
    generator: torch.Generator | None = None,
    max_bytes: int = MAX_BYTES,
) -> Float[Tensor, "layer *head_pos pair"]:
    """The metric of every pair under each patch of a site, [layer, (head,) (pos,) pair]; as `activation_patching`."""
    values, _, _ = _sweep(
        model, pairs, (site,), by_position, None, direction, replacement, metric, generator, max_bytes
    )
    shape = [model.config.n_layers]
    shape += [model.config.n_heads] if site in PER_HEAD else []
    shape += [pairs.clean.shape[1]] if by_position else []
    return values.unflatten(0, shape)


@torch.no_grad()
def _sweep(
    model: HookedTransformer,
    pairs: Pairs,
    sites: Sequence[str],
    by_position: bool,
    layers: Sequence[int] | None,
    direction: Direction,
    replacement: Replacement,
    metric: str,
    generator: torch.Generator | None,
    max_bytes: int,
) -> tuple[Float[Tensor, "patch pair"], list[dict[str, object]], dict[str, Float[Tensor, " pair"]]]:
    """Values of all patches, what each is, and the values of the clean and the corrupted run."""
    layers = range(model.config.n_layers) if layers is None else layers
    _check(model, pairs, sites, layers, direction)
    metric_named(metric)
    pairs = pairs.to(model.flat.device)
    wanted = [(site, layer) for layer in layers for site in sites]
    sides = pairs if direction == "denoise" else pairs.swapped
    blocks = blocks_of_pairs(model, pairs, max_bytes)
    source = Source(model, sides, wanted, replacement, generator, blocks)
    columns, clean, corrupted = [], [], []
    for rows in blocks:
        part, base = pairs[rows], sides.corrupted[rows]
        replay = Replay(model, base, part.positions, wanted)
        before = replay.score(replay.unpatched, part, metric)
        new = source.of(rows)
        columns.append(
            torch.cat(
                [_site_values(replay, part, *place, new[place], by_position, metric, max_bytes) for place in wanted]
            )
        )
        other = model.final(sides.clean[rows], part.positions[:, None])[:, 0]
        after = score(model, other, part, metric)
        clean.append(after if direction == "denoise" else before)
        corrupted.append(before if direction == "denoise" else after)
    places = [place for site, layer in wanted for place in _places(model, site, layer, pairs, by_position)]
    return torch.cat(columns, 1), places, {"clean": torch.cat(clean), "corrupted": torch.cat(corrupted)}


def _check(
    model: HookedTransformer, pairs: Pairs, sites: Sequence[str], layers: Sequence[int], direction: Direction
) -> None:
    if len(pairs) == 0:
        raise ValueError("no pairs; patching needs at least one")
    if not sites:
        raise ValueError(f"no sites; name one or several of {', '.join((*RESIDUAL, *PER_HEAD))}")
    for site in sites:
        if site not in (*RESIDUAL, *PER_HEAD):
            raise unknown_name("site", site, [*RESIDUAL, *PER_HEAD])
    for layer in layers:
        if not 0 <= layer < model.config.n_layers:
            raise ValueError(f"layer {layer}; layers are 0..{model.config.n_layers - 1}")
    check_direction(direction)


def _places(
    model: HookedTransformer, site: str, layer: int, pairs: Pairs, by_position: bool
) -> Iterator[dict[str, object]]:
    for head in range(model.config.n_heads) if site in PER_HEAD else [None]:
        for position in range(pairs.clean.shape[1]) if by_position else [None]:
            yield {"site": site, "layer": layer, "head": head, "position": position}


def blocks_of_pairs(model: HookedTransformer, pairs: Pairs, max_bytes: int) -> list[slice]:
    """Slices of pairs whose activations, kept for a replay, take at most `max_bytes` (or one pair)."""
    config = model.config
    per_pair = pairs.clean.shape[1] * config.d_model * 10 * config.n_layers * model.flat.element_size()
    size = max(1, max_bytes // per_pair)
    return [slice(start, start + size) for start in range(0, len(pairs), size)]


def _site_values(
    replay: Replay,
    pairs: Pairs,
    site: str,
    layer: int,
    new: Tensor,
    by_position: bool,
    metric: str,
    max_bytes: int,
) -> Float[Tensor, "patch pair"]:
    """The metric under every patch of a site in a layer: heads, then positions."""
    device, n_pos = pairs.clean.device, pairs.clean.shape[1]
    heads = torch.arange(replay.model.config.n_heads if site in PER_HEAD else 1, device=device)
    before = replay.score(replay.unpatched, pairs, metric)
    if not by_position or (layer == replay.last and site in OF_THE_QUERY):
        values = torch.cat(
            [
                replay.score(patched_stream(replay, new, Patch(site, layer, part, None)), pairs, metric)
                for part in heads.split(_patches_at_once(replay, site, layer, None, max_bytes))
            ]
        )
        if not by_position:
            return values
        here = torch.arange(n_pos, device=device)[:, None] == pairs.positions
        return torch.where(here, values[:, None], before).flatten(0, 1)
    # Behind the last position that is read nothing can matter.
    n_acting = int(pairs.positions.max()) + 1
    grid = torch.cartesian_prod(heads, torch.arange(n_acting, device=device))
    values = torch.cat(
        [
            replay.score(patched_stream(replay, new, Patch(site, layer, part[:, 0], part[:, 1])), pairs, metric)
            for part in grid.split(_patches_at_once(replay, site, layer, n_acting, max_bytes))
        ]
    )
    values = rearrange(values, "(head pos) pair -> head pos pair", pos=n_acting)
    rest = before.expand(len(heads), n_pos - n_acting, len(pairs))
    return torch.cat([values, rest], 1).flatten(0, 1)


def _patches_at_once(replay: Replay, site: str, layer: int, n_acting: int | None, max_bytes: int) -> int:
    """How many patches fit; the widest activations are those of the MLP and of attention."""
    config = replay.model.config
    pairs, n_pos = replay["resid_pre", 0].shape[:2]
    read = layer == replay.last or (n_acting is not None and layer + 1 == replay.last and site in OF_THE_QUERY)
    rows = 1 if read else n_pos
    per_row = 4 * config.d_model + 2 * config.d_hidden + 3 * config.n_heads * n_pos
    wide = 3 * n_pos * config.d_head if site in PER_HEAD else 0
    return max(1, max_bytes // ((rows * per_row + wide) * pairs * replay.model.flat.element_size()))
