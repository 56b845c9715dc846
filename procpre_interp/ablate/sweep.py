"""Many damaged copies of one model, to be scored together: nothing is trained."""

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.ablate.ablation import Ablation
from procpre_interp.core.config import ORIGIN, to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer


def damaged_copies(
    model: HookedTransformer, ablations: Sequence[Ablation], *, n_draws: int, seed: int
) -> Iterator[Float[Tensor, " n_parameters"]]:
    """Flat parameter vectors, draw by draw of one ablation after another, in the order of `model.flat`.

    Draw i of every ablation of one name has the same random stream, so that doses of noise are paired.
    """
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    for ablation in ablations:
        for draw in range(n_draws):
            generator = stream(seed, "damage", ablation.name, draw)
            damaged = ablation.apply(weights, model.config, generator=generator)
            yield torch.cat([damaged[name].flatten() for name in model.slices])


def copy_labels(ablations: Sequence[Ablation], *, n_draws: int) -> pd.DataFrame:
    """What `damaged_copies` yields, one row per copy: ablation, its fields, and draw."""
    rows = []
    for ablation in ablations:
        fields = to_dict(ablation, defaults=True)
        label = {"ablation": fields.pop("name"), **{key: fields[key] for key in fields if key not in ORIGIN}}
        rows += [{**label, "draw": draw} for draw in range(n_draws)]
    return pd.DataFrame(rows)
