"""`train` on real text: how often it goes through it, and tasks that are made of it."""

import json
from pathlib import Path

import pytest

from procpre_interp.cli import main
from procpre_interp.store.store import RunStore

SMALL = ["--train.kernel=torch", "--train.batch-size=4", "--train.evaluate-examples=4", "--model.d-model=8"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"a line of text, number {i}"}) + "\n" for i in range(200)))
    return f"files:{path}"


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) != 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_epochs_in_place_of_steps(corpus: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["train", "--task", "text", "--task.corpus", corpus, "--task.length=32", "--epochs=0.5", *SMALL]
    assert main([*words, "--store", str(tmp_path / "runs")]) == 0
    summary = RunStore(tmp_path / "runs").open("latest").summary
    assert summary["epochs"] == pytest.approx(0.5, abs=4 * 32 / summary["tokens"])
    assert summary["tokens"] == summary["steps"] * 4 * 32
    assert "epochs of the training split" in capsys.readouterr().out


def test_parts_of_a_mixture_and_of_noise(corpus: str, tmp_path: Path):
    store = str(tmp_path / "runs")
    steps = ["--train.steps=1", *SMALL, "--store", store]
    set_of = "{name: set, length: 5}"
    of_text = ["--task.tasks.1.corpus", corpus, "--task.tasks.1.length=16"]
    assert main(["train", "--task", "mixture", "--part", set_of, "--part=text", *of_text, *steps]) == 0
    task = RunStore(store).open("latest").config["task"]
    assert [part["name"] for part in task["tasks"]] == ["set", "text"]
    assert task["tasks"][0]["length"] == 5
    of_text = ["--task.task.corpus", corpus, "--task.task.length=16"]
    assert main(["train", "--task", "noisy", "--part=text", *of_text, "--task.share=0.2", *steps]) == 0
    task = RunStore(store).open("latest").config["task"]
    assert (task["name"], task["share"], task["task"]["corpus"]) == ("noisy", 0.2, corpus)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task=dyck", "--epochs=1", *SMALL], "--epochs 1: dyck has no end; give --train.steps"),
        (["--task=dyck", "--epochs=0", *SMALL], "epochs=0.0; it must be a positive number"),
        (["--task=dyck", "--part=set"], "--part 'set': dyck is not made of other tasks"),
        (["--part=set"], "--part 'set': say with --task what is made of it"),
        (["--task=noisy", "--part=set", "--part=dyck"], "2 parts of noisy, which is made of one task"),
        (["--task=noisy", "--part=nonsense"], "unknown task 'nonsense'"),
        (["--task=noisy", "--part=[set]"], "--part '[set]'; give a name, or YAML"),
        (["--task=nonsense", "--part=set"], "unknown task 'nonsense'"),
    ],
)
def test_mistakes(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    assert said in complaint(["train", *arguments], capsys)
