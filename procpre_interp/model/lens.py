"""What the tools of TransformerLens ask of a model, apart from running it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from procpre_interp.core.messages import unknown_name
from procpre_interp.model.hook_points import HookLock, HookPoint
from procpre_interp.model.layers import Embed, LayerNorm, LensConfig, PosEmbed, Unembed
from procpre_interp.model.upstream import HookedRootModule

if TYPE_CHECKING:
    from transformer_lens import ActivationCache, FactoredMatrix

SWITCHES = {
    "hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_attn_in": "use_attn_in",
}
"""Hook points whose activation is made only when asked for, and the flag of `model.cfg` that asks."""


def _over_layers(part: str, name: str) -> property:
    def stacked(self: "LensInterface") -> Float[Tensor, "n_layers *shape"]:
        return torch.stack([getattr(getattr(block, part), name) for block in self.blocks])

    return property(stacked, doc=f"`{part}.{name}` of every layer, stacked.")


class LensInterface(HookedRootModule):
    """The protocol of its models: stacked weights, switches of costly hooks, caches, directions, biases."""

    cfg: LensConfig
    embed: Embed
    pos_embed: PosEmbed
    blocks: nn.ModuleList
    ln_final: LayerNorm
    unembed: Unembed

    W_Q = _over_layers("attn", "W_Q")
    W_K = _over_layers("attn", "W_K")
    W_V = _over_layers("attn", "W_V")
    W_O = _over_layers("attn", "W_O")
    b_Q = _over_layers("attn", "b_Q")
    b_K = _over_layers("attn", "b_K")
    b_V = _over_layers("attn", "b_V")
    b_O = _over_layers("attn", "b_O")
    W_in = _over_layers("mlp", "W_in")
    b_in = _over_layers("mlp", "b_in")
    W_out = _over_layers("mlp", "W_out")
    b_out = _over_layers("mlp", "b_out")

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        return self.pos_embed.W_pos

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return self.unembed.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return self.unembed.b_U

    @property
    def QK(self) -> "FactoredMatrix":
        """W_Q W_K^T of every layer and head: what attends to what."""
        from transformer_lens import FactoredMatrix

        return FactoredMatrix(self.W_Q, self.W_K.transpose(-2, -1))

    @property
    def OV(self) -> "FactoredMatrix":
        """W_V W_O of every layer and head: what a head moves."""
        from transformer_lens import FactoredMatrix

        return FactoredMatrix(self.W_V, self.W_O)

    def setup(self) -> None:
        """Upstream's method; the hook points also get the lock of the model."""
        super().setup()
        self._hook_lock = HookLock()
        for point in self.hook_points():
            assert isinstance(point, HookPoint)
            point.lock = self._hook_lock

    @contextmanager
    def hooks(self, *args: Any, **kwargs: Any) -> Iterator["LensInterface"]:
        """Upstream's method, safe where threads share the model: hooks belong to the thread that opens the context.

        Another thread that opens one, or whose run comes to a point with these hooks, waits until the context ends. So
        what is inside must not wait for another thread that runs the model.
        """
        with self._hook_lock, super().hooks(*args, **kwargs):
            yield self

    def run_with_cache(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *args: Any, return_cache_object: bool = True, remove_batch_dim: bool = False, **kwargs: Any
    ) -> tuple[Any, "ActivationCache | dict[str, Tensor]"]:
        """The output, and the activations: an `ActivationCache`, or a dict if not `return_cache_object`."""
        output, cache = super().run_with_cache(*args, remove_batch_dim=remove_batch_dim, **kwargs)
        if return_cache_object:
            from transformer_lens import ActivationCache

            return output, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim)
        return output, cache

    def get_caching_hooks(self, names_filter: Any = None, *args: Any, **kwargs: Any) -> tuple[dict, list, list]:
        """Upstream's method, except that a filter that names no point outright passes over those that are off."""
        if names_filter is not None and not callable(names_filter):
            return super().get_caching_hooks(names_filter, *args, **kwargs)

        def wanted(name: str) -> bool:
            return self._off(name) is None and (names_filter is None or bool(names_filter(name)))

        return super().get_caching_hooks(wanted, *args, **kwargs)

    def _enable_hook_with_name(self, name: str, hook: Callable, dir: Literal["fwd", "bwd"]) -> None:
        self._refuse(name)
        super()._enable_hook_with_name(name, hook, dir)

    def add_hook(self, name: str | Callable[[str], bool], hook: Callable, *args: Any, **kwargs: Any) -> None:
        if isinstance(name, str):
            self._refuse(name)
        with self._hook_lock:
            super().add_hook(name, hook, *args, **kwargs)

    def reset_hooks(self, *args: Any, **kwargs: Any) -> None:
        with self._hook_lock:
            super().reset_hooks(*args, **kwargs)

    def _refuse(self, name: str) -> None:
        if name not in self.hook_dict:
            raise unknown_name("hook point", name, list(self.hook_dict))
        if switch := self._off(name):
            raise ValueError(f"{name} is off and would never be called; switch it on with model.set_{switch}(True)")

    def _off(self, name: str) -> str | None:
        """The switch that keeps a hook point from being called, if any."""
        switch = SWITCHES.get(name.rpartition(".")[2])
        return switch if switch and not getattr(self.cfg, switch) else None

    def set_use_attn_result(self, use_attn_result: bool) -> None:
        """Whether `attn.hook_result`, each head's own addition to the residual stream, is called."""
        self.cfg.use_attn_result = use_attn_result

    def set_use_split_qkv_input(self, use_split_qkv_input: bool) -> None:
        """Whether each head has three residual streams of its own, for q, k and v, with a hook on each."""
        self._set_fork("use_split_qkv_input", use_split_qkv_input, other="use_attn_in")

    def set_use_attn_in(self, use_attn_in: bool) -> None:
        """Whether each head has a residual stream of its own, with a hook on it."""
        self._set_fork("use_attn_in", use_attn_in, other="use_split_qkv_input")

    def set_use_hook_mlp_in(self, use_hook_mlp_in: bool) -> None:
        """A switch that upstream's tools set: `hook_mlp_in` costs nothing here and is always called."""
        self.cfg.use_hook_mlp_in = use_hook_mlp_in

    def _set_fork(self, switch: str, on: bool, *, other: str) -> None:
        if on and getattr(self.cfg, other):
            raise ValueError(f"{switch} and {other} exclude each other; call model.set_{other}(False) first")
        setattr(self.cfg, switch, on)

    def to_tokens(self, input: Int[Tensor, "*batch pos"] | list | str, **ignored: Any) -> Int[Tensor, "batch pos"]:
        """Token ids as a batch on the model's device. There is no tokenizer here: text is a ValueError."""
        if isinstance(input, str) or (isinstance(input, list) and any(isinstance(item, str) for item in input)):
            raise ValueError("the model has no tokenizer; give token ids")
        tokens = torch.as_tensor(input, device=self.W_E.device)
        return tokens if tokens.ndim == 2 else tokens.unsqueeze(0)

    def tokens_to_residual_directions(self, tokens: Int[Tensor, "*shape"] | int) -> Float[Tensor, "*shape d_model"]:
        """Columns of W_U: the directions after `ln_final` that raise these tokens' logits."""
        return rearrange(self.W_U[:, tokens], "d_model ... -> ... d_model")

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """Sum of the output biases in the residual stream before `layer` (before its MLP if `mlp_input`)."""
        total = self.b_O[: layer + mlp_input].sum(0)
        return total + self.b_out[:layer].sum(0) if include_mlp_biases else total
