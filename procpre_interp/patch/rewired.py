"""Runs with edges rewired: each carries its writer's value in the run, or a replaced one."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.layers import Block
from procpre_interp.patch.graph import Graph

CPU_BYTES = 2**25
GPU_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class WriterValues:
    """What each writer adds to the residual stream, b_O and b_out left out; in the last layer, where it is read."""

    everywhere: Float[Tensor, "early pair pos d_model"]
    """Writers before the last layer, at all positions."""
    read: Float[Tensor, "writer pair d_model"]
    """All writers, at each pair's read position."""

    def __sub__(self, other: "WriterValues") -> "WriterValues":
        return WriterValues(self.everywhere - other.everywhere, self.read - other.read)


def writer_points(config: ModelConfig) -> list[str]:
    """Hook points from whose activations `writer_values` makes the writers' values."""
    layers = range(config.n_layers)
    points = [f"blocks.{layer}.{point}" for layer in layers for point in ("attn.hook_z", "hook_mlp_out")]
    return ["blocks.0.hook_resid_pre", *points]


@torch.no_grad()
def run_writers(
    model: HookedTransformer, tokens: Int[Tensor, "pair pos"], positions: Int[Tensor, " pair"]
) -> dict[str, Tensor]:
    """Activations of `writer_points` in one forward run."""
    names = writer_points(model.config)
    _, cache = model.run_with_cache(tokens, positions[:, None], names_filter=names, return_cache_object=False)
    return {name: cache[name] for name in names}


@torch.no_grad()
def writer_values(
    model: HookedTransformer, activations: dict[str, Tensor], positions: Int[Tensor, " pair"]
) -> WriterValues:
    """The writers' values from activations of `writer_points`."""
    embed = activations["blocks.0.hook_resid_pre"]
    config = model.config
    n_early = 1 + (config.n_layers - 1) * (config.n_heads + 1)
    everywhere = embed.new_empty(n_early, *embed.shape)
    everywhere[0] = embed
    place = 1
    late = []
    for layer in range(config.n_layers):
        block = model.block(layer)
        z = activations[f"blocks.{layer}.attn.hook_z"]
        # attn_out = sum over heads of z_h W_O^h + b_O: each term is a writer of its own, the bias is nobody's.
        results = einsum(z, block.attn.W_O, "pair pos head d_head, head d_head d_model -> head pair pos d_model")
        mlp = activations[f"blocks.{layer}.hook_mlp_out"] - block.mlp.b_out
        if layer == config.n_layers - 1:
            late = [results.squeeze(2), mlp.squeeze(1).unsqueeze(0)]
        else:
            everywhere[place : place + config.n_heads] = results
            everywhere[place + config.n_heads] = mlp
            place += config.n_heads + 1
    return WriterValues(everywhere, torch.cat([_gather(everywhere, positions), *late]))


class Rewired:
    """Runs of some pairs in which every edge carries either its writer's value in that run, or a replaced one.

    Exact: a reader's input is the sum over its edges of (kept ? value in this run : replaced value) plus biases, has a
    LayerNorm of its own, and everything behind it is computed from there. `current` are the writers' values of the
    sequence that runs; they stand for all writers before `first_stage`, up to which every edge must be kept, so that
    runs begin there. Runs are a batch axis, and edges of one stage a matrix [reader writer] in a product.
    """

    def __init__(
        self,
        model: HookedTransformer,
        graph: Graph,
        current: WriterValues,
        replaced: WriterValues,
        positions: Int[Tensor, " pair"],
        *,
        first_stage: int = 0,
    ) -> None:
        self.model, self.graph, self.replaced, self.positions = model, graph, replaced, positions
        self.first = first_stage
        self.last_layer = model.config.n_layers - 1
        n = graph.stages[first_stage].n_writers
        # Input of a reader = sum over its writers w of (kept_w ? current_w : replaced_w) + bias
        #                    = (sum_w replaced_w + bias) + sum_w kept_w (current_w - replaced_w).
        # The first part, `_base`, is the same in every circuit; the second is a product [circuit reader, writer] x
        # [writer, activations]. Writers before `first_stage` have one value in all circuits, hence `shared`.
        self.shared = WriterValues(current.everywhere[:n], current.read[:n]) - WriterValues(
            replaced.everywhere[:n], replaced.read[:n]
        )
        # k and v of the last layer are read everywhere, and what follows them at the read position alone.
        turn = 2 * self.last_layer
        everywhere, read = range(first_stage, turn + 1), range(max(turn, first_stage), len(graph.stages))
        self._base = {
            (index, at_read): self._replaced_input(index, at_read)
            for at_read, indices in ((False, everywhere), (True, read))
            for index in indices
        }
        self._first_heads = None
        if first_stage == 0 and self.last_layer > 0:
            self._first_heads = self._states_of_first_heads(current.everywhere[0])

    @torch.no_grad()
    def logits(self, keep: Bool[Tensor, "circuit edge"]) -> Float[Tensor, "circuit pair d_vocab"]:
        """Logits at each pair's read position when the edges of `keep` carry their writers' values in that run."""
        stages = self.graph.stages
        n_shared = stages[self.first].n_writers
        early, late = self.replaced.everywhere, self.replaced.read
        # Value in this run minus replaced value, of the writers that runs do not share.
        own_everywhere = early.new_empty(len(keep), max(0, len(early) - n_shared), *early.shape[1:])
        own_read = late.new_empty(len(keep), len(late) - n_shared, *late.shape[1:])
        own = (own_everywhere, own_read)
        for index in range(self.first, len(stages) - 1):
            layer, is_mlp = divmod(index, 2)
            read = layer == self.last_layer
            if read and not is_mlp:
                own_read[:, : own_everywhere.shape[1]] = _gather(own_everywhere, self.positions)
            written = self._mlp(index, keep, own) if is_mlp else self._heads(index, keep, own)
            start = stages[index].n_writers
            end = start + written.shape[1]
            replaced = (late if read else early)[start:end]
            # Kept as a difference from the replaced value, since that is what `kept` multiplies.
            torch.sub(written, replaced, out=own[read][:, start - n_shared : end - n_shared])
        final = self._inputs(len(stages) - 1, keep, own, read=True).squeeze(1)
        return self.model.unembed(self.model.ln_final(final))

    def _replaced_input(self, index: int, read: bool) -> Float[Tensor, "pair *pos d_model"]:
        """A reader's input when every edge of it is replaced."""
        layer, is_mlp = divmod(index, 2)
        values = self.replaced.read if read else self.replaced.everywhere
        bias = self.model.accumulated_bias(layer, mlp_input=bool(is_mlp)).detach()
        return values[: self.graph.stages[index].n_writers].sum(0) + bias

    def _inputs(
        self,
        index: int,
        keep: Bool[Tensor, "circuit edge"],
        own: tuple[Float[Tensor, "circuit _ pair pos d_model"], Float[Tensor, "circuit _ pair d_model"]],
        readers: slice = slice(None),
        *,
        read: bool,
    ) -> Float[Tensor, "circuit reader pair *pos d_model"]:
        """Inputs of a stage's readers, before their LayerNorms."""
        stage = self.graph.stages[index]
        base = self._base[index, read]
        kept = keep[:, stage.edges].unflatten(1, (-1, stage.n_writers))[:, readers].to(base.dtype)
        shared = self.shared.read if read else self.shared.everywhere
        n = len(shared)
        # base + kept @ (current - replaced) of the writers that all circuits share: one product for all of them.
        inputs = torch.addmm(base.flatten()[None], kept[:, :, :n].flatten(0, 1), shared.flatten(1))
        inputs = inputs.unflatten(0, kept.shape[:2])
        if stage.n_writers > n:
            # Later writers differ from circuit to circuit, so theirs is a batched product.
            inputs.baddbmm_(kept[:, :, n:], own[read][:, : stage.n_writers - n].flatten(2))
        return inputs.unflatten(2, base.shape)

    def _mlp(
        self, index: int, keep: Tensor, own: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "circuit 1 pair *pos d_model"]:
        block = self.model.block(index // 2)
        inputs = self._inputs(index, keep, own, read=index // 2 == self.last_layer)
        # MLP(LN2(input)) - b_out: the bias is part of every later input already (`_base`), and no writer's.
        flat = rearrange(inputs, "circuit reader pair ... d -> (circuit reader pair) (...) d")
        return (block.mlp(block.ln2(flat)) - block.mlp.b_out).reshape(inputs.shape)

    def _heads(
        self, index: int, keep: Tensor, own: tuple[Tensor, Tensor]
    ) -> Float[Tensor, "circuit head pair *pos d_model"]:
        if index == 0 and self._first_heads is not None:
            h = self.model.config.n_heads
            q, k, v = keep[:, self.graph.stages[0].edges].long().unflatten(1, (3, h)).unbind(1)
            # Heads of layer 0 read the embedding alone: 2^3 combinations of kept and replaced q, k and v inputs, made
            # once.
            return self._first_heads[4 * q + 2 * k + v, torch.arange(h, device=keep.device)]
        block, h = self.model.block(index // 2), self.model.config.n_heads
        if index // 2 < self.last_layer:
            q, k, v = (
                _project(block, self._inputs(index, keep, own, slice(i * h, (i + 1) * h), read=False), letter)
                for i, letter in enumerate("QKV")
            )
            return _attend(q, k, v) @ block.attn.W_O[:, None]
        q = _project(block, self._inputs(index, keep, own, slice(h), read=True).unsqueeze(3), "Q")
        k, v = (
            _project(block, self._inputs(index, keep, own, slice(i * h, (i + 1) * h), read=False), letter)
            for i, letter in ((1, "K"), (2, "V"))
        )
        hidden = torch.arange(k.shape[3], device=k.device) > self.positions[:, None]
        # softmax(q k^T / sqrt(d_head)) v at the read position: one query, so no causal mask but what comes after it.
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        pattern = scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1)
        return ((pattern @ v) @ block.attn.W_O[:, None]).squeeze(3)

    @torch.no_grad()
    def _states_of_first_heads(
        self, embed: Float[Tensor, "pair pos d_model"]
    ) -> Float[Tensor, "8 head pair pos d_model"]:
        """Results of the first layer's heads: they read the embedding alone, so q, k and v have two inputs each.

        State 4 q + 2 k + v, where 1 means kept; computed once, whatever the number of circuits.
        """
        block = self.model.block(0)
        both = torch.stack([self.replaced.everywhere[0], embed]).unsqueeze(1)
        q, k, v = (_project(block, both, letter) for letter in "QKV")
        results = [_attend(q[s // 4], k[s // 2 % 2], v[s % 2]) @ block.attn.W_O[:, None] for s in range(8)]
        return torch.stack(results)


def prepare(model: HookedTransformer, pairs: Pairs) -> Pairs:
    """The pairs on the model's device, cut behind the last read position: no later token reaches any."""
    if len(pairs) == 0:
        raise ValueError("there are no pairs to measure on; draw at least one")
    length = int(pairs.positions.max()) + 1
    cut = Pairs(pairs.clean[:, :length], pairs.corrupted[:, :length], pairs.positions, pairs.answers, pairs.wrong)
    return cut.to(model.flat.device)


def blocks(n: int, size: int) -> list[slice]:
    """0..n-1 in ranges of at most `size`."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def block_sizes(model: HookedTransformer, n_pos: int, max_bytes: int | None) -> tuple[int, int]:
    """How many pairs, and how many circuits with each of them, `Rewired` takes at once within `max_bytes`.

    None is `CPU_BYTES` on a CPU, where a block should stay in the cache, and `GPU_BYTES` elsewhere.
    """
    config = model.config
    numbers = (len(Graph(config).writers) + 6 * config.n_heads) * config.d_model + 3 * config.d_hidden
    one = numbers * n_pos * model.flat.element_size()
    limit = max_bytes or (CPU_BYTES if model.flat.device.type == "cpu" else GPU_BYTES)
    # Eight circuits per pair at least, or the products over circuits would be too thin to be worth a call.
    n_pairs = max(1, limit // (8 * one))
    return n_pairs, max(1, limit // (n_pairs * one))


def _gather(
    x: Float[Tensor, "*any pair pos d_model"], positions: Int[Tensor, " pair"]
) -> Float[Tensor, "*any pair d_model"]:
    return x[..., torch.arange(len(positions), device=x.device), positions, :]


def _project(
    block: Block, inputs: Float[Tensor, "circuit _ pair pos d_model"], letter: str
) -> Float[Tensor, "circuit head pair pos d_head"]:
    # LN1(input) W + b, with an input, and so a LayerNorm, for each head: an edge ends at one head's q, k or v.
    weight, bias = getattr(block.attn, f"W_{letter}"), getattr(block.attn, f"b_{letter}")
    normalised = rearrange(block.ln1(inputs), "circuit head pair pos d -> circuit head (pair pos) d")
    return (normalised @ weight + bias[:, None]).unflatten(2, inputs.shape[2:4])


def _attend(
    q: Float[Tensor, "*any pair pos d_head"],
    k: Float[Tensor, "*any pair pos d_head"],
    v: Float[Tensor, "*any pair pos d_head"],
) -> Float[Tensor, "*any pair pos d_head"]:
    flat_q, flat_k, flat_v = (x.flatten(0, -4) for x in (q, k, v))
    return F.scaled_dot_product_attention(flat_q, flat_k, flat_v, is_causal=True).reshape(q.shape)
