"""All parameters of a module as slices of one vector: an optimiser or a kernel works on a single array."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class FlatParameters(nn.Module):
    """Keeps every parameter a contiguous slice of one vector, and every gradient one of another.

    AdamW, an in-place `load_state_dict` and a `.to()` that changes nothing leave the slices alone. What
    replaces parameters (`.double()`, `.to("meta")`, deepcopy, unpickling, `load_state_dict(assign=True)`)
    ends in `bind`. The vectors may be rows of matrices that several models share (`move`).
    """

    _flat: Tensor | None = None
    _flat_grad: Tensor | None = None
    _owners: dict[str, tuple[nn.Module, str, int]] | None = None

    def bind(self) -> None:
        """Move the parameters into one new vector, the gradients into another (zero where there was none).

        With parameters of several dtypes or devices there is no such vector, and they stay as they are.
        """
        parameters = dict(self.named_parameters())
        self._flat = self._flat_grad = self._owners = None
        if len({(p.dtype, p.device) for p in parameters.values()}) != 1:
            return
        flat = torch.cat([p.detach().flatten() for p in parameters.values()])
        flat_grad = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).detach().flatten() for p in parameters.values()]
        )
        self._place(flat, flat_grad)

    def move(self, flat: Float[Tensor, " n_parameters"], flat_grad: Float[Tensor, " n_parameters"]) -> None:
        """Move the parameters into `flat` and the gradients into `flat_grad`, which share memory with them afterwards.

        Raises `ValueError` for vectors of another length, dtype or device.
        """
        for home in (flat, flat_grad):
            if (home.shape, home.dtype, home.device) != (self.flat.shape, self.flat.dtype, self.flat.device):
                raise ValueError(
                    f"{tuple(home.shape)} numbers in {home.dtype} on {home.device}; the parameters are "
                    f"{tuple(self.flat.shape)} in {self.flat.dtype} on {self.flat.device}"
                )
        with torch.no_grad():
            flat.copy_(self.flat)
            flat_grad.copy_(self.flat_grad)
        self._place(flat, flat_grad)

    def _place(self, flat: Tensor, flat_grad: Tensor) -> None:
        """Make the parameters slices of `flat`, and their gradients slices of `flat_grad`."""
        owners, offset = {}, 0
        for name, p in self.named_parameters():
            module, _, leaf = name.rpartition(".")
            owners[name] = (self.get_submodule(module), leaf, offset)
            p.data = flat[offset : offset + p.numel()].view(p.shape)
            p.grad = flat_grad[offset : offset + p.numel()].view(p.shape)
            offset += p.numel()
        self._flat, self._flat_grad, self._owners = flat, flat_grad, owners

    def release(self) -> None:
        """Forget the vectors, where something else has taken over the parameters; `flat` is then an error."""
        self._flat = self._flat_grad = self._owners = None

    @property
    def slices(self) -> dict[str, tuple[int, torch.Size]]:
        """Offset and shape of each parameter within `flat`."""
        slices, offset = {}, 0
        for name, p in self.named_parameters():
            slices[name] = (offset, p.shape)
            offset += p.numel()
        return slices

    @property
    def flat(self) -> Float[Tensor, " n_parameters"]:
        """All parameters, in the order of `named_parameters`: the memory that they live in, not a copy.

        Raises:
            RuntimeError: a parameter was replaced, and lives elsewhere.
        """
        if self._flat is None or self._owners is None:
            raise RuntimeError("parameters of several dtypes or devices have no flat vector; convert the whole model")
        for name, (module, leaf, offset) in self._owners.items():
            if not _lies_at(module._parameters[leaf], self._flat, offset):
                raise RuntimeError(f"{name} was replaced and is no slice of the flat vector; call model.bind()")
        return self._flat

    @property
    def flat_grad(self) -> Float[Tensor, " n_parameters"]:
        """All gradients, in the same order: the memory that backward passes add to.

        A gradient that was replaced, or set to None, is copied back (as zero) first.
        """
        self.flat  # noqa: B018 - raises when a parameter has left
        assert self._owners is not None
        assert self._flat_grad is not None
        for module, leaf, offset in self._owners.values():
            p = module._parameters[leaf]
            assert p is not None
            if not _lies_at(p.grad, self._flat_grad, offset):
                home = self._flat_grad[offset : offset + p.numel()].view(p.shape)
                with torch.no_grad():
                    home.zero_() if p.grad is None else home.copy_(p.grad)
                p.grad = home
        return self._flat_grad

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set all gradients to zero, in one operation; never to None, which would replace their memory."""
        if self._flat is None:
            super().zero_grad(set_to_none)
        else:
            self.flat_grad.zero_()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self._bind_if_replaced()
        return self

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """torch's own method; with `assign` the tensors' values and dtype are taken over, not their memory."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._bind_if_replaced()
        return result

    def _bind_if_replaced(self) -> None:
        try:
            self.flat  # noqa: B018
        except RuntimeError:
            self.bind()

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_flat", "_flat_grad", "_owners")}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Called by deepcopy as by unpickling."""
        super().__setstate__(state)
        self.bind()


def _lies_at(x: Tensor | None, flat: Tensor, offset: int) -> bool:
    return (
        x is not None
        and x.dtype == flat.dtype
        and x.untyped_storage()._cdata == flat.untyped_storage()._cdata
        and x.storage_offset() == flat.storage_offset() + offset
    )
