"""Metrics of counterfactual pairs: one number a pair, from the logits at its read position, and shares of their gap."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import stdtrit
from torch import Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.registry import unknown_name

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
"""By name."""


LEVEL = 0.95
"""Coverage of a gap's interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """How far the metric is in one run of the pairs from that in another, mean over pairs, in the metric's unit.

    What the effect of a patch is a share of. Where it cannot be told from 0, as in a model at chance, shares of it are
    noise over noise.
    """

    metric: str
    estimate: float
    low: float
    """Bound of Student's 95 % interval over pairs; NaN for a single pair."""
    high: float
    n: int
    """Pairs."""

    @classmethod
    def between(cls, metric: str, start: Float[Tensor, " pair"], end: Float[Tensor, " pair"]) -> "Gap":
        """Of the metric of every pair in the run without effect, and in that whose value counts as a share of 1."""
        change, n = (end - start).double().cpu(), len(start)
        estimate, low, high = float(change.mean()), math.nan, math.nan
        if n > 1:
            reach = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * float(change.std()) / math.sqrt(n)
            low, high = estimate - reach, estimate + reach
        return cls(metric=metric, estimate=estimate, low=low, high=high, n=n)

    @property
    def told(self) -> bool:
        """Whether the gap is told from 0, which takes two pairs at least."""
        return self.low > 0 or self.high < 0

    def defined(self, shares: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Shares of this gap: NaN unless it is told from 0."""
        return shares if self.told else torch.full_like(shares, math.nan)

    def columns(self) -> dict[str, str | float | int]:
        """The same in every row of a table: metric, n_pairs, gap, gap_low, gap_high."""
        bounds = {"gap": self.estimate, "gap_low": self.low, "gap_high": self.high}
        return {"metric": self.metric, "n_pairs": self.n, **bounds}


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
