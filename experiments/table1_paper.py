"""The paper's diagnostic table in the paper's own setting: do its gains come out?

    python experiments/table1_paper.py [--replicates 6] [--most 20] [--out runs] [--workers 2] [--minutes 90] [--ours]

Every cell for which the paper gives a number, under the paper's phase 2 and with the treatment of embeddings,
positions, LayerNorm and loss mask that the paper gave it (`procpre_interp/study/paper_table.py`). With `--ours` further
rows follow: the best treatment here (attention and LN, embeddings fresh, positions carried), and the paper's
attention-only transfer of Dyck. Cells that are undecided after `--replicates` get more, up to `--most`. What the store
has is not computed again, so that the same command goes on after Ctrl-C or `--minutes`.

A verdict compares the direction of the gain over no pretraining with that of the paper's (`effect_verdict`), by betting
confidence sequences, which may be looked at after every replicate (`SEQUENTIAL`). There is none where the setting
differs ("not comparable") or phase 1 missed the threshold that was set before the runs ("phase 1 not learnt").
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import tyro

from procpre_interp.claims.text import claims_table, describe_cost
from procpre_interp.core.atomic_files import plain, write_text
from procpre_interp.core.terminal import check_workers, default_store, run_script, time_limit, usable_cores
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.engine.processes import execute_all
from procpre_interp.stats.confidence_sequence import FEWEST
from procpre_interp.stats.paper_comparison import SEQUENTIAL, Agreement, compare_tasks
from procpre_interp.stats.summary import interval_note
from procpre_interp.store.cells import with_run_text
from procpre_interp.store.outcomes import cell_results, cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.paper_table import (
    CELL,
    FIRST_SEED,
    PROTOCOL,
    PaperPlan,
    claimed_accuracies,
    gates,
    plan,
    with_gates,
)
from procpre_interp.sweep.live_table import table_of_runs

NO_VERDICT = "quick: no verdict"


@dataclass(frozen=True, kw_only=True)
class Table1Paper:
    """The paper's diagnostic table in the paper's own setting, beside the paper's numbers."""

    replicates: int = FEWEST
    """Replicates: seeds of both phases, from 3000. With --quick 1."""
    most: int | None = None
    """Replicates at most of the cells that are undecided. Default: no more than the others."""
    ours: bool = False
    """Further rows that the paper does not have, after its own."""
    out: Path = field(default_factory=default_store)
    """Folder of the runs."""
    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each. Does not change the numbers."""
    minutes: float | None = None
    """Stop starting runs after this many minutes; those under way are finished. Default: no limit."""
    quick: bool = False
    """Two tasks, one pretraining and a few steps, to see that everything works; never a verdict."""
    count: bool = False
    """Print how many runs it takes, and run nothing."""
    results: Path | None = None
    """Folder of the CSV tables. Default: experiments/results, or with --quick the folder of the runs."""


def main(command: Table1Paper) -> int:
    """Run what is missing, store and print the tables. Exit code 1 where a run failed or nothing is finished."""
    check_workers(command.workers)
    if command.replicates < 1:
        raise ValueError(f"--replicates {command.replicates}; there must be at least 1")
    n, store, may_start = 1 if command.quick else command.replicates, RunStore(command.out), time_limit(command.minutes)
    planned = plan(range(FIRST_SEED, FIRST_SEED + n), ours=command.ours, quick=command.quick)
    if command.count:
        done = cost_of(planned.configs, store)["runs"]
        print(f"{len(planned.parents)} runs of phase 1, {len(planned.cells)} of phase 2; {done} of them are finished")
        return 0
    problems = execute(planned, store, command.workers, may_start)
    table, gated = results(planned, store, problems)
    while len(table) and may_start() and n < (command.most or 0) and (cells := undecided(summarise(table), table)):
        more = plan(range(FIRST_SEED + n, FIRST_SEED + n + 1), ours=command.ours, wanted=cells)
        planned, n = joined(planned, more), n + 1
        problems |= execute(more, store, command.workers, may_start)
        table, gated = results(planned, store, problems)
    if table.empty:
        print("no cell is finished yet; the same command goes on from here")
        return 1
    summary = summarise(table, quick=command.quick)
    spent = cost_of(planned.configs, store)
    about = {"title": "The diagnostic table in the paper's setting", "protocol": PROTOCOL, "margin": SEQUENTIAL.margin}
    about |= {"cost": spent, "summary": plain(summary.to_dict("records")), "phase1": plain(gated.to_dict("records"))}
    store.write_table("table1-paper-quick" if command.quick else "table1-paper", table, about)
    folder = command.results or (command.out if command.quick else Path(__file__).parent / "results")
    folder.mkdir(parents=True, exist_ok=True)
    paper = {"claimed": "paper", "claimed_gain": "paper_gain"}
    for name, frame in {"cells": table, "summary": summary, "phase1": gated}.items():
        text = with_run_text(frame).round(4).rename(columns=paper).to_csv(index=False)
        write_text(folder / f"table1_paper_{name}.csv", text)
    print_tables(summary, gated)
    counts = f"{len(table)} of {len(planned.cells)} cells, {table['status'].tolist().count('failed')} failed"
    print(f"\n{counts}. Cost: {describe_cost(spent)}. Tables: {folder}")
    return 1 if problems else 0


def execute(planned: PaperPlan, store: RunStore, workers: int, may_start: Callable[[], bool]) -> dict[str, str]:
    """Run what is missing, under a live table; the problems of runs that failed, by id."""
    called = [label(cell) for cell in planned.cells.to_dict("records")]
    cells = planned.cells.assign(condition=called, label=called)
    names = {row["run"]: f"seed {row['replicate']} phase 1: {row['pretraining']}" for row in _records(planned.parents)}
    names |= {row["run"]: f"seed {row['replicate']} {label(row)}" for row in _records(planned.cells)}
    with table_of_runs(planned.configs, cells, names, store, workers) as progress:
        return execute_all(planned.configs, store, workers=workers, on_event=progress, may_start=may_start)


def results(planned: PaperPlan, store: RunStore, problems: Mapping[str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One row per cell that is finished, diverged or failed, and one per finished run of phase 1 (`gates`)."""
    columns = [*planned.cells, "status", "accuracy", "exact_match", "breakthrough_step", "limit", "phase1_accuracy"]
    columns += ["seconds", "phase1_seconds", "tokens", "positions_carried", "problem"]
    found = cell_results(planned.cells, store, problems).reindex(columns=columns)
    gated = gates(planned.parents, store)
    return with_gates(found.astype({"accuracy": float, "exact_match": float}), gated), gated


def summarise(table: pd.DataFrame, *, quick: bool = False) -> pd.DataFrame:
    """One row per cell: accuracy, gain over none, the paper's number, the phase-1 accuracy reached, and the verdict."""
    summary = compare_tasks(table, claimed_accuracies(), rule=SEQUENTIAL)
    reached = table.groupby(CELL, sort=False)["phase1_accuracy"].agg(phase1_low="min", phase1_high="max").reset_index()
    setting = table.drop_duplicates(CELL)[[*CELL, "setting"]]
    summary = summary.merge(reached, on=CELL, how="left").merge(setting, on=CELL, how="left")
    return summary.assign(verdict=NO_VERDICT) if quick else summary


def undecided(summary: pd.DataFrame, table: pd.DataFrame) -> set[tuple[str, str, str]]:
    """Cells (task, phase1, transfer) of the paper that more replicates could decide: those whose phase 1 was not learnt
    often enough, too, as long as it was learnt in any."""
    learnt = set(table.loc[table["phase1_learnt"].astype(bool), CELL].itertuples(index=False, name=None))
    open_verdicts = {Agreement.UNDECIDED, Agreement.TOO_FEW}
    verdicts = zip(summary[CELL].itertuples(index=False, name=None), summary["verdict"])
    return {
        cell
        for cell, verdict in verdicts
        if verdict in open_verdicts or (verdict == Agreement.NOT_LEARNT and cell in learnt)
    }


def joined(first: PaperPlan, more: PaperPlan) -> PaperPlan:
    """Both plans together."""
    return PaperPlan(
        configs=first.configs | more.configs,
        parents=pd.concat([first.parents, more.parents], ignore_index=True),
        cells=pd.concat([first.cells, more.cells], ignore_index=True),
    )


def label(cell: Mapping[str, object]) -> str:
    """What to call a cell in every replicate."""
    return f"{cell['task']}: {cell['phase1']} {cell['transfer']}".strip()


def print_tables(summary: pd.DataFrame, gated: pd.DataFrame) -> None:
    """What phase 1 reached, the paper's cells beside its numbers, and the further rows."""
    console = stdout_console()
    if len(gated):
        print_table(console, gates_table(gated).to_dict("list"), "\nWhat phase 1 reached", left=["Phase 1"])
    titles = {"task": "Task", "phase1": "Phase 1", "transfer": "Transfer"}
    shown = claims_table(summary, titles)
    print_table(
        console,
        shown.to_dict("list"),
        "\nIn the paper's setting, beside the paper's",
        left=[*titles.values(), "Verdict"],
    )
    ours = summary.loc[(summary["setting"] == "ours").to_numpy()]
    if len(ours):
        rows = claims_table(ours.assign(claimed=0.0), titles).drop(columns=["Paper %", "Paper", "Verdict"])
        print_table(console, rows.to_dict("list"), "\nFurther rows, of ours", left=list(titles.values()))
    differ = [f"not comparable: {reason}" for reason in dict.fromkeys(summary["differs"]) if reason]
    fewest = int(summary["n"].to_numpy().min())
    for line in (
        f"Intervals (of the cell with the fewest): {interval_note(fewest, SEQUENTIAL.interval)}.",
        f"Verdicts compare the direction of gains; up to {SEQUENTIAL.share:.0%} of the paper's, and up to "
        f"{100 * SEQUENTIAL.margin:.0f} points, count as none. Each may be wrong by chance, and there are many.",
        *differ,
        PROTOCOL,
    ):
        console.print(f"\n{line}")


def gates_table(gated: pd.DataFrame) -> pd.DataFrame:
    """Phase 1 as text: what each pretraining reached in its replicates, beside its threshold."""
    lines = []
    for name, rows in gated.groupby("pretraining", sort=False):
        threshold = float(rows["threshold"].iloc[0])
        lines.append(
            {
                "Phase 1": name,
                "Steps": ", ".join(f"{steps:,}" for steps in rows["steps"]),
                "Accuracy %": ", ".join(f"{100 * accuracy:.1f}" for accuracy in rows["accuracy"]),
                "Learnt from %": "" if pd.isna(threshold) else f"{100 * threshold:.0f}",
                "Learnt": f"{rows['learnt'].sum()} of {len(rows)}",
            }
        )
    return pd.DataFrame(lines)


def _records(table: pd.DataFrame) -> list[dict]:
    return table.to_dict("records")


if __name__ == "__main__":
    sys.exit(run_script("table1_paper", lambda: main(tyro.cli(Table1Paper))))
