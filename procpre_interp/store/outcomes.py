"""What came out of the cells of an experiment, read from the store. Imports no torch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from procpre_interp.store.run import DamagedRun, Run, UnknownRun, joined_history, of_whole_task, parents_of
from procpre_interp.store.store import RunStore

OF_TEXT = ("perplexity", "bits_per_byte", "answers_right")
"""Scores that only runs on text have."""


def cell_results(cells: pd.DataFrame, store: RunStore, problems: Mapping[str, str]) -> pd.DataFrame:
    """One row per cell that is finished, diverged or failed: its own columns, and what came out (`scores`, and, where
    there are chains, `chain_scores`).

    `cells` has columns run, phase1_run (a tuple of ids; may be empty) and, where some cells cannot be runs, problem;
    `problems` are those of runs that failed, by id.
    """
    chains = cells["chain"] if "chain" in cells else [()] * len(cells)
    ids = [[run, *parents, *chain] for run, parents, chain in zip(cells["run"], cells["phase1_run"], chains)]
    whole = whole_runs((run for runs in ids for run in runs if run), store)
    rows = []
    for cell, runs in zip(cells.to_dict("records"), ids):
        is_there = all(run in whole for run in runs)
        failed = [*filter(None, [cell.pop("problem", "")])]
        if not is_there:  # else a copy could not be computed again, which was needed for another cell
            failed += [problems[run] for run in runs if run in problems]
        if failed:
            rows.append({**cell, "status": "failed", "problem": failed[0]})
        elif is_there:
            outcome, *parents = (whole[run] for run in (cell["run"], *cell["phase1_run"]))
            chain = [whole[run] for run in cell.get("chain", ())]
            found = scores(outcome, parents, before=store.parts_of(outcome)[:-1])
            if chain:
                found |= chain_scores(chain, whole.get(cell["phase2_run"]))
            rows.append({**cell, **found, "problem": ""})
    return pd.DataFrame(rows)


def scores(outcome: Run, parents: Sequence[Run], *, before: Sequence[Run] = ()) -> dict[str, object]:
    """What came out of a cell: of its run, and of the run's parents in phase 1.

    Shares in 0 to 1, times in steps and seconds. `area` is the mean validation accuracy over training (trapezoids
    between evaluations; of a run that ended early, over the steps that it took, so that it compares with none that went
    on), `tokens_to_target` the tokens seen at the breakthrough (NaN without one, up to
    `token_limit`). The lowest phase-1 accuracy of several parents, and their seconds, tokens and compute together; of
    a parent whose weights were taken at an earlier step, its tokens and compute up to there. Where the run is the rest
    of a training, `before` are the parts before it: a breakthrough, areas and sums are those of the whole of it.
    """
    summary, parts = outcome.summary, [run.summary for run in (*before, outcome)]
    finished = summary["status"] == "finished"
    history = of_whole_task(joined_history([*before, outcome]))
    seen = history.loc[history["split"] == "validation"]
    step, accuracy, tokens = (seen[name].to_numpy(dtype=float) for name in ("step", "accuracy", "tokens"))
    broke = next((part["breakthrough_step"] for part in parts if part["breakthrough_step"] is not None), None)
    epochs = [part["epochs"] for part in parts if "epochs" in part]
    shares = _shares_used(outcome, parents)
    return {
        "status": summary["status"],
        "accuracy": summary["accuracy"],
        "exact_match": summary["exact_match"],
        "loss_nats": summary["loss_nats"],
        "area": float(np.trapezoid(accuracy, step) / np.ptp(step)) if finished and len(set(step)) > 1 else math.nan,
        "breakthrough_step": math.nan if broke is None else float(broke),
        "limit": summary["breakthrough_limit"],
        "tokens_to_target": math.nan if broke is None else float(tokens[step == broke][0]),
        "token_limit": _token_limit(parts, reached=broke is not None),
        "seconds": sum(part["seconds"] for part in parts),
        "phase1_seconds": sum((parent.summary["seconds"] for parent in parents), 0.0),
        "tokens": sum(part["tokens"] for part in parts),
        "teraflops": sum(part.get("teraflops", math.nan) for part in parts),
        "phase1_tokens": sum(
            (share * parent.summary.get("tokens", math.nan) for parent, share in zip(parents, shares)), 0.0
        ),
        "phase1_teraflops": sum(
            (share * parent.summary.get("teraflops", math.nan) for parent, share in zip(parents, shares)), 0.0
        ),
        **{name: value for name, value in summary.items() if name in OF_TEXT},
        **({"epochs": sum(epochs)} if epochs else {}),
        "phase1_accuracy": min((parent.summary["accuracy"] for parent in parents), default=math.nan),
        "positions_carried": summary["positions_carried"],
    }


def _token_limit(parts: Sequence[Mapping[str, Any]], *, reached: bool) -> float:
    """Tokens up to which a breakthrough would have been seen: those of its training; of a run that was ended soon after
    one, as many as it would have had with as many a step as before."""
    tokens, last = float(sum(part["tokens"] for part in parts)), parts[-1]
    steps = last["steps"] - last.get("start_at", 0)
    if not reached or not steps or last["status"] != "finished":
        return tokens
    return tokens + last["tokens"] / steps * (last["breakthrough_limit"] - last["steps"])


def chain_scores(chain: Sequence[Run], phase2: Run | None) -> dict[str, object]:
    """What all phases of a chain took together, and how phase 2 ended, where another phase follows it."""
    each_once = {run.id: run.summary for run in chain}.values()
    ended = None if phase2 is None else phase2.summary
    return {
        "phase2_accuracy": math.nan if ended is None else ended["accuracy"],
        "phase2_loss_nats": math.nan if ended is None else ended["loss_nats"],
        "total_tokens": sum(summary["tokens"] for summary in each_once),
        "total_seconds": sum(summary["seconds"] for summary in each_once),
        "total_teraflops": sum(summary.get("teraflops", math.nan) for summary in each_once),
    }


def _shares_used(outcome: Run, parents: Sequence[Run]) -> list[float]:
    """How much of each parent's training, in tokens, lies behind the weights that the run took from it."""
    taken = parents_of(outcome)
    steps = [each.get("step") for each in taken] if len(taken) == len(parents) else [None] * len(parents)
    return [1.0 if step is None else share_of_tokens(parent, step) for step, parent in zip(steps, parents, strict=True)]


def share_of_tokens(run: Run, step: int) -> float:
    """The share of a run's tokens that it had seen at a step. Where steps are not alike, since a curriculum's sequences
    grow, or some of them are those of an earlier part, it is that of the evaluations around it."""
    if not run.config.get("train", {}).get("curriculum") and not run.first_step:
        return step / max(1, run.summary["steps"])
    seen = run.history().drop_duplicates("step").sort_values("step")
    tokens = seen["tokens"].to_numpy(dtype=float)
    return float(np.interp(step, seen["step"].to_numpy(dtype=float), tokens) / max(1.0, tokens[-1]))


def is_whole(store: RunStore, run: str) -> bool:
    """Whether the run is finished and undamaged."""
    try:
        return store.is_finished(run)
    except DamagedRun:
        return False


def whole_runs(runs: Iterable[str], store: RunStore) -> dict[str, Run]:
    """Those of the runs that are finished and undamaged, each opened once, by id."""
    found = {}
    for run in dict.fromkeys(runs):
        with suppress(UnknownRun, DamagedRun):
            if is_whole(store, run):
                found[run] = store.open(run, verify=False)
    return found


def cost_of(runs: Iterable[str], store: RunStore) -> dict[str, float | int]:
    """What those of the runs cost that are finished, each counted once: their number, CPU-seconds, tokens and, where
    all of them say it, compute."""
    summaries = [run.summary for run in whole_runs(runs, store).values()]
    found: dict[str, float | int] = {
        "runs": len(summaries),
        "cpu_seconds": sum(summary["seconds"] * summary["threads"] for summary in summaries),
        "tokens": sum(summary["tokens"] for summary in summaries),
    }
    compute = [summary["teraflops"] for summary in summaries if "teraflops" in summary]
    return found | ({"teraflops": sum(compute)} if compute and len(compute) == len(summaries) else {})
