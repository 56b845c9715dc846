"""Background jobs: their life, what stops them, and what a form may ask for."""

import dataclasses
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from procpre_interp.ablate import ABLATIONS
from procpre_interp.core.source import read_field, registered
from procpre_interp.data import TASKS as KNOWN_TASKS
from procpre_interp.data import Task
from procpre_interp.data.corpus import CORPORA
from procpre_interp.data.semantic.tokenizers import vocabulary_size
from procpre_interp.jobs import FORMS, Job, JobStore, command_line
from procpre_interp.jobs.forms import names
from procpre_interp.jobs.option import Option
from procpre_interp.jobs.orphans import is_orphan
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


def test_a_command_can_be_found_from_its_first_moment(tmp_path):
    """Its process group is written down by itself: a guard that was killed right after the start had not done so."""
    read = f"cat {shlex.quote(str(tmp_path))}/jobs/*/command.json; echo; echo $$"
    job = JobStore(tmp_path).start("train", VALUES, command=["/bin/sh", "-c", read])
    assert wait_for(job, "finished") == "finished"
    *written, process = job.log().split("\n")
    assert json.loads("".join(written)) == {"group": int(process)}


def kill_guard(job: Job) -> None:
    guards = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(f"{sys.executable}\0-m\0procpre_interp.jobs.guard\0{job.folder}\0".encode())
    ]
    assert len(guards) == 1
    os.kill(guards[0], signal.SIGKILL)
    deadline = time.monotonic() + 10
    while not is_orphan(job.folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert is_orphan(job.folder)


finds_guard = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the guard in /proc")


@finds_guard
def test_a_killed_guard_leaves_a_job_that_runs_on_and_then_has_died(tmp_path):
    job = start(tmp_path, "import time; print('ready', flush=True); time.sleep(2)")
    wait_until_ready(job)
    kill_guard(job)
    assert job.is_running
    assert wait_for(job, "died") == "died"
    assert job.exit_code is None


@finds_guard
@pytest.mark.parametrize("ignores", [False, True])
def test_a_job_whose_guard_was_killed_can_be_cancelled_and_forgotten(tmp_path, ignores):
    handler = "lambda number, frame: (print('saved', flush=True), sys.exit(130))"
    code = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, {"signal.SIG_IGN" if ignores else handler})
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(worker.pid, "ready", flush=True)
time.sleep(60)
"""
    job = start(tmp_path, code)
    wait_until_ready(job)
    kill_guard(job)
    job.cancel()
    if ignores:
        time.sleep(0.3)
        assert job.state == "stopping"
        job.cancel()
    assert wait_for(job, "cancelled") == "cancelled"
    assert ("saved" in job.log()) != ignores
    worker = Path("/proc") / job.log().split()[0]
    deadline = time.monotonic() + 10
    while worker.exists() and (worker / "cmdline").read_bytes() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not worker.exists() or not (worker / "cmdline").read_bytes(), "its worker lives on"
    JobStore(tmp_path).delete(job.id)
    assert JobStore(tmp_path).all() == []


@finds_guard
def test_no_process_is_signalled_that_is_not_the_jobs(tmp_path):
    job = start(tmp_path, "import time; print('ready', flush=True); time.sleep(60)")
    wait_until_ready(job)
    kill_guard(job)
    command = json.loads((job.folder / "command.json").read_text())
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (job.folder / "command.json").write_text(json.dumps({"group": bystander.pid}))
        with pytest.raises(ProcessLookupError, match="stop it where it runs"):
            job.cancel()
        assert bystander.poll() is None
        assert job.state == "running"
    finally:
        bystander.kill()
        bystander.wait()
    (job.folder / "command.json").write_text(json.dumps(command))
    job.cancel()
    wait_for(job, "cancelled")


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
    fetched = command_line("corpora", {"Corpus": "set-mm"}, store)
    assert fetched == ["corpora", "set-mm", "--fetch"]
    exported = command_line("export", {"Run": "abc", "Name of the new folder": "mine"}, store)
    assert exported == ["export", "abc", "--to", "/somewhere/runs/models/mine", "--store", "/somewhere/runs"]
    imported = command_line("import", {"Name of its folder": "gpt2"}, store)
    assert imported == ["import", "/somewhere/runs/models/gpt2", "--store", "/somewhere/runs"]
    default = command_line("transfer", {"Parents": "abc", "Task": "haystack"}, store)
    assert default[3:] == ["--task", "haystack", often, "--store", "/somewhere/runs"]


PARTS = "Parts, if the task is mixture, noisy or shuffled"


@pytest.mark.parametrize(
    ("task", "parts", "corpus"),
    [
        ("text", "", "--task.corpus"),
        ("noisy", "text", "--task.task.corpus"),
        ("mixture", "dyck text", "--task.tasks.1.corpus"),
        ("mixture", "text", "--task.tasks.0.corpus"),
    ],
)
def test_fields_of_text_go_to_the_part_that_is_text(task, parts, corpus):
    values = {"Task": task, PARTS: parts, "Corpus of text": "docstrings", "Epochs of text, in place of steps": 0.5}
    found = command_line("train", values, Path("runs"))
    named = [f"--part={part}" for part in parts.split()]
    assert found[:-3] == ["train", "--task", task, *named, corpus, "docstrings", "--epochs=0.5"]


@pytest.mark.parametrize(
    ("form", "values", "said"),
    [
        ("train", {"Task": "noisy", PARTS: "text --store=/etc"}, "unknown parts"),
        ("train", {"Task": "text", "Corpus of text": "files:/etc/passwd"}, "unknown corpus"),
        ("train", {"Task": "text", "Tokenizer of text": "bpe:300@files:/etc"}, "unknown tokenizer"),
        ("corpora", {"Corpus": "files:/etc"}, "unknown corpus"),
        ("corpora", {}, "Corpus: give one"),
        ("export", {"Run": "abc", "Name of the new folder": "../../x"}, "use letters"),
        ("import", {"Name of its folder": "/etc"}, "use letters"),
        ("import", {"Name of its folder": ".."}, "use letters"),
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
    (task,) = (option for option in FORMS["train"].options if option.flag == "--task")
    assert set(task.choices) == set(KNOWN_TASKS)
    (parts,) = (option for option in FORMS["train"].options if option.flag == "--part")
    assert set(parts.choices) == set(KNOWN_TASKS) - {"mixture", "noisy", "shuffled"}
    (corpus,) = (option for option in FORMS["train"].options if option.flag == "--task.corpus")
    assert set(corpus.choices) == {"", *CORPORA} - {"files", "huggingface"}
    (tokenizer,) = (option for option in FORMS["train"].options if option.flag == "--task.tokenizer")
    assert all(vocabulary_size(name) for name in tokenizer.choices if name)
    assert task.choices[:3] == ("dyck", "haystack", "addition")
    assert {"components", "heads"} <= set(names("sweep"))
    for claim in names("claim"):
        assert (Path(__file__).parents[1] / "experiments" / f"{claim}.py").is_file()


@pytest.mark.parametrize("form", list(FORMS))
def test_every_option_is_the_commands_own(form, capsys):
    from procpre_interp.cli import main

    asked = FORMS[form]
    words = [asked.words[0], *(["--task", "text"] if form in ("train", "transfer") else []), "-h"]
    os.environ["COLUMNS"] = "80"  # wider ones have boxes side by side
    try:
        assert main(words) == 0
    finally:
        del os.environ["COLUMNS"]
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    assert f"{asked.store_flag} " in text
    assert ("--store" in text or "--out" in text) == bool(asked.store_flag)
    for option in asked.options:
        if option.flag in ("", "--task", "--part"):  # which the help explains in prose
            continue
        found = re.search(
            rf"{re.escape(option.flag)}(?= (?:INT|FLOAT|STR|PATH|[A-Z]+ \.\.\.|[\[{{])|, --[a-z.]*no-)", text
        )  # in the table, not in the prose
        assert found, option.flag
        if option.default is not None and option.kind != "switch" and not option.flag.startswith("--task."):
            stated = re.search(r"\(default: ([^)]*)\)", text[found.start() :])
            assert stated, option.flag
            shown = stated[1]
            assert shown == str(option.default) or float(shown) == float(str(option.default)), option.flag


def fields_of(command: type, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """Every option of a command with its type, those of the configs within it by their path."""
    hints = get_type_hints(command, include_extras=True)
    for field in dataclasses.fields(command):
        path, declared = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(declared) and not hasattr(declared, "registry"):
            yield from fields_of(declared, f"{path}.")  # type: ignore[arg-type]
        else:
            yield path, field, declared


COMMANDS = ["train.Training", "transfer.Transfer", "reproduce.Reproduce", "sweep.SweepCommand", "claims.Claims"]
COMMANDS += ["export.Export", "import.Import"]
KINDS = {int: "int", float: "float", bool: "switch", str: "word", Path: "word"}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_source_says_what_the_imported_command_has(command):
    """Type, choices and default of all options, and not only of those that a form has."""
    module, _, name = command.partition(".")
    kind = getattr(importlib.import_module(f"procpre_interp.commands.{module}"), name)
    read = 0
    for path, field, declared in fields_of(kind):
        if path == "train.interventions" or declared is Task:
            with pytest.raises(ValueError, match="no form can ask for a field of type"):
                read_field(f"commands.{command}", path)
            continue
        found = read_field(f"commands.{command}", path)
        is_positional = "Positional" in repr(declared)
        while (origin := get_origin(declared)) is not None and origin is not Literal:
            declared = get_args(declared)[0]
        assert found.flag == ("" if is_positional else f"--{path.replace('_', '-')}")
        assert found.kind == ("choice" if get_origin(declared) is Literal else KINDS[declared])
        assert found.choices == (get_args(declared) if get_origin(declared) is Literal else ())
        no_default = field.default is dataclasses.MISSING
        assert found.is_required == (no_default and field.default_factory is dataclasses.MISSING)
        default = " ".join(field.default) or None if isinstance(field.default, tuple) else field.default
        assert found.default == (None if no_default else default), path
        read += 1
    assert read >= 3


def test_what_the_source_does_not_say():
    with pytest.raises(ValueError, match="unknown field of TrainConfig 'step'. Did you mean 'steps'"):
        read_field("commands.train.Training", "train.step")
    with pytest.raises(ValueError, match="train.settings: no int is defined there"):
        read_field("commands.train.Training", "train.steps.step")
    with pytest.raises(ValueError, match="commands.train: no Trainig is defined there"):
        read_field("commands.train.Trainig", "seed")
    assert registered("TASKS", "jobs") == ()


def test_the_source_says_what_is_registered():
    found = {each.name: each for each in registered("TASKS", "data")}
    assert set(found) == set(KNOWN_TASKS)
    assert [name for name in found if found[name].needs_field] == ["mixture", "noisy", "shuffled"]
    assert found["dyck"].texts == {"in_words": KNOWN_TASKS["dyck"].in_words}
    assert [each.name for each in registered("ABLATIONS", "ablate")] == list(ABLATIONS)


def test_forms_need_no_torch():
    code = "import sys, procpre_interp.jobs; print({'torch', 'tyro'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_options_are_values():
    option = Option(flag="--x", label="X", default=3)
    assert dataclasses.replace(option, default=None).arguments(3) == ["--x=3"]
    assert option.arguments(3) == []
