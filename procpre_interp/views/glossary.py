"""The words of a report, for readers who know the abstract only: what is trained, on what, and what is compared."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

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

TASKS = {
    "addition": "Sums of two numbers, first digit first.",
    "composed": "Small programs of one to three steps and what they make of an input, step by step.",
    "delete": "A sequence, a symbol, and the sequence without that symbol's first appearance.",
    "dyck": "Balanced brackets of several kinds: each closing bracket must match the latest one that is still open. "
    "Where the next token is an opening bracket it cannot be predicted, so accuracy stays well below 100 %.",
    "dyck_shuffle": "Brackets of several kinds that may cross: each closes an open one of its own kind.",
    "eca": "Rows of an elementary cellular automaton, each following from the row before.",
    "haystack": "Needle in a haystack: pairs of key and value, then one of the keys again. The model must give its "
    "value, which takes a look-up in the context. A model that copies some value of the context gets about 13 %.",
    "identity": "A sequence, and the same sequence again.",
    "mixture": "Sequences of several tasks in turn, each behind a token that names its task.",
    "multiplication": "Products of two numbers, first digit first.",
    "reverse": "A sequence, and the same sequence backwards.",
    "reversed_addition": "Sums of two numbers, last digit first.",
    "set": "A sequence, and its symbols without repeats.",
    "shuffled": "The same tokens as another task, in random order: the control without its structure.",
    "sort": "A sequence, and its symbols in ascending order.",
    "sorting": "Ten integers, and the same integers in ascending order.",
    "stack": "Operations on a stack, and the stack that results.",
    "text": "Real text: predict the next token.",
    "union": "Two sequences, and the symbols of both without repeats.",
    "ww": "A string, and the same string again with nothing between.",
}
"""Each task in words; a test compares its names with the registry's."""


def glossary(configs: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What a reader of results on these tasks (their configs, nested ones included) must know: one row per word."""
    names = dict.fromkeys(name for config in configs for name in _names(config))
    words = {name: TASKS[name] for name in names if name in TASKS} | TERMS
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
