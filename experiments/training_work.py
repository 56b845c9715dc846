"""The work that the benchmarks of training measure: models, batches, and the operations that they cannot do without."""

from dataclasses import dataclass
from typing import Literal

import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import ModelConfig

Key = Literal["d16", "dyck", "text64", "text128", "text256", "d64", "d256"]
USUAL = ("huggingface", "transformer_lens", "torch")
"""Variants that do every setting."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model, a batch, and how this package trains it."""

    title: str
    model: ModelConfig
    batch: Batch
    precision: Literal["float32", "bfloat16"] = "float32"
    variants: tuple[str, ...] = USUAL
    threads: int | None = None
    """CPU threads of every variant. Default: as many as asked for."""


def settings() -> dict[Key, Setting]:
    """Those that the README reports."""
    haystack, dyck = TASKS.build("haystack"), TASKS.build("dyck", k=16, length=128)
    return {
        "d16": Setting(
            title="haystack, batch 1000 x 63, 2 layers, d_model 16",
            model=ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=haystack.model_n_ctx, d_vocab=haystack.d_vocab),
            batch=haystack.batch(1000, generator=stream(0, "bench")),
            variants=(*USUAL, "native", "native x2"),
        ),
        "dyck": Setting(
            title="16-Dyck, batch 32 x 128, 2 layers, d_model 16, tied; one thread",
            model=ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=128, d_vocab=dyck.d_vocab, tied=True),
            batch=dyck.batch(32, generator=stream(0, "bench")),
            variants=(*USUAL, "native"),
            threads=1,
        ),
        "text64": text(rows=16, width=128, n_layers=2, d_model=64, d_vocab=257),
        "text128": text(rows=16, width=128, n_layers=2, d_model=128, d_vocab=4096),
        "text256": text(rows=8, width=256, n_layers=4, d_model=256, d_vocab=4096),
        "d64": Setting(
            title="every token, batch 32 x 128, 2 layers, d_model 64, vocabulary 2048",
            model=ModelConfig(n_layers=2, n_heads=4, d_model=64, n_ctx=128, d_vocab=2048),
            batch=every_token(32, 128, 2048),
        ),
        "d256": Setting(
            title="every token, batch 8 x 256, 4 layers, d_model 256, vocabulary 4096; ours bfloat16",
            model=ModelConfig(n_layers=4, n_heads=4, d_model=256, n_ctx=256, d_vocab=4096),
            batch=every_token(8, 256, 4096),
            precision="bfloat16",
        ),
    }


def text(*, rows: int, width: int, n_layers: int, d_model: int, d_vocab: int) -> Setting:
    """A small language model in float32 on one thread, every token scored."""
    return Setting(
        title=f"text, batch {rows} x {width}, {n_layers} layers, d_model {d_model}, vocabulary {d_vocab}; one thread",
        model=ModelConfig(n_layers=n_layers, n_heads=4, d_model=d_model, n_ctx=width, d_vocab=d_vocab),
        batch=every_token(rows, width, d_vocab),
        variants=("huggingface", "torch", "native"),
        threads=1,
    )


def every_token(rows: int, width: int, d_vocab: int) -> Batch:
    """Random tokens, every next one scored: for the time, what they say does not matter."""
    tokens = torch.randint(0, d_vocab, (rows, width), generator=stream(0, "bench", d_vocab))
    return Batch.from_sequences(tokens, torch.full((rows,), width), 0, pad=0)


def useful_flops(model: ModelConfig, batch: Batch) -> float:
    """Floating-point operations that a step cannot do without: two for a multiply-add, three times the forward pass.

    Counted: matrix products and attention (the causal half), over the tokens up to a sequence's last scored position;
    the last layer's queries, output and MLP, and the unembedding, at scored positions only. The backward pass has two
    products for each of the forward pass. Not counted: exponentials, normalisation, GELU, the optimiser.
    """
    t = torch.arange(1, batch.tokens.shape[1] + 1)
    n, m = (batch.loss_mask * t).amax(1), batch.loss_mask.sum(1)
    d = model.d_model
    a_query, a_key = 2 * d**2 + 2 * d * model.d_hidden, 2 * d**2  # W_Q, W_O and the MLP; W_K and W_V
    a_block = n * (a_query + a_key) + 2 * d * (n * (n + 1) // 2)
    last_block = m * a_query + n * a_key + 2 * d * (batch.loss_mask * t).sum(1)
    multiply_adds = (model.n_layers - 1) * a_block + last_block + m * d * model.d_vocab
    return 6.0 * int(multiply_adds.sum())
