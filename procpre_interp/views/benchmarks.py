"""The page of benchmarks: each script of measurements writes its own table into it."""

from pathlib import Path
from typing import Any

import pandas as pd

from procpre_interp.core.atomic_files import write_text
from procpre_interp.core.environment import environment
from procpre_interp.views.markdown import fill, markdown_table, markers


def record(script: str, table: pd.DataFrame) -> Path:
    """Write a script's table, with a line that says when and on what it was measured, into the page beside the script.

    `script` is the script's `__file__`; the page is `BENCHMARKS.md`, whose marker `<!-- table: NAME.py -->` names the
    script. Raises `ValueError` where the page has no such marker.
    """
    page, name = Path(script).with_name("BENCHMARKS.md"), Path(script).name
    text = page.read_text(encoding="utf-8")
    if name not in markers(text):
        raise ValueError(f"{page} has no <!-- table: {name} -->, so nothing was recorded")
    block = f"{measured_on(environment())}\n\n{markdown_table(table)}"
    write_text(page, fill(text, lambda marker: block if marker == name else None))
    return page


def measured_on(about: dict[str, Any]) -> str:
    """Day, commit, processor and version of torch of a measurement: "2026-11-28, 1a2b3c4, AMD EPYC ..., 2 cores"."""
    commit = about["git_commit"][:7] if about["git_commit"] else "no checkout"
    commit += " with changes" if about["git_dirty"] else ""
    torch = about["packages"]["torch"]
    return f"{about['started'][:10]}, {commit}, {about['cpu']}, {about['cores']} cores, torch {torch}:"
