"""The final residual stream when one activation is replaced, computed from where it changes onwards."""

from dataclasses import dataclass

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.patch.replay import OF_THE_QUERY, PER_HEAD, Replay


@dataclass(frozen=True, slots=True)
class Patch:
    """Some patches of one site and layer: which heads (0 where there are none), and where."""

    site: str
    layer: int
    heads: Int[Tensor, " patch"]
    t: Int[Tensor, " patch"] | None
    """Positions, or None for all at once."""


def patched_stream(replay: Replay, new: Tensor, patch: Patch) -> Float[Tensor, "patch pair d_model"]:
    """The final residual stream under each of some patches."""
    if patch.site in PER_HEAD:
        return _patched_head(replay, new, patch)
    layer, t, last = patch.layer, patch.t, patch.layer == replay.last
    if patch.site == "resid_pre":
        return replay.from_residual(layer, new[None]) if t is None else replay.from_row(layer, t, _row(new, t))
    if patch.site in ("attn_out", "mlp_out"):
        after = "resid_mid" if patch.site == "attn_out" else "resid_post"
        # resid_mid = resid_pre + attn_out and resid_post = resid_mid + mlp_out: a new term moves the sum by new - old.
        new = replay[after, layer] + new - replay[patch.site, layer]
    rows = new[None] if t is None else _row(new, t)
    if patch.site in ("resid_post", "mlp_out"):
        if last:
            return rows[:, :, 0]
        return replay.from_residual(layer + 1, rows) if t is None else replay.from_row(layer + 1, t, rows)
    return _from_middle(replay, layer, t, rows[:, :, 0] if last else rows)


def _from_middle(
    replay: Replay, layer: int, t: Int[Tensor, " patch"] | None, middle: Tensor
) -> Float[Tensor, "patch pair d_model"]:
    """Onwards from the residual stream between attention and MLP: read, at one position each, or everywhere."""
    if layer == replay.last:
        return replay.after_mlp(layer, middle)
    return replay.from_middle(layer, middle) if t is None else replay.from_middle_row(layer, t, middle)


def _patched_head(replay: Replay, new: Tensor, patch: Patch) -> Float[Tensor, "patch pair d_model"]:
    """A head's z is computed where it may change, and its difference goes through W_O into the residual stream."""
    layer, heads, last = patch.layer, patch.heads, patch.layer == replay.last
    row = None if last or patch.site not in OF_THE_QUERY else patch.t
    # resid_mid = resid_pre + sum over heads of z_h W_O^h + b_O: of the sum, one term moves.
    z = _new_z(replay, new, patch, row)
    written = einsum(
        z - _of_heads(replay["z", layer], heads, row),
        replay.block(layer).attn.W_O[heads],
        "patch pair pos d_head, patch d_head d_model -> patch pair pos d_model",
    )
    middle = replay["resid_mid", layer]
    middle = (middle[None] if row is None else _row(middle, row)[:, :, None]) + written
    return _from_middle(replay, layer, row, middle[:, :, 0] if last or row is not None else middle)


def _new_z(
    replay: Replay, new: Tensor, patch: Patch, row: Int[Tensor, " patch"] | None
) -> Float[Tensor, "patch pair query d_head"]:
    """z of each patch's head: at the position `row`, or at all positions that the replay holds of z."""
    site, layer, heads, t = patch.site, patch.layer, patch.heads, patch.t
    if site == "z":
        return _of_heads(new, heads, row)
    q, k, v = (_of_heads(replay[letter, layer], heads, row if letter == "q" else None) for letter in "qkv")
    if layer == replay.last:
        queries = replay.positions[None, :, None]
    else:
        queries = torch.arange(q.shape[2], device=q.device)[None, None] if row is None else row[:, None, None]
    # Keys that causality hides from each query.
    hidden = torch.arange(k.shape[2], device=k.device) > queries[..., None]
    if site == "pattern":
        pattern = _of_heads(rearrange(new, "pair head query key -> pair query head key"), heads, row)
        # Of another pair, read further on, it may look behind this query: that goes to the keys before, in proportion.
        seen = pattern.masked_fill(hidden, 0)
        kept = seen.sum(-1, keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
        return seen * (pattern.sum(-1, keepdim=True) / kept) @ v
    if site == "q":
        q = _of_heads(new, heads, row)
    else:
        changed = _of_heads(new, heads, None)
        if t is not None:  # one position of it
            at_t = torch.arange(changed.shape[2], device=t.device) == t[:, None]
            changed = torch.where(at_t[:, None, :, None], changed, k if site == "k" else v)
        k, v = (changed, v) if site == "k" else (k, changed)
    # z = softmax(q k^T / sqrt(d_head)) v over the keys that causality leaves: a new key or value reaches every query
    # behind it, through the softmax even those that hardly look there.
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v


def _row(x: Float[Tensor, "pair pos *rest"], t: Int[Tensor, " patch"]) -> Float[Tensor, "patch pair *rest"]:
    return x[:, t].transpose(0, 1)


def _of_heads(
    x: Float[Tensor, "pair pos head d"], heads: Int[Tensor, " patch"], t: Int[Tensor, " patch"] | None
) -> Float[Tensor, "patch pair rows d"]:
    """One head of each patch, at all positions or at one."""
    if t is None:
        return rearrange(x[:, :, heads], "pair pos patch d -> patch pair pos d")
    return rearrange(x[:, t, heads], "pair patch d -> patch pair 1 d")
