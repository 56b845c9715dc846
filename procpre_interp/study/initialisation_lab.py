"""The lab of closed-form initialisations: options fitted on phase-1 models, and the file that keeps them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from procpre_interp.core import atomic_files
from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.model import HookedTransformer
from procpre_interp.stats.greedy_search import (
    FILE,
    Options,
    Recipe,
    Search,
    plain_search,
    recipe_name,
    search_from_plain,
)
from procpre_interp.sweep.config import Condition
from procpre_interp.train.closed_form import (
    LowRankIdentity,
    MeanEmbedding,
    Mimetic,
    PositionCode,
    SpectrumLaw,
    TensorScale,
)
from procpre_interp.train.interventions import Intervention

MATRICES = "attn.W_Q+attn.W_K+attn.W_V+attn.W_O"
SCALES = {
    "attention": "attention scale",
    "biases": "attention biases",
    "norms": "LayerNorm scale",
    "positions": "position scale",
    "embeddings": "one embedding",
}
"""The recipe that keeps of each transferred tensor its size, and nothing else: where searches start."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lab:
    """Fitted options, and the recipe that a search found."""

    fitted: Mapping[str, Mapping[str, Intervention]]
    """Factor -> option -> what it does."""
    search: Search | None = None
    """Default: none was made yet."""
    about: Mapping[str, object]
    """Which runs it was fitted on, which seeds it was tuned on, and what that took."""

    @property
    def options(self) -> Options:
        """Names alone."""
        return {factor: tuple(options) for factor, options in self.fitted.items()}

    def interventions(self, recipe: Mapping[str, str]) -> tuple[Intervention, ...]:
        """What a recipe does, in the order of the factors."""
        return tuple(options[recipe[factor]] for factor, options in self.fitted.items() if factor in recipe)

    def condition(self, name: str, recipe: Mapping[str, str], *more: Intervention, label: str = "") -> Condition:
        """A condition without phase 1 that starts from a recipe, with what else is done to its training."""
        done = (*self.interventions(recipe), *more)
        return Condition(name=name, label=label or recipe_name(recipe), interventions=done)

    @property
    def best(self) -> Recipe:
        """The recipe that the search found. Raises `ValueError` where none was made."""
        if self.search is None:
            raise ValueError("no search over these options was made yet")
        return dict(self.search.best)


def fit_options(models: Sequence[HookedTransformer]) -> dict[str, dict[str, Intervention]]:
    """Every option of the lab, fitted on these phase-1 models."""
    return {
        "attention": {
            "attention scale": TensorScale.fit(models, MATRICES),
            "spectrum law": SpectrumLaw.fit(models),
            "low rank + identity": LowRankIdentity.fit(models),
            "mimetic": Mimetic.fit(models),
        },
        "biases": {"attention biases": TensorScale.fit(models, f"attn-{MATRICES.replace('+', '-')}")},
        "norms": {"LayerNorm scale": TensorScale.fit(models, "ln")},
        "mlp": {"MLP scale": TensorScale.fit(models, "mlp")},
        "positions": {
            "position scale": TensorScale.fit(models, "pos"),
            "sinusoidal positions": PositionCode.fit(models),
            "previous-position head": PositionCode.fit(models, kind="previous"),
        },
        "embeddings": {"one embedding": MeanEmbedding.fit(models)},
    }


def write_lab(lab: Lab, path: Path) -> None:
    """Keep a lab as JSON."""
    search = {} if lab.search is None else plain_search(lab.search)
    fitted = {factor: to_dict(options) for factor, options in lab.fitted.items()}
    atomic_files.write_json(path, {**lab.about, "search": search, "fitted": fitted})


def read_lab(path: Path = FILE) -> Lab:
    """A lab that `write_lab` kept. Raises `ValueError` where the file holds anything else."""
    try:
        content = json.loads(path.read_bytes())
        found, fitted = content.pop("search"), content.pop("fitted")
        options = {
            factor: {name: from_dict(Intervention, fields, name) for name, fields in each.items()}
            for factor, each in fitted.items()
        }
        lab = Lab(fitted=options, search=search_from_plain(found), about=content)
        lab.interventions(lab.best)
    except (LookupError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(f"{path} holds no fitted initialisations: {problem!r}") from None
    return lab
