"""AdamW over weights of which each process has a part."""

from collections.abc import Collection, Mapping
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm
from torch.optim.adamw import adamw

from procpre_interp.train.distributed.group import Group
from procpre_interp.train.shards import PARTS, STEPS, shard_key

MOMENTS = ("exp_avg", "exp_avg_sq")


class ShardedAdamW:
    """The rule of `FlatAdamW` on this process's part of every weight; the norm that is clipped is that of all parts."""

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        group: Group,
        *,
        weight_decay: float,
        decayed: Collection[str],
        frozen: Mapping[str, Bool[Tensor, "..."]],
        betas: tuple[float, float],
        eps: float = 1e-8,
        clip_norm: float | None,
    ) -> None:
        """`parameters` are DTensors by name; those in `decayed` decay, and what `frozen` marks keeps its bits."""
        self.parameters: dict[str, DTensor] = dict(parameters)  # pyright: ignore[reportAttributeAccessIssue]
        self.group, self.weight_decay, self.decayed = group, weight_decay, frozenset(decayed)
        self.betas, self.eps, self.clip_norm = betas, eps, clip_norm
        self.frozen = {name: self.own_part(name, mask) for name, mask in frozen.items()}
        self.moments = {part: {name: _zeros(p) for name, p in self.parameters.items()} for part in MOMENTS}
        self.steps = torch.zeros(1)

    def own_part(self, name: str, whole: Tensor) -> Tensor:
        """This process's part of a tensor that has the shape of a weight."""
        p = self.parameters[name]
        whole = whole.reshape(p.shape).to(p.device)
        return distribute_tensor(whole, p.device_mesh, p.placements, src_data_rank=None).to_local()

    @torch.no_grad()
    def step(self, learning_rate: float, scales: None = None) -> None:
        """One update from the gradients, which are dropped afterwards."""
        weights = {name: p.to_local() for name, p in self.parameters.items()}
        grads = {
            name: torch.zeros_like(weights[name]) if p.grad is None else p.grad.to_local()  # pyright: ignore[reportAttributeAccessIssue]
            for name, p in self.parameters.items()
        }
        for name, mask in self.frozen.items():
            grads[name].masked_fill_(mask, 0.0)
        if self.clip_norm is not None:
            norm = self.group.add(get_total_norm(grads.values()).square()).sqrt()
            torch._foreach_mul_(list(grads.values()), (self.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        for name in self.decayed if self.weight_decay else ():
            keeps = ~self.frozen[name] if name in self.frozen else torch.ones_like(weights[name], dtype=torch.bool)
            weights[name].addcmul_(keeps, weights[name], value=-learning_rate * self.weight_decay)
        # A process may have no part of a small weight.
        held = [name for name, weight in weights.items() if weight.numel()]
        moments = {part: [self.moments[part][name].to_local() for name in held] for part in MOMENTS}
        adamw(
            [weights[name] for name in held],
            [grads[name] for name in held],
            exp_avgs=moments["exp_avg"],
            exp_avg_sqs=moments["exp_avg_sq"],
            max_exp_avg_sqs=[],
            state_steps=[self.steps[0].to(weights[name].device, copy=True) for name in held],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )
        self.steps += 1
        for p in self.parameters.values():
            p.grad = None

    def load_state(self, state: Mapping[str, Float[Tensor, "..."]]) -> None:
        """Take this process's part of the flat vectors of a `FlatAdamW.state`; a fresh state where that is empty.

        Raises `ValueError` for moments of parts that have taken different numbers of steps.
        """
        if not state:
            return
        if state["step"].ndim:
            raise ValueError("optimiser=carried with shard, where the moments of parts have taken different steps")
        self.steps.fill_(state["step"].item())
        for part in MOMENTS:
            offset = 0
            for name, moment in self.moments[part].items():
                moment.to_local().copy_(self.own_part(name, state[part][offset : offset + moment.numel()]))
                offset += moment.numel()

    def tensors(self) -> dict[str, Tensor]:
        """Weights, moments and number of steps, by the keys of shards: the memory that they live in."""
        found: dict[str, Tensor] = {STEPS: self.steps}
        for part, tensors in zip(PARTS, (self.parameters, self.moments["exp_avg"], self.moments["exp_avg_sq"])):
            found |= {shard_key(part, i, name): tensor.detach() for i, (name, tensor) in enumerate(tensors.items())}
        return found

    def state(self) -> dict[str, Float[Tensor, "..."]]:
        """The whole state on the CPU, as `FlatAdamW.state` has it. All processes of the group must call it."""
        whole = {part: [p.full_tensor().flatten().cpu() for p in self.moments[part].values()] for part in MOMENTS}
        return {**{part: torch.cat(tensors) for part, tensors in whole.items()}, "step": self.steps[0].clone()}


def _zeros(like: DTensor) -> DTensor:
    return cast(DTensor, torch.zeros_like(like))
