"""`procpre-interp claims`: every claim with its verdict and the numbers behind it. Needs torch only to run them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, TypeVar

from procpre_interp.claims.again import judged_again
from procpre_interp.claims.claim_json import claim_to_json
from procpre_interp.claims.files import claim_scripts, read_claims, write_claim
from procpre_interp.claims.judge import RULE
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.text import contrasts_table, describe_claim, verdicts_table
from procpre_interp.commands._options import Names, parse
from procpre_interp.core.atomic_files import plain, write_text
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.places import check_file
from procpre_interp.core.startup import quick_imports
from procpre_interp.core.streams import announce
from procpre_interp.core.terminal import beside_package, default_store
from procpre_interp.core.text_table import fitting, print_table, stdout_console
from procpre_interp.store.about import About
from procpre_interp.store.cells import with_run_text
from procpre_interp.store.store import RunStore
from procpre_interp.study.run_options import RunOptions
from procpre_interp.views.findings import markdown_table, refresh, verdicts

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Claims(RunOptions):
    """Do the claims hold? Verdicts as computed, from the store and from the results that come with the package.

    With names of claims: all their contrasts, and the runs behind them.
    """

    names: Names = ()
    """Claims to show in full."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs. Its claims take precedence over bundled ones of the same name."""
    format: Literal["table", "json", "markdown"] = "table"
    """json has every number, and for each claim the runs that it was judged on; markdown is a table for a page."""
    update: Path | None = None
    """A page of findings (with --format markdown), such as experiments/README.md, whose marked tables are made anew
    from the bundled claims and results. Default: print a table of the claims."""
    run: bool = False
    """First compute what the claims (those named, or all) still need, and judge them."""
    judge_again: bool = False
    """Judge the claims named, which earlier rules judged, by the newest one on the cells that they have: nothing is
    computed. What they were called until then is kept."""

    def check(self) -> None:
        """Raise `ValueError` for options that contradict one another, or say nothing without another."""
        if self.run:
            others = {"--judge-again": self.judge_again, "--update": self.update, "--format": self.format != "table"}
            if extra := [option for option, is_given in others.items() if is_given]:
                raise ValueError(f"--run computes and judges, and prints the verdicts; leave out {extra[0]}")
        elif self.given:
            raise ValueError(f"{self.given[0]} says how runs are added; give --run as well")
        elif self.results is not None and not self.judge_again:
            raise ValueError("--results is for what --run or --judge-again judge; give one of them as well")
        super().check()


def main(arguments: list[str]) -> int:
    """Print the verdicts."""
    command = parse(Claims, "claims", arguments)
    command.check()
    if command.run:
        return run(command)
    if command.update is not None:
        return update(command.update, command.format)
    claims = read_claims(RunStore(command.store), beside_package("experiments") / "results" / "claims")
    judged = {claim.name: claim for claim in claims}
    others = [name for name in claim_scripts(beside_package("experiments")) if name not in judged]
    for name in command.names:
        if name in others:
            raise ValueError(f"{name} is not judged yet; `procpre-interp claims {name} --run` computes what it needs")
    chosen = named(judged, command.names)
    if command.judge_again:
        return judge_again(command, chosen)
    if command.format == "json":
        print(json.dumps([plain_claim(claim) for claim in chosen], indent=1))
        return 0
    if command.format == "markdown":
        print(markdown_table(verdicts([claim.name for claim in chosen], {claim.name: claim for claim in chosen})))
        return 0
    if not chosen:
        print("no claim is judged yet; `python experiments/dyck_teaches_recall.py` judges the first")
        return 0
    console = stdout_console()
    if not command.names:
        rows = verdicts_table(chosen)
        rows.insert(0, "Name", [claim.name for claim in chosen])
        shown = fitting(
            rows.to_dict("list"), console.width, ["Claim", "Primary contrast", "Predicted", "Interval", "n", "Estimate"]
        )
        print_table(console, shown, "", left=["Name", "Claim", "Verdict", "Primary contrast", "Predicted"])
        console.print(
            "\nEstimates: mean over replicates, and interval. `procpre-interp claims NAME` shows what is behind."
        )
        if others:
            console.print(f"Not judged yet: {', '.join(others)}. `procpre-interp claims NAME --run` judges one.")
        return 0
    for claim in chosen:
        console.print(describe_claim(claim))
        print_table(console, contrasts_table(claim).to_dict("list"), "", left=["Contrast", "Predicted", "Verdict"])
        cells = claim.cells
        shown = [column for column in ("condition", "replicate", "run", "phase1_run", "accuracy") if column in cells]
        text = with_run_text(cells.loc[:, shown]).astype({"accuracy": float}).round(4).fillna("").astype(str)
        print_table(console, text.to_dict("list"), f"\nRuns ({claim.source})", left=shown[:1])
        console.print("")
    return 0


def update(page: Path, output_format: str) -> int:
    """Make the tables of a page of findings anew from the bundled claims and results."""
    from procpre_interp.study.protocols import PAPER

    if output_format != "markdown":
        raise ValueError(f"--update {page} writes Markdown; give --format markdown as well")
    results = beside_package("experiments") / "results"
    bundled = {claim.name: claim for claim in read_claims(None, results / "claims")}
    check_file(page)
    text = page.read_text(encoding="utf-8")
    write_text(page, refresh(text, bundled, results, About(paper=PAPER)))
    return 0


def run(command: Claims) -> int:
    """Run and judge the claims named, or all. Exit code 1 where a run failed."""
    takes = "" if command.names or command.quick else ", a day or more from scratch on two cores"
    if command.until_decided:
        takes = f", seed after seed until they are decided, with at most {command.most_replicates} replicates"
    announce(
        f"Computing what {', '.join(command.names) or 'all claims'} still need{takes}; runs go to {command.store}, and "
        "those that are there already are not repeated. Ctrl-C saves everything, and the same command goes on from "
        "there. Loading PyTorch and, the first time, compiling the training kernel takes up to a minute ..."
    )
    with quick_imports():
        from procpre_interp.study.experiment import Options, run_all
        from procpre_interp.study.scripts import load_experiment

    paths = named(claim_scripts(beside_package("experiments")), command.names)
    shared = {each.name: getattr(command, each.name) for each in fields(RunOptions)}
    options = Options(out=command.store, **shared)
    return run_all([load_experiment(path) for path in paths], options)


def judge_again(command: Claims, claims: Sequence[StoredClaim]) -> int:
    """Judge by the newest rule what an earlier one had judged, on the same cells, and store the verdicts."""
    from procpre_interp.study.scripts import load_experiment

    if not command.names:
        raise ValueError("--judge-again wants the names of claims")
    paths, store, console = claim_scripts(beside_package("experiments")), RunStore(command.store), stdout_console()
    for claim in claims:
        if claim.rule_version == RULE:
            console.print(f"{claim.name}: version {RULE} of the rule, the newest, has judged it.")
            continue
        (path,) = named(paths, [claim.name])
        judged = judged_again(load_experiment(path).claim, claim)
        write_claim(store, judged, claim.cells, command.results)
        console.print(describe_claim(judged))
    return 0


def named(known: Mapping[str, T], names: Sequence[str]) -> list[T]:
    """What the names stand for; all that is known, where there are none. Raises `ValueError` for an unknown one."""
    for name in names:
        if name not in known:
            raise unknown_name("claim", name, list(known))
    return [known[name] for name in names or known]


def plain_claim(claim: StoredClaim) -> dict[str, object]:
    """The claim as plain values, with where it is from and its cells as rows."""
    return {**claim_to_json(claim), "source": claim.source, "cells": plain(claim.cells.to_dict("records"))}
