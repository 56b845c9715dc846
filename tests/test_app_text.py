"""Runs on text in the explorer: opened by hash from the cache, or not at all, whatever folder their config names."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.core.checksums import seal
from procpre_interp.core.config import content_hash, from_dict
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.data.semantic.language import Files
from procpre_interp.data.semantic.text import Text
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, load_task
from procpre_interp.store.run import OWN_FILES
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from tests.explorer import check, open_page, said

PAGES = {"where_does_attention_look": {}, "which_circuit": {}, "how_do_weights_move": {"tab": "Likeness"}}
SECRET = "my-password-is-xyzzy"


def write_rows(path: Path, words: str) -> str:
    path.mkdir()
    rows = [json.dumps({"text": f"{words} {number} " * 4}) for number in range(200)]
    (path / "rows.jsonl").write_text("\n".join(rows))
    return f"files:{path}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """One run on text."""
    folder = tmp_path_factory.mktemp("text")
    task = Text(corpus=write_rows(folder / "corpus", "some honest words"), length=40)
    train = TrainConfig(steps=2, batch_size=4, evaluate_every=2, evaluate_examples=8, kernel="torch", threads=1)
    found = RunStore(folder / "store")
    execute(RunConfig(task=task, model=Architecture(n_layers=1, n_heads=2, d_model=8), train=train), found)
    shutil.rmtree(folder / "corpus")  # a stored run opens without it
    return found


def forged(store: RunStore, path: Path, task: dict) -> RunStore:
    """A store whose one run has another task in its config, and a manifest that agrees."""
    shutil.copytree(store.path, path)
    (folder,) = (path / "runs").iterdir()
    config = yaml.safe_load((folder / "config.yaml").read_bytes()) | {"task": task}
    text = yaml.safe_dump(config).encode()
    (folder / "config.yaml").write_bytes(text)
    seal(folder, OWN_FILES)
    return RunStore(path)


def packed() -> set[str]:
    return {path.name for path in (cache_folder() / "tokens").glob("*")}


@pytest.mark.parametrize("page", PAGES)
def test_a_run_whose_text_is_in_the_cache(monkeypatch, store: RunStore, page: str):
    app = open_page(monkeypatch, store.path, f"questions/{page}.py", **PAGES[page])
    assert [error.value for error in app.error] == []


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("kind", ["no hashes", "hashes", "one hash", "shuffled"])
def test_no_folder_is_read_that_a_config_names(monkeypatch, tmp_path, store: RunStore, page: str, kind: str):
    corpus = write_rows(tmp_path / "home", SECRET)
    task = {"name": "text", "version": Text.version, "corpus": corpus, "length": 40}
    if kind == "hashes":
        task |= {"corpus_hash": "0" * 16, "tokenizer_hash": "0" * 16}
    elif kind == "one hash":  # that of an honest run, whose text nobody said may be shown for another
        task["corpus_hash"] = load_task(store.open("latest")).corpus_hash
    elif kind == "shuffled":
        task = {"name": "shuffled", "version": TASKS["shuffled"].version, "task": task}
    hostile, before, read = forged(store, tmp_path / "store", task), packed(), []
    original = Files.files
    monkeypatch.setattr(Files, "files", lambda self: (read.append(self.path), original(self))[1])
    app = check(open_page(monkeypatch, hostile.path, f"questions/{page}.py", **PAGES[page]))
    (error,) = app.error
    assert "only the command line reads a corpus" in error.value or "has no cause" in error.value
    assert read == []
    assert packed() == before
    assert SECRET not in said(app)


def test_tasks_from_the_cache_are_the_same_tasks(store: RunStore):
    task = load_task(store.open("latest"))
    cached = task.from_cache()
    assert content_hash(cached) == content_hash(task)
    drawn = [each.batch(4, generator=stream(0, "test")).tokens.tolist() for each in (task, cached)]
    assert drawn[0] == drawn[1]
    assert cached.resolve() == cached
    for name in TASKS:
        if name not in ("text", "metamath", "mixture", "shuffled", "noisy"):
            assert TASKS.build(name).from_cache() == TASKS.build(name)


@pytest.mark.parametrize("wrap", ["mixture", "shuffled", "noisy"])
def test_text_within_other_tasks(tmp_path, wrap: str):
    text = {"name": "text", "corpus": write_rows(tmp_path / "home", SECRET), "length": 40}
    outer = {"name": wrap, "task": text} if wrap != "mixture" else {"name": wrap, "tasks": [{"name": "set"}, text]}
    task, before = from_dict(Task, outer).from_cache(), packed()
    for use in (task.resolve, task.prepare, lambda: task.batch(2, generator=stream(0, "test"))):
        with pytest.raises(ValueError, match="only the command line reads a corpus"):
            use()
    assert packed() == before
