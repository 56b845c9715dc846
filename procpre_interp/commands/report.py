"""`procpre-interp report`: one HTML file about some runs, or about the newest reproduction."""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import Positional

from procpre_interp.commands.options import parse
from procpre_interp.report import conditions_report, runs_report
from procpre_interp.runs import RunStore
from procpre_interp.terminal import default_store


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained HTML file: curves, numbers, diagnosis, configs, lineage, environment.

    RUN is an id, the beginning of one, or "latest". Without any, the newest result of `procpre-interp reproduce`.
    """

    runs: Positional[tuple[str, ...]] = ()
    """Runs to compare."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    out: Path = Path("report.html")
    """The file to write."""


def main(arguments: list[str]) -> int:
    """Write the report and print where it is."""
    command = parse(Report, "report", arguments)
    store = RunStore(command.store)
    if command.runs:
        path = runs_report(store, [store.open(run) for run in command.runs], command.out)
    else:
        tables = store.tables("reproduce-")
        if not tables:
            raise ValueError(
                f"no result of `procpre-interp reproduce` in {command.store}; name runs to report on, "
                "`procpre-interp runs` lists them"
            )
        path = conditions_report(store, tables[0], command.out)
    print(f"report: {path}")
    return 0
