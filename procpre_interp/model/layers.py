"""The modules of a GPT-2 block, with the hook points of TransformerLens.

Every activation passes `observed`, which calls its hook point only when somebody listens there. Where
observing costs speed (attention pattern, LayerNorm statistics, one result a head) a module has two paths: a
fused one, and one that makes the activation; both compute the same function.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor, nn

from procpre_interp.model.hook_points import HookPoint, listens, observed
from procpre_interp.model.narrow import is_narrow, narrow_attention
from procpre_interp.model.upstream import TransformerLensConfig


@dataclass
class LensConfig(TransformerLensConfig):
    """The config that TransformerLens's tools read, with all the switches that they set."""

    default_prepend_bos: bool = False
    act_fn: str = "gelu_new"
    use_attn_in: bool = False
    use_hook_mlp_in: bool = False


def at_positions(
    x: Float[Tensor, "batch pos *rest"], positions: Int[Tensor, "batch n_read"]
) -> Float[Tensor, "batch n_read *rest"]:
    """Row `positions[b, i]` of sequence b; `index_select` has a faster backward than `x[b, positions]`."""
    batch, length = x.shape[:2]
    rows = positions + length * torch.arange(batch, device=positions.device).unsqueeze(1)
    return x.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, positions.shape)


class LayerNorm(nn.Module):
    """LayerNorm over the last axis. As in TransformerLens 4, `hook_normalized` sees it before w and b."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        self.eps = cfg.eps
        self.w = nn.Parameter(torch.empty(cfg.d_model))
        self.b = nn.Parameter(torch.empty(cfg.d_model))
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "... d_model"]) -> Float[Tensor, "... d_model"]:
        if not listens(self.hook_scale, self.hook_normalized):
            return F.layer_norm(x, self.w.shape, self.w, self.b, self.eps)
        centred = x.to(torch.promote_types(x.dtype, torch.float32))
        centred = centred - centred.mean(-1, keepdim=True)
        scale = observed(self.hook_scale, (centred.square().mean(-1, keepdim=True) + self.eps).sqrt())
        return observed(self.hook_normalized, centred / scale).to(x.dtype) * self.w + self.b


class Attention(nn.Module):
    """Causal self-attention, weights heads first."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        self.cfg = cfg
        heads, width, d_head = cfg.n_heads, cfg.d_model, cfg.d_head
        self.W_Q = nn.Parameter(torch.empty(heads, width, d_head))
        self.W_K = nn.Parameter(torch.empty(heads, width, d_head))
        self.W_V = nn.Parameter(torch.empty(heads, width, d_head))
        self.W_O = nn.Parameter(torch.empty(heads, d_head, width))
        self.b_Q = nn.Parameter(torch.empty(heads, d_head))
        self.b_K = nn.Parameter(torch.empty(heads, d_head))
        self.b_V = nn.Parameter(torch.empty(heads, d_head))
        self.b_O = nn.Parameter(torch.empty(width))
        # Copies of the residual stream, one per head, before ln1: where TransformerLens 4.3 looks for them.
        self.hook_q_input = HookPoint()
        self.hook_k_input = HookPoint()
        self.hook_v_input = HookPoint()
        self.hook_attn_in = HookPoint()
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        self.hook_result = HookPoint()

    def forward(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        ln1: LayerNorm,
        positions: Int[Tensor, "batch n_read"] | None = None,
    ) -> Float[Tensor, "batch n_read d_model"]:
        """What attention adds to the residual stream: at every position, or only at `positions`."""
        q, k, v = self._queries_keys_values(resid, ln1, positions)
        q, k, v = observed(self.hook_q, q), observed(self.hook_k, k), observed(self.hook_v, v)
        z = observed(self.hook_z, self._attend(q, k, v, positions))
        if self.cfg.use_attn_result and listens(self.hook_result):
            result = einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model")
            return observed(self.hook_result, result).sum(2) + self.b_O
        return F.linear(z.flatten(2), self.W_O.flatten(0, 1).t(), self.b_O)

    def _queries_keys_values(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        ln1: LayerNorm,
        positions: Int[Tensor, "batch n_read"] | None,
    ) -> tuple[
        Float[Tensor, "batch n_read head d_head"],
        Float[Tensor, "batch pos head d_head"],
        Float[Tensor, "batch pos head d_head"],
    ]:
        cfg = self.cfg
        if not (cfg.use_attn_in or cfg.use_split_qkv_input):
            normalised = ln1(resid)
            if positions is None:
                q, k, v = self._project(normalised, "QKV")
            else:
                (q,) = self._project(at_positions(normalised, positions), "Q")
                k, v = self._project(normalised, "KV")
            return q, k, v
        copies = repeat(resid, "batch pos d_model -> batch pos head d_model", head=cfg.n_heads)
        if not cfg.use_split_qkv_input:
            copies = observed(self.hook_attn_in, copies)
        to_query = copies if positions is None else at_positions(copies, positions)
        inputs = [to_query, copies, copies]
        if cfg.use_split_qkv_input:
            points = (self.hook_q_input, self.hook_k_input, self.hook_v_input)
            inputs = [observed(point, x) for point, x in zip(points, inputs)]
        shapes = "batch pos head d_model, head d_model d_head -> batch pos head d_head"
        q, k, v = (
            einsum(ln1(x), weight, shapes) + bias
            for x, weight, bias in zip(inputs, (self.W_Q, self.W_K, self.W_V), (self.b_Q, self.b_K, self.b_V))
        )
        return q, k, v

    def _project(
        self, x: Float[Tensor, "batch pos d_model"], letters: str
    ) -> tuple[Float[Tensor, "batch pos head d_head"], ...]:
        """Projections of one input, as one matrix product: several narrow ones are slower."""
        weights = torch.cat([getattr(self, f"W_{letter}") for letter in letters])
        biases = torch.cat([getattr(self, f"b_{letter}") for letter in letters])
        together = F.linear(x, rearrange(weights, "head d_model d_head -> (head d_head) d_model"), biases.flatten())
        return together.unflatten(-1, (len(letters), *self.b_Q.shape)).unbind(2)

    def _attend(
        self,
        q: Float[Tensor, "batch n_read head d_head"],
        k: Float[Tensor, "batch pos head d_head"],
        v: Float[Tensor, "batch pos head d_head"],
        positions: Int[Tensor, "batch n_read"] | None,
    ) -> Float[Tensor, "batch n_read head d_head"]:
        # On a CPU the fused kernel is 2 to 4 times slower in bfloat16 than two matrix products and a softmax.
        slow = q.dtype == torch.bfloat16 and q.device.type == "cpu"
        explicit = slow or listens(self.hook_attn_scores, self.hook_pattern)
        hidden = None  # what causality hides
        if explicit or positions is not None:
            queries = torch.arange(q.shape[1], device=q.device)[None] if positions is None else positions
            hidden = (torch.arange(k.shape[1], device=k.device) > queries[:, :, None]).unsqueeze(1)
        elif is_narrow(q):
            return narrow_attention(q, k, v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if hidden is None:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif not explicit:
            z = F.scaled_dot_product_attention(q, k, v, attn_mask=~hidden)
        else:
            # Adding -inf is masked_fill without a second pass over the scores in the backward pass.
            causal = q.new_zeros(hidden.shape).masked_fill(hidden, -torch.inf)
            scores = q * q.shape[-1] ** -0.5 @ k.mT + causal
            pattern = observed(self.hook_pattern, observed(self.hook_attn_scores, scores).softmax(-1))
            z = pattern @ v
        return z.transpose(1, 2)


class MLP(nn.Module):
    """Two linear layers around GPT-2's GELU (its tanh approximation)."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        assert cfg.d_mlp is not None
        self.W_in = nn.Parameter(torch.empty(cfg.d_model, cfg.d_mlp))
        self.b_in = nn.Parameter(torch.empty(cfg.d_mlp))
        self.W_out = nn.Parameter(torch.empty(cfg.d_mlp, cfg.d_model))
        self.b_out = nn.Parameter(torch.empty(cfg.d_model))
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        pre = observed(self.hook_pre, F.linear(x, self.W_in.t(), self.b_in))
        post = observed(self.hook_post, F.gelu(pre, approximate="tanh"))
        return F.linear(post, self.W_out.t(), self.b_out)


class Block(nn.Module):
    """One layer: attention, then MLP; each reads the residual stream through a LayerNorm and adds to it."""

    compiled: Callable[..., Tensor] | None = None
    """`compute` as torch.compile makes it, for training; it calls no hooks."""
    hook_out_is_single_residual_stream = True
    """Tells the logit lens of TransformerLens that `ln_final` reads `hook_resid_post`."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        self.ln1 = LayerNorm(cfg)
        self.attn = Attention(cfg)
        self.ln2 = LayerNorm(cfg)
        self.mlp = MLP(cfg)
        self.hook_resid_pre = HookPoint()
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.hook_mlp_in = HookPoint()
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    def forward(
        self,
        resid: Float[Tensor, "batch pos d_model"],
        positions: Int[Tensor, "batch n_read"] | None = None,
    ) -> Float[Tensor, "batch n_read d_model"]:
        """The residual stream after the layer: at every position, or only at `positions`."""
        if self.compiled is not None and torch.is_grad_enabled():
            return self.compiled(resid, positions)
        return self.compute(resid, positions)

    def compute(
        self, resid: Float[Tensor, "batch pos d_model"], positions: Int[Tensor, "batch n_read"] | None
    ) -> Float[Tensor, "batch n_read d_model"]:
        """What `forward` returns."""
        resid = observed(self.hook_resid_pre, resid)
        attn_out = observed(self.hook_attn_out, self.attn(resid, self.ln1, positions))
        resid = attn_out + (resid if positions is None else at_positions(resid, positions))
        resid = observed(self.hook_resid_mid, resid)
        mlp_out = self.mlp(self.ln2(observed(self.hook_mlp_in, resid)))
        return observed(self.hook_resid_post, resid + observed(self.hook_mlp_out, mlp_out))


class Embed(nn.Module):
    """Token embedding."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        return F.embedding(tokens, self.W_E)


class PosEmbed(nn.Module):
    """Learned position embedding, one row per position."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "pos d_model"]:
        return self.W_pos[: tokens.shape[1]]


class Unembed(nn.Module):
    """Logits of a normalised residual stream. GPT-2 has no bias; `b_U`, zero, is for upstream's tools."""

    W_U: Tensor

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return self.W_U.new_zeros(self.W_U.shape[1])

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_vocab"]:
        return F.linear(x, self.W_U.t())


class FreeUnembed(Unembed):
    """An unembedding with weights of its own."""

    def __init__(self, cfg: LensConfig) -> None:
        super().__init__()
        self.W_U = nn.Parameter(torch.empty(cfg.d_model, cfg.d_vocab))


class TiedUnembed(Unembed):
    """An unembedding that reads the token embedding: the same Parameter, registered a second time."""

    def __init__(self, W_E: nn.Parameter) -> None:
        super().__init__()
        self.W_E = W_E

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.W_E.t()
