"""Reports: the numbers are in them, and nothing outside of the file is needed."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from procpre_interp.claims.contrast_text import bounds_text
from procpre_interp.claims.text import conditions_table, describe_cost
from procpre_interp.commands._conditions import print_results
from procpre_interp.core.checksums import seal
from procpre_interp.data import TASKS
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About, about_table
from procpre_interp.store.differences import config_differences
from procpre_interp.store.run import OWN_FILES
from procpre_interp.store.store import RunStore
from procpre_interp.views import glossary
from procpre_interp.views.html_page import Section, write_report
from procpre_interp.views.html_report import conditions_report, describe_runs, runs_report
from tests.explorer import DEMO
from tests.results import NAN, TABLE, fill, reproduce_table, write_run


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
        assert (
            bounds_text(*(summary[condition][f"accuracy_{key}"] for key in ("mean", "low", "high")), 100, ".1f")
            in page.text
        )
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


def test_one_condition_with_a_single_replicate_is_no_sweep_of_one(tmp_path: Path, capsys):
    store = RunStore(tmp_path)
    fill(store, replicates=3)
    table = store.read_table(TABLE)
    costly = (table.frame["condition"] == "dyck_full") & (table.frame["replicate"] > 1000)
    store.write_table(TABLE, table.frame.loc[~costly], table.metadata)
    text = Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).text
    assert "One replicate" not in text
    print_results(table.frame.loc[~costly], about_table(table.metadata))
    printed = " ".join(capsys.readouterr().out.split())
    for said in (text, printed):
        assert "n is given under Broke through" in said
        assert "n = 1: no interval" in said


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


def test_a_report_begins_with_what_a_reader_of_the_abstract_must_know(store: RunStore, tmp_path: Path):
    results = Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).text
    runs = [store.open(run) for run in store.read_table(TABLE).frame["run"][:2]]
    for text in (results, Page(runs_report(store, runs, tmp_path / "runs.html")).text):
        introduction = text.split("What this is about")[1][:3500]
        for word in ("phase 1", "phase 2", "haystack", "breakthrough", "replicate", "gain"):
            assert word in introduction
    assert "How to read this report" in results
    demo = Page(conditions_report(RunStore(DEMO), "reproduce-cacb0e48", tmp_path / "demo.html")).text
    assert demo.index("Balanced brackets") < demo.index("Steps to breakthrough")


def test_every_task_has_its_words():
    assert glossary.task_words() == {name: TASKS[name].in_words for name in TASKS}
    assert all(glossary.task_words().values())
    nested = {"name": "mixture", "components": [{"task": {"name": "dyck", "k": 4}}, {"name": "set"}]}
    assert glossary.glossary([nested])["Word"].tolist()[:3] == ["mixture", "dyck", "set"]


def test_commands_are_code_and_no_backtick_is_seen(tmp_path: Path):
    blocks = ["`procpre-interp runs` lists <them>", pd.DataFrame({"a": ["`x`"]})]
    path = write_report(tmp_path / "code.html", "Code", [Section(title="Code", blocks=blocks)])
    assert "<code>procpre-interp runs</code> lists &lt;them&gt;" in path.read_text()
    assert "`" not in Page(path).text
    assert "`" not in Page(conditions_report(RunStore(DEMO), "reproduce-cacb0e48", tmp_path / "demo.html")).text


def test_the_loss_has_no_dotted_line_to_read(store: RunStore, tmp_path: Path):
    text = Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).text
    assert text.count("How to read: A sudden") == 2
    assert text.count("dotted line is the accuracy that defines it") == 1


def test_legends_say_which_run_is_which(tmp_path: Path):
    demo = RunStore(DEMO)
    ids = ["f00f71212a994232", "9643c1a212deed14", "a7272db288a5207c", "01274ba918921944"]
    said = describe_runs([demo.open(run) for run in ids], demo)
    assert list(said.values()) == [
        "haystack, attn+ln from dyck 9643c1a2, seed 1001",
        "dyck, fresh weights, seed 1001",
        "haystack, fresh weights, seed 1001",
        "haystack, all from dyck 765d95b7, shuffle within tensors, seed 1004",
    ]
    text = runs_report(demo, [demo.open(run) for run in ids], tmp_path / "runs.html").read_text()
    assert f"f00f7121: {said[ids[0]]}" in text
    # Runs that are alike in task, parents and seed: what else differs.
    same = RunStore(tmp_path / "same")
    for run_id, rate in (("a" * 16, 0.001), ("b" * 16, 0.003)):
        write_run(
            same, run_id, {"task": "haystack", "seed": 0, "status": "finished"}, np.arange(3), np.zeros(3), "none"
        )
        path = same.path / "runs" / run_id
        (path / "config.yaml").write_text(f"task: {{name: haystack}}\nseed: 0\ntrain: {{learning_rate: {rate}}}\n")
        seal(path, OWN_FILES)
    labels = describe_runs([same.open("a" * 16), same.open("b" * 16)], same)
    assert [label.rpartition(", ")[2] for label in labels.values()] == [
        "train.learning_rate 0.001",
        "train.learning_rate 0.003",
    ]


def test_long_columns_are_broken_into_lines_and_short_ones_are_not(store: RunStore, tmp_path: Path):
    frame = pd.DataFrame({"Condition": ["Dyck, weights shuffled within each tensor"], "n": ["2 of 5 [9, 99] %"]})
    text = write_report(tmp_path / "x.html", "x", [Section(title="x", blocks=[frame])]).read_text()
    assert '<td class="long">Dyck, weights shuffled within each tensor</td><td>2 of 5 [9, 99] %</td>' in text
    page = conditions_report(store, TABLE, tmp_path / "reproduce.html").read_text()
    every = page.split("Every run")[1].split("Environment")[0]
    assert "The same for all: " in every
    assert "<th>limit</th>" not in every
    assert "limit 4000" in every


def test_text_is_escaped(tmp_path: Path):
    evil = "<script src='https://example.org/x.js'></script>"
    blocks = [evil, pd.DataFrame({evil: [evil]}), go.Figure(layout_title_text=evil)]
    page = Page(write_report(tmp_path / "evil.html", evil, [Section(title=evil, blocks=blocks)]))
    assert page.fetched == []
    assert page.text.count(evil) == 6


def test_conditions_as_text():
    table = reproduce_table(status=["finished"] * 5 + ["diverged"], accuracy=[0.1, 0.9, 0.12, 0.8, 0.11, NAN])
    shown = conditions_table(summarise_conditions(table), About(paper={"none": 0.113})).set_index("Condition")
    none, dyck = shown.to_dict("index").values()
    assert none["Accuracy %"] == "11.0 [10.0, 12.0]"
    assert (none["Paper %"], dyck["Paper %"]) == ("11.3", "")
    assert (none["Gain, points"], dyck["Gain, points"]) == ("", "+74.0 [+68.0, +80.0]")
    assert dyck["Broke through"] == "2 of 3 [9, 99] %"
    assert none["Steps to breakthrough"] == "4,000 [4,000, 4,000]"
    assert dyck["Seconds"] == "30 + 12"
    assert (none["Diverged"], dyck["Diverged"]) == ("0", "1")
    assert (none["Pairs"], dyck["Pairs"]) == ("", "2")
    assert "Pairs" not in conditions_table(summarise_conditions(reproduce_table()), About())


def test_conditions_on_text_show_losses_and_what_they_cost():
    table = reproduce_table(loss_nats=[2.0, 1.5, 2.1, 1.7, 2.2, 1.9], teraflops=2.0, phase1_teraflops=[0.0, 0.5] * 3)
    shown = conditions_table(summarise_conditions(table), About()).set_index("Condition")
    assert "Loss, nats" not in shown
    none, dyck = shown["TeraFLOPs"]
    assert (none, dyck) == ("0 + 2", "0.5 + 2")
    shown = conditions_table(summarise_conditions(table.assign(epochs=0.5)), About()).set_index("Condition")
    assert shown["Loss, nats"].tolist() == ["2.1000 [2.0000, 2.2000]", "1.7000 [1.5000, 1.9000]"]
    assert shown["Change, nats"].tolist() == ["", "-0.4000 [-0.5000, -0.3000]"]


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
    assert describe_cost({"runs": 3, "kilowatt_hours": 1}) == "3 runs, kilowatt_hours 1"
