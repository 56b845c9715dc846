"""Counterfactual pairs: two sequences that differ in one cause, and the token where this shows."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

MAX_DRAWS_A_PAIR = 200
"""Where fewer draws than one in so many show a cause, they are given up."""
FEWEST_PAIRS = 64
"""Attempts made before giving up, as a number of pairs."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Clean and corrupted sequences of equal width. Each pair is read at one position, whose next token differs.

    What an intervention does is measured there: on the logits of `answers` (right after the clean sequence) and
    `wrong` (right after the corrupted one).
    """

    clean: Int[Tensor, "pair pos"]
    """Token ids; what follows the read position cannot reach it and is padding or the rest of the sequence."""
    corrupted: Int[Tensor, "pair pos"]
    """The same with another cause."""
    positions: Int[Tensor, " pair"]
    """Where the prediction is read."""
    answers: Int[Tensor, " pair"]
    """The next token of the clean sequence."""
    wrong: Int[Tensor, " pair"]
    """The next token of the corrupted sequence, never the answer."""

    def __post_init__(self) -> None:
        if self.clean.shape != self.corrupted.shape:
            raise ValueError(
                f"clean of shape {tuple(self.clean.shape)}, corrupted of shape {tuple(self.corrupted.shape)}; the "
                "sequences of a pair have the same length"
            )
        for name in ("positions", "answers", "wrong"):
            if len(getattr(self, name)) != len(self.clean):
                raise ValueError(f"{len(getattr(self, name))} {name} for {len(self.clean)} pairs; give one per pair")
        if len(self) and not 0 <= int(self.positions.min()) <= int(self.positions.max()) < self.clean.shape[1]:
            raise ValueError(f"positions must be in 0..{self.clean.shape[1] - 1}")
        if bool((self.answers == self.wrong).any()):
            raise ValueError("a pair has the same answer twice, so that nothing could tell its sequences apart")

    @classmethod
    def from_sequences(
        cls,
        clean: Int[Tensor, "draw pos"],
        corrupted: Int[Tensor, "draw pos"],
        positions: Int[Tensor, " draw"],
        kept: Bool[Tensor, " draw"],
    ) -> "Pairs":
        """The draws that are `kept` and whose next tokens differ; elsewhere the position has no meaning."""
        following = (positions + 1).clamp(max=clean.shape[1] - 1)[:, None]
        answers, wrong = (tokens.gather(1, following)[:, 0] for tokens in (clean, corrupted))
        rows = kept & (answers != wrong)
        return cls(*(x[rows].long() for x in (clean, corrupted, positions, answers, wrong)))

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice | Tensor) -> "Pairs":
        return Pairs(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def to(self, device: torch.device | str) -> "Pairs":
        return Pairs(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))

    @property
    def swapped(self) -> "Pairs":
        """Clean and corrupted exchanged."""
        return Pairs(self.corrupted, self.clean, self.positions, self.wrong, self.answers)


def concatenate_pairs(parts: Sequence[Pairs]) -> Pairs:
    """Pairs of one width, one below the other."""
    return Pairs(*(torch.cat([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Pairs)))


def collect_pairs(draw: Callable[[int], Pairs], n: int, *, at_once: int, what: str) -> Pairs:
    """`n` pairs, from as many calls of `draw` as it takes; it returns those of that many draws that succeed.

    `at_once` bounds the draws of one call, and so the memory. Raises `ValueError` about `what` where hardly any draw
    succeeds.
    """
    found: list[Pairs] = []
    n_found = n_drawn = 0
    rows = min(n, at_once)
    while True:
        found.append(draw(rows)[: n - n_found])
        n_found += len(found[-1])
        n_drawn += rows
        if n_found == n:
            return concatenate_pairs(found)
        if n_drawn >= MAX_DRAWS_A_PAIR * max(n, FEWEST_PAIRS):
            raise ValueError(
                f"{n_found} of {n} pairs of {what} in {n_drawn} draws; they are too rare here, so choose another cause "
                "or other fields of the task"
            )
        # As many as should do at the share of draws that succeeded, and some to spare.
        rows = min((n - n_found) * n_drawn // max(n_found, 1) * 5 // 4 + 16, at_once)
