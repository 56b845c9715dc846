"""`procpre-interp probe` and `patch`: every kind of measurement, on runs and on a GPT-2 of Hugging Face's."""

import io
import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

from procpre_interp.cli import main
from procpre_interp.commands._models import Columns, means_over_runs, named_task, spread_out
from procpre_interp.commands.patch import READ
from procpre_interp.commands.patch import WHAT as PATCHES
from procpre_interp.commands.probe import PROBES
from procpre_interp.core.text_table import GAP, text_width
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, to_huggingface
from procpre_interp.patch.pruning import head_test
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.probe.linear import linear_probe
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from tests.test_cli import complaint

TRAIN = TrainConfig(steps=4, batch_size=8, warmup_steps=1, evaluate_every=2, evaluate_examples=8, checkpoints=3)
SHAPE = Architecture(n_layers=2, n_heads=2, d_model=8)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    for seed in (0, 1):
        tied = Architecture(n_layers=2, n_heads=2, d_model=8, tied=True)
        before = execute(RunConfig(task=TASKS.build("dyck", k=3, length=64), seed=seed, train=TRAIN, model=tied), store)
        task, parents = TASKS.build("haystack", max_pairs=5), (Parent(run=before.id, selector="attn+ln"),)
        execute(RunConfig(task=task, seed=seed, train=TRAIN, model=SHAPE, parents=parents), store)
    return store


@pytest.fixture
def runs(store, monkeypatch, tmp_path) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PROCPRE_STORE", str(store.path))
    table = store.query(task="haystack").sort_values("seed")
    return table["run"].tolist()


@pytest.fixture
def coarse_fits(monkeypatch):
    """Linear probes and masks that stop after a few steps of their optimisers, which are tested elsewhere."""
    monkeypatch.setattr("procpre_interp.probe.probes.linear_probe", partial(linear_probe, max_iterations=3))
    monkeypatch.setattr("procpre_interp.commands.patch.head_test", partial(head_test, steps=5, n_random=2))


@pytest.mark.usefixtures("coarse_fits")
@pytest.mark.parametrize("what", PROBES)
def test_every_probe(what, runs, tmp_path, capsys):
    score = ["--score", "value"] if what == "timeline" else []
    command = ["probe", *runs, "--what", what, "--sequences", "16", *score]
    html = tmp_path / "probe.html"
    assert main([*command, "--format", "json", "--html", str(html)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["run"] for row in rows} == set(runs)
    kind = PROBES[what]
    assert {*kind.keys, *kind.values, *kind.dots} <= set(rows[0])
    assert "Every row" in html.read_text()
    assert "plotly-graph-div" in html.read_text(), "it has no figure"
    assert main(command) == 0
    assert "Means over 2 runs" in capsys.readouterr().out


def test_every_probe_says_in_the_help_what_it_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["probe", "-h"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert {"attention", "linear", "drift", "timeline"} <= set(PROBES)
    for name in PROBES:
        assert PROBES[name].summary(), f"{name} lacks a docstring"
        assert f"{name}: {PROBES[name].summary()}" in said
    assert main(["probe", "--what", "atention"]) == 2
    assert "unknown probe 'atention'. Did you mean 'attention'?" in complaint(capsys)


def test_words_stand_on_the_left_and_numbers_on_the_right(runs, capsys):
    assert main(["probe", runs[0], "--what", "weights"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()[1:]
    assert head.startswith("name ")
    assert first.index(" 0 ") + 1 == head.index("layer") + len("layer") - 1


@pytest.mark.usefixtures("coarse_fits")
@pytest.mark.parametrize("what", PATCHES)
def test_every_patch(what, runs, tmp_path, capsys):
    html = tmp_path / "patch.html"
    few = ["--sequences", "6"] if "sequences" in READ[what] else []
    assert main(["patch", runs[0], "--what", what, *few, "--format", "json", "--html", str(html)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["stage"] for row in rows} == {"finished"}
    columns = PATCHES[what][1]
    assert {*columns.keys, *columns.values} <= set(rows[0])
    assert main(["patch", *runs, "--what", what, *few]) == 0
    assert what.replace("_", " ") in capsys.readouterr().out


@pytest.mark.parametrize("what", ["nodes", "edges", "exact_edges", "circuit"])
def test_a_model_at_chance_has_no_shares(what, runs, capsys):
    command = ["patch", *runs, "--what", what, "--cause", "value", "--sequences", "32"]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    for run in runs:
        assert f"{run}: At chance: over 32 pairs the two runs are " in said
    assert "so effects are in logit difference, not shares." in said
    assert main([*command, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert not any(row["gap_told"] for row in rows)
    assert {row.get(name) for row in rows for name in ("share", "faithfulness", "completeness")} == {None}


def test_edges_are_scored_as_asked(runs, capsys):
    found = []
    for options in ([], ["--method", "eap"], ["--method", "eap", "--gradient-run", "clean"]):
        command = ["patch", runs[0], "--what", "edges", "--sequences", "6", "--format", "json"]
        assert main([*command, *options]) == 0
        rows = json.loads(capsys.readouterr().out)
        found.append({(row["writer"], row["reader"]): row["score"] for row in rows})
    assert found[1] != found[2]
    assert found[0] != found[1]


def test_patches_by_position_and_by_cause(runs, capsys):
    command = [
        "patch",
        runs[0],
        "--sites",
        "z",
        "--by-position",
        "--cause",
        "value",
        "--sequences",
        "4",
        "--format",
        "json",
    ]
    assert main(command) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 * 2 * 13
    assert main([*command, "--metric", "loss", "--direction", "noise", "--replacement", "mean"]) == 0
    assert {row["replacement"] for row in json.loads(capsys.readouterr().out)} == {"mean"}


def test_stages_and_steps(runs, store, capsys):
    probe = ["probe", "--what", "weights", "--format", "json"]
    found = {}
    for names in ([runs[0], "--stage", "transplanted"], [f"{runs[0]}@0"], [runs[0], "--stage", "phase1"], [runs[0]]):
        assert main([*probe, *names]) == 0
        found[names[-1]] = [row["frobenius"] for row in json.loads(capsys.readouterr().out) if row["matrix"] == "W_Q"]
    assert found["transplanted"] == found[f"{runs[0]}@0"] == found["phase1"]
    assert found["transplanted"] != found[runs[0]]


@pytest.mark.usefixtures("coarse_fits")
def test_a_model_from_hugging_face(runs, store, tmp_path, capsys):
    to_huggingface(load_model(store.open(runs[0]))).save_pretrained(tmp_path / "gpt2")
    task = ["--task", "{name: haystack, max_pairs: 5}", "--sequences", "8", "--format", "json"]
    for command in (["probe"], ["patch", "--what", "edges"], ["probe", "--what", "linear"]):
        tables = []
        for name in (str(tmp_path / "gpt2"), runs[0]):
            assert main([command[0], name, *command[1:], *task]) == 0
            rows = json.loads(capsys.readouterr().out)
            tables.append([row.get("score", row.get("value", row.get("accuracy"))) for row in rows])
        assert tables[0] == pytest.approx(tables[1], abs=1e-5) if command[-1] == "edges" else tables[0] == tables[1]
    assert main(["probe", str(tmp_path / "gpt2")]) == 2
    assert "model without a task" in complaint(capsys)


def test_weights_are_read_without_a_task(runs, store, tmp_path, capsys):
    """Of a folder, and of what was imported from one; what needs sequences says so."""
    to_huggingface(load_model(store.open(runs[0]))).save_pretrained(tmp_path / "gpt2")
    own = RunStore(tmp_path / "own")
    assert main(["import", str(tmp_path / "gpt2"), "--store", str(own.path)]) == 0
    imported = own.query()["run"].item()
    capsys.readouterr()
    without = [what for what in PROBES if not getattr(PROBES[what], "reads_data", True)]
    assert set(without) == {"weights", "spectra", "composition"}
    for what in without:
        tables = []
        for name, place in ((runs[0], store), (imported, own), (str(tmp_path / "gpt2"), own)):
            assert main(["probe", name, "--what", what, "--format", "csv", "--store", str(place.path)]) == 0
            tables.append(pd.read_csv(io.StringIO(capsys.readouterr().out)).drop(columns="run"))
        for other in tables[1:]:
            numbers = list(PROBES[what].values)
            np.testing.assert_allclose(other[numbers], tables[0][numbers], atol=1e-5)
    assert main(["probe", imported, "--store", str(own.path)]) == 2
    assert "of which no text is known here" in complaint(capsys)


HAYSTACK = ["--task", "{name: haystack, max_pairs: 5}"]


@pytest.fixture
def folders(runs, store, tmp_path, monkeypatch) -> list[str]:
    """Three models of Hugging Face's in folders of one name."""
    models = [load_model(store.open(run)) for run in runs]
    models.append(HookedTransformer.from_seed(models[0].config, 2, "folders"))
    for place, model in zip("abc", models):
        to_huggingface(model).save_pretrained(tmp_path / place / "checkpoint-1000")
    return [f"{place}/checkpoint-1000" for place in "abc"]


MEASURES = [*(("probe", what) for what in PROBES if what != "linear"), *(("patch", what) for what in PATCHES)]
"""Without linear probes, which take their time and go the way of all others."""


@pytest.mark.usefixtures("coarse_fits")
@pytest.mark.parametrize(("name", "what"), MEASURES)
def test_folders_of_one_name_are_told_apart(name, what, folders, tmp_path, capsys):
    """In every table and report, as runs are: each has rows of its own, and people read means with n."""
    page = tmp_path / "page.html"
    call = [name, *folders, "--what", what, *HAYSTACK, "--sequences", "8", "--html", str(page)]
    if what in ("drift", "cka", "inherited", "timeline", "progress", "overlap", "reuse"):
        assert main(call) == 2
        assert f"a/checkpoint-1000 is a model without stages; --what {what} wants runs" in complaint(capsys)
        return
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert "Means over 3 runs" in shown
    head, *rows = shown.splitlines()[1:4]
    assert head.split()[-1] == "n"
    assert [row.split()[-1] for row in rows] == ["3", "3"]
    assert all(folder in page.read_text() for folder in folders)
    assert "after phase" not in shown + page.read_text()


@pytest.mark.parametrize("inside", ["a", "a/checkpoint-1000"])
def test_a_folder_is_called_by_the_shortest_end_that_tells_it_apart(
    inside, folders, runs, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path / inside)
    here = "." if inside.endswith("1000") else "checkpoint-1000/"
    (tmp_path / "link").symlink_to(tmp_path / "a" / "checkpoint-1000")
    probe = ["probe", here, "--what", "weights", *HAYSTACK, "--format", "json"]
    labels = {
        (): ["checkpoint-1000"],
        (str(tmp_path / "a" / "checkpoint-1000"),): ["checkpoint-1000"],
        (str(tmp_path / "link"),): ["link"],
        (str(tmp_path / "b" / "checkpoint-1000"), runs[0][:6], runs[0]): [
            "a/checkpoint-1000",
            "b/checkpoint-1000",
            runs[0],
        ],
    }
    for others, expected in labels.items():
        assert main([*probe[:2], *others, *probe[2:]]) == 0
        assert list(dict.fromkeys(row["run"] for row in json.loads(capsys.readouterr().out))) == expected


def test_titles_say_of_which_stage_a_model_is(folders, runs, store, capsys):
    parent = store.query(task="dyck")["run"].iloc[0]
    said = {
        (runs[0],): "weights, haystack (after phase 2)",
        (f"{runs[0]}@0",): "weights, haystack (step 0)",
        (runs[0], "--stage", "fresh"): "weights, haystack (before phase 2, without transfer)",
        (parent,): "weights, dyck (after training)",
        (folders[0], *HAYSTACK): "weights, haystack",
        (folders[0], runs[0], *HAYSTACK): "weights, haystack (after phase 2)",
    }
    for names, title in said.items():
        assert main(["probe", *names, "--what", "weights"]) == 0
        assert capsys.readouterr().out.splitlines()[0].strip() == title
    assert main(["probe", folders[0], *HAYSTACK, "--stage", "phase1"]) == 2
    assert "a model without stages" in complaint(capsys)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["probe"], "wants a RUN"),
        (["probe", "--what", "timeline"], "wants a RUN"),
        (["patch", "nothing"], "no run"),
        (["patch", "RUN@7"], "keeps no weights of step 7"),
        (["patch", "RUN@x"], "after @ comes a step"),
        (["probe", "RUN@0", "--stage", "phase1"], "of stage finished"),
        (["patch", "RUN", "--cause", "values"], "unknown cause of haystack 'values'"),
        (["patch", "RUN", "--sites", "zz"], "unknown site 'zz'"),
        (["patch", "RUN", "--sites"], "no sites; name one or several of"),
        (["patch", "RUN", "--task", "needle"], "unknown task 'needle'"),
        (["patch", "RUN", "--task", "{name: [}"], "is no YAML"),
        (["patch", "RUN", "--task", "7"], "give a name"),
        (["probe", "RUN", "--task", "dyck"], "the model knows"),
        (["probe", "RUN", "--what", "timeline", "--score", "retrieval"], "unknown target 'retrieval'"),
        (["probe", "RUN", "--what", "timeline", "--score", "separator"], "unknown score of these runs' tasks"),
        (["probe", "RUN", "--sequences", "-3"], "sequences=-3; there must be at least 1"),
        (["patch", "RUN@0", "--what", "reuse"], "leave out @STEP"),
        (["patch", "RUN", "--what", "overlap", "--cause", "value"], "leave out --cause"),
        (["patch", "RUN", "--what", "reuse", "--seed", "7", "--sequences", "5"], "leave out --seed, --sequences"),
        (["patch", "RUN", "--what", "edges", "--direction", "noise"], "leave out --direction"),
        (["patch", "RUN", "--what", "exact_edges", "--replacement", "mean"], "leave out --replacement"),
        (["patch", "RUN", "--what", "nodes", "--method", "eap"], "leave out --method"),
        (["patch", "RUN", "--what", "heads", "--metric", "loss"], "leave out --metric"),
        (["probe", "RUN", "--what", "timeline", "--seed", "7", "--task", "dyck"], "leave out --task, --seed"),
        (["probe", "RUN", "--what", "progress", "--stage", "fresh"], "leave out --stage"),
        (["probe", "RUN", "--what", "drift", "--stage", "fresh"], "compares before and after"),
    ],
)
def test_mistakes_are_one_line(arguments, said, runs, capsys):
    names = [part.replace("RUN", runs[0]) for part in arguments]
    assert main(names) == 2
    assert said in complaint(capsys)


@pytest.mark.parametrize(
    "call", [["probe"], ["patch", "--cause", "value"], ["ablate", "--ablation", "shuffle_within_tensors"]]
)
def test_runs_on_different_tasks_have_no_means(call, runs, store, capsys):
    """Nor has the table the first one's name: rows of each are for programs."""
    command, *options = call
    parent = store.query(task="dyck")["run"].iloc[0]
    assert main([command, runs[0], parent, *options]) == 2
    assert "measured on haystack, dyck, over which means say nothing" in complaint(capsys)
    if command == "probe":
        assert main([command, runs[0], parent, *options, "--format", "csv"]) == 0
        rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
        assert set(rows["run"]) == {runs[0], parent}


@pytest.mark.parametrize(
    "call", [["probe"], ["probe", "--what", "timeline"], ["patch"], ["ablate", "--ablation", "shuffle_within_tensors"]]
)
def test_nor_have_runs_on_different_tasks_of_one_name(call, runs, store, capsys):
    """As haystacks of several sizes, or texts."""
    command, *options = call
    other = execute(RunConfig(task=TASKS.build("haystack", max_pairs=3), train=TRAIN, model=SHAPE), store)
    assert main([command, runs[0], other.id, *options]) == 2
    assert "measured on haystack (max_pairs=5), haystack (max_pairs=3), over which" in complaint(capsys)
    store.delete(other.id)


def test_a_stage_that_a_run_does_not_have(store, runs, capsys):
    parent = store.query(task="dyck")["run"].iloc[0]
    assert main(["probe", parent, "--stage", "phase1"]) == 2
    assert "has no parents" in complaint(capsys)


def test_tasks_by_name_and_by_yaml():
    assert named_task("haystack") == TASKS.build("haystack").resolve()
    assert named_task("{name: dyck, k: 4}").k == 4


@pytest.mark.parametrize("width", [40, 80, 200])
def test_attention_has_one_row_per_head_with_scores_as_columns(width):
    """In as many parts as the width asks for, none of which loses a head or a score."""
    scores, heads = ["entropy_bits", "entropy_relative", "distance", "value"], [(0, 2), (0, 10), (1, 0)]
    rows = [
        {
            "run": "r",
            "score": score,
            "layer": layer,
            "head": head,
            "value": i + layer / 2,
            "uniform": 9.5,
            "n_queries": 8.0,
        }
        for i, score in enumerate(scores)
        for layer, head in heads
    ]
    kind = PROBES["attention"]
    columns = Columns(kind.keys, kind.values, kind.spread)
    parts = spread_out(means_over_runs(pd.DataFrame(rows), columns), columns, width)
    assert [score for part in parts for score in part.columns[2:]] == scores
    assert (len(parts) == 1) == (width > 60)
    for part in parts:
        assert part["layer"].tolist() == ["0", "0", "1", "uniform"]
        assert part["head"].tolist() == ["2", "10", "0", ""]
        assert text_width(part.to_dict("list")) - GAP <= width
    assert parts[0]["entropy_bits"].tolist() == ["0", "0", "0.5", "9.5"]
