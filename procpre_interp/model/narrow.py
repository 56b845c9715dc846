"""Causal attention for heads of few dimensions on a CPU, where the general kernels waste most of their time.

With d_head of 4 or 8 a product of a [pos, pos] pattern with [pos, d_head] values is five times slower in MKL than its
transpose, [d_head, pos] times [pos, pos]. So everything here has the head's dimensions first, forwards and backwards;
autograd would choose the slow form for the gradients, hence the hand-written backward pass. Measured at d_head 4 and
128 positions: half the time of `scaled_dot_product_attention`.
"""

from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

MAX_D_HEAD = 8
FEWEST, MOST = 32, 256
"""Positions. Shorter sequences cost more in calls than they save, and the patterns of longer ones leave the cache."""
CHUNK_BYTES = 2**20
"""Patterns computed at a time, which then stay in a core's cache."""
HALVING = 96
"""Positions from which the first half of the queries is spared the second half of the keys."""


def is_narrow(q: Float[Tensor, "batch pos head d_head"]) -> bool:
    """Whether `narrow_attention` is the faster way for these queries."""
    return (
        q.device.type == "cpu"
        and q.dtype == torch.float32
        and q.shape[3] <= MAX_D_HEAD
        and FEWEST <= q.shape[1] <= MOST
        and q.shape[0] > 0
    )


def narrow_attention(
    q: Float[Tensor, "batch pos head d_head"],
    k: Float[Tensor, "batch pos head d_head"],
    v: Float[Tensor, "batch pos head d_head"],
) -> Float[Tensor, "batch pos head d_head"]:
    """Causal softmax(q k^T / sqrt(d_head)) v. Can be differentiated once."""
    head, d_head = q.shape[2:]
    q, k, v = (rearrange(x, "batch pos head d_head -> (batch head) d_head pos") for x in (q, k, v))
    z: Tensor = _NarrowAttention.apply(q * d_head**-0.5, k, v)  # pyright: ignore[reportAssignmentType]
    return rearrange(z, "(batch head) d_head pos -> batch pos head d_head", head=head)


class _NarrowAttention(torch.autograd.Function):
    """z = v P^T with P = softmax(q^T k), in chunks of heads and blocks of queries; shapes [head, d_head, pos]."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        z = torch.empty_like(q)
        masks = {block: _causal(block, q) for block in _blocks(q.shape[2])}
        patterns = []
        for rows in _chunks(q):
            for (start, end), mask in masks.items():
                scores = torch.baddbmm(mask, q[rows, :, start:end].mT, k[rows, :, :end])
                pattern = scores.softmax(-1)
                z[rows, :, start:end] = v[rows, :, :end] @ pattern.mT
                patterns.append(pattern)
        ctx.save_for_backward(q, k, v, *patterns)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v, *patterns = ctx.saved_tensors
        remaining = iter(patterns)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for rows in _chunks(q):
            for start, end in _blocks(q.shape[2]):
                pattern, dz_block = next(remaining), dz[rows, :, start:end]
                dpattern = dz_block.mT @ v[rows, :, :end]
                dscores = torch.ops.aten._softmax_backward_data(dpattern, pattern, -1, pattern.dtype)
                dq[rows, :, start:end] = k[rows, :, :end] @ dscores.mT
                dk[rows, :, :end] += q[rows, :, start:end] @ dscores
                dv[rows, :, :end] += dz_block @ pattern
        return dq, dk, dv


def _blocks(n_pos: int) -> list[tuple[int, int]]:
    """Ranges of queries; those of a range see the keys up to its end."""
    return [(0, n_pos)] if n_pos < HALVING else [(0, n_pos // 2), (n_pos // 2, n_pos)]


def _chunks(q: Float[Tensor, "head d_head pos"]) -> list[slice]:
    """Ranges of heads (of all sequences) whose patterns take `CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // (q.element_size() * q.shape[2] ** 2))
    return [slice(start, start + size) for start in range(0, len(q), size)]


def _causal(block: tuple[int, int], like: Tensor) -> Float[Tensor, "query key"]:
    """0 where a query of the block may look, -inf after it."""
    start, end = block
    return like.new_full((end - start, end), -torch.inf).triu(start + 1)
