"""What stands in for an activation: the other run's, nothing, the mean, or another pair's."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.patch.replay import OF_THE_QUERY, Activations, record

Direction = Literal["denoise", "noise"]
"""Clean values into the corrupted run, or corrupted ones into the clean run."""
Replacement = Literal["other", "zero", "mean", "resample"]


def check_direction(direction: str) -> None:
    """Raise `ValueError` for an unknown one."""
    if direction not in get_args(Direction):
        raise unknown_name("direction", direction, list(get_args(Direction)))


class Source:
    """Replaced activations of any block of pairs.

    `other` is the pair's other sequence (the one that is not run), `resample` the run of another pair, drawn without
    fixed points, and `mean` that over all pairs at the same position, of those that still read it; in the last layer,
    where a site is known at the read position alone, the mean of these. What another pair or the mean looks at behind a
    pair's own read position, which cannot reach it, is looked at before it, in proportion. Positions are the same in
    both pairs: of a shorter one those behind its read position are drawn, too.
    """

    def __init__(
        self,
        model: HookedTransformer,
        sides: Pairs,
        wanted: Sequence[tuple[str, int]],
        replacement: Replacement,
        generator: torch.Generator | None,
        blocks: Sequence[slice],
    ) -> None:
        """`sides.corrupted` are the sequences that are run, `sides.clean` the others; `blocks` fit into memory."""
        if replacement not in get_args(Replacement):
            raise ValueError(f"replacement={replacement!r}; choose among {', '.join(get_args(Replacement))}")
        self.model, self.sides, self.wanted, self.replacement = model, sides, wanted, replacement
        if replacement == "resample":
            self.order = another_pair(len(sides), generator).to(sides.clean.device)
        if replacement == "mean":
            self.means = self._means(blocks)

    def of(self, rows: slice) -> Activations:
        """Replacement activations for the pairs in `rows`, shaped as in `replay.record`."""
        sides, positions = self.sides, self.sides.positions
        if self.replacement == "other":
            return record(self.model, sides.clean[rows], positions[rows], self.wanted)
        if self.replacement == "resample":
            chosen = self.order[rows]
            return record(self.model, sides.corrupted[chosen], positions[chosen], self.wanted)
        own = record(self.model, sides.corrupted[rows], positions[rows], self.wanted)
        if self.replacement == "zero":
            return {place: torch.zeros_like(x) for place, x in own.items()}
        return {place: self.means[place].expand_as(x) for place, x in own.items()}

    def _means(self, blocks: Sequence[slice]) -> Activations:
        totals: Activations = {}
        for rows in blocks:
            positions = self.sides.positions[rows]
            reads = torch.arange(self.sides.clean.shape[1], device=positions.device) <= positions[:, None]
            for (site, layer), x in record(self.model, self.sides.corrupted[rows], positions, self.wanted).items():
                known = reads
                if layer == self.model.config.n_layers - 1 and site in OF_THE_QUERY:
                    known = reads.new_ones(len(positions), 1)
                axis = 2 if site == "pattern" else 1  # where the query stands
                known = known.reshape([n if i in (0, axis) else 1 for i, n in enumerate(x.shape)])
                total = torch.stack([(x * known).sum(0), known.expand_as(x).sum(0).to(x.dtype)])
                totals[site, layer] = totals.get((site, layer), 0) + total
        return {place: x / n.clamp(min=1) for place, (x, n) in totals.items()}


def another_pair(n: int, generator: torch.Generator | None) -> Int[Tensor, " pair"]:
    """A different pair for each pair: a random cycle through all of them."""
    if generator is None:
        raise ValueError("replacement='resample' draws other pairs; give a generator")
    if n < 2:
        raise ValueError(f"replacement='resample' with {n} pair; there must be at least 2")
    order = torch.randperm(n, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other
