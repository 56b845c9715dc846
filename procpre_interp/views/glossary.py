"""The words of a report, for readers who know the abstract only: what is trained, on what, and what is compared."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from procpre_interp.core.source import registered

SETTING = (
    "A small transformer is first trained on generated sequences that mean nothing (phase 1, procedural pretraining). "
    "Some of its weights then start a second model, which is trained on the task of interest (phase 2). The question "
    "is what phase 2 gains from that, and which weights carry the gain."
)
"""What every report is about."""

TERMS = {
    "phase 1": "Pretraining on generated sequences.",
    "phase 2": "Training on the task of interest, from transferred or fresh weights. Its test accuracy is the result.",
    "condition": "What is transferred into phase 2, and how: nothing, all weights, attention and LayerNorms (LN), "
    "damaged weights.",
    "replicate": "One fresh seed of both phases, carried through all conditions. Intervals are over replicates, and "
    "conditions are compared within replicates.",
    "gain": "Accuracy of a condition minus that of no pretraining in the same replicate, in percentage points.",
    "breakthrough": "The step at which validation accuracy first reaches the threshold. Here learning is sudden: a run "
    "is at chance for a while and then solves the task within a few hundred steps, or never does.",
}
"""Words that all reports use."""

ON_TEXT = {
    "phase 2": "Training on text, from transferred or fresh weights. Its test loss is the result.",
    "gain": "How far the test loss of a condition lies below that of no pretraining in the same replicate, in nats per "
    "token: above 0 is better.",
}
"""What two of them stand for where phase 2 is text. There the loss falls smoothly, and no breakthrough is counted."""


def task_words() -> dict[str, str]:
    """Each task of the package in words, by its name: what its class says `in_words`."""
    return {found.name: found.texts["in_words"] for found in registered("TASKS", "data")}


def glossary(configs: Iterable[Mapping[str, Any]], *, on_text: bool = False) -> pd.DataFrame:
    """What a reader of results on these tasks (their configs, nested ones included) must know: one row per word.

    `on_text`: whether phase 2 is text.
    """
    names = dict.fromkeys(name for config in configs for name in _names(config))
    known = task_words()
    words = {name: known[name] for name in names if name in known} | TERMS
    if on_text:
        words |= ON_TEXT
        del words["breakthrough"]
    return pd.DataFrame({"Word": list(words), "What it means": list(words.values())})


def _names(config: Any) -> Iterator[str]:
    """Names of a task and of those that it is made of."""
    if isinstance(config, Mapping):
        if isinstance(config.get("name"), str):
            yield config["name"]
        for value in config.values():
            yield from _names(value)
    elif isinstance(config, list):
        for value in config:
            yield from _names(value)
