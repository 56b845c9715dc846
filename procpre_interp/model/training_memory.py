"""Memory that training takes, counted from the shape of the model: for a device, or for each of several processes."""

from dataclasses import dataclass
from typing import Literal

from procpre_interp.model.flops import parameter_count
from procpre_interp.model.hooked_transformer import ModelConfig

SINGLE = 4
"""Bytes of a float32: weights, gradients, moments, the residual stream and LayerNorm's statistics, in any precision."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingMemory:
    """Bytes by what they are for."""

    weights: int
    gradients: int
    moments: int
    decay: int
    """`FlatAdamW`'s decay of each weight; sharded weights have one for all."""
    activations: int
    """What the backward pass needs of the forward pass, at its end."""
    unembedding: int
    """A second gradient of the unembedding, with which the backward pass begins."""

    @property
    def total(self) -> int:
        """All of it. The peak of a step is higher by what single operations need, some layers' activations at most."""
        return self.weights + self.gradients + self.moments + self.decay + self.activations + self.unembedding


def training_memory(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    precision: Literal["float32", "bfloat16"] = "float32",
    recompute: bool = False,
    processes: int = 1,
) -> TrainingMemory:
    """Bytes of training with micro-batches of `rows` sequences of `length` tokens, all of them scored, per process.

    `processes` share weights, gradients and moments (FSDP2); a block's weights, which are whole while it computes, and
    its gradients, are counted whole. With DDP every process takes what one does, and as much as its gradients for what
    is sent.
    """
    held = SINGLE * parameter_count(config)
    whole = 2 * SINGLE * _widest_group(config) if processes > 1 else 0
    return TrainingMemory(
        weights=held // processes + whole // 2,
        gradients=held // processes + whole // 2,
        moments=2 * held // processes,
        decay=held if processes == 1 else 0,
        activations=activation_bytes(config, rows=rows, length=length, precision=precision, recompute=recompute),
        unembedding=SINGLE * config.d_model * config.d_vocab,
    )


def activation_bytes(
    config: ModelConfig,
    *,
    rows: int,
    length: int,
    precision: Literal["float32", "bfloat16"] = "float32",
    recompute: bool = False,
    fused: bool = True,
) -> int:
    """Bytes that the torch kernel's forward pass keeps for the backward pass, with all positions scored.

    `fused`: whether attention is fused, as on a GPU, and on a CPU in float32; otherwise it keeps its pattern. With
    `recompute` that is the residual stream before each block, and one block's activations.
    """
    d, tokens = config.d_model, rows * length
    block = _block_bytes(config, rows=rows, length=length, precision=precision, fused=fused)
    stream = SINGLE * d * tokens
    blocks = config.n_layers * stream + block - stream if recompute else config.n_layers * block
    # Token ids; the last residual stream with LayerNorm's statistics; the loss's gradients of what the unembedding
    # reads and of its weights, both made in the forward pass; and which targets are scored.
    outside = 8 * tokens + stream + 2 * SINGLE * tokens + stream + SINGLE * d * config.d_vocab + tokens
    return blocks + outside


def _block_bytes(
    config: ModelConfig, *, rows: int, length: int, precision: Literal["float32", "bfloat16"], fused: bool
) -> int:
    d, hidden, tokens = config.d_model, config.d_hidden, rows * length
    size = SINGLE if precision == "float32" else 2
    # Each LayerNorm keeps what it reads, and two numbers per token; products keep their inputs.
    per_token = 2 * (SINGLE * d + 2 * SINGLE)
    # The two normalised streams, queries, keys and values, z; the MLP before and after its non-linearity.
    per_token += size * (2 * d + 3 * d + d + 2 * hidden)
    # Fused attention keeps the logarithm of each row's sum, the other one the pattern.
    per_token += config.n_heads * (SINGLE if fused else size * length)
    # Queries', keys' and values' weights side by side; of the others a copy where the products are in bfloat16.
    copies = 3 * d * d + (0 if precision == "float32" else d * d + 2 * d * hidden)
    return per_token * tokens + size * copies


def _widest_group(config: ModelConfig) -> int:
    """Parameters of a block, or of all that is outside of blocks: whichever are more."""
    d, hidden = config.d_model, config.d_hidden
    block = 4 * (d * d + d) + 2 * d * hidden + hidden + d + 4 * d
    return max(block, parameter_count(config) - config.n_layers * block)
