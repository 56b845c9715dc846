"""Heads that a model's predictions need: one learned gate a head, all others held at their mean activation."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from procpre_interp.core.selectors import head_term
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, torch_defaults
from procpre_interp.patch.masking import (
    Scored,
    full_finals,
    gated_finals,
    kl_nats,
    log_probabilities,
    mask_scores,
    mean_z,
)

SPARSITIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
"""Nats that an open head costs."""
BETA, GAMMA, ZETA = 2 / 3, -0.1, 1.1
"""Temperature and ends of the stretched interval, as in Louizos et al."""
FIRST_LOG_ALPHA = 2.0
"""Gates start open, with a probability of 97 %."""


def sample_gates(
    log_alpha: Float[Tensor, "*sample layer head"], uniform: Float[Tensor, "*sample layer head"]
) -> Float[Tensor, "*sample layer head"]:
    """Hard concrete gates, 0 to 1 with both ends included, from numbers that are uniform in (0, 1).

    min(1, max(0, s (zeta - gamma) + gamma)) with s = sigmoid((logit u + log_alpha) / beta).

    Source:
        Louizos, Welling and Kingma 2018, "Learning Sparse Neural Networks through L0 Regularization", section 2.2.
    """
    return _stretched(torch.sigmoid((torch.logit(uniform, eps=1e-6) + log_alpha) / BETA))


def open_probability(log_alpha: Float[Tensor, "*gate"]) -> Float[Tensor, "*gate"]:
    """Probability that a hard concrete gate is above 0: sigmoid(log_alpha - beta log(-gamma / zeta))."""
    # The gate is above 0 where s > -gamma / (zeta - gamma), that is (logit u + log_alpha) / beta > log(-gamma / zeta);
    # and P(logit u > c) = sigmoid(-c) for a uniform u.
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


@torch_defaults()
def prune_heads(
    model: HookedTransformer,
    batch: Batch,
    *,
    generator: torch.Generator,
    sparsities: Sequence[float | int] = SPARSITIES,
    steps: int = 300,
    learning_rate: float | int = 0.1,
    batch_rows: int = 32,
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """The heads worth keeping at each price, one row per sparsity and head.

    Columns: sparsity (nats per head), layer, head, log_alpha, open_probability, gate (without noise, 0 to 1), kept
    (gate > 0.5), n_kept (heads that this sparsity keeps). A head's z becomes mean + gate (z - mean), with the
    `mean_z` of the batch, and the gates minimise KL(all heads || gated heads) + sparsity x expected number of open
    gates: the KL of next-token distributions in nats, mean over the scored positions. The model's weights stay.

    All gates start open, so that of heads that can stand in for one another more may stay than the best mask has.
    Each of the `steps` of Adam sees `batch_rows` sequences, and every sequence has gates drawn for itself. All
    sparsities see the same sequences and the same noise, so that none depends on which others are asked for.

    Raises:
        ValueError: no sparsity, one below 0 or given twice; fewer than 1 step or row; no position that is scored.
    Source:
        Hu et al. 2025, "Between Circuits and Chomsky" (arXiv 2502.19249), who prune heads as Bhaskar et al. 2024, "The
        Heuristic Core" (arXiv 2403.03942), do. Those aim at a set number of heads; here a head has a set price.
    """
    _check(sparsities, steps, batch_rows)
    scored, means = Scored.of(batch, model.flat.device), mean_z(model, batch, max_bytes=max_bytes)
    full = full_finals(model, scored, max_bytes=max_bytes)
    layers, heads = means.shape[:2]
    prices = torch.tensor(sparsities, dtype=torch.float32, device=means.device)[:, None, None]
    log_alpha = torch.full((len(sparsities), layers, heads), FIRST_LOG_ALPHA, device=means.device, requires_grad=True)
    optimiser = torch.optim.Adam([log_alpha], lr=learning_rate)
    for _ in range(steps):
        rows = torch.randperm(len(scored), generator=generator)[:batch_rows].to(means.device)
        noise = torch.rand(len(rows), layers, heads, generator=generator).to(means.device)
        # Loss = E_gates[KL(full || gated)] + sparsity * sum over heads of P(gate > 0), with the expectation
        # replaced by one draw of gates per sequence (the reparametrisation of `sample_gates`).
        each = log_alpha[:, None].expand(-1, len(rows), -1, -1)
        gates = sample_gates(each, noise.expand_as(each))
        slopes = _kl_slopes(model, scored[rows], full[rows], means, gates.detach(), max_bytes)
        # d KL / d log_alpha = sum over gates of (d KL / d gate) (d gate / d log_alpha). `_kl_slopes` computes the first
        # factor in blocks; as a constant times `gates`, autograd supplies the second one and the penalty's gradient.
        loss = (gates * slopes).sum() + (prices * open_probability(log_alpha)).sum()
        (log_alpha.grad,) = torch.autograd.grad(loss, log_alpha)
        optimiser.step()
    return _gate_table(sparsities, log_alpha.detach().cpu())


def head_masks(table: pd.DataFrame) -> Bool[Tensor, "mask layer head"]:
    """The heads that each sparsity of a table of `prune_heads` keeps, in its order."""
    shape = [len(table[name].unique()) for name in ("sparsity", "layer", "head")]
    return torch.from_numpy(table["kept"].to_numpy(dtype=bool, copy=True).reshape(shape))


def head_names(mask: Bool[Tensor, "layer head"]) -> list[str]:
    """Component selectors of the heads that a mask keeps."""
    return [head_term(layer, head) for layer, head in mask.nonzero().tolist()]


@torch_defaults()
def head_test(
    model: HookedTransformer,
    batch: Batch,
    test_batch: Batch,
    *,
    generator: torch.Generator,
    test_model: HookedTransformer | None = None,
    n_random: int = 20,
    sparsities: Sequence[float | int] = SPARSITIES,
    steps: int = 300,
    learning_rate: float | int = 0.1,
    batch_rows: int = 32,
    max_bytes: int | None = None,
) -> pd.DataFrame:
    """Whether the heads that `prune_heads` keeps do more on other sequences than as many random heads.

    One row per sparsity (mask "learned"), and one (mask "always_kept", sparsity NaN) of the heads kept at every
    sparsity that keeps any. Columns: mask, sparsity, heads (component selectors joined by "+"), n_kept; kl_nats,
    loss_nats and accuracy on `test_batch`, as in `mask_scores`; these with random_ before them and _mean, _low, _high
    (5 and 95 %) behind, over `n_random` masks of that size; p = (random masks of a KL as small or smaller + 1) /
    (n_random + 1); full_loss_nats and full_accuracy, with all heads.

    `test_model`, of as many layers and heads, is scored in place of `model`: the model after it was trained on another
    task, say. Heads are then held at its means over `test_batch`, as its tokens may mean something else; without it,
    at the model's means over `batch`.

    Raises:
        ValueError: as `prune_heads` and `mask_scores`; fewer than 1 random mask.
    Source:
        Hu et al. 2025, as `prune_heads`.
    """
    if n_random < 1:
        raise ValueError(f"n_random={n_random}; compare with at least 1 random mask")
    _check_heads(model, test_model or model)
    options = {"steps": steps, "learning_rate": learning_rate, "batch_rows": batch_rows, "max_bytes": max_bytes}
    learned = head_masks(prune_heads(model, batch, generator=generator, sparsities=sparsities, **options))
    used = learned[learned.flatten(1).any(1)]
    always = used.all(0, keepdim=True) & (len(used) > 0)
    # p = (1 + number of random masks that do as well) / (1 + number of random masks): the learned mask counts as one of
    # them, so that p is never 0 and is valid for any number of draws.
    everything = torch.ones_like(always)
    own = torch.cat([learned, always])
    random = {n: _random_masks(everything, n, n_random, generator) for n in sorted(set(own.sum((1, 2)).tolist()))}
    # A mask that occurs twice is scored once: equal masks then have equal scores, to the last bit.
    masks, place = torch.cat([everything, own, *random.values()]).unique(dim=0, return_inverse=True)
    means = mean_z(model, batch, max_bytes=max_bytes) if test_model is None else None
    scores = mask_scores(test_model or model, test_batch, masks, means=means, max_bytes=max_bytes)
    found = scores[["kl_nats", "loss_nats", "accuracy"]].iloc[place.numpy()].reset_index(drop=True)
    null = {n: found.iloc[1 + len(own) + i * n_random :][:n_random] for i, n in enumerate(random)}
    rows = []
    for i, mask in enumerate(own):
        score, by_chance = found.iloc[1 + i], null[int(mask.sum())]
        summaries = {"mean": by_chance.mean(), "low": by_chance.quantile(0.05), "high": by_chance.quantile(0.95)}
        is_learned = i < len(learned)
        rows.append(
            {
                "mask": "learned" if is_learned else "always_kept",
                "sparsity": sparsities[i] if is_learned else np.nan,
                "heads": "+".join(head_names(mask)),
                "n_kept": int(mask.sum()),
                **score,
                **{f"random_{name}_{which}": each[name] for name in found for which, each in summaries.items()},
                "p": (int((by_chance["kl_nats"] <= score["kl_nats"]).sum()) + 1) / (n_random + 1),
                "full_loss_nats": found.loc[0, "loss_nats"],
                "full_accuracy": found.loc[0, "accuracy"],
            }
        )
    return pd.DataFrame(rows)


def _check(sparsities: Sequence[float | int], steps: int, batch_rows: int) -> None:
    if not sparsities or min(sparsities) < 0 or len(set(sparsities)) < len(sparsities):
        raise ValueError(f"sparsities={tuple(sparsities)}; give at least one, none below 0 and none twice")
    for name, value in (("steps", steps), ("batch_rows", batch_rows)):
        if value < 1:
            raise ValueError(f"{name}={value}; {name} must be at least 1")


def _check_heads(model: HookedTransformer, test_model: HookedTransformer) -> None:
    here, there = ((m.config.n_layers, m.config.n_heads) for m in (model, test_model))
    if here != there:
        raise ValueError(
            f"test_model has {there[0]} layers of {there[1]} heads, the model {here[0]} of {here[1]}; masks go from "
            "one to the other where they are the same"
        )


def _stretched(s: Float[Tensor, "*gate"]) -> Float[Tensor, "*gate"]:
    # From (0, 1) to (gamma, zeta), which is wider on both sides: what the clamp cuts off is a gate that is 0 or 1 with
    # a probability above 0, and still has a gradient in between.
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _kl_slopes(
    model: HookedTransformer,
    scored: Scored,
    full: Float[Tensor, "row n_read d_model"],
    means: Float[Tensor, "layer head d_head"],
    gates: Float[Tensor, "mask row layer head"],
    max_bytes: int | None,
) -> Float[Tensor, "mask row layer head"]:
    """Derivatives of the mean KL by the gates; of nothing else, so that no weight gets a gradient."""
    n_masks, n_rows = gates.shape[:2]
    flat = gates.flatten(0, 1)
    row = torch.arange(n_rows, device=gates.device).repeat(n_masks)
    slopes = []
    for part in torch.arange(len(flat), device=gates.device).split(scored.at_once(model, max_bytes)):
        here, open_gates = scored[row[part]], flat[part].requires_grad_()
        with torch.no_grad():
            log_p = log_probabilities(model.unembed(full[row[part]]))
        logits = model.unembed(gated_finals(model, here, means, open_gates))
        kl = kl_nats(log_p, log_probabilities(logits))
        slopes += torch.autograd.grad((kl * here.counted).sum() / scored.counted.sum(), open_gates)
    return torch.cat(slopes).unflatten(0, (n_masks, n_rows))


def _random_masks(
    all_heads: Bool[Tensor, "1 layer head"], n_kept: int, n: int, generator: torch.Generator
) -> Bool[Tensor, "draw layer head"]:
    """Masks of `n_kept` heads, all choices equally likely."""
    # argsort of argsort is each head's rank among uniform numbers: the n_kept smallest are a uniform choice.
    order = torch.rand(n, all_heads.numel(), generator=generator).argsort(1).argsort(1)
    return (order < n_kept).unflatten(1, all_heads.shape[1:])


def _gate_table(sparsities: Sequence[float | int], log_alpha: Float[Tensor, "mask layer head"]) -> pd.DataFrame:
    gates = _stretched(torch.sigmoid(log_alpha))
    kept = gates > 0.5
    _, layers, heads = log_alpha.shape
    places = pd.MultiIndex.from_product([sparsities, range(layers), range(heads)], names=["sparsity", "layer", "head"])
    columns = {"log_alpha": log_alpha, "open_probability": open_probability(log_alpha), "gate": gates, "kept": kept}
    n_kept = kept.sum((1, 2)).repeat_interleave(layers * heads).numpy()
    found = {name: values.flatten().numpy() for name, values in columns.items()}
    return places.to_frame(index=False).assign(**found, n_kept=n_kept)
