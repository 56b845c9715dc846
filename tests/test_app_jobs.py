"""The page "Run something": a real command from its form to its run."""

import json
import time

import pytest

from procpre_interp.jobs import JobStore
from procpre_interp.runs import RunStore
from tests.explorer import check, open_page, said
from tests.hostile import plant

PAGE = "questions/run_something.py"


def fill_in(app, **values):
    """Widgets of the train form by their label."""
    widgets = {each.label: each for each in [*app.number_input, *app.selectbox, *app.text_input]}
    for label, value in values.items():
        widgets[label.replace("_", " ")].set_value(value)
    return app


@pytest.mark.parametrize("command", ["Reproduce", "Train", "Transfer", "Sweep", "Claim"])
def test_every_form(monkeypatch, tmp_path, command):
    app = open_page(monkeypatch, tmp_path, PAGE, command=command)
    assert "No job yet" in said(app)
    assert not app.error
    assert not (tmp_path / "jobs").exists()


def test_a_run_from_the_form(monkeypatch, tmp_path):
    marker = plant(tmp_path)  # neither the job nor what watches it imports from the current folder
    monkeypatch.chdir(tmp_path)
    app = open_page(monkeypatch, tmp_path, PAGE, command="Train")
    fill_in(app, Task="set", Steps=20, Sequences_a_step=8)
    widgets = {each.label: each for each in app.text_input}
    widgets["Fields of the task, such as k=8 length=64"].set_value("length=4 vocab=9")
    check(app.button[0].click().run())
    (job,) = JobStore(tmp_path).all()
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
    check(again.button(key="repeat_job").click().run())
    (repeated,) = (found for found in JobStore(tmp_path).all() if found.id != job.id)
    repeated.cancel()
    assert (repeated.values, repeated.arguments) == (job.values, job.arguments)
    deadline = time.monotonic() + 90
    while repeated.is_running and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not repeated.is_running


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
    app = open_page(monkeypatch, tmp_path, PAGE, command="Transfer")
    widgets = {each.label: each for each in app.text_input}
    widgets["Parent: a run, or several with blanks between"].set_value("--store=/etc")
    check(app.button[0].click().run())
    assert "use letters" in app.error[0].value
    assert not (tmp_path / "jobs").exists()


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
