"""A small GPT-2 that trains fast and has the names and hook points of TransformerLens."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from procpre_interp.core.html import fields_html, table_html
from procpre_interp.core.seeding import stream
from procpre_interp.model.defaults import torch_defaults
from procpre_interp.model.flat import FlatParameters
from procpre_interp.model.hook_points import HookPoint, listens, observed
from procpre_interp.model.layers import Block, Embed, FreeUnembed, LayerNorm, LensConfig, PosEmbed, TiedUnembed
from procpre_interp.model.lens import LensInterface

NORMAL_BLOCK = 16
"""torch's CPU generator makes normal numbers in blocks of this many, the last, partial one differently."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of a GPT-2. There is no dropout."""

    n_layers: int
    """Blocks, at least 1."""
    n_heads: int
    """Attention heads per layer; divides d_model."""
    d_model: int
    """Width of the residual stream."""
    n_ctx: int
    """Positions: the longest sequence."""
    d_vocab: int
    """Token ids, special ones included."""
    d_mlp: int | None = None
    """Width of the MLP's hidden layer; 4 d_model when None. `d_hidden` is the number in both cases."""
    tied: bool = False
    """Whether the unembedding is the transposed token embedding (Hugging Face's default)."""
    ln_eps: float = 1e-5
    """Added to the variance in LayerNorm."""
    init_std: float = 0.02
    """Standard deviation of fresh weights; residual projections have it divided by sqrt(2 n_layers)."""

    def __post_init__(self) -> None:
        for name in ("n_layers", "n_heads", "d_model", "n_ctx", "d_vocab", "d_mlp"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}; {name} must be at least 1")
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model={self.d_model} is no multiple of n_heads={self.n_heads}; heads have equal shares "
                f"of it, so choose d_model={self.n_heads * max(1, round(self.d_model / self.n_heads))}, say"
            )
        for name in ("ln_eps", "init_std"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be above 0, and finite")
        if self.d_mlp == 4 * self.d_model:  # the default spelt out is the same model, with the same hash
            object.__setattr__(self, "d_mlp", None)

    @property
    def d_head(self) -> int:
        """Dimensions of one head."""
        return self.d_model // self.n_heads

    @property
    def d_hidden(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.d_mlp or 4 * self.d_model


class HookedTransformer(FlatParameters, LensInterface):
    """GPT-2: learned positions, LayerNorm before attention and MLP, GELU, no dropout.

    Parameters and hook points are those of TransformerLens's class of this name; `run_with_cache`,
    `transformer_lens.patching`, `ActivationCache` and the analysis tools work on it. Unlike there, an edit at
    any hook changes what every later reader sees, and is safe in place. Where observing costs memory a switch
    must be on, as there: `set_use_attn_result` for `attn.hook_result`, `set_use_split_qkv_input`
    for `attn.hook_q_input` (and k, v), `set_use_attn_in` for `attn.hook_attn_in`. A hook by name at a point
    that is off is a ValueError.

    Threads may share a model: those that hook it take turns, and a run meets no other thread's hooks (see `hooks`).

    A new model is in eval mode: nothing in it differs between the modes, and upstream's tools ask for it.
    """

    recompute = False
    """Whether the backward pass computes the activations inside of each block once more, in place of keeping them:
    gradient checkpointing. Numbers are the same; hooks run twice."""

    @torch_defaults()
    def __init__(self, config: ModelConfig, *, generator: torch.Generator) -> None:
        """A fresh model in float32 on the CPU; `generator` draws its matrices in the order of `named_parameters`."""
        super().__init__()
        self.config = config
        self.cfg = LensConfig(
            n_layers=config.n_layers,
            n_heads=config.n_heads,
            d_model=config.d_model,
            d_head=config.d_head,
            d_mlp=config.d_hidden,
            n_ctx=config.n_ctx,
            d_vocab=config.d_vocab,
            eps=config.ln_eps,
            device="cpu",
        )
        self.embed = Embed(self.cfg)
        self.hook_embed = HookPoint()
        self.pos_embed = PosEmbed(self.cfg)
        self.hook_pos_embed = HookPoint()
        self.blocks = nn.ModuleList(Block(self.cfg) for _ in range(config.n_layers))
        self.ln_final = LayerNorm(self.cfg)
        self.unembed = TiedUnembed(self.embed.W_E) if config.tied else FreeUnembed(self.cfg)
        self._initialise(lambda name: generator)
        self.bind()
        self.setup()
        self.eval()

    @classmethod
    @torch_defaults()
    def from_seed(cls, config: ModelConfig, seed: int, *labels: str | int) -> "HookedTransformer":
        """A fresh model whose tensors come from streams of their own, `stream(seed, *labels, "init", name)`.

        So two models of one seed agree tensor by tensor wherever shapes agree, tied or not, and a smaller
        n_ctx or d_vocab has the first rows of the larger (of W_U the first columns).
        """
        model = cls(config, generator=torch.Generator())
        model._initialise(lambda name: stream(seed, *labels, "init", name))
        return model

    def compile_blocks(self) -> None:
        """Have torch.compile make one function of each block, for forward passes that are differentiated.

        Compiled blocks call no hooks; a forward pass without gradients is as before.
        """
        for layer in range(self.config.n_layers):
            self.block(layer).compiled = torch.compile(self.block(layer).compute)

    def block(self, layer: int) -> Block:
        """A layer, typed."""
        return cast(Block, self.blocks[layer])

    def _repr_html_(self) -> str:
        """Shape and parameters of each component, as a notebook shows them. (`repr` lists the modules.)"""
        config = self.config
        shape = {"layers": config.n_layers, "heads per layer": config.n_heads, "width": config.d_model}
        shape |= {"width of a head": config.d_head, "width of an MLP": config.d_hidden, "positions": config.n_ctx}
        shape |= {"token ids": config.d_vocab, "tied": str(config.tied), "device": str(self.W_E.device)}
        counts: dict[str, int] = {}
        for name, parameter in self.named_parameters():
            parts = name.split(".")
            component = parts[2] if parts[0] == "blocks" else parts[0]
            counts[component] = counts.get(component, 0) + parameter.numel()
        counts["all"] = sum(counts.values())
        return fields_html("HookedTransformer", shape) + table_html(["component", "parameters"], counts.items())

    def bind(self) -> None:
        """Binds like `FlatParameters.bind`, and ties again what is tied, since replacing parameters makes two of
        one."""
        if isinstance(self.unembed, TiedUnembed):
            self.unembed.W_E = self.embed.W_E
        super().bind()
        self.cfg.device, self.cfg.dtype = str(self.W_E.device), self.W_E.dtype

    @torch.no_grad()
    def _initialise(self, generator_of: Callable[[str], torch.Generator]) -> None:
        """GPT-2's initialisation: normal matrices, zero biases, LayerNorms the identity."""
        for name, p in self.named_parameters():
            leaf = name.rpartition(".")[2]
            if leaf.startswith("W_"):
                residual = leaf in ("W_O", "W_out")
                std = self.config.init_std / (math.sqrt(2 * self.config.n_layers) if residual else 1.0)
                p.copy_(std * _normal(p.shape, token_last=leaf == "W_U", generator=generator_of(name)))
            else:
                p.fill_(1.0 if leaf == "w" else 0.0)

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"],
        positions: Int[Tensor, "batch n_read"] | None = None,
        *,
        return_type: Literal["logits", "loss", "both"] | None = "logits",
    ) -> Float[Tensor, "..."] | tuple[Float[Tensor, "batch pos d_vocab"], Float[Tensor, ""]] | None:
        """Logits [batch, pos, d_vocab], or [batch, n_read, d_vocab] at `positions` of each sequence.

        With `positions` (pad a row by repeating its last entry) the last block's queries, attention output
        and MLP, `ln_final` and the unembedding are computed only there; the logits are the same. The hooks of
        these then see n_read positions; `hook_resid_pre`, `ln1`, keys and values of the last block keep all.

        `return_type="loss"` is the mean next-token cross-entropy in nats.

        Raises:
            ValueError: a sequence is longer than n_ctx, or a token id or position is out of range.
        """
        final = self.final(tokens, positions)
        if return_type is None:
            return None
        logits = self.unembed(final)
        if return_type == "logits":
            return logits
        if positions is not None or return_type not in ("loss", "both"):
            raise ValueError(
                f"return_type={return_type!r} {'with' if positions is not None else 'without'} positions; "
                "choose 'logits' or None, or (without positions) 'loss' or 'both'"
            )
        precise = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(precise.flatten(0, 1), tokens[:, 1:].flatten().long())
        return loss if return_type == "loss" else (logits, loss)

    def final(
        self, tokens: Int[Tensor, "batch pos"], positions: Int[Tensor, "batch n_read"] | None = None
    ) -> Float[Tensor, "batch n_read d_model"]:
        """What the unembedding reads: the residual stream after the last block, normalised by `ln_final`.

        For a loss that never makes all logits. Arguments and errors are those of `forward`.
        """
        self._check(tokens, positions)
        last = len(self.blocks) - 1
        resid = self._embed(tokens)
        for layer, block in enumerate(self.blocks):
            where = positions if layer == last else None
            if self.recompute and torch.is_grad_enabled():
                resid = checkpoint(block, resid, where, use_reentrant=False)
            else:
                resid = block(resid, where)
        return self.ln_final(resid)

    @torch.no_grad()
    def generate(
        self,
        tokens: Int[Tensor, "batch pos"],
        n: int,
        *,
        temperature: float | int | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch longer"]:
        """The sequences, each with the `n` tokens that the model goes on with.

        Without `temperature` each is the likeliest one (of equal ones the lowest id); with it, it is drawn by
        `generator` (on the CPU) from softmax(logits / temperature). All sequences are of one length, without padding.

        Raises:
            ValueError: there is no place for so many tokens, or `temperature` comes without `generator` or is not
                positive.
        """
        length, n_ctx = tokens.shape[-1], self.config.n_ctx
        if n < 0 or length == 0 or length + n > n_ctx:
            raise ValueError(f"n={n} tokens after {length}; there must be a first one, and n_ctx={n_ctx} has no more")
        if temperature is not None and (generator is None or not temperature > 0):
            raise ValueError(f"temperature={temperature}; it must be positive, and comes with a generator")
        for _ in range(n):
            last = tokens.new_full((len(tokens), 1), tokens.shape[1] - 1)
            logits = self(tokens, positions=last)[:, 0].float()
            if temperature is None:
                chosen = logits.argmax(1, keepdim=True)
            else:
                chosen = torch.multinomial((logits / temperature).softmax(1).cpu(), 1, generator=generator)
            tokens = torch.cat([tokens, chosen.to(tokens)], 1)
        return tokens

    def _check(self, tokens: Tensor, positions: Tensor | None) -> None:
        n_ctx = self.config.n_ctx
        if tokens.ndim != 2:
            raise ValueError(f"tokens of shape {tuple(tokens.shape)}; give [batch, pos], see `to_tokens`")
        length = tokens.shape[1]
        if length > n_ctx:
            raise ValueError(f"length {length} exceeds n_ctx={n_ctx}; cut the sequences or build a model with more")
        if positions is not None and positions.device.type == "cpu" and positions.numel():
            low, high = (int(x) for x in positions.aminmax())
            if low < 0 or high >= length:
                raise ValueError(f"positions from {low} to {high}; positions must be in 0..{length - 1}")

    def _embed(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        try:
            embed = self.embed(tokens)
        except IndexError:
            low, high = (int(x) for x in tokens.aminmax())
            limit = self.config.d_vocab
            raise ValueError(
                f"token ids from {low} to {high}; ids must be in 0..{limit - 1}, d_vocab={limit}"
            ) from None
        pos_embed = self.pos_embed(tokens)
        if listens(self.hook_pos_embed):
            pos_embed = observed(self.hook_pos_embed, repeat(pos_embed, "pos d -> batch pos d", batch=len(tokens)))
        return observed(self.hook_embed, embed) + pos_embed


def _normal(shape: torch.Size, *, token_last: bool, generator: torch.Generator) -> Float[Tensor, "..."]:
    """Standard normal numbers, drawn row by row in whole blocks: fewer rows are then a prefix of more.

    W_U has tokens last; its columns are what is drawn as rows.
    """
    size = math.prod(shape)
    drawn = torch.randn(NORMAL_BLOCK * math.ceil(size / NORMAL_BLOCK), generator=generator)[:size]
    return drawn.view(shape[::-1]).t() if token_last else drawn.view(shape)
