"""`procpre-interp sweep`: a grid of transfers from one YAML file, over replicates, with a live table and a report.

What is slow to import is imported after the first sentence.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from procpre_interp.commands._options import parse
from procpre_interp.core.environment import default_store
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.places import check_folder
from procpre_interp.core.startup import quick_imports
from procpre_interp.core.streams import announce
from procpre_interp.core.terminal import beside_package
from procpre_interp.engine.options import EngineOptions


@dataclass(frozen=True, kw_only=True)
class SweepCommand(EngineOptions):
    """Run every condition of a sweep over its replicates, and report.

    CONFIG is a YAML file: pretrainings (phase1), the task and training of phase 2, and the conditions, one by one or as
    grids and transfer maps. Phases after phase 2 stand under `then`, of the sweep or of a condition; `insert` puts
    phase 1 in the middle of phase 2 (--show phases has both). A name is a sweep that comes with the package, such as
    components; --show prints it, to be copied and changed. `plugins: [my.py]` in the file loads tasks and controls of
    your own. Runs that the store already holds are not repeated, so the same command resumes after Ctrl-C, and a larger
    grid computes only what is new. A failed cell is shown and counted; the others continue.

    With a block `fair`, every transfer gets its control arms (fresh with its scales, natural text, shuffled sequences;
    or those of them that `controls` says), and every arm the same number of trials over learning rate and initial
    scale, on seeds of their own: see --show fair_text.
    """

    config: Annotated[Positional[Path], tyro.conf.arg(metavar="CONFIG")]
    """YAML file of the sweep, or the name of one that comes with the package."""
    show: bool = False
    """Print the file, and run nothing."""
    count: bool = False
    """Print how many runs it takes, and how many of these the store has, and run nothing."""
    out: Path = field(default_factory=default_store)
    """Folder of the runs, and of NAME.html."""
    device: str | None = None
    """Device of stacked runs, such as cuda. Default: as in the file."""
    stack: int | None = None
    """Largest number of runs in a stack. Default: 64."""
    replicates: int | None = None
    """Number of replicates. Default: as in the file."""
    minutes: float | None = None
    """Stop starting runs after this many minutes; those under way are finished. Default: no limit."""
    results: Path | None = None
    """Folder for the effects of its maps as CSV, NAME_map.csv, and NAME_interactions.csv where there are any. Default:
    no files."""
    outcome: str | None = None
    """What the transfer maps explain: accuracy, loss_nats, area, restricted_time_steps, breakthrough_share, ...
    Default: accuracy, and for text loss_nats."""


def main(arguments: list[str]) -> int:
    """Run what is missing, print tables, write the report. Exit code 1 where a run failed or nothing is finished."""
    command = parse(SweepCommand, "sweep", arguments)
    command.check()
    if command.engine != "stacked" and (command.device, command.stack) != (None, None):
        raise ValueError("--device and --stack are for --engine stacked; give that too")
    if command.stack is not None and command.stack < 1:
        raise ValueError(f"--stack {command.stack}; a stack has at least 1 run")
    if command.results is not None:
        check_folder(command.results)
    path = sweep_file(command.config)
    if command.show:
        print(path.read_text(encoding="utf-8"), end="")
        return 0
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # so that a file that is not there is said first
    announce(
        f"Counting the runs of {command.config} and those of them in {command.out} ..."
        if command.count
        else f"Runs of {command.config} go to {command.out}, and those that are there already are not repeated. "
        "Ctrl-C saves everything, and the same command goes on from there. "
        "Loading PyTorch and, the first time, compiling the training kernel takes up to a minute ..."
    )
    with quick_imports():
        from procpre_interp.commands._grid import run

    return run(command, path)


def sweep_file(named: Path) -> Path:
    """The file itself, or the bundled sweep of that name. Raises `ValueError` where there is neither."""
    folder = beside_package("experiments") / "sweeps"
    bundled = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if not named.exists() and str(named) in bundled:
        return bundled[str(named)]
    if named.is_dir():
        raise ValueError(f"{named} is a folder; give a YAML file, or the name of a sweep that comes along")
    if not named.exists() and not named.suffix:
        raise unknown_name("sweep", str(named), list(bundled))
    return named
