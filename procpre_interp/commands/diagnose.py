"""`procpre-interp diagnose`: what went wrong in a run, or may have. Imports no torch."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from procpre_interp.analysis.diagnosis import Finding, diagnose_all
from procpre_interp.analysis.diagnosis.evidence import score_name, score_word, selector_of
from procpre_interp.analysis.diagnosis.signatures import shown
from procpre_interp.commands._options import Runs, parse
from procpre_interp.core.terminal import default_store
from procpre_interp.core.text_table import stdout_console
from procpre_interp.store.run import Run
from procpre_interp.store.store import RunStore


@dataclass(frozen=True, kw_only=True)
class Diagnose:
    """Name the failure signatures of runs, with the numbers behind them.

    A run is compared with others in the store: of the same task, model, training and seed, without pretraining or
    with one factor of the transfer changed. RUN is an id, the beginning of one, or "latest".
    """

    runs: Runs = ()
    """Runs to diagnose."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""
    format: Literal["table", "json"] = "table"
    """table for people; json has one object per finding."""


def main(arguments: list[str]) -> int:
    """Print the findings on each run."""
    command = parse(Diagnose, "diagnose", arguments)
    if not command.runs:
        raise ValueError("procpre-interp diagnose wants a RUN or several; `procpre-interp runs` lists them")
    store = RunStore(command.store)
    runs = list({run.id: run for run in map(store.open, command.runs)}.values())
    findings = diagnose_all(runs, store)
    if command.format == "json":
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        for run in runs:
            print_findings(run, [finding for finding in findings if finding.run == run.id])
    return 0


def print_findings(run: Run, findings: list[Finding]) -> None:
    """A heading with the run, then a paragraph a finding."""
    console = stdout_console()
    summary = run.summary
    score = shown(run) if summary.get(score_name(run)) is None else f"{score_word(run)} {shown(run)}"
    about = f"{summary['task']}, seed {summary['seed']}, components: {selector_of(run)}, {score}"
    console.print(f"run {run.id}: {about}", soft_wrap=True)
    for finding in findings:
        console.print(f"  {finding.signature}: {finding.sentence}", soft_wrap=True)
        if finding.remedy:
            console.print(f"    {finding.remedy}", soft_wrap=True)
    console.print()
