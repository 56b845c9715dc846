"""The config of Hugging Face's GPT-2, from and to a ModelConfig. Its names for fields occur only here."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import load_json
from procpre_interp.model.checkpoint import refuse_pipes
from procpre_interp.model.hooked_transformer import ModelConfig

if TYPE_CHECKING:
    from transformers import GPT2Config

_LARGEST = 2**40
"""No number of a config.json is as large."""

PLAIN = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
"""Values of Hugging Face's GPT2Config that HookedTransformer computes."""


class Description(TypedDict, total=False):
    """What is read of a config.json besides the fields of `PLAIN`."""

    n_head: int
    tie_word_embeddings: bool
    layer_norm_epsilon: float
    initializer_range: float
    n_layer: int
    n_embd: int
    n_positions: int
    vocab_size: int


_DESCRIBED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "n_head": (int, "whole number"),
    "tie_word_embeddings": (bool, "truth value"),
    "layer_norm_epsilon": ((int, float), "number"),
    "initializer_range": ((int, float), "number"),
    **dict.fromkeys(("n_layer", "n_embd", "n_positions", "vocab_size"), (int, "whole number")),
}
"""Types of the fields of a `Description`, and how to call them."""


def to_huggingface_config(config: ModelConfig, **fields: Any) -> "GPT2Config":
    from transformers import GPT2Config

    # GPT-2's own ends of text, 50256, are outside of a small vocabulary.
    fields = {"bos_token_id": None, "eos_token_id": None} | fields
    return GPT2Config(
        n_layer=config.n_layers,
        n_head=config.n_heads,
        n_embd=config.d_model,
        n_inner=config.d_hidden,
        n_positions=config.n_ctx,
        vocab_size=config.d_vocab,
        layer_norm_epsilon=config.ln_eps,
        initializer_range=config.init_std,
        tie_word_embeddings=config.tied,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **fields,
    )


def check_description(described: Description, config: ModelConfig) -> None:
    """Raises `ValueError` where the config and the weights speak of two models."""
    found = {"n_layer": config.n_layers, "n_embd": config.d_model, "n_positions": config.n_ctx}
    for name, value in {**found, "vocab_size": config.d_vocab}.items():
        if (said := described.get(name, value)) != value:
            raise ValueError(f"its config says {name}={said}, its weights {value}")


def read_description(path: Path) -> Description:
    """Hugging Face's config.json. Raises `ValueError` where it holds no fields."""
    refuse_pipes(path)
    try:
        described = load_json(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: no config.json and weights as save_pretrained writes them") from None
    except ValueError as problem:
        raise ValueError(f"{path}: not JSON ({one_line(problem)[:100]})") from None
    if not isinstance(described, dict):
        raise ValueError(f"{path}: holds no fields")
    for name, (kind, words) in _DESCRIBED.items():
        value = described.get(name)
        if name in described and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise ValueError(f"{path}: {name}={str(value)[:40]!r} is no {words}")
        if isinstance(value, (int, float)) and not abs(value) < _LARGEST:  # NaN as well
            raise ValueError(f"{path}: {name}={str(value)[:40]!r} is no number that a model can have")
    return cast(Description, described)
