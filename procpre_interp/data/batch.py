"""Batches: the whole sequence as `tokens`, the same shifted by one as `targets`, and a mask over the targets that are
scored."""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of sequences, as wide as its longest or wider."""

    tokens: Int[Tensor, "batch pos"]
    """The whole sequences; positions from `lengths` on are padding."""
    targets: Int[Tensor, "batch pos"]
    """The next token: `targets[:, t] = tokens[:, t + 1]`; the last column is padding and never scored."""
    loss_mask: Bool[Tensor, "batch pos"]
    """True at t where the prediction of `targets[:, t]`, made at position t, is trained and scored."""
    lengths: Int[Tensor, " batch"]
    """Real tokens of each sequence."""

    @classmethod
    def from_sequences(
        cls,
        tokens: Int[Tensor, "batch pos"],
        lengths: Int[Tensor, " batch"],
        first_scored: Int[Tensor, " batch"] | int,
        pad: int,
    ) -> "Batch":
        """Next-token prediction from position `first_scored` (a separator, say) to the end of each sequence.

        `tokens` may be of any integer type: tasks work in narrow ones, which are several times faster.
        """
        tokens = tokens.long()
        targets = torch.empty_like(tokens)
        targets[:, :-1] = tokens[:, 1:]
        targets[:, -1] = pad
        t = torch.arange(tokens.shape[1], dtype=torch.int32)
        first = torch.as_tensor(first_scored, dtype=torch.int32).reshape(-1, 1)
        return cls(tokens, targets, (t >= first) & (t < lengths.int()[:, None] - 1), lengths.long())

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        return Batch(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))

    def to(self, device: torch.device | str) -> "Batch":
        return Batch(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


def concatenate(batches: list[Batch]) -> Batch:
    """The rows of several batches of one width, in order."""
    if len(batches) == 1:
        return batches[0]
    return Batch(*(torch.cat([getattr(b, f.name) for b in batches]) for f in dataclasses.fields(Batch)))
