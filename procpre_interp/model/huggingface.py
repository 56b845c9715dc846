"""Hugging Face's GPT-2 from and to a HookedTransformer. Its names for parameters occur only here."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import EinopsError, rearrange
from safetensors.torch import save
from torch import Tensor, nn

from procpre_interp.core.messages import one_line, shown
from procpre_interp.model.checkpoint import Weights, fill_parameters
from procpre_interp.model.foreign_files import read_folder, read_tensors
from procpre_interp.model.hooked_transformer import HookedTransformer, ModelConfig
from procpre_interp.model.huggingface_config import (
    PLAIN,
    Description,
    check_description,
    read_description,
    to_huggingface_config,
)

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

NESTED_UNDER = ("model_state_dict", "state_dict", "model")
"""Where training scripts put a state dict inside a checkpoint."""

# How a parameter of a block is called and laid out in Hugging Face's GPT-2, whose Conv1D stores [in, out].
_BLOCK_NAMES = {
    "ln1.w": "ln_1.weight",
    "ln1.b": "ln_1.bias",
    "ln2.w": "ln_2.weight",
    "ln2.b": "ln_2.bias",
    "attn.b_O": "attn.c_proj.bias",
    "mlp.W_in": "mlp.c_fc.weight",
    "mlp.b_in": "mlp.c_fc.bias",
    "mlp.W_out": "mlp.c_proj.weight",
    "mlp.b_out": "mlp.c_proj.bias",
}
_OUTER_NAMES = {
    "embed.W_E": "wte.weight",
    "pos_embed.W_pos": "wpe.weight",
    "ln_final.w": "ln_f.weight",
    "ln_final.b": "ln_f.bias",
}

_HEAD = "lm_head.weight"

_BUFFERS = (".attn.bias", ".attn.masked_bias")


def _to_huggingface_weights(model: HookedTransformer) -> Weights:
    """GPT2LMHeadModel's state dict, with new memory."""
    ours = {name: p.detach() for name, p in model.named_parameters()}
    theirs = {f"transformer.{name}": ours[our_name] for our_name, name in _OUTER_NAMES.items()}
    theirs[_HEAD] = model.W_U.detach().t()
    for layer in range(model.config.n_layers):
        here, there = f"blocks.{layer}", f"transformer.h.{layer}"
        theirs |= {f"{there}.{name}": ours[f"{here}.{our_name}"] for our_name, name in _BLOCK_NAMES.items()}
        qkv = torch.stack([ours[f"{here}.attn.W_{letter}"] for letter in "QKV"])
        theirs[f"{there}.attn.c_attn.weight"] = rearrange(qkv, "qkv head d_model d_head -> d_model (qkv head d_head)")
        theirs[f"{there}.attn.c_attn.bias"] = torch.cat([ours[f"{here}.attn.b_{letter}"].flatten() for letter in "QKV"])
        theirs[f"{there}.attn.c_proj.weight"] = ours[f"{here}.attn.W_O"].flatten(0, 1)
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in theirs.items()}


def _from_huggingface_weights(theirs: Mapping[str, Tensor], config: ModelConfig) -> Weights:
    """Our parameters from a state dict in GPT2Model's names; KeyError or ValueError if it does not fit."""
    theirs = dict(theirs)
    ours = {our_name: theirs.pop(name) for our_name, name in _OUTER_NAMES.items()}
    if not config.tied:
        ours["unembed.W_U"] = theirs.pop(_HEAD).t()
    elif _HEAD in theirs and torch.equal(theirs[_HEAD], ours["embed.W_E"]):
        del theirs[_HEAD]
    heads = {"qkv": 3, "head": config.n_heads}
    for layer in range(config.n_layers):
        here, there = f"blocks.{layer}", f"h.{layer}"
        ours |= {f"{here}.{our_name}": theirs.pop(f"{there}.{name}") for our_name, name in _BLOCK_NAMES.items()}
        weight, bias = theirs.pop(f"{there}.attn.c_attn.weight"), theirs.pop(f"{there}.attn.c_attn.bias")
        weights = rearrange(weight, "d_model (qkv head d_head) -> qkv head d_model d_head", **heads)
        biases = rearrange(bias, "(qkv head d_head) -> qkv head d_head", **heads)
        for letter, W, b in zip("QKV", weights, biases):
            ours |= {f"{here}.attn.W_{letter}": W, f"{here}.attn.b_{letter}": b}
        out = theirs.pop(f"{there}.attn.c_proj.weight")
        ours[f"{here}.attn.W_O"] = rearrange(out, "(head d_head) d_model -> head d_head d_model", head=config.n_heads)
    if theirs:
        raise ValueError(f"left over are {', '.join(sorted(theirs))}")
    return ours


def to_huggingface(model: HookedTransformer) -> "GPT2LMHeadModel":
    """The same function as a GPT2LMHeadModel, in eval mode, with weights of its own and no dropout."""
    from transformers import GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):  # its initialisation draws from the global generator
        theirs = GPT2LMHeadModel(to_huggingface_config(model.config))
    theirs.load_state_dict(_to_huggingface_weights(model))
    return theirs.eval()


def save_huggingface(model: HookedTransformer, folder: Path, *, end: int | None, pad: int | None) -> None:
    """Write what `AutoModelForCausalLM.from_pretrained` opens: config.json, generation_config.json and safetensors.

    `end` is the token id that begins and ends a text, `pad` the one that fills up a batch; None where there is none.
    Everything is represented exactly: shape, tying, GELU's tanh form and LayerNorm's epsilon; neither has a bias of the
    unembedding. Text is generated greedily up to the end of the context, unless the caller says otherwise.
    """
    from transformers import GenerationConfig

    config, ids = model.config, {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    weights = _to_huggingface_weights(model)
    if config.tied:
        del weights[_HEAD]
    # Not save_file, which hides a full disk behind an error of its own.
    (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
    to_huggingface_config(config, architectures=["GPT2LMHeadModel"], dtype="float32", **ids).save_pretrained(folder)
    GenerationConfig(**ids, max_length=config.n_ctx, do_sample=False).save_pretrained(folder)


def from_huggingface(
    source: nn.Module | Mapping[str, Any] | str | Path,
    *,
    n_heads: int | None = None,
    tied: bool | None = None,
) -> HookedTransformer:
    """A GPT-2 of Hugging Face's as a HookedTransformer, in eval mode on the CPU, in float32.

    `source` is a GPT2LMHeadModel, a folder of `save_pretrained`, or a state dict: as a mapping, or in a
    .safetensors or torch file, possibly inside a training checkpoint. Of a folder only model.safetensors, or the
    shards that its index names, are read (pytorch_model.bin likewise). A state dict does not tell `n_heads`,
    so it must be given. Without `tied`, the unembedding counts as tied if the config says so, and in a bare
    state dict if it is missing or equal to the token embedding.

    Raises:
        ValueError: a file is damaged or no plain GPT-2, a folder has two sets of weights, or `n_heads` is missing.
    """
    where = str(source) if isinstance(source, (str, Path)) else type(source).__name__
    weights, described = _read_huggingface(source)
    weights = _strip(weights, where)
    for name, plain in PLAIN.items():
        if described.get(name, plain[0]) not in plain:
            raise ValueError(f"{where}: {name}={shown(described[name], 40)}, but a plain GPT-2 has {plain[0]}")
    n_heads = n_heads or described.get("n_head")
    if n_heads is None:
        raise ValueError(f"{where}: a state dict does not tell the number of heads; give n_heads")
    if tied is None:
        same = _HEAD not in weights or torch.equal(weights[_HEAD], weights["wte.weight"])
        tied = same and bool(described.get("tie_word_embeddings", True))
    try:
        n_ctx, d_model = weights["wpe.weight"].shape
        config = ModelConfig(
            n_layers=1 + max((int(layer) for layer in re.findall(r"^h\.(\d+)\.", "\n".join(weights), re.M)), default=0),
            n_heads=n_heads,
            d_model=d_model,
            n_ctx=n_ctx,
            d_vocab=weights["wte.weight"].shape[0],
            d_mlp=weights["h.0.mlp.c_fc.weight"].shape[1],
            tied=tied,
            ln_eps=described.get("layer_norm_epsilon", 1e-5),
            init_std=described.get("initializer_range", 0.02),
        )
        check_description(described, config)
        ours = _from_huggingface_weights(weights, config)
        _check_shapes(ours, config)
    except KeyError as missing:
        raise ValueError(f"{where}: not a plain GPT-2: {missing.args[0]} is missing") from None
    except (ValueError, IndexError, EinopsError) as problem:  # a config, or a tensor with other axes
        raise ValueError(f"{where}: not a plain GPT-2: {one_line(problem)}") from None
    model = HookedTransformer(config, generator=torch.Generator())
    fill_parameters(model, ours, where=where)
    return model


def _check_shapes(ours: Weights, config: ModelConfig) -> None:
    """Raises `ValueError` for tensors that do not fit together: before a model is made, which could be of any size."""
    width, hidden, heads = config.d_model, config.d_hidden, (config.n_heads, config.d_model, config.d_head)
    shapes = {
        "embed.W_E": (config.d_vocab, width),
        "unembed.W_U": (width, config.d_vocab),
        **dict.fromkeys(("W_Q", "W_K", "W_V"), heads),
        **dict.fromkeys(("b_Q", "b_K", "b_V"), (config.n_heads, config.d_head)),
        "W_O": (config.n_heads, config.d_head, width),
        "W_in": (width, hidden),
        "b_in": (hidden,),
        "W_out": (hidden, width),
        **dict.fromkeys(("w", "b", "b_O", "b_out"), (width,)),
    }
    for name, tensor in ours.items():
        expected = shapes.get(name) or shapes.get(name.rpartition(".")[2])
        if expected is not None and tuple(tensor.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, not {expected}")


def _read_huggingface(source: Any) -> tuple[Mapping[str, Any], Description]:
    """State dict and config (empty if there is none)."""
    if isinstance(source, nn.Module):
        return source.state_dict(), source.config.to_dict()  # type: ignore[union-attr]
    if isinstance(source, Mapping):
        return source, {}
    path = Path(source)
    if not path.is_dir():
        return read_tensors(path), {}
    return read_folder(path), read_description(path / "config.json")


def _strip(weights: Any, where: str) -> Weights:
    """The tensors named as in GPT2Model, whatever wraps them; causal masks are left out."""
    for key in NESTED_UNDER:
        if isinstance(weights, Mapping) and isinstance(weights.get(key), Mapping):
            weights = weights[key]
    names = [name for name in weights if name.endswith("wte.weight")] if isinstance(weights, Mapping) else []
    if len(names) != 1:
        raise ValueError(f"{where}: no GPT-2 state dict, which has one token embedding, wte.weight")
    prefix = names[0].removesuffix("wte.weight")
    stripped = {}
    for name, tensor in weights.items():
        name = _HEAD if name.endswith(_HEAD) else name.removeprefix(prefix)
        if isinstance(tensor, Tensor) and not name.endswith(_BUFFERS):
            if not tensor.is_floating_point():
                raise ValueError(f"{where}: {name} is of {tensor.dtype}, not of floating point")
            stripped[name] = tensor.float()
    return stripped
