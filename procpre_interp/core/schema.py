"""What the small files in a store must hold, checked once, when they are read."""

import json
from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

from procpre_interp.core.config import shown as shown_value

DEEPEST, MOST_VALUES = 64, 1_000_000
"""Levels of nesting, and values on one level, in stored JSON or YAML: a few hundred bytes can stand for gigabytes."""

_PLAIN = (dict, list, str, int, float, bool, type(None))

STATUSES = ("finished", "diverged")
"""How a run can have ended."""

_NUMBERS = (
    *("seed", "n_layers", "n_heads", "d_model", "n_parameters", "steps", "tokens", "seconds", "threads"),
    *("loss_nats", "accuracy", "exact_match", "perplexity", "bits_per_byte", "prompt_overlap"),
    *("breakthrough_step", "breakthrough_limit"),
)
_SUMMARY: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("stop_reason", "task", "components", "kernel", "device", "created"), str),
    **dict.fromkeys(_NUMBERS, (int, float)),
    "positions_carried": bool,
    "parents": (str, list),
}
_LARGEST = 2**63


def parse_json(content: bytes) -> Any:
    """The value that JSON describes. Raises `ValueError` for anything else, and for what is nested too deeply."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"nested more than {DEEPEST} levels deep") from None
    if content.count(b"[") + content.count(b"{") > DEEPEST:  # a list of runs reads thousands that are flat
        check_plain(value)
    return value


def check_plain(value: Any) -> None:
    """Raise `ValueError` unless the value is made of mappings with text keys, lists, text, numbers, booleans and null.

    Also raised for more than `DEEPEST` levels or `MOST_VALUES` values; YAML aliases count as often as they occur.
    """
    level = [value]
    for _ in range(DEEPEST):
        for each in level:
            if not isinstance(each, _PLAIN):
                raise ValueError(f"it holds a {type(each).__name__}")
            if isinstance(each, dict) and not all(isinstance(key, str) for key in each):
                raise ValueError("it holds a key that is not text")
        inner = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, (dict, list)))
        level = list(islice(chain.from_iterable(inner), MOST_VALUES + 1))
        if not level:
            return
        if len(level) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
    raise ValueError(f"nested more than {DEEPEST} levels deep")


def check_fields(found: Mapping[Any, Any], types: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raise `ValueError` where a known field that is not null has another type. Booleans are not numbers."""
    for name, value in found.items():
        if value is None or (kind := types.get(name)) is None:
            continue
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"{name} is {shown(value)}")


def check_summary(summary: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a summary that cannot be a row in the list of runs: every field must be a single value,
    but for the list of parents."""
    check_fields(summary, _SUMMARY)
    parents = summary.get("parents")
    if isinstance(parents, list) and not all(isinstance(run, str) for run in parents):
        raise ValueError(f"parents holds {shown(next(run for run in parents if not isinstance(run, str)))}")
    for name, value in summary.items():
        if name == "parents":
            continue
        if isinstance(value, (list, dict)) or (isinstance(value, (int, float)) and not abs(value) < _LARGEST):
            raise ValueError(f"{name} is {shown(value)}")
    if summary.get("status") not in STATUSES:
        raise ValueError(f"status is {shown(summary.get('status'))}, not one of {', '.join(STATUSES)}")
    if not isinstance(summary.get("created"), str):
        raise ValueError(f"created is {shown(summary.get('created'))}")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a config without the outline of a run's config: task, model, training, seed, parents."""
    parts = dict.fromkeys(("task", "model", "train", "transfer"), dict)
    check_fields(config, parts | {"seed": int, "parents": list})
    for name in parts:
        if name in config and config[name] is None:
            raise ValueError(f"{name} is null")
    check_fields(config.get("task", {}), {"name": str})
    for parent in config.get("parents") or []:
        if not isinstance(parent, dict) or not isinstance(parent.get("run"), str):
            raise ValueError(f"parents has {shown(parent)}, which names no run")
        check_fields(parent, {"selector": str, "step": int, "ablation": dict})
        if parent.get("ablation") and not isinstance(parent["ablation"].get("name"), str):
            raise ValueError(f"parents has the ablation {shown(parent['ablation'])}, which has no name")


def check_metadata(metadata: Any) -> None:
    """Raise `ValueError` where known fields of a table's metadata have a wrong type."""
    if not isinstance(metadata, dict):
        raise ValueError(f"its metadata are {shown(metadata)}")
    text = dict.fromkeys(("title", "claim", "task", "protocol", "protocol_name", "note", "demo", "config"), str)
    numbers = dict.fromkeys(("threshold", "limit", "target_accuracy"), (int, float))
    check_fields(metadata, text | numbers | {"maps": list, "paper": dict, "paper_notes": dict, "cost": dict})
    for name in ("paper", "cost"):
        check_fields(metadata.get(name) or {}, dict.fromkeys(metadata.get(name) or {}, (int, float)))
    for each in metadata.get("maps") or []:
        if not isinstance(each, dict):
            raise ValueError(f"maps has {shown(each)}")
        check_fields(each, {"title": str, "effects": list})


def shown(value: Any) -> str:
    """A stored value for a message, cut to what fits on a line."""
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else shown_value(value, 60)
