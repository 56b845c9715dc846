"""A model with its loss as one module, which is what torch's wrappers for several processes want."""

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.train.distributed.group import Group
from procpre_interp.train.loss import micro_batches, summed_loss_nats


class Scored(nn.Module):
    """Logits, or where there are targets the summed loss over the scored ones, in nats.

    All that the loss reads, the unembedding too, is read within `forward`: only there does a wrapper hold all weights,
    and know which gradients to wait for.
    """

    def __init__(self, model: HookedTransformer, *, autocast: bool) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(
        self,
        tokens: Int[Tensor, "row pos"],
        positions: Int[Tensor, "row n_read"] | None = None,
        targets: Int[Tensor, "row n_read"] | None = None,
    ) -> Float[Tensor, "..."]:
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=self.autocast):
            if targets is None:
                return cast(Tensor, self.model(tokens, positions))
            final = self.model.final(tokens, positions)
        dtype = torch.bfloat16 if self.autocast else None
        return summed_loss_nats(final, self.model.W_U, targets, dtype=dtype)


def backward_of_share(module: nn.Module, batch: Batch, group: Group, *, max_tokens: int) -> float:
    """Mean loss over the whole batch's scored tokens, in nats; its gradient is added to the parameters' own.

    Each process computes its rows of every micro-batch, of at most `max_tokens` tokens per process. Both sums are
    divided by the number of scored tokens in the whole batch, which every process knows, as it has drawn all of it: so
    they are those of one process, however unevenly the scored tokens are shared.
    """
    n_scored = batch.loss_mask.sum().clamp_min(1)
    total = torch.zeros((), device=batch.tokens.device)
    micros = list(micro_batches(batch, max_tokens * group.size, group.share))
    for number, micro in enumerate(micros, 1):
        if isinstance(module, DistributedDataParallel):
            # Gradients of all micro-batches are added up here, and then once among processes.
            module.require_backward_grad_sync = number == len(micros)
        loss = module(micro.tokens, micro.positions, micro.targets) / n_scored
        # The wrappers divide the sum of the processes' gradients by their number.
        (group.size * loss).backward()
        total += loss.detach()
    return group.add(total).item()
