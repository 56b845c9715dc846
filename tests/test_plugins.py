"""Tasks, controls and probes of one's own: loaded where the user says so, part of a run, never taken from a store."""

import dataclasses
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import streamlit as st

from procpre_interp.ablate.ablation import ABLATIONS
from procpre_interp.ablate.sweep import copy_labels
from procpre_interp.cli import main
from procpre_interp.core.config import MissingPlugin, from_dict, from_yaml, to_yaml
from procpre_interp.core.plugins import VARIABLE, Plugin, load_named, load_plugin, loaded, named
from procpre_interp.core.seeding import stream
from procpre_interp.data import CORPORA, TASKS, Task
from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.documents import corpus_hash
from procpre_interp.data.mixture import Mixture
from procpre_interp.data.tokens import parse_tokens, token_names
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model, load_task
from procpre_interp.probe import PROBES
from procpre_interp.store.store import Run, RunStore
from procpre_interp.sweep.config import described
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import INTERVENTIONS
from tests.contributing import PAGE, example
from tests.explorer import charts, open_page, said
from tests.test_cli import complaint

MAJORITY, HALVED, CONFIDENCE = example("class Majority"), example("class Halved"), example("class Confidence")
LETTERS = """
from dataclasses import dataclass

from procpre_interp.data.corpus import CORPORA, Corpus


@CORPORA.register("letters")
@dataclass(frozen=True, kw_only=True, slots=True)
class Letters(Corpus):
    def files(self):
        return []

    def documents(self, contents, skipped):
        return iter(())
"""
TRAIN = ["--train.steps", "4", "--train.batch-size", "8", "--train.warmup-steps", "1", "--train.evaluate-every", "2"]
TRAIN += ["--train.evaluate-examples", "8", "--train.checkpoints", "2", "--train.kernel", "torch"]
SHAPE = ["--model.n-layers", "1", "--model.n-heads", "2", "--model.d-model", "8"]
SHORT = TrainConfig(steps=2, batch_size=4, warmup_steps=1, evaluate_every=2, evaluate_examples=4, kernel="torch")


def forget() -> None:
    """As in another process: no plugin is loaded."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and isinstance(vars(module).get("__procpre_plugin__"), Plugin):
            del sys.modules[name]
    for registry in (TASKS, ABLATIONS, CORPORA, INTERVENTIONS, PROBES):
        for name in [name for name in registry if registry[name].plugin is not None]:  # type: ignore[attr-defined]
            del registry._classes[name]


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROCPRE_STORE", raising=False)
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    forget()


@pytest.fixture
def majority(tmp_path) -> Path:
    path = tmp_path / "own" / "my.py"
    path.parent.mkdir()
    path.write_text(MAJORITY)
    return path


SWEEP = """
name: majority
plugins: [own/my.py, own/halved.py]
phase1:
- name: majority
  task: {name: majority}
  model: {n_layers: 1, n_heads: 2, d_model: 8, tied: true}
  train: {steps: 4, batch_size: 8, warmup_steps: 1, kernel: torch, evaluate_every: 4, evaluate_examples: 8}
task: {name: majority, length: 13}
model: {n_layers: 1, n_heads: 2, d_model: 8}
train: {steps: 4, batch_size: 8, warmup_steps: 1, kernel: torch, evaluate_every: 4, evaluate_examples: 8}
conditions:
- {name: halved, sources: [{phase1: majority, selector: attn, ablation: {name: halved}}]}
replicates: 1
"""


def test_a_task_of_ones_own_from_training_to_the_explorer(majority, tmp_path, monkeypatch, capsys):
    train = ["train", "--task", "majority", "--task.length", "9", *TRAIN, *SHAPE]
    assert main(train) == 2
    assert "tasks of your own come with --import FILE.py" in complaint(capsys)
    assert main([*train, "--import", "own/my.py"]) == 0
    assert main([*train, "--import=own/my.py"]) == 0  # the same run
    assert "finished before" in capsys.readouterr().err
    (run,) = RunStore("runs").query()["run"]
    folder = Path("runs/runs") / run
    (copy,) = (folder / "plugins").rglob("*.py")
    assert (copy.name, copy.read_text()) == ("my.py", MAJORITY)
    assert copy.relative_to(folder).as_posix() in RunStore("runs").open(run).manifest
    assert json.loads((folder / "environment.json").read_bytes())["plugins"] == [load_plugin(majority).mark]
    assert main(["tasks", "--name", "majority", "--import", "own/my.py"]) == 0
    assert "0 1 1 | 1" in capsys.readouterr().out

    forget()  # from here on other processes
    for command in (["runs"], ["report", run], ["diagnose", run]):
        assert main(command) == 0
    assert "majority" in capsys.readouterr().out
    probe, patch = ["probe", run, "--sequences", "8"], ["patch", run, "--cause", "bit", "--sequences", "16"]
    assert main(probe) == 2
    missing = "task 'majority' comes from the plugin my.py, which is not loaded: give --import my.py"
    assert complaint(capsys) == f"procpre-interp: {missing}\n"
    weights, attention = "questions/how_do_weights_move.py", "questions/where_does_attention_look.py"
    page = open_page(monkeypatch, tmp_path / "runs", weights, run=run)
    assert len(charts(page)) == 1
    assert not page.error
    assert missing in said(open_page(monkeypatch, tmp_path / "runs", attention, run=run))
    assert not loaded(), "a plugin was loaded that nobody named"

    assert main([*probe, "--import", "own/my.py"]) == 0
    capsys.readouterr()
    assert main([*patch, "--import", "own/my.py"]) == 0
    assert "16 pairs" in capsys.readouterr().out
    forget()
    st.cache_resource.clear()  # another explorer
    monkeypatch.setenv(VARIABLE, str(majority))  # as `app --import` does for its child
    page = open_page(monkeypatch, tmp_path / "runs", attention, run=run)
    assert not page.error
    assert charts(page)
    assert "Majority" not in said(page)


def test_a_task_of_ones_own_is_checked_as_its_author_would(majority, tmp_path, monkeypatch):
    (tmp_path / "majority.py").write_text(MAJORITY)
    members: dict[str, Any] = {}
    exec(compile(example("def test_majority"), "test_majority.py", "exec"), members)
    members["test_majority"]()
    task = TASKS.build("majority", length=5)
    assert token_names(task, [0, 1, 2, 3]) == ["0", "1", "|", "·"]
    assert parse_tokens(task, "0 1 1 | 1").tolist() == [0, 1, 1, 2, 1]
    pairs = Mixture(tasks=(task, TASKS.build("set"))).counterfactual("majority.bit", 9, generator=stream(0, "pairs"))
    assert (pairs.answers + pairs.wrong == 1).all()
    forget()
    (tmp_path / "majority.py").write_text(MAJORITY.replace("assert sum", "assert 1 < sum"))
    with pytest.raises(AssertionError) as caught:
        members["test_majority"]()
    assert "majority, pairs of cause 'bit': [" in caught.value.__notes__[-1]


def test_a_sweep_loads_its_plugins_in_its_workers_too(majority, tmp_path, capsys):
    (tmp_path / "own" / "halved.py").write_text(HALVED)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert main(["sweep", "sweep.yaml", "--out", "runs", "--workers", "1"]) == 0
    assert "halved" in capsys.readouterr().out
    runs = RunStore("runs")
    assert len(runs.query(status="finished")) == 3
    damaged = next(run for run in map(runs.open, runs.query()["run"]) if run.config.get("parents"))
    assert damaged.config["parents"][0]["ablation"]["plugin"].startswith("halved.py@")
    forget()
    (tmp_path / "own" / "halved.py").write_text(f"{HALVED}\n# another one\n")
    assert main(["sweep", "sweep.yaml", "--out", "runs", "--workers", "1"]) == 0
    assert len(runs.query(status="finished")) == 4, "a control with another source is another control"


@pytest.fixture
def tiny(monkeypatch) -> Run:
    """A run, and a file with the probe of the page beside it."""
    monkeypatch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 2**12)
    monkeypatch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
    Path("confidence.py").write_text(CONFIDENCE)
    shape, train = Architecture(n_layers=1, n_heads=2, d_model=8), dataclasses.replace(SHORT, checkpoints=2)
    return execute(
        RunConfig(task=TASKS.build("identity", vocab=4, length=3), model=shape, train=train), RunStore("runs")
    )


def test_a_probe_of_ones_own_from_the_help_to_the_figure(tiny, monkeypatch, capsys):
    (call,) = re.findall(r"^`procpre-interp (probe RUN .*)`$", PAGE, flags=re.MULTILINE)
    command = call.replace("RUN", tiny.id).split()
    assert main(["probe", tiny.id, "--what", "confidence"]) == 2
    assert "unknown probe 'confidence'" in (said := complaint(capsys))
    assert "probes of your own come with --import FILE.py" in said
    assert main([*command, "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    task = load_task(tiny)
    assert [row["position"] for row in rows] == list(range(task.n_ctx))
    batch = task.batch(128, generator=stream(0, "probe", "identity"))
    first = load_model(tiny)(batch.tokens)[:, 0].softmax(-1).max(-1).values.mean().item()
    assert rows[0]["probability"] == pytest.approx(first)
    page = Path("confidence.html").read_text(encoding="utf-8")
    assert '"name":"probability"' in page  # the markers of its figure
    assert main(command) == 0
    assert "probability" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["probe", "-h"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "confidence: probability of the likeliest next token, by position" in said


FIGURE = """
    def figure(table):
        import plotly.graph_objects as go
        return go.Figure(layout={"title": f"own figure of {len(table)}"})
"""


def test_a_probe_with_a_figure_of_its_own_that_compares_models(tiny, capsys):
    text = CONFIDENCE.replace("    def measure", f"    reference = 'start'\n{FIGURE}\n    def measure")
    text = text.replace("probed.model(tokens)", "(probed.model(tokens) - probed.reference(tokens))")
    Path("own.py").write_text(text)
    probe = ["probe", "--import", "own.py", "--what", "confidence", "--format", "json", "--html", "own.html"]
    tables = []
    for name in (f"{tiny.id}@0", tiny.id):
        assert main([*probe, name]) == 0
        tables.append([row["probability"] for row in json.loads(capsys.readouterr().out)])
    assert tables[0] == pytest.approx([1 / load_task(tiny).d_vocab] * len(tables[0]))  # a model less itself
    assert tables[1] != pytest.approx(tables[0])
    assert f"own figure of {len(tables[0])}" in Path("own.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('values = ("probability",)', "", "probe confidence: give keys and values"),
        ('keys = ("position",)', 'keys = "position"', "probe confidence: give keys and values"),
        ('values = ("probability",)', 'values = ("odds",)', "probe confidence: its table has no column 'odds'"),
        ("float(best[kept, i].mean())", "'high'", "probe confidence: probability is one of its values"),
        ("def measure", "def measured", "probe 'confidence': Confidence lacks measure"),
        ("(Probe)", "", "probe 'confidence': Confidence is not derived from"),
        ("keys =", "figure = 'dots'\n    keys =", "unknown figure of probe confidence 'dots'"),
    ],
)
def test_a_probe_that_is_none_is_one_clear_line(before, after, says, tiny, capsys):
    Path("bad.py").write_text(CONFIDENCE.replace(before, after))
    assert main(["probe", tiny.id, "--import", "bad.py", "--what", "confidence", "--html", "bad.html"]) == 2
    assert says in complaint(capsys)


def config_of(seed: int = 0) -> RunConfig:
    shape = Architecture(n_layers=1, n_heads=2, d_model=8)
    return RunConfig(task=TASKS.build("majority", length=11), seed=seed, model=shape, train=SHORT)


def test_two_plugins_with_one_name_never_share_a_run(majority, tmp_path):
    load_plugin(majority)
    first = execute(config_of(), RunStore("runs"))
    forget()
    majority.write_text(MAJORITY.replace("2 * bits.sum(1) >", "2 * bits.sum(1) <"))
    load_plugin(majority)
    second = execute(config_of(), RunStore("runs"))
    assert first.id != second.id
    with pytest.raises(MissingPlugin, match=r"my\.py@.*, which is not loaded; my\.py@.* has one of that name"):
        load_task(first)
    forget()
    (kept,) = (first.folder / "plugins").rglob("my.py")
    load_plugin(kept)
    assert load_task(first) == config_of().task
    assert execute(config_of(), RunStore("runs")).id == first.id
    forget()
    load_plugin(majority)
    assert execute(config_of(), RunStore("runs")).id == second.id


def test_what_is_registered_without_a_plugin_has_the_id_that_it_had(majority):
    exec(compile(MAJORITY, "a notebook", "exec"), {"__name__": "tests.test_plugins"})
    try:
        task = TASKS.build("majority")
        assert to_yaml(task) == "name: majority\nversion: 1\n"
        assert from_yaml(Task, to_yaml(task)) == task
        assert "plugin" not in to_yaml(TASKS.build("dyck"))
    finally:
        del TASKS._classes["majority"]
    load_plugin(majority)
    task = TASKS.build("majority")
    assert f"plugin: {loaded()[0].mark}" in to_yaml(task)
    assert from_yaml(Task, to_yaml(task)) == task
    assert from_dict(Task, {"name": "majority"}) == task


@pytest.mark.parametrize("mark", ["/tmp/evil.py@0", "evil@0", "evil.py", 7])
def test_what_a_stored_config_names_is_never_loaded(mark, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(MissingPlugin, match="is not loaded"):
        from_dict(Task, {"name": "majority", "version": 1, "plugin": mark})
    with pytest.raises(MissingPlugin, match="is not loaded"):
        from_dict(Task, {"name": "dyck", "plugin": mark})
    assert not loaded()


def test_a_corpus_of_ones_own_is_part_of_its_hash(tmp_path):
    hashes = set()
    for text in (LETTERS, f"{LETTERS}\n# another one\n"):
        (tmp_path / "letters.py").write_text(text)
        load_plugin(tmp_path / "letters.py")
        hashes.add(corpus_hash(build_corpus("letters")))
        forget()
    assert len(hashes) == 2


def test_an_installed_package_brings_its_tasks(tmp_path, monkeypatch, capsys):
    """By an entry point, or by its name."""
    package, about = tmp_path / "site" / "majority_tasks", tmp_path / "site" / "majority_tasks-1.0.dist-info"
    for folder in (package, about):
        folder.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tasks.py").write_text(MAJORITY)
    (about / "METADATA").write_text("Name: majority-tasks\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert main(["tasks", "--name", "majority"]) == 2
    complaint(capsys)
    assert main(["tasks", "--name", "majority", "--import", "majority_tasks.tasks"]) == 0
    assert TASKS["majority"].plugin.startswith("majority_tasks.tasks@")  # type: ignore[attr-defined]
    forget()
    (about / "entry_points.txt").write_text("[procpre_interp.plugins]\nmajority = majority_tasks.tasks\n")
    assert main(["tasks", "--name", "majority"]) == 0


def test_the_explorer_is_told_and_loads_nothing_itself(majority, monkeypatch):
    seen = {}

    def run(command, **options):
        import os

        seen.update(options.get("env") or os.environ)
        return type("Done", (), {"returncode": 0})()

    monkeypatch.setattr("procpre_interp.commands.app.subprocess.run", run)
    assert main(["app", "--import", "own/my.py", "--headless"]) == 0
    assert seen[VARIABLE] == str(majority)
    assert not loaded()
    with named([]):
        load_named()
    assert not loaded(), "the variable outlived its command"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_that_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("x = 1\nx.y\n", "line 2: AttributeError"),
        ("def (:", "SyntaxError"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3"),
        (MAJORITY.replace('"majority"', '"dyck"'), "task 'dyck' is registered already"),
    ],
    ids=["import", "attribute", "syntax", "exit", "twice"],
)
def test_a_plugin_that_fails_is_one_clear_line(text, says, tmp_path, capsys):
    path = tmp_path / "bad.py"
    path.write_text(text)
    assert main(["tasks", "--import", "bad.py"]) == 2
    said = complaint(capsys)
    assert says in said
    assert str(path) in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tasks", "--import"], "--import wants a value"),
        (["tasks", "--import", "none.py"], "there is no file"),
        (["tasks", "--import", "a/b"], "there is no file"),
        (["tasks", "--import", "none_of_that_name"], "no such module is installed"),
        (["app", "--import", "none.py"], "there is no file"),
        (["train", "--config", "c.yaml"], "is no list of files and modules"),
        (["train", "--config", "d.yaml"], "there is no file"),
    ],
)
def test_a_plugin_that_is_not_there_is_one_clear_line(arguments, says, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("plugins: my.py")
    (tmp_path / "d.yaml").write_text("plugins: [none.py]")
    assert main(arguments) == 2
    assert says in complaint(capsys)


def test_a_file_that_changes_while_it_is_loaded_is_refused(majority):
    plugin = load_plugin(majority)
    assert load_plugin(str(majority)) == plugin
    majority.write_text(f"{MAJORITY}\n# changed\n")
    with pytest.raises(ValueError, match="has changed since it was loaded"):
        load_plugin(majority)
    with pytest.raises(ValueError, match="has changed since it was loaded"):  # whose copy would not be what ran
        execute(config_of(), RunStore("runs"))
    assert not RunStore("runs").query()["run"].map(RunStore("runs").is_finished).any()
    forget()
    with pytest.raises(ValueError, match="has changed since it was loaded"):  # by the main process, says a worker
        load_plugin(majority, expected=plugin)


def test_a_plugins_control_in_a_transfer(tmp_path):
    (tmp_path / "halved.py").write_text(HALVED)
    load_plugin("halved.py")
    halved = ABLATIONS.build("halved")
    assert described(halved) == ["halved"]
    assert copy_labels([halved], n_draws=1).columns.tolist() == ["ablation", "selector", "draw"]
    parent = Parent(run="0" * 16, selector="attn", ablation=halved)
    config = RunConfig(task=TASKS.build("dyck", k=2, length=8), parents=(parent,), train=SHORT)
    with_plugin = config.run_id
    forget()
    exec(compile(HALVED, "a notebook", "exec"), {"__name__": "tests.test_plugins"})
    parent = Parent(run="0" * 16, selector="attn", ablation=ABLATIONS.build("halved"))
    try:
        assert RunConfig(task=config.task, parents=(parent,), train=SHORT).run_id != with_plugin
    finally:
        del ABLATIONS._classes["halved"]
