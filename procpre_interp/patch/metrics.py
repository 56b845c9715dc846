"""Metrics of counterfactual pairs: one number per pair, from the logits at its read position."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.data.counterfactual import Pairs

Metric = Callable[[Float[Tensor, "*batch pair d_vocab"], Pairs], Float[Tensor, "*batch pair"]]


def logit_difference(logits: Float[Tensor, "*batch pair d_vocab"], pairs: Pairs) -> Float[Tensor, "*batch pair"]:
    """Logit of the answer minus logit of the wrong one: log of their odds, linear in the final residual stream."""
    return _logit_of(logits, pairs.answers) - _logit_of(logits, pairs.wrong)


def probability(logits: Float[Tensor, "*batch pair d_vocab"], pairs: Pairs) -> Float[Tensor, "*batch pair"]:
    """Probability of the answer, 0 to 1."""
    return _logit_of(logits.log_softmax(-1), pairs.answers).exp()


def loss(logits: Float[Tensor, "*batch pair d_vocab"], pairs: Pairs) -> Float[Tensor, "*batch pair"]:
    """Cross-entropy of the answer, in nats: lower is better."""
    return -_logit_of(logits.log_softmax(-1), pairs.answers)


METRICS: dict[str, Metric] = {"logit_difference": logit_difference, "probability": probability, "loss": loss}
"""Everything registered, by name."""


def metric_named(name: str) -> Metric:
    """Raises `ValueError` that lists the metrics for an unknown name."""
    if name not in METRICS:
        raise unknown_name("metric", name, list(METRICS))
    return METRICS[name]


def _logit_of(
    logits: Float[Tensor, "*batch pair d_vocab"], tokens: Int[Tensor, " pair"]
) -> Float[Tensor, "*batch pair"]:
    index = tokens.unsqueeze(-1).expand(*logits.shape[:-1], 1)
    return torch.gather(logits, -1, index).squeeze(-1)
