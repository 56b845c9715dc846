"""Rows of different lengths: the parts that a sequence is put together from."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ragged:
    """One sequence a row, from the left; what stands at and after `lengths` has no meaning."""

    tokens: Int[Tensor, "batch pos"]
    lengths: Int[Tensor, " batch"]

    @property
    def real(self) -> Bool[Tensor, "batch pos"]:
        """Where there is a token."""
        return torch.arange(self.tokens.shape[1]) < self.lengths[:, None]

    def reversed(self) -> "Ragged":
        """Each row read backwards."""
        backwards = self.lengths[:, None] - 1 - torch.arange(self.tokens.shape[1])
        return Ragged(self.tokens.gather(1, backwards.clamp_(min=0)), self.lengths)

    def replaced(self, positions: Int[Tensor, " batch"], tokens: Int[Tensor, " batch"]) -> "Ragged":
        """Each row with another token at one position."""
        return Ragged(self.tokens.scatter(1, positions[:, None], tokens[:, None].to(self.tokens.dtype)), self.lengths)


def constant(token: int, n: int, dtype: torch.dtype) -> Ragged:
    """The one token in every row: a separator, an operator, a stop."""
    return Ragged(torch.full((n, 1), token, dtype=dtype), torch.ones(n, dtype=torch.int64))


def join(parts: list[Ragged], *, width: int | None = None, pad: int = 0) -> Ragged:
    """The parts of each row one behind the other, padded to `width` (default: what the widest need)."""
    if width is None:
        width = sum(part.tokens.shape[1] for part in parts)
    n = len(parts[0].lengths)
    # What has no meaning is written to a column of its own, cut off at the end.
    joined = torch.full((n, width + 1), pad, dtype=parts[0].tokens.dtype)
    end = torch.zeros(n, dtype=torch.int64)
    for part in parts:
        destination = torch.arange(part.tokens.shape[1]) + end[:, None]
        joined.scatter_(1, destination.masked_fill_(~part.real, width), part.tokens)
        end = end + part.lengths
    return Ragged(joined[:, :width], end)


def keep_only(x: Int[Tensor, "batch pos"], kept: Bool[Tensor, "batch pos"]) -> Ragged:
    """The tokens of each row where `kept`, closed up in order."""
    n, width = x.shape
    destination = torch.where(kept, kept.cumsum(1) - 1, width)
    closed_up = torch.zeros(n, width + 1, dtype=x.dtype).scatter_(1, destination, x)
    return Ragged(closed_up[:, :width], kept.sum(1))
