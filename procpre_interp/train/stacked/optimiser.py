"""AdamW over a matrix of parameters, a row for each model with its own rate, decay, clipping norm and moments."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from procpre_interp.train.optimiser import FlatAdamW

Scales = tuple[Float[Tensor, " n"], Float[Tensor, " n"]]
"""Factors on the learning rate of each parameter of a model, and on its decay beside that."""


class StackedAdamW:
    """The step of R `FlatAdamW`, whose vectors and moments move into rows of matrices and can be read there as before.

    Rows share nothing: a gradient that is not finite, say, spoils its own row.
    """

    @torch.no_grad()
    def __init__(
        self, members: Sequence[FlatAdamW], flat: Float[Tensor, "model n"], grad: Float[Tensor, "model n"]
    ) -> None:
        self.flat, self.grad, device = flat, grad, flat.device
        # Made before the moments move: the host counts steps, and asks the device for them only here.
        states = [member.state() for member in members]
        self.steps_taken = [int(state["step"]) if state else 0 for state in states]
        self.step_numbers = torch.zeros(len(members), device=device)
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(flat), torch.zeros_like(flat)
        moments = {"step": self.step_numbers, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}
        for row, member in enumerate(members):
            member.move(flat[row], grad[row], {name: moment[row] for name, moment in moments.items()})
        self.betas = [member.betas for member in members]
        self.eps = _column([member.eps for member in members], device)
        self.beta1, self.beta2 = (_column([betas[i] for betas in self.betas], device) for i in range(2))
        norms = [member.clip_norm for member in members]
        self.clip_norm = None
        if any(norm is not None for norm in norms):
            self.clip_norm = _column([math.inf if norm is None else norm for norm in norms], device)
        self.decay = _rows([member.decay for member in members])
        self.decays = any(member.decays for member in members)
        self.frozen: Bool[Tensor, "model n"] | None = None
        if any(member.frozen is not None for member in members):
            nothing = torch.zeros(flat.shape[1], dtype=torch.bool, device=device)
            self.frozen = _rows([nothing if member.frozen is None else member.frozen for member in members])
        self._scales: tuple[list[Scales | None], tuple[Tensor, Tensor]] | None = None

    @torch.no_grad()
    def step(self, learning_rates: Sequence[float], scales: Sequence[Scales | None]) -> None:
        """One update of every row from the gradients that stand in `grad`, which are zeroed afterwards."""
        flat, grad = self.flat, self.grad
        self.steps_taken = [step + 1 for step in self.steps_taken]
        self.step_numbers += 1
        bias1, bias2 = ([1 - betas[i] ** t for betas, t in zip(self.betas, self.steps_taken)] for i in range(2))
        columns = [learning_rates, [rate / bias for rate, bias in zip(learning_rates, bias1)], map(math.sqrt, bias2)]
        rate, size, root2 = _on(torch.tensor([list(column) for column in columns]), flat.device).unsqueeze(2)
        if self.frozen is not None:
            grad.masked_fill_(self.frozen, 0.0)
        if self.clip_norm is not None:
            norm = torch.linalg.vector_norm(grad, dim=1, keepdim=True)
            grad.mul_((self.clip_norm / (norm + 1e-6)).clamp_max_(1.0))
        decay = self.decay
        if (factors := self._stacked(scales)) is not None:
            decay, size = decay * factors[0] * factors[1], size * factors[0]
        if self.decays:
            flat.addcmul_(decay * rate, flat, value=-1.0)
        self.exp_avg.lerp_(grad, 1 - self.beta1)
        self.exp_avg_sq.mul_(self.beta2).addcmul_(grad, grad * (1 - self.beta2))
        update = self.exp_avg / self.exp_avg_sq.sqrt().div_(root2).add_(self.eps)
        flat.addcmul_(update, size.expand_as(update), value=-1.0)
        grad.zero_()

    def _stacked(self, scales: Sequence[Scales | None]) -> tuple[Tensor, Tensor] | None:
        """The factors as matrices, made anew only when those of a model have changed; None if all are 1."""
        if all(each is None for each in scales):
            return None
        if self._scales is None or any(old is not new for old, new in zip(self._scales[0], scales)):
            ones = torch.ones_like(self.flat[0])
            learning, decay = (_rows([ones if each is None else each[i] for each in scales]) for i in range(2))
            self._scales = list(scales), (learning, decay)
        return self._scales[1]


def _column(values: Sequence[float], device: torch.device) -> Float[Tensor, "model 1"]:
    return torch.tensor(values, device=device).unsqueeze(1)


def _rows(vectors: Sequence[Tensor]) -> Tensor:
    """The vectors as rows; one row for all where they are equal."""
    first = vectors[0]
    if all(torch.equal(first, other) for other in vectors[1:]):
        return first.unsqueeze(0)
    return torch.stack(list(vectors))


def _on(values: Float[Tensor, "..."], device: torch.device) -> Float[Tensor, "..."]:
    """A small tensor of the CPU on the device, without waiting for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
