"""What a model predicts when only some of its heads work, and the others are held at their mean activation."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.model.hits import hits
from procpre_interp.model.layers import at_positions
from procpre_interp.model.upstream import HookPoint

CPU_BYTES = 2**26
GPU_BYTES = 2**31
"""Bytes of activations computed at a time when `max_bytes` is None."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The sequences of a batch that have a scored position, up to their last one, and where these are."""

    tokens: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row n_read"]
    """The scored ones in order; in shorter rows the last is repeated."""
    counted: Bool[Tensor, "row n_read"]
    """False where it is."""
    targets: Int[Tensor, "row n_read"]

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> "Scored":
        """Raises `ValueError` where nothing is scored."""
        batch = batch[batch.loss_mask.any(1)].to(device)
        if not len(batch):
            raise ValueError("no position is scored; give a batch whose loss_mask is True somewhere")
        n_scored = batch.loss_mask.sum(1, keepdim=True)
        in_order = batch.loss_mask.byte().argsort(dim=1, descending=True, stable=True)
        places = torch.arange(int(n_scored.max()), device=device)
        positions = in_order.gather(1, torch.minimum(places, n_scored - 1))
        tokens = batch.tokens[:, : int(positions.max()) + 1]
        return cls(tokens, positions, places < n_scored, batch.targets.gather(1, positions))

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Int[Tensor, " chosen"]) -> "Scored":
        return Scored(self.tokens[rows], self.positions[rows], self.counted[rows], self.targets[rows])

    def at_once(self, model: HookedTransformer, max_bytes: int | None) -> int:
        """Sequences that fit, with all that a backward pass needs."""
        config = model.config
        if max_bytes is None:
            max_bytes = CPU_BYTES if self.tokens.device.type == "cpu" else GPU_BYTES
        per_position = config.n_layers * (8 * config.d_model + 4 * config.d_hidden)
        numbers = self.tokens.shape[1] * per_position + 5 * self.positions.shape[1] * config.d_vocab
        return max(1, max_bytes // (numbers * model.flat.element_size()))

    def blocks(self, model: HookedTransformer, max_bytes: int | None) -> tuple[Int[Tensor, " chosen"], ...]:
        """The rows, in parts that fit."""
        return torch.arange(len(self), device=self.tokens.device).split(self.at_once(model, max_bytes))


@torch.no_grad()
def mean_z(
    model: HookedTransformer, batch: Batch, *, max_bytes: int | None = None
) -> Float[Tensor, "layer head d_head"]:
    """Mean z of each head, over all positions of each sequence up to its last scored one.

    Raises:
        ValueError: no position is scored.
    """
    scored = Scored.of(batch, model.flat.device)
    t = torch.arange(scored.tokens.shape[1], device=scored.tokens.device)
    reaches = (t <= scored.positions[:, -1:])[..., None, None]
    total = torch.zeros_like(model.b_V, dtype=torch.float64)

    def add(layer: int, rows: Tensor) -> Callable[..., None]:
        def collect(z: Float[Tensor, "row pos head d_head"], hook: HookPoint) -> None:
            total[layer] += (z.double() * reaches[rows]).sum((0, 1))

        return collect

    for rows in scored.blocks(model, max_bytes):
        with model.hooks(fwd_hooks=[(_z_of(layer), add(layer, rows)) for layer in range(model.config.n_layers)]):
            model.final(scored.tokens[rows])
    return (total / reaches.sum()).to(model.b_V.dtype)


@torch.no_grad()
def mask_scores(
    model: HookedTransformer,
    batch: Batch,
    kept: Bool[Tensor, "mask layer head"],
    *,
    means: Float[Tensor, "layer head d_head"] | None = None,
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """Predictions with the heads of each mask alone, all others held at their `means`; one row per mask.

    Columns: mask (its index), n_kept (heads), kl_nats = KL(all heads || these heads) of next-token distributions,
    loss_nats (cross-entropy of the targets), accuracy (share of targets that are `hits`, 0 to 1), n_scored: means
    over the scored positions. `means` are by default the `mean_z` of the batch.

    Raises:
        ValueError: masks of another shape than the model's heads, or no position that is scored.
    """
    heads = (model.config.n_layers, model.config.n_heads)
    if tuple(kept.shape[1:]) != heads:
        raise ValueError(f"masks of shape {tuple(kept.shape[1:])}; give one entry per layer and head, {heads}")
    scored = Scored.of(batch, model.flat.device)
    device = scored.tokens.device
    means = mean_z(model, batch, max_bytes=max_bytes) if means is None else means.to(device)
    full, gates = full_finals(model, scored, max_bytes=max_bytes), kept.to(device, means.dtype)
    totals = torch.zeros(len(kept), 3, dtype=torch.float64, device=device)
    runs = torch.cartesian_prod(torch.arange(len(kept), device=device), torch.arange(len(scored), device=device))
    for part in runs.split(scored.at_once(model, max_bytes)):
        mask, row = part.unbind(1)
        here = scored[row]
        logits = model.unembed(gated_finals(model, here, means, gates[mask]))
        log_q = log_probabilities(logits)
        kl = kl_nats(log_probabilities(model.unembed(full[row])), log_q)
        loss = -log_q.gather(-1, here.targets[..., None])[..., 0]
        hit = hits(logits, here.targets)
        sums = [(each.double() * here.counted).sum(1) for each in (kl, loss, hit)]
        totals.index_add_(0, mask, torch.stack(sums, dim=1))
    n_scored = int(scored.counted.sum())
    kl, loss, accuracy = (totals / n_scored).cpu().unbind(1)
    table = pd.DataFrame({"mask": range(len(kept)), "n_kept": kept.sum((1, 2)).cpu().numpy()})
    return table.assign(kl_nats=kl.numpy(), loss_nats=loss.numpy(), accuracy=accuracy.numpy(), n_scored=n_scored)


@torch.no_grad()
def full_finals(
    model: HookedTransformer, scored: Scored, *, max_bytes: int | None
) -> Float[Tensor, "row n_read d_model"]:
    """What the unembedding reads at the scored positions, with all heads."""
    return torch.cat([_finals(model, scored[rows]) for rows in scored.blocks(model, max_bytes)])


def gated_finals(
    model: HookedTransformer,
    scored: Scored,
    means: Float[Tensor, "layer head d_head"],
    gates: Float[Tensor, "row layer head"],
) -> Float[Tensor, "row n_read d_model"]:
    """The same when each head's z is mean + gate (z - mean), with gates of each row: exactly z at 1, the mean at 0."""

    def gate(layer: int) -> Callable[..., Tensor]:
        weight = rearrange(gates[:, layer], "row head -> row 1 head 1").to(means.dtype)
        return lambda z, hook: torch.lerp(means[layer].expand_as(z), z, weight)

    with model.hooks(fwd_hooks=[(_z_of(layer), gate(layer)) for layer in range(model.config.n_layers)]):
        return _finals(model, scored)


def log_probabilities(logits: Float[Tensor, "row n_read d_vocab"]) -> Float[Tensor, "row n_read d_vocab"]:
    """Log of the next-token distribution, in single precision at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)


def kl_nats(
    log_p: Float[Tensor, "row n_read d_vocab"], log_q: Float[Tensor, "row n_read d_vocab"]
) -> Float[Tensor, "row n_read"]:
    """KL(p || q) of two distributions given by their logarithms, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _finals(model: HookedTransformer, scored: Scored) -> Float[Tensor, "row n_read d_model"]:
    tokens, positions = scored.tokens, scored.positions
    if 2 * positions.shape[1] < tokens.shape[1]:
        return model.final(tokens, positions)
    return at_positions(model.final(tokens), positions)  # attention is faster when nothing is left out


def _z_of(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"
