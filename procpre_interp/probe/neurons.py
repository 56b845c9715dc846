"""What neurons of the MLPs respond to: how much of each one's activation a label of the position explains."""

from collections.abc import Mapping
from typing import cast

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer
from procpre_interp.probe.labels import NO_LABEL, labels_for, position_labels
from procpre_interp.probe.representation import ROUNDING, activations, real_positions

MOST_POSITIONS = 20_000
"""Positions that neurons are read at, drawn at random from longer batches: 3,072 neurons of a layer take up to 2 GB."""
MOSTLY = 0.5
"""Explained share from which on a neuron counts as responding to a label, mostly."""


def response_labels(batch: Batch, task: Task) -> dict[str, Int[Tensor, "batch pos"]]:
    """Labels that neurons are asked for: the token itself, its position, and those of the task (`LABELS`)."""
    real = real_positions(batch)
    position = torch.arange(batch.tokens.shape[1], device=batch.tokens.device).expand_as(batch.tokens)
    own = {"token": batch.tokens, "position": position}
    labels = {name: torch.where(real, values, NO_LABEL) for name, values in own.items()}
    return labels | {name: position_labels(batch, task, name) for name in labels_for(task)}


@torch.no_grad()
def neuron_responses(
    model: HookedTransformer, batch: Batch, labels: Mapping[str, Int[Tensor, "batch pos"]], *, generator: Generator
) -> pd.DataFrame:
    """How much of each neuron's activation after the GELU each label explains: one row per label, layer and neuron.

    Columns label, layer, neuron, active (the share of positions at which its input is above 0) and explained. With N
    labelled positions in K classes, `explained` is epsilon squared,

        1 - (sum over classes of squared deviations from the class mean / (N - K)) / (those from the mean / (N - 1)),

    which is 1 where the label says everything, and 0 on average where it says nothing, however many classes there are;
    it can be below 0. NaN where every position has a class of its own, all have one, or the neuron does not vary
    beyond rounding. Source: Kelley 1935, "An unbiased correlation ratio measure".
    """
    kept = real_positions(batch)
    if int(kept.sum()) > MOST_POSITIONS:
        order = torch.rand(kept.shape, generator=generator, dtype=torch.float64).to(kept.device)
        chosen = torch.where(kept, order, 2.0).flatten().argsort()[:MOST_POSITIONS]
        kept = torch.zeros_like(kept).flatten().index_fill(0, chosen, True).view(kept.shape)
    tables = []
    for layer in range(model.config.n_layers):  # one by one, since the activations of all would be large
        sites = {point: f"{point}.{layer}" for point in ("pre", "post")}
        found = activations(model, batch.tokens, kept, list(sites.values()))
        post, active = found[sites["post"]].double(), (found[sites["pre"]] > 0).double().mean(0)
        for name, label in labels.items():
            explained = explained_share(post, label[kept].to(post.device))
            tables.append(
                pd.DataFrame(
                    {
                        "label": name,
                        "layer": layer,
                        "neuron": range(len(explained)),
                        "active": active.cpu().numpy(),
                        "explained": explained.cpu().numpy(),
                    }
                )
            )
    return pd.concat(tables, ignore_index=True)


def neuron_table(responses: pd.DataFrame) -> pd.DataFrame:
    """`neuron_responses` by label and layer: the mean of `explained` over neurons, `mostly` (the share of them of which
    it explains half or more), `largest`, and which `neuron` that is. NaN counts in none of them."""
    rows = []
    for keys, each in responses.dropna(subset="explained").groupby(["label", "layer"], sort=False):
        label, layer = cast("tuple[str, int]", keys)
        explained = each["explained"].to_numpy(dtype=float)
        numbers = {
            "explained": explained.mean(),
            "mostly": (explained >= MOSTLY).mean(),
            "largest": explained.max(),
        }
        best = int(each["neuron"].iloc[explained.argmax()])
        rows.append({"label": label, "layer": layer, "neuron": best, **numbers})
    return pd.DataFrame(rows, columns=["label", "layer", "neuron", "explained", "mostly", "largest"])


def explained_share(x: Float[Tensor, "row neuron"], classes: Int[Tensor, " row"]) -> Float[Tensor, " neuron"]:
    """Epsilon squared of each column, of the rows whose class is not -1; see `neuron_responses`."""
    labelled = classes >= 0
    x, (_, which, counts) = x[labelled], classes[labelled].unique(return_inverse=True, return_counts=True)
    n, k = len(x), len(counts)
    if not 1 < k < n:
        return torch.full_like(x.new_zeros(x.shape[1]), torch.nan)
    centred = x - x.mean(0)
    means = torch.zeros(k, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, which, centred) / counts[:, None]
    total = centred.square().sum(0)
    within = total - (means.square() * counts[:, None]).sum(0)
    rounding = n * (ROUNDING * torch.finfo(torch.float32).eps * x.abs().amax(0)).square()
    return torch.where(total > rounding, 1 - (within / (n - k)) / (total / (n - 1)), torch.nan)
