"""Loss, gradient and scores of R models at once, from batches that are cut into micro-batches for all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from procpre_interp.data.task import Batch
from procpre_interp.model import ModelConfig
from procpre_interp.model.hits import hits
from procpre_interp.train.loss import DENSE_SHARE, LOGITS_AT_ONCE, UNSCORED, scored_positions
from procpre_interp.train.stacked.forward import Parameters, final

DEVICE_LOGITS_AT_ONCE = 2**28
"""The same on a GPU, where fewer and larger pieces are faster."""


@dataclass(frozen=True, slots=True)
class StackedMicroBatch:
    """Equally many rows of each model's batch, about equally long, cropped to the last scored position among them."""

    rows: Int[Tensor, "model row"]
    """Where the rows stand in each batch."""
    tokens: Int[Tensor, "model row pos"]
    positions: Int[Tensor, "model row n_read"] | None
    """Where logits are wanted, the last one repeated to fill up; None for everywhere."""
    targets: Int[Tensor, "model row n_read"]
    """The targets there, `UNSCORED` where nothing is scored."""

    def to(self, device: torch.device) -> "StackedMicroBatch":
        """The same on the device; a copy from pinned memory does not wait."""
        moved = (
            None if x is None else x.to(device, non_blocking=True)
            for x in (self.rows, self.tokens, self.positions, self.targets)
        )
        return StackedMicroBatch(*moved)  # pyright: ignore[reportArgumentType]

    def pin(self) -> "StackedMicroBatch":
        """The same in pinned memory."""
        pinned = (None if x is None else x.pin_memory() for x in (self.rows, self.tokens, self.positions, self.targets))
        return StackedMicroBatch(*pinned)  # pyright: ignore[reportArgumentType]


def stacked_micro_batches(batches: Sequence[Batch], max_tokens: int, max_rows: int) -> list[StackedMicroBatch]:
    """Batches of equal size, one per model, cut as `micro_batches` cuts one.

    A micro-batch has at most `max_tokens` tokens and `max_rows` rows of all models, but at least a row of each.
    """
    n_models = len(batches)
    # A curriculum's batches are narrower than others; what is filled up is never scored.
    widest = max(batch.tokens.shape[1] for batch in batches)
    tokens, targets, mask = (
        torch.stack([F.pad(x, (0, widest - x.shape[1])) if x.shape[1] < widest else x for x in each])
        for each in zip(*((batch.tokens.int(), batch.targets, batch.loss_mask) for batch in batches))
    )
    t = torch.arange(1, mask.shape[2] + 1, dtype=torch.int16 if mask.shape[2] < 2**15 else torch.int32)
    needed, order = (mask * t).amax(2).sort(dim=1, stable=True)
    widths = needed.amax(0).tolist()
    found, end = [], len(widths)
    while end > 0 and (width := widths[end - 1]) > 0:
        start = max(0, end - max(1, min(max_tokens // width, max_rows) // n_models))
        rows = order[:, start:end]
        end = start
        at = rows.unsqueeze(2).expand(-1, -1, width)
        chosen, positions = mask.gather(1, at), None
        wanted = targets.gather(1, at).masked_fill(~chosen, UNSCORED)
        if chosen.sum(2).amax() < DENSE_SHARE * width:
            flat_positions, scored = scored_positions(chosen.flatten(0, 1))
            positions = flat_positions.unflatten(0, rows.shape)
            wanted = wanted.gather(2, positions).masked_fill(~scored.unflatten(0, rows.shape), UNSCORED)
        found.append(StackedMicroBatch(rows, tokens.gather(1, at), positions, wanted))
    return found


class _UnembedAndScore(torch.autograd.Function):
    """Each model's sum of the cross-entropy of softmax(x W_U), and in the same pass its gradients, block by block.

    See `train.loss`, where the formulas are, for one model. Places without a target are masked, not left out: how many
    there are is not known on the host without waiting for the device.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "model place d_model"],
        W_U: Float[Tensor, "model d_model d_vocab"],
        targets: Int[Tensor, "model place"],
        dtype: torch.dtype,
    ) -> Float[Tensor, " model"]:
        loss, dx, dW_U, W = x.new_zeros(len(x)), torch.empty_like(x), torch.zeros_like(W_U), W_U.to(dtype)
        at_once = LOGITS_AT_ONCE if x.device.type == "cpu" else DEVICE_LOGITS_AT_ONCE
        block = max(1, at_once // (len(x) * W_U.shape[2]))
        scored = (targets != UNSCORED).unsqueeze(2)
        for start in range(0, x.shape[1], block):
            places = slice(start, start + block)
            target, counts = targets[:, places, None].clamp_min(0), scored[:, places]
            inputs = x[:, places].to(dtype)
            logits = torch.bmm(inputs, W).to(x.dtype)
            probs = logits.softmax(-1)
            log_z = logits.amax(2, keepdim=True) - probs.amax(2, keepdim=True).log()
            loss += torch.where(counts, log_z - logits.gather(2, target), 0.0).sum((1, 2))
            dlogits = probs.scatter_add_(2, target, probs.new_full((), -1.0).expand(target.shape)).to(dtype)
            dx[:, places] = torch.where(counts, torch.bmm(dlogits, W.mT), 0.0)
            dW_U += torch.bmm(torch.where(counts, inputs, 0.0).mT, dlogits)
        ctx.save_for_backward(dx, dW_U)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dloss: Float[Tensor, " model"]) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dx, dW_U = ctx.saved_tensors
        return dx * dloss[:, None, None], dW_U * dloss[:, None, None], None, None


def stacked_gradients(
    parameters: Parameters,
    config: ModelConfig,
    micro: StackedMicroBatch,
    n_scored: Float[Tensor, " model"],
    *,
    autocast: bool,
) -> tuple[Float[Tensor, " model"], tuple[Float[Tensor, "model ..."], ...]]:
    """The micro-batch's part of each model's mean loss, in nats, and the gradients, in the order of the parameters.

    `n_scored`: scored tokens of the whole batch, by which the sum is divided.
    """
    with torch.autocast(micro.tokens.device.type, torch.bfloat16, enabled=autocast):
        read = final(parameters, config, micro.tokens, micro.positions)
    arguments = read, _unembedding(parameters), micro.targets.flatten(1), torch.bfloat16 if autocast else read.dtype
    loss: Tensor = _UnembedAndScore.apply(*arguments)  # pyright: ignore[reportAssignmentType]
    loss = loss / n_scored
    # The models share no parameter: the gradient of the sum is each one's own.
    return loss.detach(), torch.autograd.grad(loss.sum(), tuple(parameters.values()))


@torch.no_grad()
def stacked_scores(
    parameters: Parameters, config: ModelConfig, micros: Sequence[StackedMicroBatch], *, autocast: bool
) -> list[dict[str, float]]:
    """Scores of each model on its examples, teacher-forced, as `summarise` has them of the table of `evaluate`."""
    columns = []
    for micro in micros:
        with torch.autocast(micro.tokens.device.type, torch.bfloat16, enabled=autocast):
            read = final(parameters, config, micro.tokens, micro.positions)
            logits = torch.bmm(read, _unembedding(parameters))
        targets = micro.targets.flatten(1)
        known, scored = targets.clamp_min(0), targets != UNSCORED
        logits = logits.float()
        loss = logits.logsumexp(2) - logits.gather(2, known.unsqueeze(2)).squeeze(2)
        by_row = (torch.where(scored, loss, 0.0), hits(logits, known) & scored, scored)
        columns.append(torch.stack([x.unflatten(1, (micro.rows.shape[1], -1)).sum(2).float() for x in by_row]))
    loss, n_correct, n_scored = torch.cat(columns, 2).cpu().double()
    exact = ((n_correct == n_scored) & (n_scored > 0)).sum(1) / (n_scored > 0).sum(1)
    total = n_scored.sum(1)
    numbers = zip((loss.sum(1) / total).tolist(), (n_correct.sum(1) / total).tolist(), exact.tolist())
    return [dict(zip(("loss_nats", "accuracy", "exact_match"), each)) for each in numbers]


def _unembedding(parameters: Parameters) -> Float[Tensor, "model d_model d_vocab"]:
    """W_U; the transposed token embedding where the two are tied."""
    free = parameters.get("unembed.W_U")
    return parameters["embed.W_E"].mT if free is None else free
