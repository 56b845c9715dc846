"""The diagnostic table: its plan, its verdicts on tables with known answers, and the whole script on a few steps."""

import math
import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments import table1
from experiments.table1 import NO_VERDICT, PAPER, Table1, conclusions, matches, summarise
from procpre_interp.stats.paper_comparison import (
    Agreement,
    best_condition,
    compare_gains,
    effect_verdict,
    lead,
)
from procpre_interp.store.store import RunStore
from procpre_interp.study import diagnostic_table
from procpre_interp.study import protocols as reproduce
from procpre_interp.study.diagnostic_table import DOWNSTREAM, SELECTORS
from procpre_interp.study.protocols import PROCEDURAL
from procpre_interp.sweep import plan as sweep

SCRIPT = Path(table1.__file__)


def made_up(accuracy, *, replicates=4, spread=0.001, tasks=DOWNSTREAM, starts=None) -> pd.DataFrame:
    """A tidy table; `accuracy(task, start, transfer)` is the mean, and replicates lie around it."""
    starts = starts or [(start, transfer) for start, transfer, _ in diagnostic_table.starts(quick=False)]
    rows = [
        {
            "replicate": 1000 + i,
            "phase1": start,
            "transfer": transfer,
            "task": task,
            "status": "finished",
            "accuracy": accuracy(task, start, transfer) + spread * (i - (replicates - 1) / 2),
            "positions_carried": start.startswith("dyck"),
        }
        for i in range(replicates)
        for task in tasks
        for start, transfer in starts
    ]
    return pd.DataFrame(rows)


def paper_accuracy(task, start, transfer) -> float:
    found = PAPER.get((start, transfer), (math.nan,) * 4)[DOWNSTREAM.index(task)]
    return 0.5 if math.isnan(found) else found


@pytest.mark.parametrize(
    ("low", "high", "n", "claimed", "expected"),
    [
        (0.03, 0.50, 3, 0.8, "agrees"),
        (0.03, 0.50, 2, 0.8, Agreement.TOO_FEW),
        (0.01, 0.50, 3, 0.8, Agreement.UNDECIDED),
        (-0.50, 0.02, 3, 0.8, "disagrees"),
        (-0.50, -0.03, 3, 0.8, "disagrees"),
        (-0.50, -0.03, 3, -0.3, "agrees"),
        (-0.03, 0.50, 3, -0.3, Agreement.UNDECIDED),
        (-0.01, 0.01, 3, -0.3, "disagrees"),
        (-0.01, 0.01, 3, 0.01, "agrees"),
        (-0.03, 0.01, 3, 0.01, Agreement.UNDECIDED),
        (0.03, 0.04, 3, -0.02, "disagrees"),
        (-0.5, -0.03, 3, 0.02, "disagrees"),
        (0.1, 0.2, 3, math.nan, None),
    ],
)
def test_a_verdict_asks_where_the_whole_interval_lies(low, high, n, claimed, expected):
    assert effect_verdict(low, high, n, claimed, margin=0.02) == expected


def test_an_unknown_interval_is_undecided():
    assert effect_verdict(math.nan, math.nan, 5, 0.5, margin=0.02) == Agreement.UNDECIDED


def test_gains_are_paired_by_replicate():
    """The baseline varies by 40 points between replicates; the gain is 10 points in each."""
    baseline = [0.1, 0.3, 0.5]
    table = pd.DataFrame(
        {
            "condition": ["none"] * 3 + ["a"] * 3,
            "replicate": [0, 1, 2] * 2,
            "status": ["finished"] * 5 + ["diverged"],
            "accuracy": [*baseline, 0.2, 0.4, math.nan],
        }
    )
    result = compare_gains(table, {"none": 0.1, "a": 0.9}).set_index("condition")
    assert result.loc["a", ["gain_low", "gain_mean", "gain_high"]].tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert result.loc["a", "n"] == 2  # the replicate that diverged has no gain
    assert result.loc["a", "diverged"] == 1
    assert result.loc["a", "verdict"] == Agreement.TOO_FEW
    assert result.loc["a", "claimed_gain"] == pytest.approx(0.8)
    assert math.isnan(result.loc["none", "gain_mean"])
    assert result.loc["none", "verdict"] == ""


def test_the_best_condition_leads_by_a_paired_difference():
    table = pd.DataFrame({"a": [0.1, 0.5, 0.9], "b": [0.2, 0.6, 1.0], "c": [0.0, 0.0, math.nan]})
    found = lead(table, "b", "a")
    assert (found.answer, found.n) == ("b", 3)
    assert found.mean == pytest.approx(0.1)
    assert lead(table, "a", "b").answer == "b"
    assert best_condition(table).answer == Agreement.TOO_FEW  # c is missing in one
    assert lead(pd.DataFrame({"a": [0.1, 0.3, 0.2], "b": [0.2, 0.2, 0.2]}), "a", "b").answer == Agreement.UNDECIDED
    with pytest.raises(ValueError, match="at least 2"):
        best_condition(table[["a"]])


def test_the_papers_own_numbers_agree_with_the_paper():
    summary = summarise(made_up(paper_accuracy))
    judged = summary.loc[summary["claimed_gain"].notna()]
    assert len(judged) == sum(not math.isnan(x) for numbers in PAPER.values() for x in numbers) - len(DOWNSTREAM)
    assert set(judged["verdict"]) == {"agrees"}
    assert set(summary.loc[summary["claimed_gain"].isna(), "verdict"]) == {""}
    assert len(summary) == 4 * 32
    assert set(summary.loc[summary["positions_carried"], "phase1"]) == {"dyck", "dyck_shuffle"}


def test_the_opposite_disagrees_noise_is_undecided_and_two_are_too_few():
    none = made_up(lambda task, start, transfer: PAPER["none", ""][DOWNSTREAM.index(task)])
    verdicts = summarise(none).set_index(["task", "phase1", "transfer"])["verdict"]
    assert verdicts["haystack", "dyck", "full"] == "disagrees"
    assert verdicts["haystack", "eca", "full"] == "agrees"  # the paper's loss of .8 points counts as none
    noisy = none.assign(accuracy=none["accuracy"] + 0.2 * (none["replicate"] % 2 - 0.5) * (none["phase1"] != "none"))
    assert set(summarise(noisy)["verdict"]) == {"", Agreement.UNDECIDED}
    few = summarise(none.loc[none["replicate"] < 1002])
    assert set(few["verdict"]) == {"", Agreement.TOO_FEW}
    assert set(summarise(none, quick=True)["verdict"]) == {NO_VERDICT}


def test_matches_name_the_best_start_or_say_undecided():
    best = {"haystack": "dyck", "addition": "set", "reversed_addition": "eca", "sorting": "set"}
    table = made_up(lambda task, start, transfer: 0.9 if start == best[task] else 0.5)
    found = matches(table).set_index(["task", "transfer"])
    assert found["answer"].to_dict() == {(task, how): best[task] for task in DOWNSTREAM for how in ("full", "mean")}
    text = conclusions(table)
    assert [line.rsplit("-> ")[-1] for line in text if line.startswith("the paper's")] == ["holds", "holds"]
    assert text[-1].endswith("no: Dyck on haystack, set on addition, ECA on reversed_addition, set on sorting")
    everywhere = conclusions(made_up(lambda task, start, transfer: 0.9 if start == "stack" else 0.5))
    assert everywhere[-1].endswith("yes: stack")
    assert [line.rsplit("-> ")[-1] for line in everywhere if line.startswith("the paper's")] == ["does not hold"] * 2
    tied = conclusions(made_up(lambda task, start, transfer: 0.5))
    assert "decided on 0 of 4" in tied[-1]
    few = conclusions(made_up(paper_accuracy, replicates=2))
    assert all(Agreement.TOO_FEW in line for line in few[:-1])
    assert conclusions(made_up(paper_accuracy, tasks=("sorting",), starts=[("none", "")]))[-1].count("undecided") == 1


def test_one_transfer_that_helps_does_not_make_the_mean_the_best():
    table = made_up(
        lambda task, start, transfer: {("set", "full"): 0.6, ("set", "MLP"): 0.0}.get((start, transfer), 0.5)
    )
    found = matches(table).set_index(["task", "transfer"])
    assert found.loc[("haystack", "full"), "answer"] == "set"
    assert found.loc[("haystack", "mean"), "best"] != "set"


def test_the_plan_is_complete_and_in_order():
    planned = diagnostic_table.plan(replicates=2)
    cells = planned.cells
    assert cells.groupby("replicate").size().to_dict() == {1000: 128, 1001: 128}
    assert cells["run"].is_unique
    assert len(planned.configs) == 2 * (128 + len(PROCEDURAL))
    order = list(planned.configs)
    assert all(order.index(p.run) < order.index(run) for run, c in planned.configs.items() for p in c.parents)
    seeds = [config.seed for config in planned.configs.values()]
    assert seeds == sorted(seeds)
    single = cells.loc[~cells["phase1"].isin(["none", "set+eca"])]
    assert set(single["phase1"]) == set(PROCEDURAL)
    assert set(single["transfer"]) == set(SELECTORS)
    assembly = cells.loc[(cells["phase1"] == "set+eca") & (cells["task"] == "sorting"), "run"].iloc[0]
    assert [(planned.configs[p.run].task.name, p.selector) for p in planned.configs[assembly].parents] == [
        ("set", "attn"),
        ("eca", "mlp"),
    ]
    with pytest.raises(ValueError, match="at least 1"):
        diagnostic_table.plan(replicates=0)


def test_runs_are_shared_with_reproduce():
    planned = diagnostic_table.plan(replicates=1)
    cells = planned.cells.set_index(["task", "phase1", "transfer"])["run"]
    theirs = sweep.plan(reproduce.reproduction(reproduce.PROTOCOLS["cheap"], replicates=1)).cells.set_index("condition")
    shared = {
        "none": ("none", ""),
        "dyck_full": ("dyck", "full"),
        "attention_ln": ("dyck", "attention+LN"),
        "mlp_ln": ("dyck", "MLP+LN"),
    }
    assert all(theirs.loc[name, "run"] == cells[("haystack", *start)] for name, start in shared.items())
    assert set(theirs.loc["dyck_full", "phase1_run"]) <= set(planned.configs)


def test_cells_of_a_task_differ_in_their_parents_only():
    planned = diagnostic_table.plan(replicates=1)
    for task, cells in planned.cells.groupby("task"):
        configs = [planned.configs[run] for run in cells["run"]]
        assert len({(c.task, c.seed, c.model, c.train, c.transfer) for c in configs}) == 1, task
    assert {planned.configs[run].model.tied for run in planned.cells["run"]} == {False}


def test_quick_from_nothing_to_tables_and_on(tmp_path, capsys):
    out = tmp_path / "runs"
    command = Table1(out=out, quick=True, workers=1, minutes=0.0)
    assert table1.main(command) == 1  # nothing may start
    assert "no cell is finished" in capsys.readouterr().out
    assert not out.exists()
    assert table1.main(Table1(out=out, quick=True, workers=1)) == 0
    printed = capsys.readouterr()
    assert "0/7 runs done" in printed.err
    assert NO_VERDICT in printed.out
    assert "agrees" not in printed.out
    assert "n = 1 replicate: no interval" in printed.out
    assert "6 of 6 cells, 0 failed" in printed.out
    cells = pd.read_csv(out / "table1_cells.csv")
    assert cells["accuracy"].notna().all()
    carried = cells.loc[cells["phase1"] == "set"].groupby("task")["positions_carried"].unique()
    assert carried.map(list).to_dict() == {"addition": [True], "haystack": [False]}
    assert set(pd.read_csv(out / "table1_summary.csv")["verdict"]) == {NO_VERDICT}
    assert len(RunStore(out).read_table("table1-quick").frame) == 6
    # Again: nothing is computed, even with no time, and the table is the same.
    created = RunStore(out).query().set_index("run")["created"]
    assert table1.main(command) == 0
    printed = capsys.readouterr()
    assert "7/7 runs done" in printed.err
    assert "started" not in printed.err
    assert RunStore(out).query().set_index("run")["created"].equals(created)
    # A damaged parent fails its cells, which are shown, and nothing else.
    planned = diagnostic_table.plan(replicates=1, quick=True)
    (parent,) = planned.cells["phase1_run"].iloc[-1]
    (weights,) = (out / "runs" / parent).glob("weights/*")
    weights.write_bytes(b"damaged")
    assert table1.main(command) == 1
    printed = capsys.readouterr()
    assert "6 of 6 cells, 4 failed" in printed.out
    assert "is damaged" in printed.out
    assert (pd.read_csv(out / "table1_cells.csv")["status"] == "finished").sum() == 2


@pytest.mark.parametrize(("option", "value"), [("--workers", "0"), ("--minutes", "-1"), ("--replicates", "0")])
def test_a_mistake_is_one_line(option, value, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(tmp_path), option, value])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert option.removeprefix("--") in said
