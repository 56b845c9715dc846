"""Masked cross-entropy in nats a scored token, over micro-batches that do no work nobody scores."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer

UNSCORED = -100
"""The target that `cross_entropy` ignores."""

DENSE_SHARE = 0.5
"""From this share of scored positions on, gathering them costs more than computing all."""


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of a batch of about the same length, cropped to the last scored position among them."""

    rows: Int[Tensor, " row"]
    """Where the rows stand in the batch."""
    tokens: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row n_read"] | None
    """Where logits are wanted, the last one repeated to fill up; None: everywhere."""
    targets: Int[Tensor, "row n_read"]
    """The targets there, `UNSCORED` where nothing is scored."""


def micro_batches(batch: Batch, max_tokens: int) -> Iterator[MicroBatch]:
    """The batch, sorted by needed length and cut into chunks of at most `max_tokens` tokens (but at least a row).

    A row needs its tokens up to the last scored position. Sorting makes chunks of equal length, so little is spent on
    padding, and a chunk's activations fit the cache. Together the chunks are exactly the batch.
    """
    t = torch.arange(1, batch.tokens.shape[1] + 1, device=batch.tokens.device)
    needed, order = (batch.loss_mask * t).amax(1).sort(stable=True)
    widths = needed.tolist()
    end = len(widths)
    while end > 0 and (width := widths[end - 1]) > 0:
        start = max(0, end - max(1, max_tokens // width))
        rows = order[start:end]
        end = start
        mask = batch.loss_mask[rows, :width]
        targets = batch.targets[rows, :width].masked_fill(~mask, UNSCORED)
        positions = None
        if mask.sum(1).amax() < DENSE_SHARE * width:
            positions, scored = scored_positions(mask)
            targets = targets.gather(1, positions).masked_fill(~scored, UNSCORED)
        yield MicroBatch(rows, batch.tokens[rows, :width], positions, targets)


def scored_positions(
    mask: Bool[Tensor, "row pos"],
) -> tuple[Int[Tensor, "row n_read"], Bool[Tensor, "row n_read"]]:
    """Positions of each row's True entries in order, the last one repeated, and which of them are no repetition."""
    count = mask.sum(1)
    row, position = mask.nonzero(as_tuple=True)
    rank = mask.cumsum(1)[row, position] - 1
    n_read = max(1, int(count.amax()))
    positions = mask.new_zeros((len(mask), n_read), dtype=torch.int64)
    positions[row, rank] = position
    scored = torch.arange(n_read, device=mask.device) < count[:, None]
    last = positions.gather(1, (count - 1).clamp_min(0)[:, None])
    return torch.where(scored, positions, last), scored


def summed_loss_nats(
    logits: Float[Tensor, "row n_read d_vocab"], targets: Int[Tensor, "row n_read"]
) -> Float[Tensor, ""]:
    """Sum of the cross-entropy over the scored targets, in nats; float32 whatever the logits are."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=UNSCORED, reduction="sum")


def backward(model: HookedTransformer, batch: Batch, *, max_tokens: int, autocast: bool = False) -> Float[Tensor, ""]:
    """Mean loss over the batch's scored tokens, in nats; its gradient is added to the parameters' own.

    Micro-batches are run one after another, which is gradient accumulation: the batch may be larger than memory.
    """
    n_scored = batch.loss_mask.sum().clamp_min(1)
    device = batch.tokens.device
    total = torch.zeros((), device=device)
    for micro in micro_batches(batch, max_tokens):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            logits = model(micro.tokens, positions=micro.positions)
        loss = summed_loss_nats(logits, micro.targets) / n_scored
        loss.backward()
        total += loss.detach()
    return total
