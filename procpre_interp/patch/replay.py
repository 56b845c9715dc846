"""Runs with an intervention, replayed from where they leave the run without it.

An intervention in layer l changes nothing before it, and only what reaches the read position counts. So many
interventions are computed at once, as a batch axis `patch`, from cached activations: what the causal mask leaves as
it was is not computed again, and the last layer is computed only where it is read.
"""

from collections.abc import Iterable
from typing import cast

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.model.layers import Attention, Block, at_positions
from procpre_interp.patch.metrics import metric_named

RESIDUAL = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
"""Sites of width d_model."""
PER_HEAD = ("q", "k", "v", "z", "pattern")
"""Sites that each head has of its own."""
OF_THE_QUERY = ("resid_mid", "resid_post", "attn_out", "mlp_out", "q", "z", "pattern")
"""Sites that only act at their own position: in the last layer, nowhere but at the read position."""
KEPT = ("resid_pre", "q", "k", "v", "z", "resid_mid", "resid_post")
"""What a replay starts from."""

Activations = dict[tuple[str, int], Tensor]
"""Site and layer -> activation."""


def hook_name(site: str, layer: int) -> str:
    """The hook point of a site."""
    return f"blocks.{layer}.{'attn.' if site in PER_HEAD else ''}hook_{site}"


def record(
    model: HookedTransformer,
    tokens: Int[Tensor, "pair pos"],
    positions: Int[Tensor, " pair"],
    wanted: Iterable[tuple[str, int]],
) -> Activations:
    """Activations [pair, pos, ...] of a run; of `OF_THE_QUERY` sites in the last layer, at the read position alone.

    A pattern is [pair, head, query, key].
    """
    found: Activations = {}

    def keep(place: tuple[str, int]):
        return lambda x, hook: found.update({place: x.detach()})

    with torch.no_grad(), model.hooks(fwd_hooks=[(hook_name(*place), keep(place)) for place in dict.fromkeys(wanted)]):
        model.final(tokens, positions[:, None])
    return found


class Replay:
    """One run of a block of pairs, and what its output becomes when something in it is replaced."""

    def __init__(
        self,
        model: HookedTransformer,
        tokens: Int[Tensor, "pair pos"],
        positions: Int[Tensor, " pair"],
        also: Iterable[tuple[str, int]] = (),
    ) -> None:
        """`also` names further activations to keep."""
        self.model = model
        self.positions = positions
        self.last = model.config.n_layers - 1
        kept = [(site, layer) for layer in range(self.last + 1) for site in KEPT]
        self.activations = record(model, tokens, positions, [*kept, *also])

    def __getitem__(self, place: tuple[str, int]) -> Tensor:
        return self.activations[place]

    @property
    def unpatched(self) -> Float[Tensor, "pair d_model"]:
        """The final residual stream at the read positions."""
        return self["resid_post", self.last][:, 0]

    def block(self, layer: int) -> Block:
        return cast(Block, self.model.blocks[layer])

    def from_residual(
        self, layer: int, resid: Float[Tensor, "patch pair pos d_model"]
    ) -> Float[Tensor, "patch pair d_model"]:
        """The final residual stream when the one before `layer` is `resid`; after the last layer, `resid` itself."""
        patches = len(resid)
        positions = repeat(self.positions, "pair -> (patch pair) 1", patch=patches)
        flat = resid.flatten(0, 1)
        for after in range(layer, self.last):
            flat = self.block(after)(flat)
        flat = self.block(self.last)(flat, positions) if layer <= self.last else at_positions(flat, positions)
        return rearrange(flat, "(patch pair) 1 d_model -> patch pair d_model", patch=patches)

    def from_row(
        self, layer: int, t: Int[Tensor, " patch"], row: Float[Tensor, "patch pair d_model"]
    ) -> Float[Tensor, "patch pair d_model"]:
        """The final residual stream when the one before `layer` is `row` at position `t` of each patch."""
        if layer == self.last:
            return self._read_last_layer(t, row)
        resid = repeat(self["resid_pre", layer], "pair pos d_model -> patch pair pos d_model", patch=len(t)).clone()
        resid[torch.arange(len(t), device=t.device), :, t] = row
        return self.from_residual(layer, resid)

    def from_middle(
        self, layer: int, middle: Float[Tensor, "patch pair pos d_model"]
    ) -> Float[Tensor, "patch pair d_model"]:
        """The final residual stream when the one between attention and MLP of `layer`, not the last, is `middle`."""
        return self.from_residual(layer + 1, self.after_mlp(layer, middle))

    def from_middle_row(
        self, layer: int, t: Int[Tensor, " patch"], row: Float[Tensor, "patch pair d_model"]
    ) -> Float[Tensor, "patch pair d_model"]:
        """The same when it differs at one position: all that changes before the next layer is there."""
        return self.from_row(layer + 1, t, self.after_mlp(layer, row))

    def after_mlp(self, layer: int, middle: Float[Tensor, "patch *row d_model"]) -> Float[Tensor, "patch *row d_model"]:
        """The residual stream after `layer`, of the one before its MLP."""
        block = self.block(layer)
        flat = middle.flatten(0, -3)
        # resid_post = resid_mid + MLP(LN2(resid_mid)), position by position: hence any number of axes before d_model.
        return (flat + block.mlp(block.ln2(flat))).view_as(middle)

    def score(self, final: Float[Tensor, "*patch pair d_model"], pairs: Pairs, metric: str) -> Tensor:
        """The metric of each pair, [*patch, pair], from the final residual stream."""
        return score(self.model, self.model.ln_final(final), pairs, metric)

    def _read_last_layer(
        self, t: Int[Tensor, " patch"], row: Float[Tensor, "patch pair d_model"]
    ) -> Float[Tensor, "patch pair d_model"]:
        """One key and value of the last layer change, and at the read position itself its query as well."""
        block = self.block(self.last)
        here = (t[:, None] == self.positions)[..., None]
        normalised = block.ln1(row)
        q, k, v = (project(block.attn, letter, normalised) for letter in "QKV")
        # The query stands at the read position, so it is a changed one only for the patch at that very position.
        q = torch.where(here[..., None], q, self["q", self.last][:, 0])
        z = self._attend_to_changed(t, q, k, v)
        resid = torch.where(here, row, at_positions(self["resid_pre", self.last], self.positions[:, None])[:, 0])
        return self.after_mlp(self.last, resid + mixed(block.attn, z) + block.attn.b_O)

    def _attend_to_changed(
        self,
        t: Int[Tensor, " patch"],
        q: Float[Tensor, "patch pair head d_head"],
        k: Float[Tensor, "patch pair head d_head"],
        v: Float[Tensor, "patch pair head d_head"],
    ) -> Float[Tensor, "patch pair head d_head"]:
        """z of the last layer for these queries, when key and value at position `t` are `k` and `v`."""
        keys, values = self["k", self.last], self["v", self.last]
        # Pairs and heads first: what the matrix products batch over.
        q, k, v = (rearrange(x, "patch pair head d_head -> pair head patch d_head") for x in (q, k, v))
        # With key and value of position t replaced by k', v', row i of attention becomes
        #     s_j = q . k_j / sqrt(d_head)   for j != t,        s_t = q . k'_t / sqrt(d_head)
        #     z = sum_j p_j v_j + p_t (v'_t - v_t),             p = softmax(s)
        # so all patches share one product with the unpatched keys and one with the unpatched values,
        # and only the entry at t is written over: the cost does not grow with patches x positions.
        scores = q @ rearrange(keys, "pair pos head d_head -> pair head d_head pos")
        at_t = t[None, None, :, None].expand(*scores.shape[:3], 1)
        scores.scatter_(-1, at_t, (q * k).sum(-1, keepdim=True))
        scores *= q.shape[-1] ** -0.5
        hidden = torch.arange(keys.shape[1], device=t.device) > self.positions[:, None]
        pattern = scores.masked_fill_(hidden[:, None, None], -torch.inf).softmax(-1)
        z = pattern @ rearrange(values, "pair pos head d_head -> pair head pos d_head")
        before = rearrange(values[:, t], "pair patch head d_head -> pair head patch d_head")
        z += pattern.gather(-1, at_t) * (v - before)
        return rearrange(z, "pair head patch d_head -> patch pair head d_head")


def score(
    model: HookedTransformer, normalised: Float[Tensor, "*batch pair d_model"], pairs: Pairs, metric: str
) -> Float[Tensor, "*batch pair"]:
    """The metric of each pair from what the unembedding reads."""
    if metric == "logit_difference":  # two of all logits
        # n . W_U[:, answer] - n . W_U[:, wrong] = n . (W_U[:, answer] - W_U[:, wrong]): one product, not d_vocab.
        direction = model.W_U[:, pairs.answers] - model.W_U[:, pairs.wrong]
        return (normalised * direction.mT).sum(-1)
    return metric_named(metric)(normalised @ model.W_U, pairs)


def project(
    attention: Attention, letter: str, normalised: Float[Tensor, "*row d_model"]
) -> Float[Tensor, "*row head d_head"]:
    """Queries, keys or values (Q, K, V) of all heads."""
    weight, bias = getattr(attention, f"W_{letter}"), getattr(attention, f"b_{letter}")
    return einsum(normalised, weight, "... d_model, head d_model d_head -> ... head d_head") + bias


def mixed(attention: Attention, z: Float[Tensor, "*row head d_head"]) -> Float[Tensor, "*row d_model"]:
    """What all heads write, without the bias."""
    return einsum(z, attention.W_O, "... head d_head, head d_head d_model -> ... d_model")
