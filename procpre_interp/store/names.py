"""How runs and tables of a store may be called, and where what belongs to a name is."""

import os
import re
from pathlib import Path

from procpre_interp.core.messages import shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""How runs and tables may be called."""
LONGEST_NAME = 150
"""Characters of a new name: a file system takes 255 bytes, and prefixes, endings and temporary names need room."""
LOCK = ".lock"


def check_new_name(name: str) -> None:
    """Raise `ValueError` where no new table, nor the files named after it, can be called so."""
    if not NAME.fullmatch(name):
        raise ValueError(f"name={shown(name)}; it names a table and a file: letters, digits, '.', '_' and '-'")
    if len(name) > LONGEST_NAME:
        raise ValueError(
            f"name={shown(name, 60)} has {len(name)} characters; it names a table and a file: at most {LONGEST_NAME}"
        )


def lock_file(store: Path, run_id: str) -> Path:
    """What the process holds that writes the run.

    Beside the run's folder, not in it: so it is held through the rename, and never ends up in a finished run.
    """
    return store / "partial" / f"{run_id}{LOCK}"


def folders(parent: Path) -> list[Path]:
    """The folders of runs in `parent`; none where there is no such folder."""
    try:
        with os.scandir(parent) as entries:
            return [parent / entry.name for entry in entries if NAME.fullmatch(entry.name) and _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where nobody may look
        return False
