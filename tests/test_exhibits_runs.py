"""Tables of the page of runs: the list, its filters, what is wrong, the diff, lineage, and what deletion takes away."""

import json

import pandas as pd
import pytest

from procpre_interp.store.ancestry import ancestry
from procpre_interp.store.differences import config_differences
from procpre_interp.store.partial_run import saved_state
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.train.state import TrainState, write_state
from procpre_interp.views.exhibits import run_details, run_progress
from procpre_interp.views.exhibits import runs as exhibits
from tests.explorer import DEMO
from tests.results import fill

STORE = RunStore(DEMO)
LIST = STORE.query()
LISTED = exhibits.listing(LIST, exhibits.conditions(STORE))


def test_the_list_says_phase_and_condition():
    table = STORE.read_table("reproduce-cacb0e48").frame
    run = table.loc[table["condition"] == "attention_ln", "run"].iloc[0]
    rows = LISTED.set_index("run")
    assert rows.loc[run, "phase"] == exhibits.LATER
    assert "Dyck, attention + LN" in rows.loc[run, "condition"]
    assert rows.loc["9643c1a212deed14", "phase"] == exhibits.FIRST


def test_filters_and_search():
    haystack = exhibits.keep(LISTED, task=["haystack"])
    assert set(haystack["task"]) == {"haystack"}
    found = exhibits.keep(LISTED, "HAYSTACK f00f71", task=[], seed=[])
    assert found["run"].tolist() == ["f00f71212a994232"]
    assert exhibits.keep(LISTED, "no such words").empty
    assert len(exhibits.keep(LISTED)) == len(LISTED)


def test_the_diff_has_only_what_differs():
    first, second = (STORE.open(run, verify=False) for run in ("f00f71212a994232", "a7272db288a5207c"))
    table = config_differences({run.id: run.config for run in (first, second)})
    assert any(str(field).startswith("parents") for field in table.iloc[:, 0])
    assert not any("train.steps" in str(field) for field in table.iloc[:, 0])


def test_ancestry_and_children():
    run = STORE.open("f00f71212a994232", verify=False)
    found, problems = ancestry([run], STORE)
    assert ([each.id for each in found], problems) == (["f00f71212a994232", "9643c1a212deed14"], [])
    assert "f00f71212a994232" in exhibits.children(LIST, "9643c1a212deed14", STORE)
    orphan = next(run for run in LIST["run"] if run != "f00f71212a994232" and LIST.set_index("run")["parents"][run])
    if orphan:
        _, problems = ancestry([STORE.open(orphan, verify=False)], STORE)
        assert all("no run" in problem for problem in problems)


def test_what_is_wrong_is_a_line(tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    first = store.query()["run"].iloc[0]
    (tmp_path / "runs" / first / "manifest.json").unlink()
    with store.claim("going0n") as partial:
        assert partial is not None
        partial.write_config("task: {name: set}\ntrain: {steps: 70}\n")
        lines = dict(run_progress.troubles(store.query(), store))
        (writing,) = run_progress.being_written(store.query(), store)
    assert (writing.run, writing.saved, writing.steps, writing.share) == ("going0n", 0, 70, 0.0)
    assert list(lines) == ["1 run is damaged and not used", "1 run is being written"]
    row = lines["1 run is being written"].iloc[0]
    assert (row["run"], row["task"], row["of steps"]) == ("going0n", "set", 70)
    again = dict(run_progress.troubles(store.query(), store))
    assert any("interrupted" in line for line in again)


def test_deletion_says_what_goes_and_who_is_orphaned():
    said = exhibits.deletion(LIST, "9643c1a212deed14", STORE)
    assert "MB" in said
    assert "It is a parent of" in said
    assert "f00f71212a994232" in said
    assert exhibits.deletion(LIST, "f00f71212a994232", STORE).endswith("No run has it as a parent.")
    with pytest.raises(ValueError, match="no run 'nonsense'"):
        exhibits.deletion(LIST, "nonsense", STORE)


def test_runs_with_weights_begin_with_those_worth_looking_into():
    names = exhibits.with_weights(LIST, STORE)
    assert next(iter(names)) == "f00f71212a994232"
    assert set(names) == {"f00f71212a994232", "9643c1a212deed14", "a7272db288a5207c"}


def test_numbers_are_text():
    table = run_details.numbers([STORE.open("f00f71212a994232", verify=False)]).set_index("field")["f00f71212a994232"]
    assert table["accuracy"] == "94.4%"
    assert table["steps"] == "5,000"
    assert table["seed"] == "1001"


def test_damaged_tables_name_no_condition(tmp_path):
    store = RunStore(tmp_path)
    store.write_table("whole", pd.DataFrame({"run": ["a", "a"], "label": ["one", "two"]}), {})
    (tmp_path / "tables" / "broken.json").write_text(json.dumps({}))
    (tmp_path / "tables" / "broken.parquet").write_bytes(b"no")
    assert exhibits.conditions(store) == {"a": "one; two"}


def test_seeds_are_whole_numbers_next_to_runs_that_have_none(tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    with store.claim("stopped0") as partial:
        assert partial is not None
        partial.write_config("task: {name: set}\n")
    runs = store.query()
    assert set(runs["status"]) == {"finished", "interrupted"}
    called = exhibits.names(runs)
    assert called.pop("stopped0") == "stopped0 interrupted"
    assert all(", seed 1000, " in name for name in called.values())
    assert all(", seed 1000, " in name for name in exhibits.with_weights(runs, store).values())
    assert exhibits.keep(exhibits.listing(runs, {}), seed=[1000])["seed"].tolist() == [1000] * 3


def test_what_a_run_being_written_has_saved_is_read_without_its_weights(tmp_path):
    store, rows = RunStore(tmp_path), [{"step": 5, "split": "validation", "loss_nats": 2.5, "accuracy": 0.25}]
    with store.claim("going0n") as partial:
        assert partial is not None
        partial.write_config("task: {name: set}\ntrain: {steps: 20}\n")
        assert saved_state(partial.folder) is None
        (writing,) = run_progress.being_written(store.query(), store)
        assert (writing.seconds_left, writing.curve) == (None, None)
        write_state(partial.resume_path, TrainState(step=5, seconds=4.0, history=rows), {})
        (writing,) = run_progress.being_written(store.query(), store)
        assert (writing.saved, writing.share, writing.seconds_left) == (5, 0.25, 12.0)
        assert writing.curve is not None
        assert writing.curve.table["loss_nats"].tolist() == [2.5]
        write_state(partial.resume_path, TrainState(step=0, history=[]), {})
        (writing,) = run_progress.being_written(store.query(), store)
        assert (writing.seconds_left, writing.curve) == (None, None)
        for nonsense in ([1], "x", [{"step": "soon"}]):
            header = json.dumps({"__metadata__": {"state": json.dumps({"step": 7, "history": nonsense})}}).encode()
            partial.resume_path.write_bytes(len(header).to_bytes(8, "little") + header)
            found = saved_state(partial.folder)
            assert found is None or found.step != 7


def test_an_estimate_is_the_speed_of_the_newest_run_like_it(tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)  # 4,000 steps of the default 1,000 sequences in 25 seconds
    runs = store.query()
    asked = {"task": "haystack", "steps": 400, "batch_size": 500, "n_layers": 2, "d_model": 16}
    found = run_progress.estimate(runs, store, **asked)
    assert found is not None
    assert found.seconds == pytest.approx(1.25)
    assert found.run == runs["run"].iloc[0]
    for other in ({"task": "sort"}, {"n_layers": 3}, {"d_model": 32}):
        assert run_progress.estimate(runs, store, **(asked | other)) is None
    assert run_progress.estimate(RunStore(tmp_path / "none").query(), store, **asked) is None
    assert TrainConfig().batch_size == run_progress.DEFAULT_BATCH


def test_the_runs_of_a_time():
    runs = LIST.head(3)
    times = sorted(runs["created"])
    assert set(run_progress.finished_between(runs, times[0], times[2])) == set(runs["run"])
    assert run_progress.finished_between(runs, "2020-01-01T00:00:00+00:00", "2020-01-02T00:00:00+00:00") == []
    assert run_progress.finished_between(runs, times[0], "") == []
