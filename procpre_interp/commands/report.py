"""`procpre-interp report`: one HTML file with the explorer's answers, or about some runs."""

from dataclasses import dataclass, field
from pathlib import Path

from procpre_interp.commands._options import Runs, parse
from procpre_interp.core.places import check_file
from procpre_interp.core.terminal import beside_package, default_store
from procpre_interp.store.store import RunStore
from procpre_interp.views.full_report import answers_report
from procpre_interp.views.html_report import runs_report


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one self-contained HTML file.

    Without any RUN: the explorer's answers and figures, from the newest result of `procpre-interp reproduce` to what is
    inside one model. With some: their curves, numbers, diagnosis, configs and lineage. RUN is an id, the beginning of
    one, or "latest".
    """

    runs: Runs = ()
    """Runs to compare."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    out: Path = Path("report.html")
    """The file to write."""
    look_into: str = ""
    """The run whose model is opened. Default: one that was pretrained and kept several steps."""
    models: bool = True
    """Whether to open a model at all, which needs torch and half a minute."""
    demo: bool = False
    """Report on the demo that comes with the package."""


def main(arguments: list[str]) -> int:
    """Write the report and print where it is."""
    command = parse(Report, "report", arguments)
    check_file(command.out)
    store = RunStore(beside_package("app") / "demo" if command.demo else command.store)
    if command.runs:
        path = runs_report(store, [store.open(run) for run in command.runs], command.out)
    elif not store.tables("reproduce-"):
        raise ValueError(
            f"no result of `procpre-interp reproduce` in {store.path}; name runs to report on, `procpre-interp runs` "
            "lists them, or see the demo with --demo"
        )
    else:
        path = answers_report(store, command.out, run=command.look_into if command.models else None)
    print(f"report: {path}")
    return 0
