"""Exported models: what Hugging Face's library makes of the folder in a process that knows nothing of this package."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from tokenizers import Tokenizer as Model

from procpre_interp.cli import main
from procpre_interp.core import atomic_files
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.token_file import find_token_file
from procpre_interp.data.tokenizer_files import PRINTABLE, opened, tokenizer_files
from procpre_interp.data.tokens import token_names
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model, load_task
from procpre_interp.pipeline.lineage import moment_named
from procpre_interp.store.export import export_run
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.views.model_card import _published, corpora_of, model_card
from tests.test_cli import complaint

TRAIN = TrainConfig(steps=4, batch_size=4, warmup_steps=1, evaluate_every=2, evaluate_examples=8, checkpoints=3)
SHAPE, TIED = Architecture(n_layers=2, n_heads=2, d_model=8), Architecture(n_layers=2, n_heads=2, d_model=8, tied=True)

AWKWARD = [
    "",
    " ",
    "a  b\n\n\t c \r\n",
    "one<|endoftext|>two",
    "<|endoftext|>",
    "naïve café, e\u0301, ﬁ, \u00a0\u200d\u2028",
    "漢字 🎉🏽 \U0001f469\u200d\U0001f680",
    "\x00\x7f\x80",
    "don't we'll 12345 !!! ___",
]

FRESH_PROCESS = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

asked, told = json.load(sys.stdin), {}
for name, (folder, tokens, texts) in asked.items():
    model = AutoModelForCausalLM.from_pretrained(folder)
    whole = torch.tensor(tokens)  # ends of documents, which are the padding, among them: all is to be read
    told[name] = found = {"logits": model(whole, attention_mask=torch.ones_like(whole)).logits.tolist()}
    found["ids"] = [model.config.bos_token_id, model.config.eos_token_id, model.config.pad_token_id]
    start = torch.tensor([row[:3] for row in tokens])
    found["generated"] = model.generate(start, max_new_tokens=4, attention_mask=torch.ones_like(start)).tolist()
    if texts is not None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        found["texts"] = [tokenizer(text).input_ids for text in texts]
        found["back"] = [tokenizer.decode(ids) for ids in found["texts"]]
        found["special"] = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
        found["most"] = tokenizer.model_max_length
assert not [name for name in sys.modules if name.startswith("procpre_interp")]
json.dump(told, sys.stdout)
"""


@dataclass
class Exported:
    run: Run
    folder: Path
    printed: str
    tokens: torch.Tensor
    texts: list[str] | None
    told: dict[str, Any]
    """What the fresh process said."""

    @property
    def task(self) -> Task:
        return load_task(self.run)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStore]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 2**12)
        patch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
        yield RunStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def runs(store: RunStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    file = tmp_path_factory.mktemp("private") / "rows.jsonl"
    words = ["some honest wörds 漢 ", "and others, don't you know "]
    file.write_text("".join(json.dumps({"text": f"{words[i % 2]}{i} " * 4}) + "\n" for i in range(200)))
    made = {}
    for name, tokenizer, model in [
        ("bytes", "byte", SHAPE),
        ("bytes tied", "byte", TIED),
        ("pairs", "bpe:300", SHAPE),
        ("pairs tied", "bpe:2000", TIED),  # more than so small a text has merges for
    ]:
        task = Text(corpus=f"files:{file}", tokenizer=tokenizer, length=24)
        made[name] = execute(RunConfig(task=task, model=model, train=TRAIN), store)
    dyck = TASKS.build("dyck", k=3, length=16)
    made["dyck"] = execute(RunConfig(task=dyck, model=SHAPE, train=TRAIN, seed=3), store)
    parents = (Parent(run=made["dyck"].id, selector="attn"),)
    haystack = TASKS.build("haystack", max_pairs=5)
    made["haystack"] = execute(RunConfig(task=haystack, model=SHAPE, train=TRAIN, parents=parents), store)
    mixture = TASKS.build("mixture", tasks=[{"name": "set", "length": 8}, {"name": "dyck", "length": 16}])
    made["mixture"] = execute(RunConfig(task=mixture, model=SHAPE, train=TRAIN), store)
    return made


@pytest.fixture(scope="module")
def exported(runs: dict[str, Run], store: RunStore, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    folder, asked, made = tmp_path_factory.mktemp("exported"), {}, {}
    for number, (name, run) in enumerate(runs.items()):
        to, task = folder / str(number), load_task(run)
        printed = export([run.id, "--to", str(to), "--store", str(store.path)])
        tokens = task.batch(3, generator=stream(0, "export")).tokens
        texts = AWKWARD if isinstance(task, Text) else None
        if name in ("dyck", "haystack"):
            texts = [" ".join(token_names(task, row)) for row in tokens.tolist()]
        asked[name] = (str(to), tokens.tolist(), texts)
        made[name] = Exported(run, to, printed, tokens, texts, {})
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    # It is told that an end of document at either end may be padding, which by its masks it is not.
    assert "warn" not in done.stderr.lower().replace("you may ignore this warning if your `pad_token_id`", "")
    for name, told in json.loads(done.stdout).items():
        made[name].told = told
    return made


def export(arguments: list[str]) -> str:
    """What the command prints."""
    page = io.StringIO()
    with contextlib.redirect_stdout(page):
        assert main(["export", *arguments]) == 0
    return page.getvalue()


NAMES = ["bytes", "bytes tied", "pairs", "pairs tied", "dyck", "haystack", "mixture"]
TEXTS = NAMES[:4]


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_ours_and_text_is_generated(name, exported):
    found, model = exported[name], load_model(exported[name].run)
    torch.testing.assert_close(torch.tensor(found.told["logits"]), model(found.tokens), atol=1e-5, rtol=0)
    ours, end = model.generate(found.tokens[:, :3], 4).tolist(), found.told["ids"][1]
    for row, theirs in zip(ours, found.told["generated"]):
        if end in row[3:]:  # where generation ends there, and the rest of a batch is filled up
            place = row.index(end, 3)
            row, theirs = row[: place + 1], theirs[: place + 1]
        assert row == theirs
    assert sorted(os.listdir(found.folder))[0] == "README.md"
    assert not [path for path in found.folder.iterdir() if path.suffix in (".bin", ".pt", ".pkl")]


@pytest.mark.parametrize("name", TEXTS)
def test_token_ids_are_ours(name, exported):
    found = exported[name]
    task = found.task
    assert isinstance(task, Text)
    token_file = find_token_file(task.corpus_hash, task.tokenizer)
    assert token_file is not None
    ours = token_file.tokenizer()
    assert found.told["texts"] == [ids.tolist() for ids in ours.encode(AWKWARD)]
    assert found.told["back"] == AWKWARD
    end = ours.end_of_document
    assert end == load_model(found.run).config.d_vocab - 1
    assert found.told["special"] == found.told["ids"] == [end, end, end]
    assert found.told["most"] == 24
    assert "model, tokenizer and model card" in found.printed


@pytest.mark.parametrize("name", ["dyck", "haystack"])
def test_named_tokens_are_words(name, exported):
    found = exported[name]
    assert found.told["texts"] == found.tokens.tolist()
    assert found.told["back"] == found.texts
    pad = next(token for token, named in found.task.named_tokens.items() if named.role == "padding")
    assert found.told["special"] == [None, None, pad]


def test_without_names_there_is_one_line_and_no_tokenizer(exported):
    found = exported["mixture"]
    assert found.printed.splitlines()[1:] == [
        "  without a tokenizer: the token ids of mixture have no names; give the model ids"
    ]
    assert not (found.folder / "tokenizer.json").exists()
    assert "the token ids of mixture have no names" in (found.folder / "README.md").read_text()


def test_the_byte_alphabet_is_gpt2s():
    from tokenizers.pre_tokenizers import ByteLevel

    others = [byte for byte in range(256) if byte not in PRINTABLE]
    assert {chr(byte) for byte in PRINTABLE} | {chr(256 + n) for n in range(len(others))} == set(ByteLevel.alphabet())


def test_the_card_of_a_transfer(exported):
    found = exported["haystack"]
    card = (found.folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "transformers"
    parent = exported["dyck"].run
    rows = [line for line in card.splitlines() if line.startswith(f"| {parent.id}") or f"| {found.run.id}" in line]
    assert [row.split("|")[2].strip() for row in rows] == ["fresh", f"attn of {parent.id}"]
    for said in (
        "batch_size 4",
        f"{found.run.summary['loss_nats']:.4g}",
        "Generated sequences only",
        "no language model",
        "procpre-interp ",
        f"Run {parent.id}:",
    ):
        assert said in card, said


def phases_of(card: str) -> dict[str, list[str]]:
    """Run -> where its weights are from, the steps that it took, and its tokens, in a card's table of phases."""
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith("| ")]
    return {row[0]: [row[1], *row[-2:]] for row in rows if len(row) == 7}


def test_a_card_counts_what_is_behind_the_model(runs, store):
    """Of a run at an earlier step, and of a parent whose earlier step gave the weights."""
    dyck = runs["dyck"]
    task = TASKS.build("haystack", max_pairs=5)
    parents = (Parent(run=dyck.id, selector="attn", step=2),)
    child = execute(RunConfig(task=task, model=SHAPE, train=TRAIN, parents=parents), store)
    half = ["fresh", "2", f"about {round(dyck.summary['tokens'] / 2):,}"]
    moment = moment_named(f"{dyck.id}@2", store)
    assert phases_of(model_card(moment, moment.model(store), store))[dyck.id] == half
    moment = moment_named(child.id, store)
    found = phases_of(model_card(moment, moment.model(store), store))
    assert found[dyck.id] == half
    assert found[child.id] == [f"attn of {dyck.id}@2", "4", f"{child.summary['tokens']:,}"]
    moment = moment_named(child.id, store, stage="phase1")
    card = model_card(moment, moment.model(store), store)
    assert phases_of(card)[dyck.id] == half
    assert "On validation data" in card
    moment = moment_named(child.id, store, stage="transplanted")
    assert phases_of(model_card(moment, moment.model(store), store))[child.id][1:] == ["0", "0"]


def test_the_card_of_text_names_the_corpus_but_no_path(exported):
    card = (exported["bytes"].folder / "README.md").read_text()
    assert "files:rows.jsonl" in card
    assert "private" not in card
    assert not re.search(r"files:/", card)
    for said in ("bits per byte", "Licence of the corpus: ", "Do not use it", "object of study"):
        assert said in card, said


@pytest.mark.parametrize(
    ("corpora", "said"),
    [
        ({"files": SimpleNamespace(about=SimpleNamespace(licence="CC0-1.0"))}, "CC0-1.0"),
        ({}, "not recorded; find out"),  # of a plugin that is not loaded
    ],
)
def test_the_card_has_the_licence_that_the_corpus_declares(corpora, said, runs, store, monkeypatch):
    monkeypatch.setattr("procpre_interp.views.model_card.CORPORA", corpora)
    moment = moment_named(runs["bytes"].id, store)
    assert f"Licence of the corpus: {said}" in model_card(moment, moment.model(store), store)


def test_no_path_of_a_users_files_is_published():
    spec = "bpe:300@files:/home/me+you/private/a.txt+docstrings"
    task = {"name": "text", "tokenizer": spec, "corpus": "files:/home/me/b"}
    found = _published({"task": {"name": "mixture", "tasks": [task]}})["task"]["tasks"][0]
    assert found == {"name": "text", "tokenizer": "bpe:300@files:a.txt+docstrings", "corpus": "files:b"}
    assert list(corpora_of({"name": "shuffled", "task": task})) == ["files:b"]
    assert list(corpora_of({"name": "text"})) == ["python-stdlib"]


def test_a_parent_that_is_gone_is_said(runs, tmp_path):
    run = runs["haystack"]
    alone = RunStore(tmp_path / "alone")
    export_run(run, alone, steps=run.steps)
    export([run.id, "--to", str(tmp_path / "to"), "--store", str(alone.path)])
    card = (tmp_path / "to" / "README.md").read_text()
    assert f"the parents {runs['dyck'].id} are no longer in the store" in card


@pytest.mark.parametrize(
    ("which", "stage", "said"),
    [
        ("haystack@2", "finished", "On validation data"),
        ("haystack", "phase1", "On test data"),
        ("haystack", "transplanted", "training had not begun"),
    ],
)
def test_steps_and_stages(which, stage, said, runs, store, tmp_path):
    name, at, step = which.partition("@")
    export([runs[name].id + at + step, "--to", str(tmp_path / "to"), "--stage", stage, "--store", str(store.path)])
    assert said in (tmp_path / "to" / "README.md").read_text()
    vocabulary = json.loads((tmp_path / "to" / "config.json").read_text())["vocab_size"]
    source = runs["dyck" if stage == "phase1" else "haystack"]
    assert vocabulary == load_task(source).d_vocab


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RUN"),
        (["RUN"], "--to"),
        (["nothing", "--to", "new"], "no run 'nothing'"),
        (["RUN@3", "--to", "new"], "keeps no weights of step 3"),
        (["RUN", "--to", "new", "--stage", "phase1"], "has no parents"),
        (["RUN", "--to", "full"], "full: is not empty"),
        (["RUN", "--to", "file"], "file: exists and is no folder"),
        (["RUN", "--to", "link"], "link: exists and is no folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(arguments, said, runs, store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    before = sorted(tmp_path.rglob("*"))
    arguments = [argument.replace("RUN", runs["dyck"].id) for argument in arguments]
    assert main(["export", *arguments, "--store", str(store.path)]) in (1, 2)
    assert said in complaint(capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_is_filled_and_a_failure_leaves_it(runs, store, tmp_path, monkeypatch, capsys):
    (tmp_path / "to").mkdir()
    command = ["export", runs["dyck"].id, "--to", str(tmp_path / "to"), "--store", str(store.path)]
    with monkeypatch.context() as patch:

        def fail(*arguments: object, **options: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr("procpre_interp.pipeline.pretrained_folder.save_huggingface", fail)
        assert main(command) == 1
    assert "No space left" in complaint(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["to"]
    assert not list((tmp_path / "to").iterdir())
    assert main(command) == 0
    assert (tmp_path / "to" / "model.safetensors").is_file()
    assert main(command) == 1, "never over what is there"
    assert "is not empty" in complaint(capsys).splitlines()[-1]


def test_a_folder_that_another_process_made_meanwhile_is_kept(tmp_path):
    def fill() -> None:
        with atomic_files.atomic_folder(tmp_path / "to") as temporary:
            (temporary / "file").write_text("ours")
            (tmp_path / "to").mkdir()
            (tmp_path / "to" / "file").write_text("theirs")

    with pytest.raises(OSError, match="not empty"):
        fill()
    assert (tmp_path / "to" / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_what_a_killed_writer_left_goes_and_what_a_living_one_has_stays(tmp_path):
    killed = tmp_path / f".to.{'0' * 12}.tmp"
    killed.mkdir()
    (killed / "model.safetensors").write_bytes(b"gigabytes")
    other = tmp_path / f".too.{'0' * 12}.tmp"  # of another folder
    other.mkdir()
    beside: list[Path] = []

    def write() -> None:
        with atomic_files.atomic_folder(tmp_path / "to") as first:
            assert not killed.exists()
            (first / "file").write_text("first")
            with atomic_files.atomic_folder(tmp_path / "to") as second:
                (second / "file").write_text("second")
                beside.extend([first, second])
            assert (first / "file").read_text() == "first"

    with pytest.raises(OSError, match="not empty"):
        write()
    assert len(set(beside)) == 2
    assert (tmp_path / "to" / "file").read_text() == "second"
    assert {path.name for path in tmp_path.iterdir()} == {"to", other.name}


def test_characters_are_written_as_characters(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("\n".join(f"What is {i} + {i}?\n{2 * i}" for i in range(4000)))
    task = TASKS.build("text", corpus=f"files:{tmp_path / 'text.txt'}", tokenizer="characters", length=16).resolve()
    files = tokenizer_files(task, 16)
    written, ours = Model.from_str(files.texts["tokenizer.json"]), opened(task).tokenizer()
    text = "What is 3*x + 1?\n ~{}[]\\"
    ids = written.encode(text).ids
    assert ids == ours.encode([text])[0].tolist()
    assert written.decode(ids) == text
    assert files.end == ours.end_of_document == task.d_vocab - 1
