"""Background jobs: their life, what stops them, and what a form may ask for."""

import dataclasses
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from procpre_interp.data import TASKS as KNOWN_TASKS
from procpre_interp.jobs import FORMS, Job, JobStore, command_line
from procpre_interp.jobs.forms import TASKS, Option, names
from procpre_interp.store.store import RunStore

PYTHON = (sys.executable, "-c")
VALUES = {"Task": "dyck", "Steps": 50}
ARGUMENTS = ("train", "--task", "dyck", "--train.steps=50", "--train.save-seconds=5")


def wait_for(job: Job, *states: str, seconds: float = 20) -> str:
    deadline = time.monotonic() + seconds
    while (now := job.state) not in states and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now in states, (now, job.log())
    return now


def wait_until_ready(job: Job) -> None:
    deadline = time.monotonic() + 20
    while "ready" not in job.log() and time.monotonic() < deadline:
        time.sleep(0.05)


def start(tmp_path: Path, code: str, *arguments: str) -> Job:
    return JobStore(tmp_path).start("train", VALUES, command=[*PYTHON, code, *arguments])


def test_a_job_ends_with_its_exit_code_and_what_it_said(tmp_path):
    job = start(tmp_path, "import sys; print('hello', sys.argv[1:]); sys.exit(3)", "a b", "--c")
    wait_for(job, "failed")
    assert job.exit_code == 3
    assert job.log() == "hello ['a b', '--c']"
    assert job.ended
    (found,) = JobStore(tmp_path).all()
    assert (found.id, found.state, found.values) == (job.id, "failed", VALUES)
    assert found.arguments == (*ARGUMENTS, "--store", str(tmp_path.resolve()))
    assert wait_for(start(tmp_path, "pass"), "finished") == "finished"


def test_cancel_is_ctrl_c_in_the_command_and_its_workers(tmp_path):
    code = """
import subprocess, sys, time
work = "import time\\ntry: time.sleep(60)\\nexcept KeyboardInterrupt: print('worker saved')"
worker = subprocess.Popen([sys.executable, "-c", work])
print("ready", flush=True)
try: time.sleep(60)
except KeyboardInterrupt:
    worker.wait(); print("saved"); sys.exit(130)
"""
    job = start(tmp_path, code)
    wait_until_ready(job)
    time.sleep(0.5)  # until the worker sleeps
    assert job.state == "running"
    job.cancel()
    assert wait_for(job, "cancelled") == "cancelled"
    assert set(job.log().splitlines()) >= {"worker saved", "saved"}


def test_what_ignores_ctrl_c_is_killed_when_asked_again(tmp_path):
    code = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    )
    job = start(tmp_path, code)
    wait_until_ready(job)
    job.cancel()
    time.sleep(0.6)
    assert job.state == "stopping"
    job.cancel()
    wait_for(job, "cancelled")
    assert job.exit_code == -signal.SIGKILL


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the guard in /proc")
def test_a_killed_guard_leaves_a_job_that_runs_on_and_then_has_died(tmp_path):
    job = start(tmp_path, "import time; print('ready', flush=True); time.sleep(2)")
    wait_until_ready(job)
    guards = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(f"{sys.executable}\0-m\0procpre_interp.jobs.guard\0{job.folder}\0".encode())
    ]
    assert len(guards) == 1
    os.kill(guards[0], signal.SIGKILL)
    assert job.is_running
    assert wait_for(job, "died") == "died"
    assert job.exit_code is None


def test_a_running_job_cannot_be_forgotten_and_others_can(tmp_path):
    jobs, job = JobStore(tmp_path), start(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(ValueError, match="cancel it first"):
        jobs.delete(job.id)
    job.cancel()
    wait_for(job, "cancelled", "failed")
    jobs.delete(job.id)
    assert jobs.all() == []


def test_the_end_of_a_long_log_without_colours_and_overwritten_lines(tmp_path):
    code = "print('\\x1b[31mred\\x1b[0m'); print('10%\\r50%\\r90%'); print('x' * 30000); print('last')"
    job = start(tmp_path, code)
    wait_for(job, "finished")
    assert job.log(100) == "last"
    assert job.log(10**6).splitlines()[:2] == ["red", "90%"]


@pytest.mark.parametrize(
    "job_id", ["../runs", "nonsense", "20260101-000000-train-zzzz", "20260101-000000-train-0000", ""]
)
def test_ids_that_are_none(tmp_path, job_id):
    with pytest.raises(ValueError, match="unknown job"):
        JobStore(tmp_path).open(job_id)


GOOD = {"form": "train", "values": VALUES, "started": "2026-01-01T00:00:00+00:00"}
TAMPERED = {
    "no object": [],
    "deep": "[" * 100_000,
    "another program": {**GOOD, "program": ["rm"]},
    "another field": {**GOOD, "arguments": ["train", "--out", "VICTIM"]},
    "another form": {**GOOD, "form": "rm"},
    "the form of another job": {**GOOD, "form": "claim", "values": {"Claim": "parts_combine"}},
    "an option": {**GOOD, "values": {**VALUES, "--out": "VICTIM"}},
    "an option in a value": {**GOOD, "values": {**VALUES, "Task": "--out=VICTIM"}},
    "an option among fields": {**GOOD, "values": {**VALUES, "Fields of the task, such as k=8 length=64": "--out=x"}},
    "a choice that is none": {**GOOD, "values": {**VALUES, "Schedule": "../x"}},
    "a type": {**GOOD, "values": {**VALUES, "Steps": "50"}},
    "a truth": {**GOOD, "values": {**VALUES, "Steps": True}},
    "a list": {**GOOD, "values": {**VALUES, "Steps": [50]}},
    "a bound": {**GOOD, "values": {**VALUES, "Steps": 0}},
    "beyond numbers": {**GOOD, "values": {**VALUES, "Steps": 10**400}},
    "values that are none": {**GOOD, "values": 5},
    "no values": {"form": "train", "started": ""},
}
OLD = {"name": "train", "arguments": ["train", "--out", "VICTIM"], "started": "2026-01-01", "program": ["python3"]}


def stored(tmp_path: Path, about: object) -> Job:
    """A job as a file says that it was."""
    folder = tmp_path / "jobs" / "20260101-000000-train-00ff"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(about if isinstance(about, str) else json.dumps(about))
    (folder / "log").write_text("it began")
    return JobStore(tmp_path).open(folder.name)


@pytest.mark.parametrize("about", TAMPERED.values(), ids=TAMPERED)
def test_a_job_that_no_form_made_is_shown_and_not_repeated(tmp_path, about):
    job = stored(tmp_path, about)
    assert job.problem.startswith("job.json is damaged: ")
    assert len(job.problem) < 250
    assert (job.values, job.arguments, job.log(), job.state) == ({}, (), "it began", "died")
    assert [found.id for found in JobStore(tmp_path).all()] == [job.id]
    assert RunStore(tmp_path).query().empty
    JobStore(tmp_path).delete(job.id)
    assert JobStore(tmp_path).all() == []


def test_jobs_of_forms_and_of_before_there_were_forms(tmp_path):
    assert stored(tmp_path / "good", GOOD).problem == ""
    assert stored(tmp_path / "good2", GOOD).arguments[: len(ARGUMENTS)] == ARGUMENTS
    old = stored(tmp_path / "old", OLD)
    assert "older version" in old.problem
    assert (old.arguments, old.values, old.log()) == (("train", "--out", "VICTIM"), {}, "it began")


def test_values_that_no_form_allows_start_nothing(tmp_path):
    with pytest.raises(ValueError, match="unknown form"):
        JobStore(tmp_path).start("Bad Name", {}, command=PYTHON)
    with pytest.raises(ValueError, match="unknown task"):
        JobStore(tmp_path).start("train", {"Task": "--out=VICTIM"}, command=PYTHON)
    assert not (tmp_path / "jobs").exists()


def test_command_lines():
    store = Path("/somewhere/runs")
    values = {"Task": "dyck", "Fields of the task, such as k=8 length=64": "k=8 p_open=0.4", "Steps": 50}
    expected = ["train", "--task", "dyck", "--task.k=8", "--task.p-open=0.4", "--train.steps=50"]
    often = "--train.save-seconds=5"
    assert command_line("train", values, store) == [*expected, often, "--store", "/somewhere/runs"]
    assert command_line("reproduce", {}, store) == ["reproduce", "--out", "/somewhere/runs"]
    quick = {"Quick: one replicate of four conditions": True}
    assert command_line("reproduce", quick, store) == ["reproduce", "--quick", "--out", "/somewhere/runs"]
    claim = command_line("claim", {"Claim": "parts_combine"}, store)
    assert claim == ["claims", "--run", "parts_combine", "--store", "/somewhere/runs"]
    sweep = command_line("sweep", {"Sweep": "heads", "Replicates (default: as in the file)": 2}, store)
    assert Path(sweep[1]).is_file()
    assert sweep[2:] == ["--replicates=2", "--out", "/somewhere/runs"]
    own = command_line("train", {"Task": "majority"}, store)  # of a plugin, which the command then knows
    assert own[:3] == ["train", "--task", "majority"]
    parents = {"Parents": "abc def", "Task": "haystack"}
    assert command_line("transfer", parents, store)[:5] == ["transfer", "--parent", "abc", "def", "--task"]
    default = command_line("transfer", {"Parents": "abc", "Task": "haystack"}, store)
    assert default[3:] == ["--task", "haystack", often, "--store", "/somewhere/runs"]


@pytest.mark.parametrize(
    ("form", "values", "said"),
    [
        ("train", {}, "Task: give one"),
        ("train", {"Task": "--store=/etc"}, "unknown task"),
        ("train", {"Task": "dyck", "Steps": 0}, "from 1 on"),
        ("train", {"Task": "dyck", "Steps": 2.5}, "whole number"),
        ("train", {"Task": "dyck", "Peak learning rate": float("nan")}, "a number"),
        ("train", {"Task": "text", "Fields of the task, such as k=8 length=64": "corpus=x"}, "write fields"),
        ("train", {"Task": "text", "Fields of the task, such as k=8 length=64": "k=../x"}, "write fields"),
        ("train", {"Task": "dyck", "Fields of the task, such as k=8 length=64": "--store=/etc"}, "write fields"),
        ("transfer", {"Parents": "--store=/etc"}, "use letters"),
        ("transfer", {"Parents": "a;rm"}, "use letters"),
        ("claim", {"Claim": "../../x"}, "unknown claim"),
        ("sweep", {"Sweep": "/etc/passwd"}, "unknown sweep"),
        ("train", {"Nonsense": 1}, "has no 'Nonsense'"),
        ("rm", {}, "unknown form"),
    ],
)
def test_what_may_not_be_started(form, values, said):
    with pytest.raises(ValueError, match=said):
        command_line(form, values, Path("runs"))


def test_tasks_and_names_are_those_that_there_are():
    assert set(TASKS) == set(KNOWN_TASKS) - {"mixture", "shuffled"}
    assert {"components", "heads"} <= set(names("sweep"))
    for claim in names("claim"):
        assert (Path(__file__).parents[1] / "experiments" / f"{claim}.py").is_file()


@pytest.mark.parametrize("form", list(FORMS))
def test_every_option_is_the_commands_own(form, capsys):
    from procpre_interp.cli import main

    asked = FORMS[form]
    words = [asked.words[0], *(["--task", "dyck"] if form in ("train", "transfer") else []), "-h"]
    os.environ["COLUMNS"] = "80"  # wider ones have boxes side by side
    try:
        assert main(words) == 0
    finally:
        del os.environ["COLUMNS"]
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert f"{asked.store_flag} " in text
    for option in asked.options:
        if option.flag in ("", "--task"):  # which the help explains in prose
            continue
        found = re.search(
            rf"{re.escape(option.flag)}(?= (?:INT|FLOAT|STR|PATH|[A-Z]+ \.\.\.|[\[{{])|, --no-)", text
        )  # in the table, not in the prose
        assert found, option.flag
        if option.default is not None and option.kind != "switch":
            stated = re.search(r"\(default: ([^)]*)\)", text[found.start() :])
            assert stated, option.flag
            shown = stated[1]
            assert shown == str(option.default) or float(shown) == float(str(option.default)), option.flag


def test_options_are_values():
    option = Option(flag="--x", label="X", default=3)
    assert dataclasses.replace(option, default=None).arguments(3) == ["--x=3"]
    assert option.arguments(3) == []
