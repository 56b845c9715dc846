"""What single edges carry, estimated from gradients: attribution patching of edges (EAP) and its integrated forms."""

from collections.abc import Iterator
from typing import Literal, get_args

import pandas as pd
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.selectors import head_terms
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.model.layers import Block, at_positions
from procpre_interp.patch.graph import Graph, edge_table
from procpre_interp.patch.metrics import Metric, metric_named
from procpre_interp.patch.rewired import (
    WriterValues,
    blocks,
    prepare,
    run_writers,
    writer_points,
    writer_values,
)

Method = Literal["eap", "eap_ig_inputs", "eap_ig_activations"]
GradientRun = Literal["corrupted", "clean"]

BLOCK_BYTES = 2**28
"""Approximate memory of the differences, activations and gradients of one block of pairs."""


def edge_attribution(
    model: HookedTransformer,
    pairs: Pairs,
    *,
    metric: str = "logit_difference",
    method: Method = "eap",
    gradient_run: GradientRun = "corrupted",
    steps: int = 5,
    max_pairs: int | None = None,
) -> pd.DataFrame:
    """First-order effect of every edge on the metric, in its unit: writer, reader, score (mean over pairs).

    Score = sum over positions of (clean - corrupted value of the writer) . gradient of the metric at the reader's
    input, before its LayerNorm. Where the gradient is taken:

    - `eap`: in the run of the `gradient_run` sequence. A forward run of each sequence and one backward run.
    - `eap_ig_inputs`: mean over `steps` runs whose embedding lies between the corrupted and the clean one.
    - `eap_ig_activations`: for the edges of a group of writers (the embedding; the heads of a layer; its MLP), mean
      over `steps` runs of the `gradient_run` sequence in which the values of this group, all at once, lie between the
      corrupted and the clean ones, and everything behind is computed from them: `steps` (2 n_layers + 1) backward runs.

    `gradient_run` decides what is estimated. "corrupted" (the default, and that of TransformerLens): what the metric
    gains when an edge carries the clean value into the corrupted run. "clean" (the code of the authors of both
    methods): what it loses when the edge carries the corrupted value into the clean run. Both are positive for an edge
    that works for the answer; they differ where the metric is curved between the two runs. For `eap_ig_inputs`, whose
    embedding is replaced, it makes no difference.

    Points between are at shares (i + 1/2) / steps of the way, whose mean converges faster than that over i / steps.
    `max_pairs` are held at once; by default as many as `BLOCK_BYTES` holds.

    Raises:
        ValueError: unknown metric, method or gradient run, no step, or no pairs.
    Source:
        Syed et al. 2023 (EAP); Hanna et al. 2024, "Have Faith in Faithfulness" (both IG forms). Their code has
        `gradient_run="clean"`, the difference corrupted - clean (scores of the other sign for a metric, the same for a
        loss), the points i / steps, and for `eap_ig_activations` scores of all edges in every run.
    """
    measure = metric_named(metric)
    if method not in get_args(Method):
        raise unknown_name("method", method, list(get_args(Method)))
    if gradient_run not in get_args(GradientRun):
        raise unknown_name("gradient_run", gradient_run, list(get_args(GradientRun)))
    if steps < 1:
        raise ValueError(f"steps={steps}; a path needs at least 1 point")
    pairs, graph = prepare(model, pairs), Graph(model.config)
    size = max_pairs or max(1, BLOCK_BYTES // _bytes_a_pair(model, pairs.clean.shape[1]))
    total = torch.zeros(len(graph.writers), len(graph.readers), dtype=torch.float64)
    for rows in blocks(len(pairs), size):
        total += _block_scores(model, graph, pairs[rows], measure, method, gradient_run, steps).cpu().double()
    scores = total.T[graph.precedes.T] / len(pairs)
    return edge_table(graph.edges, score=scores)


def head_strengths(model: HookedTransformer, pairs: Pairs) -> dict[str, float]:
    """How much each head carries, in the unit of the logit difference: summed |score| of the edges that leave it.

    By head's selector; EAP-IG (inputs, 5 steps). What ranks the heads of `circuit.K`.
    """
    scores = edge_attribution(model, pairs, method="eap_ig_inputs")
    strengths = dict.fromkeys(head_terms(model.config.n_layers, model.config.n_heads), 0.0)
    for writer, score in zip(scores["writer"], scores["score"]):
        if writer in strengths:
            strengths[writer] += abs(score)
    return strengths


def _metric_of(model: HookedTransformer, tokens: Tensor, pairs: Pairs, measure: Metric) -> Float[Tensor, " pair"]:
    return measure(model(tokens, pairs.positions[:, None])[:, 0], pairs)


def _bytes_a_pair(model: HookedTransformer, n_pos: int) -> int:
    config = model.config
    writers = 2 * len(Graph(config).writers) + 3 * config.n_heads
    run = config.n_layers * (16 * config.d_model + 4 * config.d_hidden + 3 * config.n_heads * n_pos)
    return (writers * config.d_model + run + config.d_vocab) * n_pos * model.flat.element_size()


def _block_scores(
    model: HookedTransformer,
    graph: Graph,
    pairs: Pairs,
    measure: Metric,
    method: Method,
    gradient_run: GradientRun,
    steps: int,
) -> Float[Tensor, "writer reader"]:
    """Sum over the pairs of the scores, 0 where there is no edge."""
    everything = slice(0, len(graph.writers))
    tokens, others = pairs.corrupted, pairs.clean
    if gradient_run == "clean":
        tokens, others = others, tokens
    other = run_writers(model, others, pairs.positions)
    scores = other["blocks.0.hook_resid_pre"].new_zeros(len(graph.writers), len(graph.readers))

    def ends(own: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor], WriterValues]:
        """Clean and corrupted activations, and the difference of the writers' values."""
        clean, corrupted = (other, own) if gradient_run == "corrupted" else (own, other)
        change = writer_values(model, clean, pairs.positions) - writer_values(model, corrupted, pairs.positions)
        return clean, corrupted, change

    if method == "eap":
        run, gradients = _backward(model, tokens, pairs, measure, {})
        _add_scores(scores, model, graph, ends(run)[-1], everything, run, gradients, pairs.positions)
        return scores
    clean, corrupted, change = ends(run_writers(model, tokens, pairs.positions))
    inputs_only = [(everything, "blocks.0.hook_resid_pre")]
    for writers, point in inputs_only if method == "eap_ig_inputs" else _groups(graph):
        for step in range(steps):
            # Integrated gradients: (clean - corrupted) . mean over alpha of dL/dx at corrupted + alpha (clean -
            # corrupted), with alpha = (i + 1/2) / steps: the midpoint rule, whose error falls as 1 / steps^2.
            between = torch.lerp(corrupted[point], clean[point], (step + 0.5) / steps)
            run, gradients = _backward(model, tokens, pairs, measure, {point: between})
            _add_scores(scores, model, graph, change, writers, run, gradients, pairs.positions)
    return scores / steps


def _groups(graph: Graph) -> Iterator[tuple[slice, str]]:
    """Writers whose values do not depend on one another, and the hook point that holds them."""
    starts = [0, *(stage.n_writers for stage in graph.stages)]
    for start, end, point in zip(starts, starts[1:], writer_points(graph.config)):
        yield slice(start, end), point


def _backward(
    model: HookedTransformer, tokens: Tensor, pairs: Pairs, measure: Metric, between: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Activations of a run of `tokens` with those in `between` put in, and gradients of the metric.

    The metric of a pair depends on no other pair, so one backward run of their sum gives every pair's own gradient.
    Taken at q, k and v: inputs of readers that are split into one stream a head cost n_heads times the memory.
    """
    layers = range(model.config.n_layers)
    readers = [f"blocks.{layer}.{point}" for layer in layers for point in (*_QKV.values(), "hook_mlp_in")]
    readers.append(f"blocks.{layers[-1]}.hook_resid_post")
    residual = [f"blocks.{layer}.hook_resid_pre" for layer in layers]
    run: dict[str, Tensor] = {}

    def keep(x: Tensor, hook) -> Tensor:
        x = between.get(hook.name, x)
        # The gradient needs a leaf to lead to, also in a model whose weights are frozen, and nothing before it.
        run[hook.name] = x.detach().requires_grad_() if hook.name == residual[0] else x
        return run[hook.name]

    points = dict.fromkeys([*writer_points(model.config), *residual, *readers])
    with torch.enable_grad(), model.hooks(fwd_hooks=[(point, keep) for point in points]):
        total = _metric_of(model, tokens, pairs, measure).sum()
        gradients = torch.autograd.grad(
            total, [run[name] for name in readers], allow_unused=True, materialize_grads=True
        )
    return {name: x.detach() for name, x in run.items()}, dict(zip(readers, gradients))


_QKV = {letter: f"attn.hook_{letter.lower()}" for letter in "QKV"}


def _add_scores(
    scores: Float[Tensor, "writer reader"],
    model: HookedTransformer,
    graph: Graph,
    change: WriterValues,
    writers: slice,
    run: dict[str, Tensor],
    gradients: dict[str, Tensor],
    positions: Tensor,
) -> None:
    """Adds `change` of some writers times the gradients at all readers behind them: a matrix product a stage."""
    last, heads = model.config.n_layers - 1, model.config.n_heads

    def add(stage_writers: int, readers: slice, gradient: Float[Tensor, "reader pair pos d_model"], read: bool) -> None:
        rows = slice(writers.start, min(writers.stop, stage_writers))
        values = (change.read if read else change.everywhere)[rows]
        # score(w -> r) = sum over pairs and positions of change_w . gradient_r: a product [writer, pair pos d] x
        # [pair pos d, reader], so that no table of edges x pairs x positions is ever held.
        scores[rows, readers] += values.flatten(1) @ gradient.flatten(1).T

    for index, stage in enumerate(graph.stages):
        if stage.n_writers <= writers.start:
            continue
        layer, is_mlp = divmod(index, 2)
        if layer > last:
            add(stage.n_writers, stage.readers, gradients[f"blocks.{last}.hook_resid_post"][None], True)
        elif is_mlp:
            add(stage.n_writers, stage.readers, gradients[f"blocks.{layer}.hook_mlp_in"][None], layer == last)
        else:
            for i, (letter, point) in enumerate(_QKV.items()):
                read = layer == last and letter == "Q"
                resid = run[f"blocks.{layer}.hook_resid_pre"]
                resid = at_positions(resid, positions[:, None]) if read else resid
                gradient = _at_inputs(model.block(layer), letter, resid, gradients[f"blocks.{layer}.{point}"])
                start = stage.readers.start + i * heads
                add(stage.n_writers, slice(start, start + heads), gradient, read)


@torch.no_grad()
def _at_inputs(
    block: Block, letter: str, resid: Float[Tensor, "pair pos d_model"], gradient: Float[Tensor, "pair pos head d_head"]
) -> Float[Tensor, "head pair pos d_model"]:
    """The gradient at each head's q, k or v taken back through its weights and its own LayerNorm of `resid`."""
    # For y = w * n + b with n = (x - mean x) / s, s = sqrt(var x + eps), the gradient g of y goes back as
    #     dL/dx = (g' - mean g' - n mean(n g')) / s,   with g' = w g.
    # Here g = W (dL/dq), a different one for each head, so w and the centring go into W once, which is far smaller
    # than the gradients; only the last term, which depends on the position's n, is left to be subtracted.
    centred = resid - resid.mean(-1, keepdim=True)
    scale = (centred.square().mean(-1, keepdim=True) + block.ln1.eps).sqrt()
    normal = centred / scale
    weight = getattr(block.attn, f"W_{letter}") * block.ln1.w[:, None]
    weight = weight - weight.mean(1, keepdim=True)  # LayerNorm takes the mean away, hence also from the gradient
    shapes = "pair pos head d_head, head d_model d_head -> head pair pos d_model"
    back = einsum(gradient / scale.unsqueeze(2), weight, shapes)
    return torch.addcmul(back, normal, (back * normal).mean(-1, keepdim=True), value=-1)
