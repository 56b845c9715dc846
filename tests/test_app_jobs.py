"""The page "Run something": a real command from its form to its run."""

import json
import time

import pytest

from procpre_interp.jobs import Job, JobStore
from procpre_interp.store.store import RunStore
from procpre_interp.train.state import TrainState, write_state
from procpre_interp.views.exhibits import runs as exhibits
from tests.explorer import charts, check, open_page, said, title
from tests.hostile import plant
from tests.results import fill

PAGE = "questions/run_something.py"


def fill_in(app, **values):
    """Widgets of the train form by their label."""
    widgets = {each.label: each for each in [*app.number_input, *app.selectbox, *app.text_input]}
    for label, value in values.items():
        widgets[label.replace("_", " ")].set_value(value)
    return app


@pytest.mark.parametrize("command", ["Reproduce", "Train", "Transfer", "Sweep", "Claim", "Corpora", "Export", "Import"])
def test_every_form(monkeypatch, tmp_path, command):
    app = open_page(monkeypatch, tmp_path, PAGE, command=command)
    assert "No job yet" in said(app)
    assert not app.error
    assert not (tmp_path / "jobs").exists()


def test_a_run_from_the_form(monkeypatch, tmp_path):
    marker = plant(tmp_path)  # neither the job nor what watches it imports from the current folder
    monkeypatch.chdir(tmp_path)
    app = open_page(monkeypatch, tmp_path, PAGE, command="Train")
    assert "Running: " not in said(app)
    fill_in(app, Task="set", Steps=20, Sequences_per_step=8)
    widgets = {each.label: each for each in app.text_input}
    widgets["Fields of the task, such as k=8 length=64"].set_value("length=4 vocab=9")
    check(app.button[0].click().run())
    (job,) = JobStore(tmp_path).all()
    assert f"Running: {job.id}" in said(app)
    assert app.query_params["job"] == job.id
    deadline = time.monotonic() + 90
    while job.is_running and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (job.state, job.exit_code) == ("finished", 0), job.log()
    assert not marker.exists(), marker.read_text()
    run = RunStore(tmp_path).open("latest")
    assert (run.summary["task"], run.summary["steps"], run.config["task"]["length"]) == ("set", 20, 4)
    again = open_page(monkeypatch, tmp_path, PAGE, job=job.id)
    assert "**finished**" in said(again)
    assert any("finished after 20 steps" in code.value for code in again.code)
    assert f"Running: {job.id}" not in said(again)
    (link,) = (each.proto for each in again.get("page_link") if run.id[:8] in each.proto.label)
    assert (link.page, link.query_string) == ("runs", f"run={run.id}")
    check(again.button(key="repeat_job").click().run())
    (repeated,) = (found for found in JobStore(tmp_path).all() if found.id != job.id)
    repeated.cancel()
    assert (repeated.values, repeated.arguments) == (job.values, job.arguments)
    deadline = time.monotonic() + 90
    while repeated.is_running and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not repeated.is_running


def test_a_mixture_of_a_task_and_text_from_the_form(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, command="Train")
    fill_in(app, Task="mixture", Corpus_of_text="docstrings", Tokenizer_of_text="bpe:1024")
    fill_in(app, **{"Epochs_of_text,_in_place_of_steps": 0.25, "Standard_deviation_of_fresh_weights": 0.1})
    next(each for each in app.multiselect if each.label.startswith("Parts")).set_value(["dyck", "text"])
    monkeypatch.setattr(JobStore, "start", lambda self, name, values: self.open(""))
    app.button[0].click().run()
    started = (
        "procpre-interp train --task mixture --part=dyck --part=text --task.tasks.1.corpus docstrings "
        "--task.tasks.1.tokenizer bpe:1024 --epochs=0.25 --model.init-std=0.1 "
    )
    assert any(code.value.startswith(started) for code in app.code), said(app)


def test_a_job_that_was_tampered_with_cannot_be_repeated(monkeypatch, tmp_path):
    about = {"form": "train", "values": {"Task": "dyck", "--out": "![x](http://evil/x.png)"}, "started": "today"}
    folder = tmp_path / "jobs" / "20260101-000000-train-00ff"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(about))
    (folder / "log").write_text("it began")
    app = open_page(monkeypatch, tmp_path, PAGE, job=folder.name)
    assert "damaged: Train has no '--out'" in app.warning[0].value
    assert "repeat_job" not in {button.key for button in app.button}
    assert any(code.value == "it began" for code in app.code)


def test_a_bad_value_starts_nothing(monkeypatch, tmp_path):
    fill(RunStore(tmp_path), replicates=1)
    app = open_page(monkeypatch, tmp_path, PAGE, command="Transfer")
    check(app.button[0].click().run())
    assert "Parents: give one" in app.error[0].value
    parents = next(each for each in app.multiselect if each.label == "Parents")
    parents.set_value([parents.options[0][:8].ljust(16, "0")])
    fill_in(app, **{"What_each_gives:_attn+ln,_mlp,_blocks.0,_all_...": "--store=/etc"})
    check(app.button[0].click().run())
    assert "use letters" in app.error[0].value
    assert not (tmp_path / "jobs").exists()


def test_parents_are_chosen_among_finished_runs_and_the_task_is_that_of_phase_2(monkeypatch, tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=1)
    app = open_page(monkeypatch, tmp_path, PAGE, command="Transfer")
    parents = next(each for each in app.multiselect if each.label == "Parents")
    assert sorted(parents.options) == sorted(exhibits.with_weights(store.query(), store).values())
    assert all("seed 1000, " in option for option in parents.options)
    assert next(each for each in app.selectbox if each.label == "Task").value == "haystack"
    empty = open_page(monkeypatch, tmp_path / "empty", PAGE, command="Transfer")
    assert "No finished run keeps weights yet" in said(empty)


def test_how_long_a_run_takes_is_said_before_it_starts_if_it_is_known(monkeypatch, tmp_path):
    fill(RunStore(tmp_path), replicates=1)
    app = open_page(monkeypatch, tmp_path, PAGE, command="Train")
    assert "Time unknown: no run of dyck" in said(app)
    # 4,000 steps of 1,000 sequences, the default of a config that does not say, took 25 seconds.
    check(fill_in(app, Task="haystack", Steps=8000, Sequences_per_step=500).run())
    assert "About 25 s of training, at the speed of run " in said(app)


def test_a_job_says_what_it_is_at(monkeypatch, tmp_path):
    jobs, store = JobStore(tmp_path), RunStore(tmp_path)
    job = jobs.start("train", {"Task": "set"}, command=("python3", "-c", "import time; time.sleep(60)"))
    app = open_page(monkeypatch, tmp_path, PAGE, command="Claim", job=job.id)
    assert "Starting: Python imports what it needs" in said(app)
    with store.claim("going0n") as partial:
        assert partial is not None
        partial.write_config("task: {name: set}\ntrain: {steps: 70}\n")
        assert "going0n set: nothing saved yet" in said(check(app.run()))
        assert "Starting" not in said(app)
        history = [
            {"step": step, "seconds": step / 4, "split": split, "loss_nats": 5 - step / 20, "accuracy": 0.1}
            for step in (0, 20, 40)
            for split in ("train", "validation")
        ]
        write_state(partial.resume_path, TrainState(step=40, seconds=10.0, history=history), {})
        check(app.run())
        (bar,) = app.get("progress")
        assert bar.proto.text == "going0n set: step 40 of 70, about 8 s left"
        assert bar.proto.value == 57
        assert title(app, 0) == "Loss"
        (line,) = (trace for trace in json.loads(charts(app)[0].proto.spec)["data"] if trace["name"])
        assert line["name"] == "going0n, set"
    job.cancel()
    wait_until_over(job)
    check(app.run())
    assert f"Running: {job.id}" not in said(app)
    assert "No run was finished meanwhile" in said(app)


def wait_until_over(job: Job, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while job.is_running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not job.is_running


def test_a_second_job_waits_for_the_box(monkeypatch, tmp_path):
    jobs = JobStore(tmp_path)
    job = jobs.start("train", {"Task": "dyck"}, command=("python3", "-c", "import time; time.sleep(60)"))
    app = open_page(monkeypatch, tmp_path, PAGE, command="Claim", job="nonsense")
    assert "`nonsense`" in said(app)
    assert job.id in said(app)
    check(app.button[0].click().run())
    assert "wait for it" in said(app)
    assert len(jobs.all()) == 1
    check(app.button(key="cancel_job").click().run())
    deadline = time.monotonic() + 20
    while job.is_running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not job.is_running
    check(app.run())
    assert app.button(key="repeat_job").label == "Go on from there"
