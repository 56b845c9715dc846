"""Judged claims as files: in a store, and bundled with the package as JSON and CSV."""

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from procpre_interp.claims.claim import Predicted, Verdict
from procpre_interp.core import atomic_files
from procpre_interp.store.store import RunStore

PREFIX = "claim-"
"""Prefix of claim tables in the store."""
QUICK = "quick-"
"""Put before that prefix where the claim was only a smoke test."""
CELLS_HASH = "cells_sha256"
"""Entry of a claim's JSON file: the hash of the CSV file next to it."""
_NUMBER = (int, float, type(None))
_JUDGED: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("name", "claim", "prediction", "margin", "refuted_by", "verdict", "reason"), str),
    "quick": bool,
    "seeds": list,
    "contrasts": list,
    "log_rank": (dict, type(None)),
}
_CONTRAST: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("contrast", "formula", "measure", "predicted", "verdict", "reason"), str),
    **dict.fromkeys(("estimate", "low", "high", "p", "smallest_p", "detectable"), _NUMBER),
    "margin": (int, float),
    "n": int,
    "primary": bool,
}
_CELL = {"condition", "label", "replicate", "run", "status"}
"""What every claim file has, and of which type."""


def table_name(judged: Mapping[str, Any]) -> str:
    """Name of a claim's table in the store; a smoke test has another one, so that it never replaces a verdict."""
    return f"{QUICK if judged['quick'] else ''}{PREFIX}{judged['name']}"


def write_claim(store: RunStore, judged: Mapping[str, Any], table: pd.DataFrame, folder: Path | None = None) -> None:
    """Keep a judged claim and its cells in the store and, if given, as JSON and CSV in a folder."""
    store.write_table(table_name(judged), table, judged)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        cells = table.round(5).to_csv(index=False)
        # One file names the other, so that a verdict never stands next to the cells of other runs.
        digest = hashlib.sha256(cells.encode()).hexdigest()
        atomic_files.write_json(folder / f"{judged['name']}.json", {**judged, CELLS_HASH: digest})
        atomic_files.write_text(folder / f"{judged['name']}.csv", cells)


def find_claims(
    store: RunStore | None, folder: Path | None, *, quick: bool = False
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """All judged claims by name, and a line for each file that cannot be read.

    One in the store stands before the one of that name in the folder. Each has `source` (store or bundled) and
    `cells`, the rows that it was judged on. With `quick` the store's smoke tests too, as "quick-<name>".
    """
    files_of = sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else []
    stored = [] if store is None else store.tables(PREFIX) + (store.tables(QUICK + PREFIX) if quick else [])
    found: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    for place in [*files_of, *stored]:
        try:
            if isinstance(place, Path):
                name, source, judged = place.stem, "bundled", json.loads(place.read_bytes())
                content = place.with_suffix(".csv").read_bytes()
                wanted = judged.get(CELLS_HASH) if isinstance(judged, dict) else None
                if wanted not in (None, hashlib.sha256(content).hexdigest()):  # older files do not say
                    raise ValueError(f"{place.with_suffix('.csv').name} is not what it was judged on; compute it again")
                cells = pd.read_csv(io.BytesIO(content))
            else:
                assert store is not None
                table = store.read_table(place)
                name, source, judged, cells = place.replace(PREFIX, "", 1), "store", table.metadata, table.frame
            _check_judged(judged, cells)
        except (OSError, ValueError, LookupError, RuntimeError) as problem:  # arrow's and json's are of all four kinds
            problems.append(f"claim file {place} cannot be read: {problem}")
        else:
            found[name] = {**judged, "source": source, "cells": cells}
    return {name: found[name] for name in sorted(found)}, problems


def read_claims(store: RunStore | None, folder: Path | None) -> list[dict[str, Any]]:
    """All judged claims, by name, as `find_claims` gives them. Raises `ValueError` for a file that cannot be read."""
    found, problems = find_claims(store, folder)
    if problems:
        raise ValueError(problems[0])
    return list(found.values())


def _check_judged(judged: Any, cells: pd.DataFrame) -> None:
    """Raises `ValueError` for what `judge` does not write."""
    _check_fields(judged, _JUDGED, "claim")
    if judged["verdict"] not in get_args(Verdict):
        raise ValueError(f"its verdict is {judged['verdict'][:60]!r}, none of {', '.join(get_args(Verdict))}")
    if not judged["seeds"] or not all(isinstance(seed, int) for seed in judged["seeds"]):
        raise ValueError("its seeds are no list of whole numbers")
    if not judged["contrasts"]:
        raise ValueError("it has no contrasts")
    for row in judged["contrasts"]:
        _check_fields(row, _CONTRAST, "contrast")
        if row["verdict"] not in ("", *get_args(Verdict)) or row["predicted"] not in ("", *get_args(Predicted)):
            raise ValueError(f"a contrast predicts {row['predicted'][:60]!r} and is {row['verdict'][:60]!r}")
        weights = row.get("weights", {"": 0})  # older files have none
        if not (
            isinstance(weights, dict) and weights and all(isinstance(each, (int, float)) for each in weights.values())
        ):
            raise ValueError(f"contrast {row['contrast'][:60]!r} has weights that are no numbers")
    if missing := _CELL - set(cells):
        raise ValueError(f"its cells lack {', '.join(sorted(missing))}")


def _check_fields(found: Any, types: Mapping[str, type | tuple[type, ...]], what: str) -> None:
    """Raises `ValueError` where a field is not there, or of another type."""
    if not isinstance(found, dict):
        raise ValueError(f"it has no {what}")
    if missing := types.keys() - found.keys():
        raise ValueError(f"its {what} lacks {', '.join(sorted(missing))}")
    if wrong := sorted(key for key, kind in types.items() if not isinstance(found[key], kind)):
        raise ValueError(f"its {what} has a wrong type of {', '.join(wrong)}")
