"""The native kernel as a training step: reads the model's flat parameters where they are, and adds to its gradient."""

import ctypes
import functools
import math
import weakref
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, ModelConfig, parameter_names
from procpre_interp.model.flops import parameter_count
from procpre_interp.train.native.build import KernelShape, KernelUnavailable, Level, build, is_built
from procpre_interp.train.native.overflow import may_overflow, overflows

WIDTHS = (16, 32, 64, 128, 256)
"""d_model that the kernel is written for. It was measured to be faster than torch at all of them; see BENCHMARKS.md."""
MOST_PARAMETERS = 2**30
"""Far beyond what it is faster at. No kernel is compiled for a shape that no memory holds."""


def why_not(config: ModelConfig, level: Level = "native") -> str | None:
    """Why the native kernel cannot train a model of this shape on this machine, in one line; None when it can."""
    if (reason := _why_not_shape(config)) is not None:
        return reason
    try:
        build(kernel_shape(config), level)
    except KernelUnavailable as problem:
        return str(problem)
    return None


def library_name(config: ModelConfig, level: Level = "native") -> str:
    """Name of the compiled kernel for this model: the hash of its sources, compiler, flags and processor's features.

    Raises `KernelUnavailable`.
    """
    return build(kernel_shape(config), level).stem


def is_compiled(config: ModelConfig, level: Level = "native") -> bool:
    """Whether `why_not` answers at once: the kernel for this shape is there, or cannot be had."""
    return _why_not_shape(config) is not None or is_built(kernel_shape(config), level)


def _why_not_shape(config: ModelConfig) -> str | None:
    if config.d_model not in WIDTHS:
        return f"d_model={config.d_model} (the native kernel is for {', '.join(map(str, WIDTHS))})"
    if config.d_hidden % 16:
        return f"d_mlp={config.d_hidden} (the native kernel is for multiples of 16)"
    if (n_parameters := parameter_count(config)) > MOST_PARAMETERS:
        return f"{n_parameters:,} parameters (the native kernel is for at most {MOST_PARAMETERS:,})"
    return None


class NativeStep:
    """Forward and backward of a small model on the CPU, fused, in float32.

    A group of sequences at a time goes through both passes, so that its activations stay near the core. A thread takes
    every `threads`-th sequence, and the threads' gradients are added in order: the bits depend on `threads` and on
    nothing else. `library` is a kernel compiled by other means, for measurements. Raises `KernelUnavailable` where
    `why_not` has a reason, and when the model has no flat float32 CPU vector.
    """

    def __init__(
        self, model: HookedTransformer, *, threads: int, level: Level = "native", library: Path | None = None
    ) -> None:
        config = model.config
        if library is None:
            if (reason := why_not(config, level)) is not None:
                raise KernelUnavailable(reason)
            library = build(kernel_shape(config), level)
        if model.flat.dtype != torch.float32 or model.flat.device.type != "cpu":
            raise KernelUnavailable(f"weights in {model.flat.dtype} on {model.flat.device}, not in float32 on the CPU")
        self.model = model
        self.library = _load(str(library))
        offsets = _offsets(model)
        self.handle = self.library.kernel_create(
            config.n_layers,
            config.n_ctx,
            config.d_vocab,
            int(config.tied),
            config.ln_eps,
            offsets,
            model.flat.numel(),
            threads,
        )
        if not self.handle:
            raise MemoryError(f"no memory for the native kernel's buffers at n_ctx={config.n_ctx}")
        weakref.finalize(self, self.library.kernel_destroy, self.handle)

    def backward(self, batch: Batch) -> float:
        """Mean loss over the batch's scored tokens, in nats; its gradient is added to `model.flat_grad`.

        The loss is NaN where activations overflow, as torch's is; the gradient has no meaning then.

        Raises:
            ValueError: a sequence is longer than n_ctx, or a token id is out of range.
        """
        batch = self._checked(batch)
        flat = self.model.flat
        loss = self.library.kernel_step(
            self.handle,
            flat.data_ptr(),
            self.model.flat_grad.data_ptr(),
            *_pointers(batch),
            1.0 / max(1, int(batch.loss_mask.sum())),
        )
        if may_overflow(flat) and bool(overflows(self.model, flat, batch)[0].any()):
            return math.nan
        return loss

    def score(
        self, batch: Batch, flat: Float[Tensor, " n_parameters"] | None = None
    ) -> tuple[Float[Tensor, " batch"], Int[Tensor, " batch"]]:
        """Summed loss in nats, and number of targets that are `hits`, of each sequence; no gradient is made.

        A sequence on which activations overflow has loss NaN, and the hits that torch finds.
        With `flat`, of these parameters instead of the model's: perturbed copies need no model of their own. Raises
        `ValueError` as `backward` does, and for parameters that are not float32 or of another number.
        """
        batch = self._checked(batch)
        flat = self.model.flat if flat is None else flat
        if flat.shape != self.model.flat.shape or flat.dtype != torch.float32:
            raise ValueError(
                f"parameters of shape {tuple(flat.shape)} in {flat.dtype}; the kernel wants "
                f"{tuple(self.model.flat.shape)} in float32"
            )
        flat = flat.detach().contiguous()
        loss = torch.empty(len(batch), dtype=torch.float64)
        correct = torch.empty(len(batch), dtype=torch.int64)
        self.library.kernel_score(self.handle, flat.data_ptr(), *_pointers(batch), loss.data_ptr(), correct.data_ptr())
        if may_overflow(flat):
            overflown, hit = overflows(self.model, flat, batch)
            loss[overflown], correct[overflown] = math.nan, hit[overflown]
        return loss, correct

    def _checked(self, batch: Batch) -> Batch:
        """The batch, contiguous. Raises `ValueError` where the kernel would read beyond the embeddings."""
        config = self.model.config
        check_ids(batch.tokens, None, config.d_vocab)
        check_ids(batch.targets, batch.loss_mask, config.d_vocab)
        length = batch.tokens.shape[1]
        if length > config.n_ctx and bool(batch.loss_mask[:, config.n_ctx :].any()):
            raise ValueError(
                f"length {length} exceeds n_ctx={config.n_ctx}; cut the sequences or build a model with more"
            )
        tokens, targets, mask = (x.contiguous() for x in (batch.tokens, batch.targets, batch.loss_mask))
        return Batch(tokens, targets, mask, batch.lengths)


def check_ids(ids: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"] | None, d_vocab: int) -> None:
    """Raise `ValueError` where an id (that `mask` marks) is no token: the kernel would read beyond the embeddings."""
    low, high = (int(x) for x in ids.aminmax()) if ids.numel() else (0, 0)
    if low >= 0 and high < d_vocab:
        return
    chosen = ids if mask is None else ids[mask]
    if chosen.numel() and (chosen.min() < 0 or chosen.max() >= d_vocab):
        raise ValueError(
            f"token ids from {int(chosen.min())} to {int(chosen.max())}; ids must be in 0..{d_vocab - 1}, "
            f"d_vocab={d_vocab}"
        )


def _pointers(batch: Batch) -> tuple[int, ...]:
    """The kernel's arguments for a batch: addresses of tokens, targets and mask, rows, and width."""
    return batch.tokens.data_ptr(), batch.targets.data_ptr(), batch.loss_mask.data_ptr(), *batch.tokens.shape


def kernel_shape(config: ModelConfig) -> KernelShape:
    """What the kernel is compiled for, for a model of this shape."""
    tokens = max(256, 1 << (config.n_ctx - 1).bit_length())  # few sizes, so that few kernels are compiled
    return KernelShape(n_heads=config.n_heads, d_model=config.d_model, d_mlp=config.d_hidden, tokens=tokens)


def _offsets(model: HookedTransformer) -> ctypes.Array[ctypes.c_int64]:
    """Where each parameter begins in the flat vector, in the order of the kernel's `Offsets`, which is the model's."""
    begin = {name: offset for name, (offset, _) in model.slices.items()}
    names = parameter_names(model.config)
    if model.config.tied:
        names = [*names, "embed.W_E"]
    return (ctypes.c_int64 * len(names))(*(begin[name] for name in names))


@functools.cache
def _load(path: str) -> ctypes.CDLL:
    """The library, with the types of its functions."""
    library = ctypes.CDLL(path)
    integer, pointer, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64
    library.kernel_create.argtypes = [*[integer] * 4, ctypes.c_float, pointer, size, integer]
    library.kernel_create.restype = pointer
    library.kernel_destroy.argtypes = [pointer]
    library.kernel_destroy.restype = None
    library.kernel_step.argtypes = [*[pointer] * 6, size, integer, ctypes.c_float]
    library.kernel_step.restype = ctypes.c_double
    library.kernel_score.argtypes = [*[pointer] * 5, size, integer, pointer, pointer]
    library.kernel_score.restype = None
    return library
