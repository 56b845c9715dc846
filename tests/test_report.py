"""Reports: the numbers are in them, and nothing outside of the file is needed."""

from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from procpre_interp.describe import conditions_table, config_differences, describe_cost, estimate
from procpre_interp.report import Section, conditions_report, runs_report, write_report
from procpre_interp.runs import RunStore
from procpre_interp.stats import summarise_conditions
from tests.results import NAN, TABLE, fill, reproduce_table


class Page(HTMLParser):
    """Text outside of scripts and styles, and whatever a browser would fetch."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.fetched, self.scripts, self.figures, self.silent = "", [], 0, 0, ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value for name, value in attrs if name in ("src", "href")]
        self.figures += ("class", "plotly-graph-div") in attrs
        self.silent = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.silent = ""

    def handle_data(self, data: str) -> None:
        if self.silent == "script":
            self.scripts += len(data) > 1_000_000
        elif not self.silent:
            self.text += data


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("store"))
    fill(store, replicates=2)
    return store


def test_a_reproduction_in_one_file(store: RunStore, tmp_path: Path):
    page = Page(conditions_report(store, TABLE, tmp_path / "new" / "reproduce.html"))
    assert page.fetched == []
    assert (page.scripts, page.figures) == (1, 4)
    summary = summarise_conditions(store.read_table(TABLE).frame).set_index("condition").to_dict("index")
    for condition in ("none", "dyck_full", "dyck_shuffled_weights"):
        assert estimate(summary[condition], "accuracy", 100, ".1f") in page.text
    for text in (
        "96.9",
        "Dyck pretraining & needle in a haystack",
        "weights <shuffled> within each tensor",
        "Cheap protocol",
        "6 runs, 2.5 CPU-minutes, 378.0 million tokens",
        "n = 2 replicates; 95 % bootstrap interval",
        "accuracy drops dramatically",
        "packages.torch",
    ):
        assert text in page.text
    assert "One replicate" not in page.text


def test_one_replicate_is_called_an_observation(tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    text = Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).text
    assert "One replicate: an observation, not a result" in text
    assert "[" not in text.split("Intervals:")[0].replace("[0, 98] %", "").replace("[3, 100] %", "")


def test_damaged_and_missing_runs_are_named(tmp_path: Path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    first, second, third = store.read_table(TABLE).frame["run"]
    (store.path / "runs" / first / "history.parquet").write_bytes(b"gone")
    store.delete(second)
    text = Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).text
    assert f"run {first} is damaged" in text
    assert f"no run '{second}'" in text
    store.delete(first)
    store.delete(third)
    assert Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).figures == 2


def test_runs_are_compared(store: RunStore, tmp_path: Path):
    runs = [store.open(run) for run in store.read_table(TABLE).frame["run"][:2]]
    page = Page(runs_report(store, runs, tmp_path / "runs.html"))
    assert page.fetched == []
    assert page.figures == 2
    for text in (
        runs[0].id,
        "What the configs differ in",
        "parents.0.selector",
        "phase1parent0000",
        "(fresh",
    ):
        assert text in page.text
    alone = Page(runs_report(store, runs[:1], tmp_path / "run.html")).text
    assert "task.name" in alone


def test_text_is_escaped(tmp_path: Path):
    evil = "<script src='https://example.org/x.js'></script>"
    blocks = [evil, pd.DataFrame({evil: [evil]}), go.Figure(layout_title_text=evil)]
    page = Page(write_report(tmp_path / "evil.html", evil, [Section(title=evil, blocks=blocks)]))
    assert page.fetched == []
    assert page.text.count(evil) == 6


def test_conditions_as_text():
    table = reproduce_table(status=["finished"] * 5 + ["diverged"], accuracy=[0.1, 0.9, 0.12, 0.8, 0.11, NAN])
    shown = conditions_table(summarise_conditions(table), {"paper": {"none": 0.113}}).set_index("Condition")
    none, dyck = shown.to_dict("index").values()
    assert none["Accuracy %"] == "11.0 [10.0, 12.0]"
    assert (none["Paper %"], dyck["Paper %"]) == ("11.3", "")
    assert (none["Gain, points"], dyck["Gain, points"]) == ("", "+74.0 [+68.0, +80.0]")
    assert dyck["Broke through"] == "2 of 3 [9, 99] %"
    assert none["Steps to breakthrough"] == "4,000 [4,000, 4,000]"
    assert dyck["Seconds"] == "30 + 12"
    assert dyck["Diverged"] == "1"


def test_config_differences_and_cost():
    configs = {
        "a": {"task": {"name": "haystack"}, "seed": 1},
        "b": {"task": {"name": "haystack"}, "seed": 2, "parents": [{"run": "p"}], "train": {"steps": [1, 2]}},
    }
    table = config_differences(configs)
    assert table.to_dict("list") == {
        "field": ["seed", "parents.0.run", "train.steps"],
        "a": ["1", "(default)", "(default)"],
        "b": ["2", "p", "[1, 2]"],
    }
    assert config_differences({"a": configs["a"]})["field"].tolist() == ["task.name", "seed"]
    assert describe_cost({"runs": 3, "energy": "1 kWh"}) == "3 runs, energy 1 kWh"
