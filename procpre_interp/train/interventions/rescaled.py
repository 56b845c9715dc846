"""Scale told apart from structure and from step size: the reparametrisation W = c W'."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.model import HookedTransformer, WeightSlice, flat_mask, select
from procpre_interp.train.interventions.base import INTERVENTIONS, Factors, Initial, Intervention

Whose = Literal["fresh", "transferred"]


@INTERVENTIONS.register("rescaled")
@dataclass(frozen=True, kw_only=True, slots=True)
class Rescaled(Intervention):
    """Directions, size, and the size of a step relative to it: each the fresh model's or the transferred one's.

    Let s be the root mean square of a tensor (of a row of it, with `per` row), before the transfer s(fresh) and after
    it s(transferred), and W' the weights of the model that `direction` names. Training starts from

        W = c W',   c = s(scale) / s(direction)

    with the learning rate of this tensor times

        k = s(scale) / s(relative_step)

    AdamW's update is lr u with u = m / (sqrt(v) + eps), which no constant factor on the gradients changes. A step thus
    moves a tensor of size s by lr u / s of itself: at the plain rate, weights that are c times as large are c times as
    slow to leave their start. A transfer changes both, the function that training starts from and this speed. Here

        k lr u / s(scale) = lr u / s(relative_step)

    so that `relative_step` sets the speed and `scale` the function. With `scale` transferred and `relative_step` fresh,
    k = c: exactly the training of W' where the model computes with c W', since dL/dW' = c dL/dW leaves u as it is, W'
    moves by -lr u, and W = c W' by -c lr u. With `scale` fresh and `relative_step` transferred, k = 1 / c: the fresh
    function, at the speed of the large weights. With both transferred, k = 1: fresh weights of the transferred size.

    Weight decay is a share of the weight, lr decay W, the same for W and W': its factor is 1 / k, so that the rate's
    factor k does not change it. Two things are not invariant: eps, where gradients are about as small as it (1e-8), and
    the clipping of gradients, whose norm is that of dL/dW.

    Changes: initial values of the selected weights, their learning rate and nothing else. Holds fixed: their decay, all
    other weights and rates, data. A fresh bias is zero and has no size: where either size is zero, weights are those of
    the model that `direction` names, at the plain rate. A LayerNorm gain is a row of its own, as of a diagonal matrix.

    With phase 1 in the middle of phase 2, the fresh model is the one that phase 2 had come to.
    """

    of_transfer: ClassVar[bool] = True

    direction: Whose = "fresh"
    """Whose weights, up to positive factors."""
    scale: Whose = "transferred"
    """Whose sizes training starts from."""
    relative_step: Whose = "fresh"
    """Relative to whose sizes the learning rate is what the config says."""
    per: Literal["tensor", "row"] = "tensor"
    """What has one size: a tensor (a head's part of it, where a head is selected alone), or each row of a matrix: an
    input dimension."""

    def check(self, model: HookedTransformer, n_steps: int) -> None:
        flat_mask(model, self.selector)
        if (self.direction, self.scale, self.relative_step) == ("transferred",) * 3:
            raise ValueError("direction, scale and relative_step are all transferred, which is the transfer as it is")

    def initialise(self, model: HookedTransformer, initial: Initial) -> None:
        mask = flat_mask(model, self.selector).to(initial.start.device)
        if torch.equal(initial.fresh[mask], initial.start[mask]):
            raise ValueError(f"nothing of {self.selector!r} was transferred, so that there is no other scale")
        vectors = {"fresh": initial.fresh, "transferred": initial.start}
        sizes = self._sizes(model, initial)
        with torch.no_grad():
            own = vectors[self.direction] * self._ratio(sizes, self.scale, self.direction)
            model.flat.copy_(torch.where(mask, own, model.flat))

    def factors(self, model: HookedTransformer, initial: Initial) -> Factors | None:
        learning = self._ratio(self._sizes(model, initial), self.scale, self.relative_step)
        return learning, 1 / learning

    @staticmethod
    def _ratio(
        sizes: dict[Whose, Float[Tensor, " n_parameters"]], above: Whose, below: Whose
    ) -> Float[Tensor, " n_parameters"]:
        """One size over the other, 1 where a weight has not both."""
        whole = (sizes["fresh"] > 0) & (sizes["transferred"] > 0)
        return torch.where(whole, sizes[above] / sizes[below], 1.0)

    def _sizes(self, model: HookedTransformer, initial: Initial) -> dict[Whose, Float[Tensor, " n_parameters"]]:
        """The size that each weight belongs to, in either model; 0 for weights that are not selected."""
        found: dict[Whose, Float[Tensor, " n_parameters"]] = {}
        vectors: dict[Whose, Float[Tensor, " n_parameters"]] = {"fresh": initial.fresh, "transferred": initial.start}
        for whose, vector in vectors.items():
            sizes = torch.zeros_like(vector)
            for piece in select(model.config, self.selector):
                offset, shape = model.slices[piece.parameter]
                place = slice(offset, offset + shape.numel())
                values = vector[place].view(shape)[piece.index]
                sizes[place].view(shape)[piece.index] = self._size(piece, values)
            found[whose] = sizes
        return found

    def _size(self, piece: WeightSlice, values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        if self.per == "row" and piece.parameter.endswith(".w"):
            return values.abs()
        squares = values.double().square()
        mean = squares.mean() if self.per == "tensor" else squares.mean(-1, keepdim=True)
        return mean.sqrt().to(values.dtype).expand_as(values)
