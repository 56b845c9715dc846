"""The command line: what it prints, its exit codes, and that no mistake ends in a traceback."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from procpre_interp.cli import COMMANDS, main
from procpre_interp.commands._options import read_options
from procpre_interp.core.terminal import beside_package
from procpre_interp.data import TASKS
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig, Trainer
from tests.results import fill

TINY = [
    *("--train.steps", "6", "--train.batch-size", "8", "--train.warmup-steps", "2"),
    *(
        "--train.evaluate-every",
        "3",
        "--train.evaluate-examples",
        "16",
        "--model.d-model",
        "8",
        "--model.n-heads",
        "2",
    ),
]
DYCK = ["train", "--task", "dyck", "--task.k", "2", "--task.length", "64", "--model.tied", *TINY]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PROCPRE_STORE", raising=False)


def complaint(capsys) -> str:
    """The one line that a mistake prints."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert text.count("\n") == 1, text
    return text


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_teaches(command, capsys):
    assert main([command, "-h"]) == 0
    text = capsys.readouterr().out
    assert f"procpre-interp {command}" in text
    assert "--" in text


def test_no_command_at_all(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out
    assert main(["--version"]) == 0


def test_train_transfer_and_runs(tmp_path, capsys):
    assert main(DYCK) == 0
    first = capsys.readouterr()
    assert "finished after 6 steps" in first.out
    assert main(DYCK) == 0
    again = capsys.readouterr()
    assert "finished before" in again.err
    assert again.out == first.out
    parent = RunStore("runs").query()["run"].iloc[0]
    transfer = ["transfer", "--parent", parent[:6], "--components", "attn+ln", *TINY, "--model.n-ctx", "64"]
    assert main(transfer) == 0
    capsys.readouterr()
    assert main(["runs", "--format", "json", "--where", "task=haystack"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["parents"] for row in rows] == [[parent]]
    assert rows[0]["components"] == "attn+ln"
    assert main(["runs", "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main(["runs"]) == 0
    table = capsys.readouterr().out
    assert parent in table
    assert "2 runs" in table
    assert main(["report", parent, "--store", "runs"]) == 0
    assert main(["transfer", "--parent", f"{parent}@5", *TINY, "--model.n-ctx", "64"]) == 2
    assert "keeps no weights of step 5" in complaint(capsys)


def test_a_run_that_diverges_is_said_to(capsys):
    assert main([*DYCK, "--train.learning-rate", "1e6", "--train.warmup-steps", "0", "--store", "runs"]) == 0
    said = capsys.readouterr()
    assert ": finished: diverged, training loss " in said.err.splitlines()[-1]
    assert "diverged after" in said.out


def test_yaml_gives_defaults_and_flags_win(tmp_path, capsys):
    (tmp_path / "run.yaml").write_text(
        "task: {name: dyck, k: 3, length: 16}\nseed: 7\nmodel: {d_model: 8, n_heads: 2}\n"
        "train: {steps: 3, batch_size: 4, evaluate_examples: 8, warmup_steps: 1, learning_rate: 1e-3}\n"
    )
    assert main(["train", "--config", "run.yaml", "--train.steps", "2", "--task.k", "2"]) == 0
    run = RunStore("runs").open("latest")
    assert run.config["task"] == {"name": "dyck", "version": 1, "k": 2, "length": 16}
    assert run.config["seed"] == 7
    assert run.summary["steps"] == 2
    # The config that a run stores is a config file again, and names the same run.
    stored = run.folder / "config.yaml"
    capsys.readouterr()
    assert main(["train", "--config", str(stored)]) == 0
    assert "finished before" in capsys.readouterr().err


def test_tasks_lists_every_task_with_an_example(capsys):
    assert main(["tasks"]) == 0
    text = capsys.readouterr().out
    for name in TASKS:
        assert f"{name}  " in text
    # A list fetches nothing, and takes no minute.
    assert "is to be fetched, and its proofs to be checked" in text
    assert "procpre-interp tasks --name metamath" in text
    assert main(["tasks", "--name", "reverse", "--examples", "3"]) == 0
    text = capsys.readouterr().out
    assert text.count("|") >= 3
    assert "--task.length" in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train"], "wants --task NAME"),
        (["train", "--task"], "--task wants a value"),
        (["train", "--task", "dykc"], "Did you mean 'dyck'?"),
        (["train", "--task", "dyck", "--model.n-ctx", "32"], "longer than the context n_ctx=32"),
        (
            ["train", "--task", "dyck", "--train.freeze", "atn", *TINY],
            "unknown component 'atn'. Did you mean 'attn'",
        ),
        (["train", "--task", "dyck", "--train.kernel", "native", *TINY], "kernel=native cannot be had: d_model=8"),
        (["train", "--config", "none.yaml"], "none.yaml: No such file"),
        (["train", "--task", "dyck", "--train.device", "cuda:99"], "cannot be used"),
        (["train", "--task", "dyck", "--train.device", "meta"], "holds shapes and no numbers"),
        (["transfer"], "wants --parent RUN"),
        (["transfer", "--parent", "nosuchrun"], "no run 'nosuchrun'"),
        (["transfer", "--parent", "../../etc"], "'../../etc' is no name of a run"),
        (
            ["transfer", "--parent", "a", "b", "--components", "attn", "mlp", "ln"],
            "2 parents but 3 selectors",
        ),
        (["transfer", "--parent", "a", "b", "--components", "attn"], "2 parents but 1 selector (attn); give one per"),
        (["transfer", "--parent", "a", "b"], "2 parents but 1 selector (all); give one per parent"),
        (["runs", "--store", "nowhere"], "no store nowhere"),
        (["report", "nosuchrun", "--store", "."], "no run 'nosuchrun'"),
        (["reproduce", "--replicates", "0"], "replicates=0"),
        (["reproduce", "--workers", "0"], "workers=0"),
        (["tasks", "--name", "sorted"], "Did you mean 'sort"),
        (["app", "--port", "0"], "port=0"),
        (["train", "--task", "dyck", "--model.n-ctx", "0"], "n_ctx=0"),
        # What tyro explains in boxes of several lines.
        (["runs", "--stroe", "x"], "Unrecognized options: --stroe, x. Did you mean --store? `procpre-interp runs -h`"),
        (["sweep", "a.yaml", "b"], "Unrecognized options: b."),
        (["sweep"], "CONFIG"),
        (["sweep", "a.yaml", "--replicates", "x"], "Error parsing --replicates: 'x' is not a whole number, such as"),
        (["runs", "--format"], "Missing value for argument '--format'"),
        (
            ["train", "--task", "dyck", "--train.kernel", "natif"],
            "Expected one of ('auto', 'native', 'torch', 'stacked')",
        ),
        (["train", "--task", "dyck", "--train.steps", "1.5"], "'1.5' is not a whole number, such as 10000 or 1e4"),
        (["train", "--task", "dyck", "--train.steps", "many"], "'many' is not a whole number"),
        (["train", "--task", "dyck", "--train.steps", "inf"], "'inf' is not a whole number"),
        (["train", "--task", "dyck", "--train.warmup-steps", "-1"], "warmup_steps=-1; warmup_steps must not be"),
        (["--print-completion", "ksh"], "Did you mean 'zsh'?"),
        (["--print-completion"], "There are: bash, fish, zsh"),
    ],
)
def test_mistakes_are_one_line_and_a_nonzero_exit_code(arguments, expected, capsys):
    not_there = ("No such file", "no store")
    assert main(arguments) == (1 if any(word in expected for word in not_there) else 2)
    assert expected in complaint(capsys)


@pytest.mark.parametrize(
    ("parents", "components", "note"),
    [
        (["q"], ["attn"], "the file's ablations are kept, for the parents given in their place: noise of q"),
        (
            ["q", "r"],
            ["attn", "mlp"],
            "the file's ablations (noise) are left out, since the numbers differ",
        ),
        (["p"], ["mlp"], ""),
    ],
)
def test_new_parents_over_a_file_with_ablations_say_what_becomes_of_them(parents, components, note, capsys):
    damage = "ablation: {name: noise, noise_std: 1}"
    Path("file.yaml").write_text(f"task: {{name: haystack}}\nparents: [{{run: p, selector: attn, {damage}}}]\n")
    arguments = ["transfer", "--config", "file.yaml", "--parent", *parents, "--components", *components]
    assert main(arguments) == 2  # there is no run to be a parent
    said = capsys.readouterr().err
    assert note in said
    assert ("ablations" in said) == bool(note)


def test_a_refused_run_leaves_nothing_behind(capsys):
    (Path("runs")).mkdir()
    assert main([*DYCK, "--train.freeze", "atn"]) == 2
    assert main(["runs"]) == 0
    assert "0 runs" in capsys.readouterr().out


def kernel_lines(capsys) -> list[str]:
    """What was said about the kernel."""
    return [line for line in capsys.readouterr().err.splitlines() if "kernel" in line]


def test_a_training_run_says_why_it_has_no_native_kernel(tmp_path, monkeypatch, capsys):
    assert main(DYCK) == 0
    assert kernel_lines(capsys) == ["kernel: torch, since d_model=8 (the native kernel is for 16, 32, 64, 128, 256)"]
    assert main(["transfer", "--parent", "latest", *TINY, "--model.n-ctx", "64"]) == 0
    assert len(kernel_lines(capsys)) == 1
    # There is nothing to explain where nothing is trained, and where torch was asked for.
    assert main(DYCK) == 0
    assert main([*DYCK, "--train.kernel", "torch", "--seed", "1"]) == 0
    assert kernel_lines(capsys) == []
    missing = str(tmp_path / "a folder with a long name that would not fit on one line of eighty characters" / "g++")
    monkeypatch.setenv("CXX", f"'{missing}'")
    assert main([*DYCK, "--model.d-model", "16"]) == 0
    (line,) = kernel_lines(capsys)
    assert line.startswith("kernel: torch, since no C++ compiler: ")
    assert missing in line
    assert main([*DYCK, "--model.d-model", "16", "--train.kernel", "native"]) == 2
    assert "use kernel=auto or torch" in complaint(capsys)


def test_a_message_about_a_huge_value_is_cut_in_its_middle(capsys):
    assert main(["train", "--task", "dyck", "--train.device", "a" * 50_000]) == 2
    said = complaint(capsys)
    assert len(said) < 2_100
    assert said.endswith("shows all options.\n")


def test_a_name_that_no_file_can_have_is_no_run(capsys):
    for name in ("a" * 300, "a" * 50_000):
        assert main(["transfer", "--parent", name]) == 2
        assert "is no name of a run" in complaint(capsys)


def test_strange_yaml_is_explained(tmp_path, capsys):
    for text in ("task: dyck\n", "task: {name: 5}\n", "1: 2\ntask: {name: dyck}\n", "- a\n", "a: [\n", ""):
        Path("strange.yaml").write_text(text)
        assert main(["train", "--config", "strange.yaml"]) == 2
        complaint(capsys)


def test_runs_are_filtered_by_what_is_missing_and_by_truth(capsys):
    assert main(DYCK) == 0
    capsys.readouterr()
    for condition in ("parents=", "positions_carried=false", "seed=0"):
        assert main(["runs", "--where", condition]) == 0
        assert "1 runs" in capsys.readouterr().out
    assert main(["runs", "--where", "positions_carried=perhaps"]) == 2
    assert "holds true and false" in complaint(capsys)


def test_a_bad_field_is_explained_without_a_traceback(capsys):
    assert main(["train", "--task", "dyck", "--task.k", "-1"]) == 2
    text = capsys.readouterr().err
    assert "k=-1 bracket types; k must be at least 1" in text
    assert "Traceback" not in text


def test_an_unwritable_store_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert main([*DYCK, "--store", "file"]) == 2
    assert "is a file" in complaint(capsys)
    assert main([*DYCK, "--store", "/proc/procpre"]) == 1
    assert "/proc/procpre" in complaint(capsys)


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, capsys, monkeypatch):
    import errno

    from procpre_interp.train import Trainer

    save, resumed_at = Trainer.save, []

    def full(self):
        if self.state.step > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "resume.safetensors")
        save(self)

    def run(self):
        resumed_at.append(self.state.step)
        return train(self)

    train = Trainer.run
    monkeypatch.setattr(Trainer, "run", run)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "save", full)
        assert main([*DYCK, "--train.save-seconds", "0"]) == 1
    assert "No space left on device; make room and repeat the command" in capsys.readouterr().err
    assert main(DYCK) == 0
    assert "finished after 6 steps" in capsys.readouterr().out
    assert resumed_at == [0, 3]


PROGRAM = """
import runpy
from tests.small_draws import SMALL, set_draws
set_draws(*SMALL)
runpy.run_module("procpre_interp.cli", run_name="__main__", alter_sys=True)
"""


def test_ctrl_c_on_a_real_process_and_on_again(tmp_path, capsys):
    arguments = [*("300" if argument == "6" else argument for argument in DYCK), "--train.save-seconds", "0.1"]
    root = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=root)
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("runs/partial/*/resume.safetensors")) and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "procpre-interp: stopped; repeat the command to go on from there"
    assert "Traceback" not in err
    assert RunStore("runs").query()["status"].tolist() == ["interrupted"]
    assert main(arguments) == 0
    assert "finished after 300 steps" in capsys.readouterr().out


def test_a_name_that_is_like_no_other_is_given_none(capsys):
    assert main(["nonsense"]) == 2
    assert "Did you mean" not in complaint(capsys)
    for name, meant in (("trian", "train"), ("init", "")):
        assert main([name]) == 2
        assert (f"Did you mean {meant!r}?" in complaint(capsys)) == bool(meant)


def test_help_is_printed_where_boxes_cannot_be():
    done = shell("$P tasks -h", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "+- options -" in done.stdout


@pytest.mark.parametrize("text", ["1e4", "10000", "10_000", "1.0e4"])
def test_whole_numbers_may_be_written_as_people_write_them(text):
    assert read_options(TrainConfig, "train", ["--steps", text]).steps == 10_000


def pages() -> list[list[str]]:
    """Calls for help: of each command, and of each task's options."""
    made_of_others = {"mixture", "composed", "shuffled", "noisy"}
    tasks = [name for name in TASKS if name not in made_of_others]
    return [[name, "-h"] for name in COMMANDS] + [["train", "--task", name, "-h"] for name in tasks]


@pytest.mark.parametrize("columns", [1, 5, 60, 80, 200])
def test_help_fits_the_terminal(columns, monkeypatch, capsys):
    """Also one of 5 columns, for which tyro never ends. Every line, and all words are there at any width."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for call in pages() if columns == 80 else [["train", "--task", "haystack", "-h"], ["probe", "-h"]]:
        assert main(call) == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= max(columns, 40), call
        assert os.environ["COLUMNS"] == str(columns)


def test_help_names_what_is_to_be_given(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    for call in pages():
        assert main(call) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "[[" not in text, call
        assert "(default: )" not in text, call
    for call, shown in (
        ("probe", "[RUN ...]"),
        ("claims", "[NAME ...]"),
        ("sweep", "CONFIG"),
        ("runs", "--where COLUMN=VALUE ..."),
        ("transfer", "--parent RUN ..."),
        ("transfer", "--components SELECTOR ... "),
    ):
        assert main([call, "-h"]) == 0
        assert shown in capsys.readouterr().out


def test_colours_are_left_out_where_none_are_wanted(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured: dict[str, bool] = {}
    for wanted in ("", "1"):
        monkeypatch.setenv("NO_COLOR", wanted)
        assert main(["runs", "-h"]) == 0
        coloured[wanted] = "\x1b[" in capsys.readouterr().out
        assert main(["runs", "--stroe", "x"]) == 2
        assert "\x1b[" not in complaint(capsys)
    assert coloured == {"": True, "1": False}


def test_the_shells_complete_commands_options_and_tasks(capsys):
    scripts = {}
    for shell in ("bash", "zsh", "fish"):
        assert main(["--print-completion", shell]) == 0
        scripts[shell] = capsys.readouterr().out
        for word in (*COMMANDS, *TASKS):
            assert re.search(rf"\b{word}\b", scripts[shell]), (shell, word)
    assert "'__fish_seen_subcommand_from train' -l train.steps" in scripts["fish"]
    assert "OPTION" not in scripts["bash"]
    if shutil.which("bash") is None:
        return
    lines = [
        f"COMP_WORDS=(procpre-interp {typed}); COMP_CWORD={len(typed.split())}; _procpre_interp; echo ${{COMPREPLY[@]}}"
        for typed in ("re", "train --train.st", "train --task dy")
    ]
    done = subprocess.run(
        ["bash", "-c", "\n".join([scripts["bash"], *lines])], capture_output=True, text=True, check=True
    )
    options = "--train.steps --train.stop-after --train.start-at"
    assert done.stdout.splitlines() == ["reproduce report", options, "dyck dyck_shuffle"]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of sh, in which `$P` is the command line; its exit code is that of the command line itself."""
    command = f"{sys.executable} -m procpre_interp.cli"
    variables = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "P": command, **environment}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=variables)


@pytest.mark.parametrize(
    ("call", "unbuffered"),
    [("--help", ""), ("--version", "1"), ("runs --store .", "1"), ("runs --store . --format csv", "")],
)
def test_output_that_nobody_takes_ends_quietly(call, unbuffered):
    """A reader that is gone, a full disk, and no stdout or stderr at all: no traceback, and no exit 120 of Python's."""
    for where, codes, said in (
        ("| true; exit ${PIPESTATUS[0]}", (0, 1), r""),
        ("> /dev/full", (1,), r"procpre-interp: .*No space left on device.*\n"),
        (">&-", (0,), r""),
        ("2>&-", (0,), r""),
    ):
        done = shell(f"$P {call} {where}", PYTHONUNBUFFERED=unbuffered)
        assert done.returncode in codes, (where, done)
        assert re.fullmatch(said, done.stderr), (where, done.stderr)


def test_a_full_stderr_hides_no_exit_code():
    assert shell("$P nonsense 2> /dev/full").returncode == 2


def test_unfinished_runs_say_what_they_are(tmp_path, capsys, monkeypatch):
    store = RunStore("runs")
    assert main(DYCK) == 0
    parent = store.query()["run"].iloc[0]
    transfer = [*("transfer", "--parent", parent, "--components", "attn+ln", "--seed", "7"), *TINY]

    def stop(self):
        self.should_stop = lambda: True
        return train(self)

    train = Trainer.run
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run", stop)
        assert main([*transfer, "--model.n-ctx", "64"]) == 130
    capsys.readouterr()
    assert main(["runs", "--where", "status=interrupted", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert {name: row[name] for name in ("task", "seed", "parents", "components", "steps")} == {
        "task": "haystack",
        "seed": 7,
        "parents": [parent],
        "components": "attn+ln",
        "steps": 1,
    }
    for name, value in (("task", "haystack"), ("seed", "7")):
        assert main(["runs", "--where", f"{name}={value}"]) == 0
        assert "1 runs" in capsys.readouterr().out
    # A config that cannot be read leaves the rest of the list alone.
    (tmp_path / "runs" / "partial" / row["run"] / "config.yaml").write_text("- [")
    assert main(["runs"]) == 0
    assert "2 runs" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_lists_fit_the_terminal(columns, tmp_path, monkeypatch, capsys):
    """One line per run and a claim, with what can be typed in full."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    store = RunStore(tmp_path / "store")
    fill(store, replicates=2)
    assert main(["runs", "--store", str(store.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for run, task, seed in store.query()[["run", "task", "seed"]].itertuples(index=False):
        (line,) = [line for line in lines if run in line]
        assert f" {task} " in line
        assert f" {seed:.0f} " in line
    assert main(["claims", "--store", str(store.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for path in (beside_package("experiments") / "results" / "claims").glob("*.json"):
        assert sum(line.split()[:1] == [path.stem] for line in lines) == 1
    if columns == 80:
        assert all("[" in line for line in lines if line.startswith("dyck_teaches_recall"))
