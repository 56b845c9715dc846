"""The gap between two runs of counterfactual pairs: what the effect of a patch is a share of, if there is one."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.patch.metrics import Metric, logit_difference, metric_named
from procpre_interp.patch.rewired import block_sizes, blocks, prepare

ALPHA = 0.05
"""Level of both tests of a gap; 1 - ALPHA is the coverage of its interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """How far the metric is in one run of the pairs from that in another, mean over pairs, in the metric's unit.

    In a model at chance it is noise, and shares of it are noise over noise. The interval alone does not show this: a
    model that knows nothing answers a swap of the same two tokens alike in every pair. So the model must also prefer
    the answer more often than by chance.
    """

    metric: str
    estimate: float
    low: float
    """Bound of Student's 95 % interval over pairs; NaN for a single pair."""
    high: float
    preferred: float
    """Share of pairs whose clean run has a larger logit for the answer than for the wrong one; by chance 1/2."""
    n: int
    """Pairs."""

    @classmethod
    def between(
        cls, metric: str, start: Float[Tensor, " pair"], end: Float[Tensor, " pair"], preferred: Bool[Tensor, " pair"]
    ) -> "Gap":
        """The gap between the metric of every pair in the run without effect and in the run that counts as a share of
        1."""
        change, n = (end - start).double().cpu(), len(start)
        estimate, low, high = float(change.mean()), math.nan, math.nan
        if n > 1:
            from scipy.special import stdtrit

            reach = float(stdtrit(n - 1, 1 - ALPHA / 2)) * float(change.std()) / math.sqrt(n)
            low, high = estimate - reach, estimate + reach
        return cls(
            metric=metric, estimate=estimate, low=low, high=high, preferred=float(preferred.double().mean()), n=n
        )

    @property
    def told(self) -> bool:
        """Whether the gap is told from 0, and the preference is above 1/2 (exact binomial test at ALPHA / 2).

        This takes 6 pairs at least.
        """
        from scipy.special import bdtr

        against = round(self.n * (1 - self.preferred))
        return (self.low > 0 or self.high < 0) and float(bdtr(against, self.n, 0.5)) <= ALPHA / 2

    def defined(self, shares: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Shares of this gap: NaN unless it is told from chance."""
        return shares if self.told else torch.full_like(shares, math.nan)

    def columns(self) -> dict[str, str | float | int | bool]:
        """The same in every row of a table: metric, n_pairs, gap, gap_low, gap_high, answer_preferred, gap_told."""
        bounds = {"gap": self.estimate, "gap_low": self.low, "gap_high": self.high}
        chance = {"answer_preferred": self.preferred, "gap_told": self.told}
        return {"metric": self.metric, "n_pairs": self.n, **bounds, **chance}


def gap_of(model: HookedTransformer, pairs: Pairs, *, metric: str = "logit_difference") -> Gap:
    """How far the metric of the clean run is from that of the corrupted one. Raises `ValueError` for no pairs."""
    measure, pairs = metric_named(metric), prepare(model, pairs)
    clean, corrupted = (metric_of(model, tokens, pairs, measure) for tokens in (pairs.clean, pairs.corrupted))
    return Gap.between(metric, corrupted, clean, prefers_answer(model, pairs))


def prefers_answer(model: HookedTransformer, pairs: Pairs) -> Bool[Tensor, " pair"]:
    """Whether the clean run of each pair has a larger logit for the answer than for the wrong one."""
    pairs = prepare(model, pairs)
    return metric_of(model, pairs.clean, pairs, logit_difference) > 0


@torch.no_grad()
def metric_of(model: HookedTransformer, tokens: Tensor, pairs: Pairs, measure: Metric) -> Float[Tensor, " pair"]:
    """The metric of a run of `tokens`, one sequence a pair."""
    n_pairs, _ = block_sizes(model, tokens.shape[1], None)
    parts = (
        measure(model(tokens[rows], pairs.positions[rows, None])[:, 0], pairs[rows])
        for rows in blocks(len(pairs), n_pairs)
    )
    return torch.cat(list(parts))
