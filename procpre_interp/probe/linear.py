"""Linear probes: what can be read off an activation by multinomial logistic regression."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.model.hits import hits
from procpre_interp.probe.representation import activations, real_positions, residual_sites

MOST_CLASSES = 128
"""Classes that `affordable_labels` leaves: of a vocabulary of thousands, most ids are too rare to be told apart."""
MOST_NUMBERS = 600_000
"""Rows times classes that `affordable_labels` leaves: some seconds per fit."""


class LogisticRegression(NamedTuple):
    """A fitted multinomial logistic regression."""

    weights: Float[Tensor, "feature_and_bias class"]
    """Weights of the features, the bias last."""
    converged: bool
    """Whether the optimiser reached its tolerance."""

    def accuracy(self, x: Float[Tensor, "row feature"], y: Int[Tensor, " row"]) -> float:
        """Share of rows whose class is a hit; a class of -1 never is."""
        return float((hits(self._logits(x), y.clamp_min(0)) & (y >= 0)).double().mean())

    def _logits(self, x: Float[Tensor, "row feature"]) -> Float[Tensor, "row class"]:
        return x.double() @ self.weights[:-1] + self.weights[-1]


def fit_logistic_regression(
    x: Float[Tensor, "row feature"],
    y: Int[Tensor, " row"],
    n_classes: int,
    *,
    l2: float | int = 1e-3,
    max_iterations: int = 2000,
) -> LogisticRegression:
    """Minimum of mean cross-entropy in nats + l2/2 |W|_F^2, the bias b free of the penalty.

    The classes y count from 0. The objective is convex, and L-BFGS stops where its gradient is below 1e-6 or it no
    longer decreases by a share of 1e-10. `converged` is False where `max_iterations` came first.
    """
    import scipy.optimize  # as slow to load as pandas

    x = x.double()
    # L-BFGS needs about a tenth of the steps in coordinates in which all curvatures are near 1: along the principal
    # directions of x (a rotation, which leaves |W|_F as it is), each scaled by (p_k (1 - p_k) lambda_j + l2)^-1/2, with
    # p_k the frequency of class k. These are the diagonal of the Hessian at weights of 0 and the best bias.
    spread, directions = torch.linalg.eigh(x.mT @ x / len(x))
    frequency = y.bincount(minlength=n_classes).double() / len(y)
    variance = (frequency * (1 - frequency)).clamp_min(0.5 / len(y))
    curvature = torch.cat([spread.clamp_min(0)[:, None] * variance + l2, variance[None]])
    unit = curvature.rsqrt()
    x = torch.cat([x @ directions, x.new_ones(len(x), 1)], 1)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat).view(unit.shape).to(x.device) * unit
        log_p = (x @ weights).log_softmax(1)
        penalised = torch.cat([weights[:-1], torch.zeros_like(weights[-1:])])
        value = F.nll_loss(log_p, y) + l2 / 2 * penalised.square().sum()
        residual = log_p.exp()
        residual[torch.arange(len(y), device=y.device), y] -= 1
        gradient = (x.mT @ residual / len(x) + l2 * penalised) * unit
        return float(value), gradient.flatten().cpu().numpy()

    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations, "gtol": 1e-6, "ftol": 1e-10}
    result = scipy.optimize.minimize(objective, np.zeros(unit.numel()), jac=True, method="L-BFGS-B", options=options)
    weights = torch.from_numpy(result.x).view(unit.shape).to(x.device) * unit
    return LogisticRegression(torch.cat([directions @ weights[:-1], weights[-1:]]), bool(result.success))


class _Split(NamedTuple):
    """Which labelled rows are for training, and their classes."""

    train: Bool[Tensor, " row"]
    classes: Int[Tensor, " row"]
    """Counted from 0 without gaps; -1 where a class does not occur in training."""
    n_classes: int


@torch.no_grad()
def linear_probe(
    model: HookedTransformer,
    batch: Batch,
    labels: Int[Tensor, "batch pos"],
    *,
    generator: Generator,
    sites: Sequence[str] | None = None,
    untrained: HookedTransformer | None = None,
    test_share: float | int = 0.25,
    l2: float | int = 1e-3,
    max_iterations: int = 2000,
    max_sequences: int = 64,
) -> pd.DataFrame:
    """How well a label can be read off each site by a linear probe: accuracies, 0 to 1, on held-out sequences.

    Columns: site, accuracy, majority, control, selectivity, untrained, n_train, n_test, n_classes, converged. The probe
    is `fit_logistic_regression` on features standardised by their mean and standard deviation in training. Rows are the
    real tokens whose label is not -1; whole sequences, drawn by `generator`, are for testing.

    - majority: accuracy of always the most frequent class in training
    - control: accuracy of the same probe on the control task, where each token id has one random label, drawn as
      frequent as the labels in training. It can only be learnt by heart, from what identifies the token
    - selectivity = accuracy - control
    - untrained: accuracy of the same probe on the model given by that name; NaN without
    - n_train, n_test: rows; n_classes: labels that occur in training; others count as wrong
    - converged: whether every fit in the row has

    A site is as in `probe.representation`; by default each state of the residual stream.

    Raises:
        ValueError: the labels do not fit the batch, fewer than two sequences have labels, training has one class only,
            or `test_share` is not between 0 and 1.

    Source: Hewitt & Liang 2019 (control tasks, selectivity).
    """
    if labels.shape != batch.tokens.shape:
        raise ValueError(f"labels of shape {tuple(labels.shape)} for tokens of shape {tuple(batch.tokens.shape)}")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share={test_share}; it must lie between 0 and 1")
    sites = residual_sites(model.config.n_layers) if sites is None else sites
    kept = (labels >= 0) & real_positions(batch)
    train = _training_rows(kept, test_share, generator)
    true = _split(labels[kept], train)
    if true.n_classes < 2:
        raise ValueError(f"{true.n_classes} class in training; a probe needs at least 2, so give more sequences")
    random = _split(_control_labels(batch.tokens[kept], labels[kept][train], generator), train)
    most_frequent = true.classes[train].bincount().argmax()
    majority = float((true.classes[~train] == most_frequent).double().mean())

    def probe(subject: HookedTransformer, site: str, *splits: _Split) -> list[tuple[float, bool]]:
        x = activations(subject, batch.tokens, kept, [site], max_sequences=max_sequences)[site]
        return [_held_out_accuracy(x, split, l2, max_iterations) for split in splits]

    rows = []
    for site in sites:
        # One site at a time, so that only its activations are held.
        (accuracy, converged), (control, control_converged) = probe(model, site, true, random)
        (fresh, fresh_converged), *_ = [(float("nan"), True)] if untrained is None else probe(untrained, site, true)
        rows.append(
            {
                "site": site,
                "accuracy": accuracy,
                "majority": majority,
                "control": control,
                "selectivity": accuracy - control,
                "untrained": fresh,
                "n_train": int(train.sum()),
                "n_test": int((~train).sum()),
                "n_classes": true.n_classes,
                "converged": converged and control_converged and fresh_converged,
            }
        )
    return pd.DataFrame(rows)


def affordable_labels(labels: Int[Tensor, "batch pos"], *, generator: Generator) -> Int[Tensor, "batch pos"]:
    """The labels of the `MOST_CLASSES` commonest classes, at random positions, -1 elsewhere.

    Positions are as many as `MOST_NUMBERS` allows. Where there are no more of either, the labels stay as they are.
    """
    classes, counts = labels[labels >= 0].unique(return_counts=True)
    commonest = classes[counts.argsort(descending=True, stable=True)[:MOST_CLASSES]]
    kept = torch.isin(labels, commonest)
    most = MOST_NUMBERS // max(1, len(commonest))
    if int(kept.sum()) > most:
        order = torch.rand(labels.shape, generator=generator, dtype=torch.float64).to(labels.device)
        order = torch.where(kept, order, 2.0).flatten().argsort()
        kept = torch.zeros_like(kept).flatten().index_fill(0, order[:most], True).view(kept.shape)
    return torch.where(kept, labels, -1)


def _training_rows(
    kept: Bool[Tensor, "batch pos"], test_share: float | int, generator: Generator
) -> Bool[Tensor, " row"]:
    """Which kept rows belong to sequences that are trained on; of each kind there is at least one sequence."""
    labelled = kept.any(1).nonzero().squeeze(1).cpu()
    if len(labelled) < 2:
        raise ValueError(f"{len(labelled)} sequences have labels; a probe needs one to train and one to test on")
    n_test = min(max(1, round(test_share * len(labelled))), len(labelled) - 1)
    is_test = torch.zeros(len(kept), dtype=torch.bool)
    is_test[labelled[torch.randperm(len(labelled), generator=generator)[:n_test]]] = True
    return ~is_test.to(kept.device)[:, None].expand(kept.shape)[kept]


def _control_labels(
    tokens: Int[Tensor, " row"], training_labels: Int[Tensor, " train_row"], generator: Generator
) -> Int[Tensor, " row"]:
    """The label of the control task: one for each token id, that of a random training row."""
    chosen = torch.randint(len(training_labels), (int(tokens.max()) + 1,), generator=generator)
    return training_labels[chosen.to(training_labels.device)][tokens]


def _split(labels: Int[Tensor, " row"], train: Bool[Tensor, " row"]) -> _Split:
    present = labels[train].unique()
    classes = torch.searchsorted(present, labels).clamp(max=len(present) - 1)
    return _Split(train, torch.where(present[classes] == labels, classes, -1), len(present))


def _held_out_accuracy(
    x: Float[Tensor, "row feature"], split: _Split, l2: float | int, max_iterations: int
) -> tuple[float, bool]:
    """Share of test rows that a probe predicts which was fitted to the others, and whether the fit converged."""
    train, classes = (values.to(x.device) for values in (split.train, split.classes))
    x = x.double()
    spread, mean = torch.std_mean(x[train], 0, correction=0)
    x = (x - mean) / torch.where(spread > 0, spread, 1.0)
    fit = fit_logistic_regression(x[train], classes[train], split.n_classes, l2=l2, max_iterations=max_iterations)
    return fit.accuracy(x[~train], classes[~train]), fit.converged
