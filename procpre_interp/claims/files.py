"""Judged claims as files: in a store, and bundled with the package as JSON and CSV."""

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from procpre_interp.claims.claim_json import CELLS_HASH, claim_from_json, claim_to_json
from procpre_interp.claims.judged import JudgedClaim, Place, StoredClaim
from procpre_interp.core import atomic_files
from procpre_interp.store.cells import check_cells, with_run_lists, with_run_text
from procpre_interp.store.store import RunStore

PREFIX = "claim-"
"""Prefix of claim tables in the store."""
QUICK = "quick-"
"""Put before that prefix where the claim was only a smoke test."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A claim file that cannot be read, by the name of its claim."""

    name: str
    problem: str

    def __str__(self) -> str:
        return self.problem


def claim_scripts(folder: Path) -> dict[str, Path]:
    """The claims' scripts in a folder, by name."""
    found = [path for path in sorted(folder.glob("*.py")) if "\nEXPERIMENT = " in path.read_text(encoding="utf-8")]
    return {path.stem: path for path in found}


def table_name(judged: JudgedClaim) -> str:
    """Name of a claim's table in the store; a smoke test has another one, so that it never replaces a verdict."""
    return f"{QUICK if judged.quick else ''}{PREFIX}{judged.name}"


def _file_name(table: str) -> str:
    """Name of a claim's files in a folder, by that of its table."""
    return table.replace(PREFIX, "", 1)


def write_claim(store: RunStore, judged: JudgedClaim, table: pd.DataFrame, folder: Path | None = None) -> None:
    """Keep a judged claim and its cells in the store and, if given, as JSON and CSV in a folder; a smoke test under
    another name, so that it never replaces a verdict."""
    table = with_run_lists(table)
    check_cells(table)
    found = claim_to_json(judged)
    store.write_table(table_name(judged), table, found)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        name = _file_name(table_name(judged))
        # Enough digits for p-values of small differences to be the same when they are judged from the file.
        cells = with_run_text(table).round(8).to_csv(index=False)
        # One file names the other, so that a verdict never stands next to the cells of other runs.
        digest = hashlib.sha256(cells.encode()).hexdigest()
        atomic_files.write_json(folder / f"{name}.json", {**found, CELLS_HASH: digest})
        atomic_files.write_text(folder / f"{name}.csv", cells)


def find_claims(
    store: RunStore | None, folder: Path | None, *, quick: bool = False
) -> tuple[dict[str, StoredClaim], list[Unreadable]]:
    """All judged claims by name, and the files that cannot be read.

    One in the store stands before the one of that name in the folder, which says of an older one on what page it is
    shown, and how its measures are read. With `quick` smoke tests too, as "quick-<name>".
    """
    files_of = sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else []
    files_of = [path for path in files_of if quick or not path.name.startswith(QUICK)]
    stored = [] if store is None else store.tables(PREFIX) + (store.tables(QUICK + PREFIX) if quick else [])
    found: dict[str, StoredClaim] = {}
    problems: list[Unreadable] = []
    for place in [*files_of, *stored]:
        name = place.stem if isinstance(place, Path) else _file_name(place)
        try:
            if isinstance(place, Path):
                found[name] = _read_bundled(place)
            else:
                assert store is not None
                table = store.read_table(place)
                found[name] = _stored(table.metadata, table.frame, "store", found.get(name.removeprefix(QUICK)))
        except (OSError, ValueError, LookupError, RuntimeError) as problem:  # arrow's and json's are of all four kinds
            problems.append(Unreadable(name, f"claim file {place} cannot be read: {problem}"))
    return {name: found[name] for name in sorted(found)}, problems


def read_claims(store: RunStore | None, folder: Path | None) -> list[StoredClaim]:
    """All judged claims, by name, as `find_claims` gives them. Raises `ValueError` for a file that cannot be read."""
    found, problems = find_claims(store, folder)
    if problems:
        raise ValueError(str(problems[0]))
    return list(found.values())


def _read_bundled(path: Path) -> StoredClaim:
    """A claim from its JSON file and the CSV file next to it."""
    judged, beside = json.loads(path.read_bytes()), path.with_suffix(".csv")
    content = beside.read_bytes()
    wanted = judged.get(CELLS_HASH) if isinstance(judged, dict) else None
    if wanted not in (None, hashlib.sha256(content).hexdigest()):  # older files do not say
        raise ValueError(f"{beside.name} is not what it was judged on; compute it again")
    return _stored(
        judged, with_run_lists(pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""])), "bundled"
    )


def _stored(found: object, cells: pd.DataFrame, source: Place, like: JudgedClaim | None = None) -> StoredClaim:
    judged = claim_from_json(found, like)
    check_cells(cells)
    fields = {field.name: getattr(judged, field.name) for field in dataclasses.fields(judged)}
    return StoredClaim(**fields, source=source, cells=cells)
