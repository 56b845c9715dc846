"""Does a finished model still need the directions that its training began with? They are taken out, and it is scored.

`drift` says where weights moved; this says what of it matters. Phase 2 begins with the transplanted model, so that the
directions are those of phase 1 where weights were transferred, and of fresh weights where not.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from statistics import mean
from typing import Literal, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from procpre_interp.ablate.pieces import edited, matrices
from procpre_interp.ablate.spectrum import random_frame
from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, Weights, WeightSlice
from procpre_interp.probe.base import PROBES, Probe, Probed
from procpre_interp.probe.weights import check_equal_blocks, held_ranks
from procpre_interp.train import evaluate_copies

HELD = (0.5, 0.9)
"""Shares of |W|_F^2 that the directions hold which are taken out."""
Kind = Literal["inherited", "own", "random", "noise"]
"""What is done to the finished matrices; see `inherited_directions`."""
KINDS: tuple[Kind, ...] = get_args(Kind)
DRAWN: tuple[Kind, ...] = ("random", "noise")
"""Those that are drawn."""
PARTS = ("attn", "mlp.W_in", "mlp.W_out")
"""What is damaged of each layer."""


@torch.no_grad()
def inherited_directions(
    start: HookedTransformer, finished: HookedTransformer, batch: Batch, *, n_draws: int = 5, seed: int = 0
) -> pd.DataFrame:
    """What it costs the finished model to lose the strongest directions of the model at the start: one row per
    component and share held.

    With U and V the top left and right singular directions of a matrix W at the start, as few as hold that share of
    |W|_F^2, the finished W' becomes W' - U U^T W' V V^T. Columns component (attn, and W_in and W_out of the MLP, of
    each layer, and blocks for all of them), layer, held, removed (the share of |W'|_F^2 that goes), and by how much the
    loss rises, in nats per scored token:

    - inherited: without these directions.
    - own: without as many of W' itself, its strongest.
    - random: without as many random ones, mean over the draws; they hold far less of W' than its own do.
    - noise: with normal noise of the size of what `inherited` takes out added to each matrix, mean over the draws.

    A model that still computes with these directions loses about what it loses with its own; one that has replaced
    them, no more than by random ones, nor by noise, of which one is alike in number and one in size.

    Raises:
        ValueError: the blocks of the two differ in shape, or `n_draws` is below 1.
    """
    check_equal_blocks(start, finished)
    if n_draws < 1:
        raise ValueError(f"n_draws={n_draws}; there must be at least 1")
    before, weights = ({name: x.detach() for name, x in each.named_parameters()} for each in (start, finished))
    places = [(f"blocks.{i}.{part}", i) for i in range(finished.config.n_layers) for part in PARTS]
    cells = list(product([*places, ("blocks", None)], HELD))
    kinds: list[tuple[Kind, int]] = [(kind, draw) for kind in KINDS for draw in range(n_draws if kind in DRAWN else 1)]
    removed: list[float] = []

    def copies() -> Iterator[Float[Tensor, " n_parameters"]]:
        yield finished.flat.detach()
        for (component, _), held in cells:
            pieces = matrices(finished.config, component)
            for kind, draw in kinds:
                generator = stream(seed, "inherited directions", component, kind, draw)
                damaged, share = _damaged(weights, before, pieces, held, kind, generator)
                removed.append(share)
                yield torch.cat([damaged[name].flatten() for name in finished.slices])

    intact, *losses = evaluate_copies(finished, copies(), batch)["loss_nats"].tolist()
    rows = []
    for number, ((component, layer), held) in enumerate(cells):
        own = slice(number * len(kinds), (number + 1) * len(kinds))
        rises = list(zip(kinds, losses[own]))
        means = {kind: mean(loss - intact for (each, _), loss in rises if each == kind) for kind in KINDS}
        rows.append({"component": component, "layer": layer, "held": held, **means, "removed": removed[own][0]})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def _damaged(
    weights: Weights, before: Weights, pieces: Sequence[WeightSlice], held: float, kind: Kind, generator: Generator
) -> tuple[Weights, float]:
    """The weights without what goes of these pieces, and its share of their squares."""
    gone, whole = 0.0, 0.0

    def change(piece: WeightSlice, values: Tensor) -> Tensor:
        nonlocal gone, whole
        old = before[piece.parameter][piece.index].cpu().double()
        part = what_goes(old, values, held, kind, generator)
        gone, whole = gone + part.square().sum().item(), whole + values.square().sum().item()
        return values - part

    damaged = edited(weights, pieces, change)
    return damaged, gone / whole if whole else math.nan


def what_goes(
    before: Float[Tensor, "*head row column"],
    after: Float[Tensor, "*head row column"],
    held: float | int,
    kind: Kind,
    generator: Generator,
) -> Float[Tensor, "*head row column"]:
    """What is taken from a matrix; see `inherited_directions`."""
    left, s, right = torch.linalg.svd(before, full_matrices=False)
    right = right.mT
    # A matrix of zeros has no directions: its share is 0 / 0, of which no rank is held, so that none is kept.
    kept = torch.arange(s.shape[-1]) < torch.where(s.square().sum(-1) > 0, held_ranks(s, held), 0)[..., None]
    if kind == "own":
        left, _, right = torch.linalg.svd(after, full_matrices=False)
        right = right.mT
    elif kind == "random":
        left, right = (random_frame(tuple(frame.shape), generator) for frame in (left, right))
    left, right = (frame * kept.unsqueeze(-2) for frame in (left, right))
    part = left @ (left.mT @ after @ right) @ right.mT
    if kind == "noise":
        noise = torch.randn(after.shape, generator=generator, dtype=torch.float64)
        size, unit = (x.norm(dim=(-2, -1), keepdim=True) for x in (part, noise))
        return noise * size / unit
    return part


@PROBES.register("inherited")
class InheritedProbe(Probe):
    """What a model loses without the strongest directions that its training began with.

    How much the loss rises, in nats: without them, without as many of its own, without random ones, and with noise as
    large as what they hold.
    """

    keys = ("component", "layer", "held")
    values = ("inherited", "own", "random", "noise", "removed")
    dots = ("inherited", "own", "random", "noise")
    reference = "start"

    def measure(self, probed: Probed) -> pd.DataFrame:
        return inherited_directions(probed.start, probed.model, probed.batch, seed=probed.seed)
