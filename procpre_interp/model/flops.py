"""Compute of training, and size, counted from the shape of the model."""

from procpre_interp.model.hooked_transformer import ModelConfig


def parameter_count(config: ModelConfig) -> int:
    """Number of parameters: embeddings, positions and (unless tied) unembedding, blocks, and the last LayerNorm."""
    d, hidden = config.d_model, config.d_hidden
    of_block = 4 * (d * d + d) + 2 * d * hidden + hidden + d + 4 * d
    n_embeddings = 1 if config.tied else 2
    return (n_embeddings * config.d_vocab + config.n_ctx) * d + config.n_layers * of_block + 2 * d


def forward_flops(config: ModelConfig, length: int) -> int:
    """Floating-point operations of the forward pass a token, in sequences of this many tokens.

    Two (a product and a sum) for each weight of a matrix that a token meets, and for attention 2 x 2 d_model a token
    attended to: scores, and the weighed sum of values. As is usual, all positions of the sequence are counted, though
    half of them are masked, and LayerNorms, biases, softmax and activation are not. Embeddings are looked up; the
    unembedding is a product. Source: Chowdhery and others 2022, appendix B.
    """
    d = config.d_model
    of_block = 2 * (4 * d * d + 2 * d * config.d_hidden) + 4 * d * length
    return config.n_layers * of_block + 2 * d * config.d_vocab


def training_flops(config: ModelConfig, length: int, tokens: int) -> int:
    """Floating-point operations of training on so many tokens: the backward pass takes twice the forward one.

    Evaluations are not counted, nor what is computed twice to save memory.
    """
    return 3 * forward_flops(config, length) * tokens
