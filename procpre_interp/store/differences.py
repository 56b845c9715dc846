"""How runs differ: flat configs, differences between them, and their lineage."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from procpre_interp.store.store import Run


def config_differences(configs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """The fields in which configs differ, one row per field, one column per run; every field of a single one."""
    flat = {run: flatten(config) for run, config in configs.items()}
    fields = list(dict.fromkeys(field for values in flat.values() for field in values))
    table = pd.DataFrame(
        [{"field": field, **{run: values.get(field, "(default)") for run, values in flat.items()}} for field in fields],
        columns=["field", *flat],
    )
    if len(flat) == 1:
        return table
    return table.loc[[len(set(row)) > 1 for row in table[list(flat)].itertuples(index=False)]]


def lineage(runs: Sequence[Run]) -> pd.DataFrame:
    """Where the weights came from: one row per run and parent.

    Where any run goes on with a training, the step from which; where any has its parents' optimiser state, whose it is.
    """
    rows = [
        {
            "run": run.id,
            "parent": parent["run"],
            "components": parent.get("selector", "all"),
            "step": "final" if (step := parent.get("step")) is None else str(step),
            "damage": json.dumps(ablation) if (ablation := parent.get("ablation")) else "none",
            "goes on from step": str(run.config.get("train", {}).get("start_at", "")),
            "optimiser": run.config.get("optimiser", "fresh"),
        }
        for run in runs
        for parent in run.config.get("parents") or [_without_parents(run)]
    ]
    table = pd.DataFrame(rows)
    plain = {"goes on from step": "", "optimiser": "fresh"}
    return table.drop(columns=[name for name, value in plain.items() if name in table and set(table[name]) <= {value}])


def _without_parents(run: Run) -> dict[str, str]:
    origin = "(imported)" if "imported" in run.config else "(fresh weights)"
    return {"run": origin, "selector": "", "step": " "}


def flatten(config: Any, prefix: str = "") -> dict[str, str]:
    """A nested config as one value per dotted field."""
    if isinstance(config, Mapping):
        items = config.items()
    elif isinstance(config, list) and any(isinstance(item, Mapping) for item in config):
        items = enumerate(config)
    else:
        return {prefix: json.dumps(config, default=str).strip('"')}
    nested = (flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in items)
    return {field: value for part in nested for field, value in part.items()}
