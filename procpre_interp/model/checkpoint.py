"""Weights on disk, and models of other libraries. Hugging Face's names occur only here.

A file is in safetensors format, its header holds the ModelConfig as JSON; reading one runs no code. Files of
other origin are read by torch with `weights_only=True`, which does not either.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import EinopsError, rearrange
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from procpre_interp.core.atomic_files import atomic_write
from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.core.messages import one_line
from procpre_interp.model.defaults import torch_defaults
from procpre_interp.model.hooked_transformer import HookedTransformer, ModelConfig

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import GPT2LMHeadModel

CONFIG_KEY = "model_config"
"""Entry of the header that holds the ModelConfig."""

NESTED_UNDER = ("model_state_dict", "state_dict", "model")
"""Where training scripts put a state dict inside a checkpoint."""

Weights = dict[str, Float[Tensor, "..."]]
"""Parameters by name, as in `HookedTransformer.named_parameters()`."""


def save_weights(model: HookedTransformer, path: str | Path, metadata: Mapping[str, str] | None = None) -> str:
    """Write a model's weights and config, and return the SHA-256 of the file.

    It is complete or absent, whenever the process dies.
    """
    header = {**(metadata or {}), CONFIG_KEY: json.dumps(to_dict(model.config, defaults=True))}
    weights = {name: p.detach().cpu() for name, p in model.named_parameters()}
    content = save(weights, header)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@torch_defaults()
def load_weights(path: str | Path) -> HookedTransformer:
    """The model that `save_weights` wrote, in eval mode on the CPU.

    Raises:
        ValueError: the file is damaged, or of another origin.
    """
    config = _read_config(path)
    model = HookedTransformer(config, generator=torch.Generator())
    _fill(model, read_weights(path), where=str(path))
    return model


def read_weights(path: str | Path) -> Weights:
    """The tensors of a safetensors file by name, on the CPU.

    Raises:
        ValueError: the file is damaged, or of another format.
    """
    _refuse_pipes(path)
    try:
        return load_file(path)
    except SafetensorError as problem:
        raise ValueError(f"{path}: damaged, or no safetensors file ({one_line(problem)})") from None


def read_metadata(path: str | Path) -> dict[str, str]:
    """The header's own entries: what was passed to `save_weights` as `metadata`, and the config."""
    _refuse_pipes(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as problem:
        raise ValueError(f"{path}: damaged, or no safetensors file ({one_line(problem)})") from None


def _refuse_pipes(path: str | Path) -> None:
    """Raise `ValueError` for a pipe or a device, since opening one may wait for ever. Links are followed."""
    if not (path := Path(path)).is_file() and path.exists():
        raise ValueError(f"{path}: not a regular file")


def _read_config(path: str | Path) -> ModelConfig:
    metadata = read_metadata(path)
    if CONFIG_KEY not in metadata:
        raise ValueError(f"{path}: no {CONFIG_KEY} in its header; read a file of other origin with from_huggingface")
    try:
        return from_dict(ModelConfig, json.loads(metadata[CONFIG_KEY]), where=str(path))
    except json.JSONDecodeError as problem:
        raise ValueError(f"{path}: the {CONFIG_KEY} in its header is damaged ({one_line(problem)})") from None


@torch.no_grad()
def _fill(model: HookedTransformer, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Copy `weights` into the model; they must be its parameters, neither more nor fewer."""
    parameters = dict(model.named_parameters())
    if unmatched := sorted(parameters.keys() ^ weights.keys()):
        raise ValueError(f"{where}: weights do not fit the model; missing or left over: {', '.join(unmatched)}")
    for name, parameter in parameters.items():
        if parameter.shape != weights[name].shape:
            raise ValueError(f"{where}: {name} has shape {tuple(weights[name].shape)}, not {tuple(parameter.shape)}")
        parameter.copy_(weights[name])


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
_PLAIN = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
"""Values of Hugging Face's GPT2Config that HookedTransformer computes."""
_DESCRIBED: dict[str, tuple[type | tuple[type, ...], str]] = {
    "n_head": (int, "whole number"),
    "tie_word_embeddings": (bool, "truth value"),
    "layer_norm_epsilon": ((int, float), "number"),
    "initializer_range": ((int, float), "number"),
}
"""What is read of a config.json besides these, its type, and how to call that."""
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
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    theirs_config = GPT2Config(
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
        bos_token_id=None,  # GPT-2's own, 50256, is outside of a small vocabulary
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):  # its initialisation draws from the global generator
        theirs = GPT2LMHeadModel(theirs_config)
    theirs.load_state_dict(_to_huggingface_weights(model))
    return theirs.eval()


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
    for name, plain in _PLAIN.items():
        if described.get(name, plain[0]) not in plain:
            raise ValueError(f"{where}: {name}={described[name]}, but a plain GPT-2 has {plain[0]}")
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
        ours = _from_huggingface_weights(weights, config)
    except KeyError as missing:
        raise ValueError(f"{where}: not a plain GPT-2: {missing.args[0]} is missing") from None
    except (ValueError, IndexError, EinopsError) as problem:  # a config, or a tensor with other axes
        raise ValueError(f"{where}: not a plain GPT-2: {one_line(problem)}") from None
    model = HookedTransformer(config, generator=torch.Generator())
    _fill(model, ours, where=where)
    return model


def _read_huggingface(source: Any) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """State dict and config (empty if there is none)."""
    if isinstance(source, nn.Module):
        return source.state_dict(), source.config.to_dict()  # type: ignore[union-attr]
    if isinstance(source, Mapping):
        return source, {}
    path = Path(source)
    if not path.is_dir():
        return _read_tensors(path), {}
    return _read_folder(path), _read_description(path / "config.json")


def _read_description(path: Path) -> dict[str, Any]:
    """Hugging Face's config.json. Raises `ValueError` where it holds no fields."""
    try:
        described = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{path.parent}: no config.json and weights as save_pretrained writes them") from None
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"{path}: not JSON ({one_line(problem)[:100]})") from None
    if not isinstance(described, dict):
        raise ValueError(f"{path}: holds no fields")
    for name, (kind, words) in _DESCRIBED.items():
        value = described.get(name)
        if name in described and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            raise ValueError(f"{path}: {name}={str(value)[:40]!r} is no {words}")
    return described


def _read_folder(folder: Path) -> Weights:
    """The tensors of the files that `save_pretrained` writes; other files of the folder are not read.

    Raises `ValueError` for a folder without such files or with two sets of them, and for a tensor that the shards hold
    twice, or that the index promises and no shard holds.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        whole, index = folder / name, folder / f"{name}.index.json"
        promised = _read_index(index) if index.is_file() else {}
        shards = [folder / file for file in sorted(set(promised.values()))]
        if whole.is_file() and any(shard.is_file() for shard in shards):
            raise ValueError(
                f"{folder}: {whole.name} and the shards of {index.name}; remove those that are out of date"
            )
        if whole.is_file():  # an index without any of its shards was left by an older save
            return _read_mapping(whole)
        if shards:
            return _read_shards(shards, promised)
    found = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))[:8])
    raise ValueError(
        f"{folder}: no model.safetensors, pytorch_model.bin or index of shards, as save_pretrained writes them"
        + (f"; of {found} give the file that is the model's, and n_heads" if found else "")
    )


def _read_index(path: Path) -> dict[str, str]:
    """Tensor -> file of the same folder that holds it."""
    try:
        promised = json.loads(path.read_bytes())["weight_map"]
        files = {str(name): str(file) for name, file in promised.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: damaged, no weight_map from tensors to files") from None
    if outside := [file for file in files.values() if Path(file).name != file]:
        raise ValueError(f"{path}: {outside[0][:100]!r} is no file of the same folder")
    return files


def _read_shards(shards: list[Path], promised: Mapping[str, str]) -> Weights:
    weights: Weights = {}
    for shard in shards:
        if not shard.is_file():
            raise ValueError(f"{shard.parent}: the index names {shard.name}, which is missing")
        tensors = _read_mapping(shard)
        if twice := sorted(weights.keys() & tensors.keys()):
            raise ValueError(f"{shard}: {', '.join(twice[:8])} occurs in another shard as well")
        weights |= tensors
    if missing := sorted(promised.keys() - weights.keys()):
        raise ValueError(f"{shards[0].parent}: the index promises {', '.join(missing[:8])}, which no shard holds")
    return weights


def _read_mapping(path: Path) -> Weights:
    tensors = _read_tensors(path)
    if not isinstance(tensors, Mapping):
        raise ValueError(f"{path}: holds no tensors by name")
    return dict(tensors)


def _read_tensors(path: Path) -> Any:
    """What a file holds: tensors by name in a safetensors file, tensors and plain values in one of torch's."""
    if path.suffix == ".safetensors":
        return read_weights(path)
    _refuse_pipes(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STANDING_IN):
            # About pickle protocols, when the file is something else altogether.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:
        # Damage shows as any error. torch's message would propose to unpickle, which can run the file's code.
        if found := _foreign_classes(path):
            raise ValueError(
                f"{path}: holds {found} beside tensors and plain values; only its state dict can be read, so save that "
                "alone"
            ) from None
        raise ValueError(f"{path}: damaged, or holds more than tensors and plain values") from None


def _foreign_classes(path: Path) -> str:
    """Names of what a torch file wants to make besides tensors, plain values and numbers; empty where none is found."""
    try:
        with torch.serialization.safe_globals(_STANDING_IN):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # no torch file, or one that is damaged
        return ""
    return ", ".join(sorted(names))[:100]


class _NumberType:
    """Stands in for numpy.dtype in a checkpoint: the type of a plain number, and of nothing else.

    numpy's own would take flags from the file that its C code trusts.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[biuf][1248]", code):
            raise ValueError(f"numpy.dtype({code!r}) is no plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _number(kind: _NumberType, content: bytes) -> float | int | bool:
    """A numpy scalar in a checkpoint, as Python's own."""
    return np.frombuffer(content, kind.dtype, count=1)[0].item()


_STANDING_IN: list[Any] = [
    (_NumberType, "numpy.dtype"),
    (_number, "numpy._core.multiarray.scalar"),
    (_number, "numpy.core.multiarray.scalar"),  # numpy 1's name
]
"""What training scripts store besides weights, such as an accuracy that is a numpy mean. No code of the file runs."""


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
            stripped[name] = tensor.float()
    return stripped


def to_bridge(model: HookedTransformer) -> "TransformerBridge":
    """The same function as TransformerLens's TransformerBridge, in eval mode, with weights of its own."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.conversion_utils import convert_tl_checkpoint
    from transformer_lens.model_bridge.sources import boot_native

    config = model.config
    bridge_config = TransformerBridgeConfig(
        d_model=config.d_model,
        d_head=config.d_head,
        n_layers=config.n_layers,
        n_ctx=config.n_ctx,
        n_heads=config.n_heads,
        d_mlp=config.d_hidden,
        d_vocab=config.d_vocab,
        eps=config.ln_eps,
        act_fn="gelu_new",
        normalization_type="LN",
        device="cpu",
        seed=0,  # it then leaves the global generator alone; all weights are replaced
    )
    bridge = boot_native(bridge_config)
    ours = {name: p.detach().clone() for name, p in model.named_parameters()}
    ours["unembed.W_U"] = model.W_U.detach().clone()
    ours["unembed.b_U"] = model.b_U
    bridge.load_state_dict(convert_tl_checkpoint(ours, bridge_config), strict=True)
    return bridge.eval()
