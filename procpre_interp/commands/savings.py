"""`procpre-interp savings`: tokens and compute that the conditions of a table save, with phase 1 counted."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from procpre_interp.claims.files import PREFIX
from procpre_interp.commands._options import parse
from procpre_interp.core.places import check_file
from procpre_interp.core.terminal import default_store
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.store.outcomes import cell_results
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import results as exhibits
from procpre_interp.views.exhibits.savings import READING, against_spent, as_text, by_condition, savings
from procpre_interp.views.html_page import Section, write_report


@dataclass(frozen=True, kw_only=True)
class SavingsCommand:
    """Print how many tokens, and how much compute, each condition of a table saves.

    Counted is what a run needs to reach the final validation loss of the run without pretraining of its replicate, and
    what phase 1 takes. NAME is a table of the store, or the beginning of one, as `procpre-interp sweep` writes it; the
    newest of several is taken.
    """

    name: Annotated[Positional[str], tyro.conf.arg(metavar="NAME")]
    """Table of the store."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    baseline: str = "none"
    """Condition whose final loss is to be reached, and whose budget is saved."""
    out: Path | None = None
    """The report to write. Default: savings-NAME.html in the folder of the runs."""


def main(arguments: list[str]) -> int:
    """Print the table and write the report."""
    command = parse(SavingsCommand, "savings", arguments)
    if command.out is not None:
        check_file(command.out)
    store = RunStore(command.store)
    # Tables of claims are no results of a catalogue, and are named in full.
    catalogue = exhibits.catalogue(store)
    # A sweep's whole name is none of another that begins with it: text_map, and not text_map_code.
    named = [name for name in catalogue if name.startswith(f"{command.name}-")]
    named = named or [name for name in catalogue if name.startswith(command.name)]
    named = named or [name for name in store.tables(command.name) if PREFIX not in name]  # it may be a damaged one
    found = exhibits.load_results(store, next(iter(named), command.name))
    # What older tables do not say, such as the tokens of phase 1, their runs do.
    cells = [
        "condition",
        "label",
        "replicate",
        "phase1_run",
        "run",
        *({"fresh_arm", "chain", "phase2_run"} & set(found.table)),
    ]
    fresh = cell_results(found.table.reindex(columns=cells), store, {})
    if fresh.empty:
        raise ValueError(f"the store {command.store} holds none of the runs of {found.name}")
    saved = savings(dataclasses.replace(found, table=fresh), command.baseline)
    text, title = as_text(saved), f"What phase 1 saves: {found.title}"
    print_table(stdout_console(), text.to_dict("list"), title, left=["Condition"])
    print(f"\n{READING}\n{saved.note}")
    path = command.out or command.store / f"savings-{found.name}.html"
    blocks = [text, saved.note, by_condition(saved), against_spent(saved)]
    sections = [Section(title="Savings", blocks=blocks), Section(title="Every replicate", blocks=[saved.replicates])]
    print(f"report: {write_report(path, title, sections)}")
    return 0
