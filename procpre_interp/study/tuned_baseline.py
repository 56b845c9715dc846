"""Fresh initialisations whose learning rate and scales are tuned, and the file that keeps which one was found best."""

import dataclasses
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from procpre_interp.core import atomic_files
from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.core.terminal import beside_package
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.config import Architecture, RunConfig, model_config
from procpre_interp.stats.successive_halving import Halving, halving_from_plain
from procpre_interp.study.protocols import ARCHITECTURE, Protocol
from procpre_interp.sweep.config import Condition
from procpre_interp.train import TrainConfig
from procpre_interp.train.closed_form import TensorScale
from procpre_interp.train.closed_form.base import rounded
from procpre_interp.train.interventions import Intervention

FILE = beside_package("experiments") / "results" / "tuned_baseline.json"
"""What `experiments/search_baseline.py` writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """A fresh model without any parent: its learning rate, and factors on the sizes of its tensors."""

    learning_rate: float
    """Peak learning rate; the paper's is 0.001."""
    matrices: float = 1.0
    """Factor on the matrices of the blocks, as GPT-2's initialisation has them."""
    last_norm: float = 1.0
    """Factor on the gains of the final LayerNorm."""
    embeddings: float = 1.0
    """Factor on the embeddings of tokens and positions."""

    @property
    def label(self) -> str:
        """What people read: the learning rate, and the factors that are not 1."""
        factors = {key: value for key, value in to_dict(self, defaults=True).items() if key in _SELECTORS}
        scaled = [f"{key.replace('_', ' ')} x {value:g}" for key, value in factors.items() if value != 1]
        return ", ".join([f"lr {self.learning_rate:g}", *scaled])

    def interventions(self, shape: Architecture = ARCHITECTURE) -> tuple[Intervention, ...]:
        """What gives a fresh model of this shape its sizes."""
        done = []
        for field, selector in _SELECTORS.items():
            factor = getattr(self, field)
            if factor != 1:
                fitted = TensorScale.fit([_fresh(shape)], selector)
                sizes = tuple((name, rounded(factor * rms)) for name, rms in fitted.rms)
                done.append(dataclasses.replace(fitted, rms=sizes))
        return tuple(done)

    def condition(self, name: str, train: TrainConfig) -> Condition:
        """A condition that is trained like this, with its own learning rate."""
        own = dataclasses.replace(train, learning_rate=self.learning_rate)
        label = f"tuned fresh initialisation ({self.label})"
        return Condition(name=name, label=label, interventions=self.interventions(), train=own)


_SELECTORS = {
    "matrices": "attn.W_Q+attn.W_K+attn.W_V+attn.W_O+mlp.W_in+mlp.W_out",
    "last_norm": "ln_final.w",
    "embeddings": "embed+pos",
}


def _fresh(shape: Architecture) -> HookedTransformer:
    return HookedTransformer.from_seed(model_config(RunConfig(task=TASKS.build("haystack"), model=shape)), 0)


def grid(**levels: Sequence[float]) -> dict[str, Baseline]:
    """Every combination of these levels, by its label."""
    found = [Baseline(**dict(zip(levels, combination))) for combination in itertools.product(*levels.values())]
    return {each.label: each for each in found}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """The budget of one round of the search."""

    seeds: int
    """Tuning seeds, from 0."""
    stop_after: int
    """Steps of each run, while the schedule is laid out over all of the protocol's."""
    kept: int
    """How many of its options go on; the last rung keeps 1."""

    def train(self, protocol: Protocol) -> TrainConfig:
        """How its runs are trained."""
        return dataclasses.replace(protocol.phase2, stop_after=min(self.stop_after, protocol.phase2.steps))


def progress(history: pd.DataFrame, *, diverged: bool) -> float:
    """Minus the validation loss of a run in nats, mean over training: higher for what learns more, and sooner.

    It tells runs apart that have not broken through yet, as accuracies do not. A diverged run counts as one that
    guesses evenly among all tokens of haystack.
    """
    seen = history.loc[history["split"] == "validation"]
    step, loss = (seen[name].to_numpy(dtype=float) for name in ("step", "loss_nats"))
    if diverged or len(step) < 2:
        return -math.log(TASKS.build("haystack").d_vocab)
    return -float(np.trapezoid(loss, step) / np.ptp(step))


@dataclass(frozen=True, kw_only=True, slots=True)
class TunedBaseline:
    """The search, in its file."""

    options: Mapping[str, Baseline]
    search: Halving
    about: Mapping[str, object]
    """Budgets, tuning seeds and cost."""

    @property
    def best(self) -> Baseline:
        """What was found."""
        return self.options[self.search.best]


def write_baseline(found: TunedBaseline, path: Path) -> None:
    """Keep a search as JSON."""
    options = {label: to_dict(each) for label, each in found.options.items()}
    atomic_files.write_json(path, {**found.about, "search": dataclasses.asdict(found.search), "options": options})


def read_baseline(path: Path = FILE) -> TunedBaseline | None:
    """A search that `write_baseline` kept; None where there is no file yet. Raises `ValueError` for anything else."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())
        search, options = halving_from_plain(content.pop("search")), content.pop("options")
        baselines = {str(label): from_dict(Baseline, fields, str(label)) for label, fields in options.items()}
        if search.best not in baselines:
            raise ValueError(f"{search.best!r} is no option")
    except (LookupError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(f"{path} holds no search of a baseline: {problem!r}") from None
    return TunedBaseline(options=baselines, search=search, about=content)
