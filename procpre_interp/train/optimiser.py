"""AdamW over the model's flat parameter vector, and learning-rate schedules."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

Schedule = Literal["constant", "linear", "cosine"]


def schedule_factor(step: int, *, schedule: Schedule, warmup_steps: int, steps: int) -> float:
    """Factor on the peak learning rate at `step` (from 0): linear warm-up, then constant, or to zero at `steps`.

    The warm-up's first step has factor 1 / warmup_steps, not 0 as in Hugging Face's schedules, which waste it.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda _: 1.0,
        "linear": lambda x: 1 - x,
        "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    }
    return shapes[schedule](min(progress, 1.0))


class FlatAdamW:
    """torch's AdamW on one vector: all parameters in a handful of operations, which is what tiny models need.

    Decay is decoupled and applied first, as in torch, to the elements that `decay` marks. Elements that `frozen` marks
    keep their bits: their gradient is zeroed before the norm is taken, so both moments stay zero; they do not decay.

    Source: Loshchilov and Hutter, arXiv 1711.05101.
    """

    def __init__(
        self,
        flat: Float[Tensor, " n"],
        grad: Float[Tensor, " n"],
        *,
        weight_decay: float,
        decay: Bool[Tensor, " n"],
        frozen: Bool[Tensor, " n"] | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip_norm: float | None = 1.0,
    ) -> None:
        self.parameter = nn.Parameter(flat, requires_grad=True)
        self.parameter.grad = grad
        self.grad = grad
        # Masks are made on the CPU, the vector may live elsewhere.
        decay, frozen = decay.to(flat.device), None if frozen is None else frozen.to(flat.device)
        self.frozen = frozen
        self.decay = weight_decay * (decay if frozen is None else decay & ~frozen).float()
        self.decays = bool(self.decay.any())
        self.clip_norm, self.betas, self.eps = clip_norm, betas, eps
        self.moments: dict[str, Tensor] = {}
        """Both moments and the number of steps, by torch's names; empty before the first step."""
        self.pieces: tuple[int, ...] = ()
        """Lengths of stretches of the vector whose moments have taken different numbers of steps, which `step` then
        lists; empty while there is one number for all."""

    @torch.no_grad()
    def step(self, learning_rate: float, scales: tuple[Float[Tensor, " n"], Float[Tensor, " n"]] | None = None) -> None:
        """One update from the gradients that stand in `grad`, which are zeroed afterwards.

        `scales`: factors on each element's learning rate, and on its decay beside that.
        """
        if self.frozen is not None:
            self.grad.masked_fill_(self.frozen, 0.0)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_([self.parameter], self.clip_norm)
        if self.decays:
            decay = self.decay if scales is None else self.decay * scales[0] * scales[1]
            self.parameter.addcmul_(decay, self.parameter, value=-learning_rate)
        before = None if scales is None else self.parameter.clone()
        self._update(learning_rate)
        if scales is not None and before is not None:
            self.parameter.copy_(torch.lerp(before, self.parameter, scales[0]))
        self.grad.zero_()

    def _update(self, learning_rate: float) -> None:
        """torch's AdamW without decay, by its function: the first object of its class loads `torch._dynamo`, a second's
        work."""
        if not self.moments:
            self.moments = {name: torch.zeros_like(self.parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.moments["step"] = self.parameter.new_zeros(())
        adamw(
            self._cut(self.parameter),
            self._cut(self.grad),
            exp_avgs=self._cut(self.moments["exp_avg"]),
            exp_avg_sqs=self._cut(self.moments["exp_avg_sq"]),
            max_exp_avg_sqs=[],
            state_steps=list(self.moments["step"]) if self.pieces else [self.moments["step"]],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )

    def _cut(self, flat: Float[Tensor, " n"]) -> list[Tensor]:
        """A vector cut into the pieces, or whole."""
        return list(flat.split(self.pieces)) if self.pieces else [flat]

    @torch.no_grad()
    def assign(self, mask: Bool[Tensor, " n"], values: Float[Tensor, " n"]) -> None:
        """Give the elements that `mask` marks these values, and a first moment of zero.

        The second moment, the scale of their gradients, stays: from zero it would make the next hundreds of updates
        several times too large, as its correction for a zero start has long run out.
        """
        self.parameter.copy_(torch.where(mask, values, self.parameter))
        if self.moments:
            self.moments["exp_avg"].masked_fill_(mask, 0.0)

    @torch.no_grad()
    def move(self, flat: Float[Tensor, " n"], grad: Float[Tensor, " n"], moments: dict[str, Tensor]) -> None:
        """Work on other memory from now on, such as rows of matrices: `flat` and `grad` as they are, and `moments`, the
        tensors of `state`, which are given its values (zero before the first step).
        """
        state = self.state()
        for name, home in moments.items():
            home.copy_(state[name]) if state else home.zero_()
        self.parameter.data, self.parameter.grad, self.grad = flat, grad, grad
        self.moments = moments

    def state(self) -> dict[str, Tensor]:
        """The two moments and the step count, a number or one per element; empty before the first step."""
        state = dict(self.moments)
        if self.pieces:
            lengths = torch.tensor(self.pieces, device=self.parameter.device)
            state["step"] = state["step"].repeat_interleave(lengths)
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a `state()`.

        Where elements have taken different numbers of steps, each moment is corrected for its own number: those that
        start at zero would otherwise make updates several times too large, as the others' correction has run out.
        """
        self.moments = {name: tensor.to(self.parameter.device, copy=True) for name, tensor in state.items()}
        self.pieces = ()
        if self.moments and self.moments["step"].ndim:
            steps, lengths = self.moments["step"].unique_consecutive(return_counts=True)
            self.pieces = tuple(lengths.tolist()) if len(lengths) > 1 else ()
            self.moments["step"] = steps if self.pieces else steps[0].clone()
