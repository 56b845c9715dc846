"""What is known of a run being written from its folder, read without its weights and without pandas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from procpre_interp.core import regular_files, schema
from procpre_interp.core.plain_values import load_header, load_json, parse_yaml
from procpre_interp.core.schema import ConfigFields

RESUME, PREVIOUS = "resume.safetensors", "resume.previous.safetensors"
"""Where the training state is kept, and the one before it."""
SHARDS = "shards"
"""Folder with the tensors of training states that several processes wrote."""


def saved_fields(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Step and fields of the training states in the folder of a run being written that can be read, newest first."""
    for name in (RESUME, PREVIOUS):
        try:
            with regular_files.open_regular(folder / name) as file:
                header = load_header(file)
            state = load_json(header["__metadata__"]["state"])
            step = int(state["step"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError):
            continue
        yield step, state


def saved_step(folder: Path) -> int | None:
    """Steps behind the training state that a run being written has saved in its folder; None where there is none."""
    return next((step for step, _ in saved_fields(folder)), None)


def unfinished_config(folder: Path) -> ConfigFields | None:
    """The config of a run being written; None where it is not there yet, or cannot be read."""
    try:
        config = parse_yaml(regular_files.read_regular(folder / "config.yaml"))
        if not isinstance(config, dict):
            return None
        schema.check_config(config)
    except (OSError, ValueError):
        return None
    return cast(ConfigFields, config)


def unfinished_fields(folder: Path) -> dict[str, object]:
    """What is known of a run being written, under the names of a summary; nothing where its config cannot be read."""
    if (config := unfinished_config(folder)) is None:
        return {}
    parents = config.get("parents") or []
    return {
        "task": config.get("task", {}).get("name"),
        "seed": config.get("seed", 0),
        "parents": tuple(parent["run"] for parent in parents),
        "components": ", ".join(parent.get("selector", "all") for parent in parents) or None,
        "steps": saved_step(folder) or 0,
    }
