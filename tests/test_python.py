"""What people use from Python: names at the top, runs by their paths, progress, the loss, and generating."""

import io
import itertools
import json
import os
import sys

import pytest
import torch

import procpre_interp
from procpre_interp.cli import main
from procpre_interp.core.checksums import FileEntry
from procpre_interp.core.schema import ConfigFields, Summary
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.tokens import token_names
from procpre_interp.engine import watched
from procpre_interp.engine.events import Event
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.store.run import UnknownRun, load_history, load_run
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig, evaluate, masked_loss, summarise
from procpre_interp.train.loss import backward
from procpre_interp.train.native import KernelUnavailable
from procpre_interp.train.state import Evaluation
from tests.explorer import DEMO
from tests.models import TINY, random_model, random_tokens

RUN = "f00f71212a994232"
SHORT = TrainConfig(steps=12, batch_size=4, warmup_steps=1, evaluate_every=6, evaluate_examples=8, kernel="torch")
CONFIG = RunConfig(
    task=TASKS.build("reverse", vocab=8, length=4), model=Architecture(n_layers=1, n_heads=2, d_model=8), train=SHORT
)


def test_every_public_name_is_there():
    for name in procpre_interp.__all__:
        found = getattr(procpre_interp, name)
        assert getattr(found, "__name__", name) == name
    assert {"execute", "load_run", "masked_loss", "token_names", "TransferConfig"} <= set(dir(procpre_interp))


@pytest.mark.parametrize("kind", ["run", "path", "text", "relative", "inside"])
def test_a_run_is_given_as_its_path_too(kind, monkeypatch):
    folder = DEMO / "runs" / RUN
    run = RunStore(DEMO).open(RUN)
    given = {"run": run, "path": folder, "text": f"{folder}/", "relative": f"runs/{RUN}", "inside": "."}[kind]
    monkeypatch.chdir(folder if kind == "inside" else DEMO)
    assert load_run(given).id == RUN
    assert len(load_history(given)) == len(run.history())
    assert load_task(given) == load_task(run)
    assert torch.equal(load_model(given).flat, load_model(run).flat)
    assert torch.equal(load_model(given, step=595).flat, load_model(run, 595).flat)
    if kind not in ("run", "inside"):
        assert RunStore(DEMO).open(given).id == RUN
        assert RunStore(".").open(given).id == RUN


def test_a_store_opens_no_other_stores_run(tmp_path):
    for path in (DEMO / "runs" / RUN, str(DEMO / "runs" / RUN), f"../{RUN}", "/etc"):
        with pytest.raises(UnknownRun, match="load_run opens"):
            RunStore(tmp_path).open(path)
    for path in (tmp_path, DEMO, tmp_path / "nothing"):
        with pytest.raises(UnknownRun, match="no finished run in"):
            load_run(path)


def test_a_run_prints_as_a_few_lines():
    run = load_run(DEMO / "runs" / RUN)
    lines = str(run).splitlines()
    assert lines[0] == f"Run {RUN}: haystack, seed 1001, finished after 5,000 steps ({run.summary['stop_reason']})"
    assert lines[1].startswith("  test: accuracy 94.4%")
    assert lines[2] == "  weights from: 9643c1a212deed14 (attn+ln)"
    assert lines[3] == f"  {run.folder}"
    assert repr(run) == f"Run('{RUN}', haystack, seed 1001, finished)"
    assert "\n" not in repr([run])


@pytest.mark.parametrize("name", sorted({"haystack", "addition", "dyck", "sort", "eca", "composed"}))
def test_the_masked_loss_is_what_evaluation_and_training_have(name):
    task = TASKS.build(name)
    batch = task.batch(6, generator=stream(0, "loss"))
    model = random_model(
        procpre_interp.ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    )
    loss = masked_loss(model, batch)
    assert loss.item() == pytest.approx(summarise(evaluate(model, batch))["loss_nats"], rel=1e-6)
    loss.backward()
    gradient = model.flat_grad.clone()
    model.zero_grad(set_to_none=False)
    backward(model, batch, max_tokens=10**6)
    torch.testing.assert_close(model.flat_grad, gradient, atol=1e-6, rtol=1e-4)


def test_generating_is_the_likeliest_token_time_and_again():
    model, tokens = random_model(TINY), random_tokens()[:, :3]
    found = model.generate(tokens, TINY.n_ctx - 3)
    assert found.shape == (len(tokens), TINY.n_ctx)
    expected = tokens
    while expected.shape[1] < TINY.n_ctx:
        expected = torch.cat([expected, model(expected)[:, -1].argmax(1, keepdim=True)], 1)
    assert torch.equal(found, expected)
    assert torch.equal(model.generate(tokens, 0), tokens)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert model.generate(tokens, 2)[:, 3:].eq(0).all(), "of equal ones the lowest id"


def test_generating_draws_from_its_generator_alone():
    model, tokens = random_model(TINY), random_tokens()[:, :2].repeat(200, 1)
    before = torch.get_rng_state()
    first, again, other = (
        model.generate(tokens, 3, temperature=1, generator=stream(seed, "generate")) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
    cold = model.generate(tokens, 3, temperature=1e-4, generator=stream(0, "generate"))
    assert torch.equal(cold, model.generate(tokens, 3))
    # The first token's frequencies are its probabilities.
    same = model.generate(tokens[:1].repeat(4000, 1), 1, temperature=2.0, generator=stream(0, "generate"))[:, -1]
    expected = (model(tokens[:1])[0, -1] / 2).softmax(0).detach()
    torch.testing.assert_close(torch.bincount(same, minlength=TINY.d_vocab) / 4000, expected, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("n", "options", "says"),
    [
        (TINY.n_ctx, {}, f"n_ctx={TINY.n_ctx}"),
        (-1, {}, "n=-1"),
        (1, {"temperature": 1.0}, "comes with a generator"),
        (1, {"temperature": 0.0, "generator": torch.Generator()}, "must be positive"),
    ],
)
def test_what_cannot_be_generated_is_refused(n, options, says):
    with pytest.raises(ValueError, match=says):
        random_model(TINY).generate(random_tokens()[:, :2], n, **options)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_in_a_terminal_and_not_in_a_pipe(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    seen = []
    for where, progress in itertools.product((Terminal, io.StringIO), (None, True, False)):
        monkeypatch.setattr(sys, "stderr", stderr := where())
        run = procpre_interp.execute(
            CONFIG, RunStore(tmp_path), progress=progress, on_step=lambda state, train: seen.append(state.step)
        )
        assert run.summary["status"] == "finished"
        wanted = where is Terminal if progress is None else progress
        assert ("reverse, seed 0" in stderr.getvalue()) == wanted
        assert bool(stderr.getvalue()) == wanted
    assert seen == list(range(1, 13)), "the first call trains, the others open the finished run"


def test_what_is_stored_has_the_fields_of_its_type(tmp_path):
    run = procpre_interp.execute(CONFIG, RunStore(tmp_path), progress=False)
    assert Summary.__required_keys__ <= set(run.summary) <= set(Summary.__annotations__)
    assert set(run.config) <= set(ConfigFields.__annotations__)
    assert Evaluation.__required_keys__ <= set(run.history()) - {"run", "seed"} <= set(Evaluation.__annotations__)
    assert all(set(entry) == set(FileEntry.__annotations__) for entry in run.manifest.values())


def test_damage_of_an_interrupted_run_is_said_where_its_progress_is(tmp_path, monkeypatch):
    store = RunStore(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        procpre_interp.execute(CONFIG, store, should_stop=iter([False, False, True]).__next__)
    resume = store.path / "partial" / CONFIG.run_id / "resume.safetensors"
    resume.write_bytes(resume.read_bytes()[:-8])
    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())
    procpre_interp.execute(CONFIG, store, progress=True)
    assert "reverse, seed 0: the saved state cannot be used" in stderr.getvalue()


def test_a_notebook_has_a_line_that_is_written_over(tmp_path, monkeypatch):
    said = []

    class Handle:
        def update(self, bundle, raw):
            said.append(bundle["text/plain"])

    monkeypatch.setattr("IPython.display.display", lambda bundle, raw, display_id: Handle())
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(watched, "NOTEBOOK_SECONDS", 0.0)
    procpre_interp.execute(CONFIG, RunStore(tmp_path))
    assert any(line.startswith("reverse, seed 0: step 10 of at most 12") for line in said)
    assert said[-1] == "reverse, seed 0: finished"
    with watched.NotebookLine("reverse, seed 0") as line:
        line(Event("a", "note", problem="the saved state is damaged"))
        line(Event("a", "finished"))
    assert said[-2:] == ["reverse, seed 0: the saved state is damaged", "reverse, seed 0: finished"]
    with pytest.raises(ValueError, match="cannot be used"):
        procpre_interp.execute(RunConfig(task=CONFIG.task, train=TrainConfig(device="cuda:99")), RunStore(tmp_path))
    assert said[-1] == "reverse, seed 0: stopped"


def test_compiling_is_said_before(a_compiler, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "PROCPRE_CACHE", str(tmp_path / "cache"))
    config = RunConfig(task=CONFIG.task)
    assert "compiling the native kernel" in str(config.compile_note)
    for train in (SHORT, TrainConfig(precision="bfloat16")):
        assert RunConfig(task=CONFIG.task, train=train).compile_note is None
    assert RunConfig(task=CONFIG.task, model=Architecture(d_model=48)).compile_note is None

    def compile_nothing(shape, output, *, level):
        output.write_bytes(b"")

    monkeypatch.setattr("procpre_interp.train.native.build.compile_kernel", compile_nothing)
    monkeypatch.setattr("procpre_interp.train.native.build._check_loads", lambda library: None)
    assert config.kernel_note is None
    assert config.compile_note is None
    monkeypatch.setenv("CXX", "/nothing/of/the/kind")
    assert config.compile_note is None


def test_the_command_line_says_it_too(a_compiler, tmp_path, monkeypatch, capsys):
    def refuse(shape, output, *, level):
        raise KernelUnavailable("no compiling in this test")

    monkeypatch.setitem(os.environ, "PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("procpre_interp.train.native.build.compile_kernel", refuse)
    train = ["--train.steps", "2", "--train.batch-size", "4", "--train.warmup-steps", "1"]
    train += ["--train.evaluate-examples", "4", "--task.vocab", "8", "--task.length", "4"]
    assert main(["train", "--task", "reverse", *train, "--store", str(tmp_path / "runs")]) == 0
    compiling, fallback, *_ = capsys.readouterr().err.splitlines()
    assert compiling == "compiling the native kernel for this shape: up to a minute, once"
    assert fallback.startswith("kernel: torch, since no compiling in this test")


def test_token_names_name_every_position_of_every_task():
    for name in ("haystack", "addition", "reverse", "dyck"):
        task = TASKS.build(name)
        tokens = task.batch(1, generator=stream(0, "names")).tokens[0]
        assert len(token_names(task, tokens.tolist())) == len(tokens)
        assert procpre_interp.token_names(task, tokens) == token_names(task, tokens.tolist())


def test_the_notebooks_use_what_every_task_has():
    folder = DEMO.parents[1] / "experiments" / "notebooks"
    for path in folder.glob("*.ipynb"):
        source = json.loads(path.read_text())["cells"]
        assert not any(".split()" in line for cell in source for line in cell["source"]), path.name
