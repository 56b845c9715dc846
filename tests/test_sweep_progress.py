"""The table of a sweep: what it shows on a terminal, and the lines that it writes into a file."""

import dataclasses
import io
import math
import re

import pandas as pd
import pytest
from rich.console import Console

from procpre_interp.engine.events import Event
from procpre_interp.engine.progress import RunProgress
from procpre_interp.engine.time_left import Work
from procpre_interp.sweep.live_table import SweepTable

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


def test_a_row_a_condition_and_a_line_a_run_at_work():
    table = table_of()
    train(table, "none1000", 0.10)
    train(table, "none1001", 0.13)
    table(Event("full1000", "started", steps=5000))
    table(Event("full1000", "progress", 1250, 5000, 2.25, 0.5))
    table(Event("p1", "progress", 20, 40, 3.0))
    assert picture(table) == [
        "2/8 runs done, 2 running, 0 failed",
        "━━━━━━━━━━──────────────────────────────  25%  0:00:00 elapsed",
        "condition              done  accuracy  failed",
        "no pretraining          2/3     11.5%",
        "Dyck, full [transfer]   0/3",
        "seed 1000 Dyck, full [transfer] ━━──────── 1250/5000  accuracy 50.0%  loss 2.250 nats",
        "seed 1001 phase 1: dyck         ━━━━━───── 20/40  loss 3.000 nats",
    ]


def test_failures_stay_with_the_first_line_of_their_problem():
    table = table_of()
    table(Event("full1000", "started", steps=5000))
    table(Event("full1000", "failed", problem="[no] weights\nfile x"))
    table(Event("p1", "failed", problem="disk full"))
    table(Event("full1001", "skipped", problem="its parent p1 failed"))
    lines = picture(table)
    assert lines[0] == "0/8 runs done, starting workers, 3 failed"
    assert lines[4].split()[-2:] == ["0/3", "2"]
    assert lines[5:] == [
        "seed 1000 Dyck, full [transfer] failed: [no] weights",
        "seed 1001 phase 1: dyck failed: disk full",
        "seed 1001 Dyck, full [transfer] skipped: its parent p1 failed",
    ]
    coloured = Console(file=io.StringIO(), force_terminal=True, width=110, record=True, color_system="standard")
    coloured.print(table.render())
    styled = coloured.export_text(styles=True)
    assert re.search(r"\x1b\[31m +2 *\x1b\[0m", styled)  # in red
    assert "\x1b[31m3 failed\x1b[0m" in styled


def test_runs_finished_before_count():
    table = table_of(accuracies={"none1000": 0.2, "p0": math.nan, "full1000": math.nan, "of another sweep": 1.0})
    table(Event("none1001", "finished"))
    lines = picture(table)
    assert lines[0] == "4/8 runs done, starting workers, 0 failed"
    assert lines[3].split() == ["no", "pretraining", "2/3", "20.0%"]
    assert lines[4].split()[-1] == "1/3"
    train(table, "none1002", 0.4, seconds=60)
    assert "30.0%" in picture(table)[3]


WORK = {
    "p0": Work(steps=100, kind="dyck", tokens=10),
    "none1000": Work(steps=50, kind="haystack", tokens=40),
    "full1000": Work(steps=50, kind="haystack", tokens=40, parents=("p0",)),
    "p1": Work(steps=100, kind="dyck", tokens=10),
    "none1001": Work(steps=50, kind="haystack", tokens=40),
    "full1001": Work(steps=50, kind="haystack", tokens=40, parents=("p1",)),
}
TWO = CELLS.loc[CELLS["replicate"] < 1002]


def step(table: SweepTable, seconds: float, **steps: int) -> None:
    """Seconds pass, and runs report where they are."""
    table.clock.seconds += seconds
    for run, at in steps.items():
        table(Event(run, "progress", at, WORK[run].steps))


def test_time_left_is_that_of_all_steps_at_the_rates_of_their_kinds():
    table = table_of(cells=TWO, work=WORK, workers=2)
    table.clock.seconds += 1000  # between making the table and beginning
    with table:
        assert table.seconds_left() is None
        step(table, 5, p0=1, none1000=1)
        assert table.seconds_left() is None  # no two steps, no rate
        step(table, 10, p0=11, none1000=6)  # 1 s a step of dyck, 2 s of haystack
        # p0 has 89 s to go, none1000 88 s; then p1 (100 s) and full1000 (100 s) from 89 and 88 on, then the others.
        assert table.seconds_left() == pytest.approx(89 + 100 + 100)
        assert "about 5 min left" in table.summary()
        table(Event("full1000", "failed", problem="too large"))
        assert table.seconds_left() == pytest.approx(88 + 100 + 100)


def test_an_estimate_is_never_used_up():
    """Where steps go more slowly than they did, what is left grows; it is not counted down past its end."""
    table = table_of(cells=CELLS.head(1), work={"none1000": WORK["none1000"]})
    with table:
        step(table, 1, none1000=1)
        step(table, 1, none1000=2)
        assert table.seconds_left() == pytest.approx(48)
        assert table.summary().endswith("less than a minute left")
        step(table, 600, none1000=3)
        assert table.seconds_left() == pytest.approx(47 * 601 / 2)
        assert table.summary().endswith("about 3.9 h left")
        table.clock.seconds += 10_000
        assert table.summary().endswith("about 3.9 h left")  # nothing is known that was not known before


def test_a_run_that_may_end_early_has_an_estimate_of_at_most():
    work = {"none1000": dataclasses.replace(WORK["none1000"], may_end_early=True)}
    table = table_of(cells=CELLS.head(1), work=work)
    step(table, 0, none1000=1)
    step(table, 10, none1000=2)
    assert "at most 8 min left" in table.summary()


def test_a_kind_that_was_not_seen_yet_is_guessed_by_its_tokens():
    table = table_of(cells=TWO, work=WORK, workers=2)
    step(table, 0, p0=1)
    step(table, 10, p0=11)  # 1 s a step of 10 tokens: 4 s a step of 40
    assert table.seconds_left() == pytest.approx(max(89 + 200 + 200, 200 + 100 + 200))


def test_a_resumed_run_shows_its_saved_steps_at_once_and_they_do_not_count_for_its_rate():
    table = table_of(cells=TWO, work=WORK, saved={"p0": 80, "none1000": 0})
    assert [line for line in picture(table) if "/100" in line] == ["seed 1000 phase 1: dyck ━━━━━━━━── 80/100"]
    assert table.share() == pytest.approx(800 / (2 * 1000 + 4 * 2000))
    table(Event("p0", "started", 80, 100))
    assert "━━━━━━━━── 80/100" in picture(table)[-1]
    step(table, 0, p0=81)
    step(table, 10, p0=86)
    assert table.rates.seconds_per_step()["dyck"] == pytest.approx(2.0)


def test_ctrl_c_is_answered_at_once():
    live, plain = table_of(), table_of(terminal=False)
    for table in (live, plain):
        for run in ("p0", "p1"):
            table(Event(run, "progress", 5, 100))
        for run in ("p0", "p1"):
            table(Event(run, "stopping"))
    assert picture(live)[0] == "stopping: saving the runs; the same command goes on from here"
    assert len(picture(live)[0]) <= 62
    assert spoken(plain)[-1] == "stopping: saving the runs; the same command goes on from here"
    assert sum(line.startswith("stopping") for line in spoken(plain)) == 1
    live.ended = True
    assert picture(live)[0] == "0/8 runs done, 2 running, 0 failed"


@pytest.mark.parametrize("width", [60, 80, 110])
def test_bar_count_and_time_survive_on_a_narrow_terminal(width):
    long = CELLS.assign(label=CELLS["label"] + ", with its weights shuffled within each tensor")
    work = {run: Work(steps=20_000, kind="all", tokens=1) for run in [*PARENTS, *CELLS["run"]]}
    table = table_of(width=width, cells=long, work=work, workers=2)
    for at, seconds in ((1, 0), (4629, 60)):
        table.clock.seconds += seconds
        for run in ("full1000", "p0"):
            table(Event(run, "progress", at, 20_000, 2.5, 0.352))
    lines = picture(table)
    assert all(len(line) <= width for line in lines)
    assert lines[0] == "0/8 runs done, 2 running, 0 failed"
    assert re.fullmatch(r"━+─+ +6%  0:01:00 elapsed, about 16 min left", lines[1])
    for line in lines[-2:]:
        assert re.search(r"seed 1000 .* ━━──────── 4629/20000", line)
        assert "accuracy 35.2%" in line
    assert [line.split()[-1] for line in lines[3:5]] == ["0/3", "0/3"]


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
    assert lines[3].startswith("condition 35")
    assert lines[4] == "… 39 more"
    assert lines[5:8] == [
        "seed 0 condition 35     ────────── 0/9",
        "seed 1000 phase 1: dyck ────────── 0/9",
        "seed 1001 phase 1: dyck ────────── 0/9",
    ]
    assert lines[8] == "seed 0 condition 30 failed: too large"
    table.ended = True
    assert len(picture(table)) == 3 + 40 + 3 + 1


@pytest.mark.parametrize(("width", "height"), [(20, 1), (30, 4), (60, 6)])
def test_small_terminals(width, height):
    table = table_of(width=width, height=height)
    for run in ("none1000", "full1000", "p0", "p1"):
        table(Event(run, "progress", 1, 1000, 1.0, 0.5))
    lines = picture(table)
    assert len(lines) <= max(6, height - 1)
    assert all(len(line) <= width for line in lines)


def test_a_run_that_belongs_to_two_conditions():
    cells = pd.concat([CELLS, CELLS.head(1).assign(condition="again", label="the same run")])
    table = table_of(cells=cells)
    train(table, "none1000", 0.25)
    lines = picture(table)
    assert lines[0].startswith("1/8 ")
    assert lines[3].split() == ["no", "pretraining", "1/3", "25.0%"]
    assert lines[5].split() == ["the", "same", "run", "1/1", "25.0%"]


def test_on_a_terminal_the_last_table_stays():
    with table_of() as table:
        train(table, "none1000", 0.5)
        table.say("a [line] above")
        table(Event("full1001", "failed", problem="too large"))
    text = table.console.export_text()
    assert "a [line] above" in text
    final = text[text.rindex("runs done") - 5 :]
    assert "50.0%" in final
    assert "seed 1001 Dyck, full [transfer] failed: too large" in final


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
        "0/8 runs done, starting workers, 0 failed, 0:00:00 elapsed",
        "seed 1000 phase 1: dyck: finished, loss 1.500 nats",
        "seed 1001 no pretraining: finished, accuracy 50.0%, loss 1.500 nats",
        "3/8 runs done, 1 running, 0 failed, 0:01:10 elapsed",
        "seed 1000 Dyck, full [transfer]: failed: no memory",
        "unnamed: skipped: its parent failed",
        "3/9 runs done, starting workers, 2 failed, 0:01:50 elapsed",
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
    with RunProgress("dyck abc", console) as progress:
        progress(at_step := Event("abc", "progress", 20, 50))
        progress(Event("abc", "note", problem="the run starts over"))
        assert progress.event is at_step
    assert "dyck abc: the run starts over" in console.export_text()
