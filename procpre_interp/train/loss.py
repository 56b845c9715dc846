"""Masked cross-entropy in nats per scored token, over micro-batches that do no work nobody scores."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer

UNSCORED = -100
"""The target that `cross_entropy` ignores."""

LOGITS_AT_ONCE = 2**20
"""Logits of a block of rows, which then stay in the cache."""

DENSE_SHARE = 0.5
"""Share of scored positions from which gathering them costs more than computing all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Every `size`-th row, from row `rank` on: what one of several processes computes."""

    rank: int = 0
    size: int = 1

    def of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " own"]:
        """These of the rows, no two processes the same; together they have all."""
        return rows[self.rank :: self.size]


WHOLE = Share()


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Rows of a batch of about the same length, cropped to the last scored position among them."""

    rows: Int[Tensor, " row"]
    """Where the rows stand in the batch."""
    tokens: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row n_read"] | None
    """Where logits are wanted, the last one repeated to fill up; None for everywhere."""
    targets: Int[Tensor, "row n_read"]
    """The targets there, `UNSCORED` where nothing is scored."""


def micro_batches(batch: Batch, max_tokens: int, share: Share = WHOLE) -> Iterator[MicroBatch]:
    """The batch, sorted by needed length and cut into chunks of at most `max_tokens` tokens (but at least a row).

    A row needs its tokens up to the last scored position. Sorting makes chunks of equal length, so little is spent on
    padding, and a chunk's activations fit the cache. Together the chunks are exactly the batch. Of each chunk the rows
    of a `share` are given, so that processes which share a batch have equally many chunks: where one has too few rows,
    an idle process has a row that it does not score.
    """
    t = torch.arange(1, batch.tokens.shape[1] + 1, device=batch.tokens.device)
    needed, order = (batch.loss_mask * t).amax(1).sort(stable=True)
    widths = needed.tolist()
    end = len(widths)
    while end > 0 and (width := widths[end - 1]) > 0:
        start = max(0, end - max(1, max_tokens // width))
        rows = share.of(order[start:end])
        is_idle = len(rows) == 0
        rows = order[start : start + 1] if is_idle else rows
        end = start
        mask = batch.loss_mask[rows, :width]
        mask = torch.zeros_like(mask) if is_idle else mask
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


def masked_loss(model: HookedTransformer, batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy over a batch's scored tokens, in nats: what training minimises; can be differentiated.

    All logits are made at once. For many sequences `evaluate` and `summarise` give the same number piece by piece.
    """
    logits = model(batch.tokens)
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch.targets.masked_fill(~batch.loss_mask, UNSCORED)
    return F.cross_entropy(precise.flatten(0, 1), targets.flatten(), ignore_index=UNSCORED)


class _UnembedAndScore(torch.autograd.Function):
    """Sum of the cross-entropy of softmax(x W_U), and in the same pass its gradients, block by block of rows.

    All logits at once leave the cache and are then read and written half a dozen times over.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "row d_model"],
        W_U: Float[Tensor, "d_model d_vocab"],
        targets: Int[Tensor, " row"],
        dtype: torch.dtype,
    ) -> Float[Tensor, ""]:
        # For logits l = x W_U and one target t per row:
        #     loss = log sum_v exp(l_v) - l_t,   dloss/dl = softmax(l) - onehot(t),
        #     dloss/dx = (dloss/dl) W_U^T,       dloss/dW_U = x^T (dloss/dl).
        # Made in the same pass and in blocks of rows, so that logits [row, d_vocab] never leave the cache.
        loss = torch.zeros((), device=x.device, dtype=x.dtype)
        dx, dW_U, W = torch.empty_like(x), torch.zeros_like(W_U), W_U.to(dtype)
        block = max(1, LOGITS_AT_ONCE // W_U.shape[1])
        for start in range(0, len(x), block):
            rows = slice(start, start + block)
            target = targets[rows, None]
            logits = (x[rows].to(dtype) @ W).to(x.dtype)
            probs = logits.softmax(-1)
            # log of the partition function from the largest entry, whose probability is never near 0: this spares a
            # second exponential of everything.
            # log Z = l_max - log softmax(l)_max, exactly, since softmax(l)_max = exp(l_max) / Z.
            log_z = logits.amax(1, keepdim=True) - probs.amax(1, keepdim=True).log()
            loss += (log_z - logits.gather(1, target)).sum()
            # d loss / d logits is the probabilities, less 1 at the target.
            dlogits = probs.scatter_add_(1, target, probs.new_full(target.shape, -1.0)).to(dtype)
            dx[rows] = dlogits @ W.t()
            dW_U += x[rows].to(dtype).t() @ dlogits
        ctx.save_for_backward(dx, dW_U)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Float[Tensor, ""]) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dx, dW_U = ctx.saved_tensors
        return dx * dloss, dW_U * dloss, None, None


def summed_loss_nats(
    final: Float[Tensor, "row n_read d_model"],
    W_U: Float[Tensor, "d_model d_vocab"],
    targets: Int[Tensor, "row n_read"],
    *,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, ""]:
    """Sum of the cross-entropy over the scored targets, in nats, from what the unembedding reads.

    The matrix products are made in `dtype` (default: that of `final`); softmax and sum in that of `final`. Can be
    differentiated once.
    """
    scored = targets != UNSCORED
    arguments = final[scored], W_U, targets[scored], dtype or final.dtype
    loss: Tensor = _UnembedAndScore.apply(*arguments)  # pyright: ignore[reportAssignmentType]
    return loss


def backward(model: HookedTransformer, batch: Batch, *, max_tokens: int, autocast: bool = False) -> Float[Tensor, ""]:
    """Mean loss over the batch's scored tokens, in nats; its gradient is added to the parameters' own.

    Micro-batches are run one after another, which is gradient accumulation: the batch may be larger than memory. With
    `autocast` the matrix products are made in bfloat16.
    """
    # Mean over the whole batch: each micro-batch divides its sum by the batch's count, so gradients simply add up.
    n_scored = batch.loss_mask.sum().clamp_min(1)
    device = batch.tokens.device
    total = torch.zeros((), device=device, dtype=torch.promote_types(model.flat.dtype, torch.float32))
    for micro in micro_batches(batch, max_tokens):
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            final = model.final(micro.tokens, micro.positions)
        dtype = torch.bfloat16 if autocast else None
        loss = summed_loss_nats(final, model.W_U, micro.targets, dtype=dtype) / n_scored
        loss.backward()
        total += loss.detach()
    return total
