"""The table of a sweep: what it shows on a terminal, and the lines that it writes into a file."""

import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console

from procpre_interp.engine import Event
from procpre_interp.progress import RunProgress
from procpre_interp.sweep_progress import SweepTable

CELLS = pd.DataFrame(
    [
        {"condition": condition, "label": label, "replicate": seed, "run": f"{condition}{seed}"}
        for seed in (1000, 1001, 1002)
        for condition, label in (("none", "no pretraining"), ("full", "Dyck, full [transfer]"))
    ]
)
PARENTS = {"p0": "seed 1000 phase 1: dyck", "p1": "seed 1001 phase 1: dyck"}


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def table_of(*, width: int = 110, height: int = 30, terminal: bool = True, cells=CELLS, **kwargs) -> SweepTable:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, height=height, record=True)
    return SweepTable(cells, PARENTS, console=console, clock=Clock(), **kwargs)


def picture(table: SweepTable) -> list[str]:
    """The lines that the table would put on its terminal now."""
    console = Console(file=io.StringIO(), width=table.console.width, record=True)
    console.print(table.render())
    return [line.rstrip() for line in console.export_text().splitlines()]


def spoken(table: SweepTable) -> list[str]:
    return table.console.export_text(clear=False).splitlines()


def train(table: SweepTable, run: str, accuracy: float | None = None, seconds: float = 0.0) -> None:
    """A run from beginning to end."""
    table(Event(run, "started", steps=50))
    table(Event(run, "progress", 50, 50, 1.5, accuracy))
    table.clock.seconds += seconds
    table(Event(run, "finished"))


def test_a_row_a_condition_with_what_is_running():
    table = table_of()
    train(table, "none1000", 0.10)
    train(table, "none1001", 0.13)
    table(Event("full1000", "started", steps=5000))
    table(Event("full1000", "progress", 120, 5000, 2.25, 0.5))
    table(Event("p1", "progress", 7, 40, 3.0))
    assert picture(table) == [
        "2/8 runs done, 2 running, 0 failed, 0:00:00 elapsed, about 0:00:00 left",
        "condition              done  accuracy  failed  now",
        "no pretraining          2/3     11.5%",
        "Dyck, full [transfer]   0/3                    seed 1000 120/5000, loss 2.250 nats, accuracy 50.0%",
        "seed 1001 phase 1: dyck: 7/40, loss 3.000 nats",
    ]


def test_failures_stay_with_the_first_line_of_their_problem():
    table = table_of()
    table(Event("full1000", "started", steps=5000))
    table(Event("full1000", "failed", problem="[no] weights\nfile x"))
    table(Event("p1", "failed", problem="disk full"))
    table(Event("full1001", "skipped", problem="its parent p1 failed"))
    lines = picture(table)
    assert lines[0].startswith("0/8 runs done, 0 running, 3 failed, ")
    assert lines[3].split()[-2:] == ["0/3", "2"]
    assert [line.strip() for line in lines[4:]] == [
        "seed 1000 failed: [no] weights",
        "seed 1001 skipped: its parent p1 failed",
        "seed 1001 phase 1: dyck failed: disk full",
    ]
    coloured = Console(file=io.StringIO(), force_terminal=True, width=110, record=True, color_system="standard")
    coloured.print(table.render())
    styled = coloured.export_text(styles=True)
    assert re.search(r"\x1b\[31m +2 *\x1b\[0m", styled)  # in red
    assert "\x1b[31m3 failed\x1b[0m" in styled


def test_runs_finished_before_count_but_not_for_the_time_left():
    table = table_of(accuracies={"none1000": 0.2, "p0": math.nan, "full1000": math.nan, "of another sweep": 1.0})
    table(Event("none1001", "finished"))
    lines = picture(table)
    assert lines[0] == "4/8 runs done, 0 running, 0 failed, 0:00:00 elapsed"
    assert lines[2].split() == ["no", "pretraining", "2/3", "20.0%"]
    assert lines[3].split()[-1] == "1/3"
    assert table.seconds_left() is None
    train(table, "none1002", 0.4, seconds=60)
    assert "30.0%" in picture(table)[2]
    assert table.seconds_left() == pytest.approx(3 * 60)


def test_time_left():
    table = table_of()
    table.clock.seconds += 1000  # between making the table and beginning
    with table:
        assert table.seconds_left() is None
        train(table, "p0", seconds=100)
        train(table, "none1000", seconds=200)
        assert table.seconds_left() == pytest.approx(6 * 150)
        table(Event("p1", "failed"))
        table.clock.seconds += 50
        assert table.seconds_left() == pytest.approx(5 * 150 - 50)
        assert table.summary() == "2/8 runs done, 0 running, 1 failed, 0:05:50 elapsed, about 0:11:40 left"
        table.clock.seconds += 10_000
        assert table.seconds_left() == 0


def test_what_does_not_fit_is_counted_and_work_comes_first():
    cells = pd.DataFrame(
        [{"condition": i, "label": f"condition {i}", "replicate": 0, "run": f"r{i}"} for i in range(40)]
    )
    table = table_of(height=10, cells=cells)
    table(Event("r30", "failed", problem="too large"))
    table(Event("r35", "started", steps=9))
    for run in PARENTS:
        table(Event(run, "started", steps=9))
    lines = picture(table)
    assert len(lines) == 9
    assert lines[2].startswith("condition 35")
    assert lines[3].startswith("condition 30")
    assert lines[4].strip() == "seed 0 failed: too large"
    assert lines[5].startswith("condition 0")
    assert lines[6] == "… 37 more"  # of 41 rows
    assert lines[7:] == ["seed 1000 phase 1: dyck: 0/9", "seed 1001 phase 1: dyck: 0/9"]
    table.ended = True
    assert len(picture(table)) == 2 + 41 + 2


@pytest.mark.parametrize(("width", "height"), [(20, 1), (30, 4), (60, 6)])
def test_small_terminals(width, height):
    table = table_of(width=width, height=height)
    for run in ("none1000", "full1000", "p0", "p1"):
        table(Event(run, "progress", 1, 1000, 1.0, 0.5))
    lines = picture(table)
    assert len(lines) <= max(4, height - 1)
    assert all(len(line) <= width for line in lines)


def test_a_run_that_belongs_to_two_conditions():
    cells = pd.concat([CELLS, CELLS.head(1).assign(condition="again", label="the same run")])
    table = table_of(cells=cells)
    train(table, "none1000", 0.25)
    lines = picture(table)
    assert lines[0].startswith("1/8 ")
    assert lines[2].split() == ["no", "pretraining", "1/3", "25.0%"]
    assert lines[4].split() == ["the", "same", "run", "1/1", "25.0%"]


def test_on_a_terminal_the_last_table_stays():
    with table_of() as table:
        train(table, "none1000", 0.5)
        table.say("a [line] above")
        table(Event("full1001", "failed", problem="too large"))
    text = table.console.export_text()
    assert "a [line] above" in text
    final = text[text.rindex("runs done") - 5 :]
    assert "50.0%" in final
    assert "seed 1001 failed: too large" in final


def test_without_a_terminal_there_are_plain_lines():
    table = table_of(terminal=False)
    with table:
        table(Event("none1000", "finished"))  # before
        train(table, "p0")
        train(table, "none1001", 0.5, seconds=30)
        table(Event("full1000", "started", steps=50))
        for _ in range(4):
            table.clock.seconds += 20
            table(Event("full1000", "progress", 3, 50))
        table(Event("full1000", "failed", problem="no memory\nmore"))
        table(Event("unnamed", "skipped", problem="its parent failed"))
    assert spoken(table) == [
        "1/8 runs done, 1 running, 0 failed, 0:00:00 elapsed",
        "seed 1000 phase 1: dyck: finished, loss 1.500 nats",
        "seed 1001 no pretraining: finished, loss 1.500 nats, accuracy 50.0%",
        "3/8 runs done, 1 running, 0 failed, 0:01:10 elapsed, about 0:00:35 left",
        "seed 1000 Dyck, full [transfer]: failed: no memory",
        "unnamed: skipped: its parent failed",
        "3/9 runs done, 0 running, 2 failed, 0:01:50 elapsed, about 0:00:00 left",
    ]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_note_is_said_and_changes_no_count(terminal):
    table = table_of(terminal=terminal)
    table(Event("none1000", "started", steps=50))
    table(Event("none1000", "note", problem="what was saved is damaged: the run starts over"))
    assert "seed 1000 no pretraining: what was saved is damaged: the run starts over" in spoken(table)
    assert "0/8 runs done, 1 running, 0 failed" in table.summary()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_note_of_a_single_run_is_said(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=110, record=True)
    with RunProgress({"abc": "dyck abc"}, console) as progress:
        progress(Event("abc", "started", steps=50))
        progress(Event("abc", "note", problem="the run starts over"))
        assert list(progress.bars) == (["abc"] if terminal else [])
    assert "dyck abc: the run starts over" in console.export_text()
