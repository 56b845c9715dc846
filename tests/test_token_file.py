"""Corpora larger than memory: packed in parts, the same files as at once."""

import hashlib
import json
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from procpre_interp.data import documents, token_file
from procpre_interp.data.corpus import Corpus, SourceFile, build_corpus
from procpre_interp.data.documents import DocumentFile, corpus_hash, pieces, read_documents
from procpre_interp.data.semantic.tokenizers import train_tokenizer
from procpre_interp.data.token_file import build_token_file

WORDS = np.array(["tensor", "of", "shape", "größe", "漢字", "x=1", "\n", "\n\n", "don't", "  ", "a\u2028b", "<|x|>"])


def text(seed: int, n: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, n))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))


def pack(corpus: str, tokenizer: str) -> dict[str, str]:
    """SHA-256 of the files of the token file."""
    found = build_corpus(corpus)
    folder = build_token_file(found, corpus_hash(found), tokenizer).folder
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def write(kind: str, folder: Path) -> str:
    texts = [text(i, 3 + i % 60) for i in range(300)]
    path = folder / f"corpus.{kind}"
    if kind == "jsonl":
        content = "".join(json.dumps({"text": each}) + "\n" for each in texts)
    elif kind == "txt":
        content = "<|endoftext|>".join(texts)
    else:
        content = text(0, 20_000)
    path.write_text(content, encoding="utf-8")
    return f"files:{path}"


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
@pytest.mark.parametrize("kind", ["jsonl", "txt", "md"])
def test_what_is_packed_in_parts_is_what_is_packed_at_once(kind, tokenizer, tmp_path, monkeypatch):
    corpus = write(kind, tmp_path)
    whole = pack(corpus, tokenizer)
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "another"))
    for module, name, value in (
        (documents, "PART_BYTES", 100),
        (documents, "MEMORY_BYTES", 1000),
        (documents, "PIECE_CHARACTERS", 50),
        (token_file, "CHARACTERS_AT_ONCE", 120),
        (token_file, "DOCUMENTS_AT_ONCE", 3),
    ):
        monkeypatch.setattr(module, name, value)
    assert pack(corpus, tokenizer) == whole


def test_the_line_of_an_error_is_counted_over_all_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "PART_BYTES", 64)
    rows = [json.dumps({"text": f"row {i}"}) for i in range(100)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows, "{", *rows]))
    with pytest.raises(ValueError, match=r"rows.jsonl, line 101: not JSON"):
        read_documents(build_corpus(f"files:{tmp_path / 'rows.jsonl'}"))


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeUp(Corpus):
    """Documents without a file, made while they are read."""

    name = "made-up"
    n: int

    def files(self) -> list[SourceFile]:
        return []

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        assert not list(contents)
        return (f"{i} " + "some words of a document. " * 40 for i in range(self.n))


def peak(tokenizer: str, n: int, cache: Path) -> int:
    """Most bytes that packing `n` documents of a kilobyte had allocated at once."""
    corpus = MadeUp(n=n)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PROCPRE_CACHE", str(cache))
        tracemalloc.start()
        try:
            found = build_token_file(corpus, corpus_hash(corpus), tokenizer)
            assert sum(size.documents for size in found.splits.values()) == n
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
def test_memory_does_not_grow_with_the_corpus(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MEMORY_BYTES", 2**17)
    monkeypatch.setattr(token_file, "CHARACTERS_AT_ONCE", 2**16)
    monkeypatch.setattr(token_file, "SAMPLE_BYTES", 2**16)
    small, large = peak(tokenizer, 500, tmp_path / "small"), peak(tokenizer, 2000, tmp_path / "large")
    assert large < small + 2**18, "the larger one has 1.5 MB more"


def test_pieces_make_the_same_tokens(monkeypatch):
    size = 2000
    monkeypatch.setattr(documents, "PIECE_CHARACTERS", size)
    whole = text(3, 10 * size)
    cut = list(pieces(whole))
    assert len(cut) > 1
    assert "".join(cut) == whole
    assert max(map(len, cut)) < 1.2 * size
    tokenizer = train_tokenizer("bpe:400", [whole])
    assert np.array_equal(np.concatenate(tokenizer.encode(cut)), tokenizer.encode([whole])[0])
    assert train_tokenizer("bpe:400", cut).hash == tokenizer.hash
    assert list(pieces("漢" * 2 * size)) == ["漢" * 2 * size]
    assert list(pieces("")) == [""]


def test_a_sample_is_bounded_and_a_function_of_the_documents():
    texts = [text(i, 40) for i in range(2000)]
    ordered, reversed_ = DocumentFile(), DocumentFile()
    for part, order in ((ordered, texts), (reversed_, texts[::-1])):
        for each in order:
            part.append(each.encode(), len(each))
    size = sum(len(each.encode()) for each in texts)
    assert ordered.bytes == size
    assert ordered.characters == sum(map(len, texts))
    assert list(ordered.sample(size)) == list(ordered) == texts
    drawn = list(ordered.sample(size // 8))
    assert sum(len(each.encode()) for each in drawn) == pytest.approx(size / 8, rel=0.15)
    assert sorted(drawn) == sorted(reversed_.sample(size // 8))
    assert set(drawn) < set(ordered.sample(size // 4))
    for part in (ordered, reversed_):
        part.close()


def test_a_tokenizer_of_a_large_corpus_learns_from_a_sample(tmp_path, monkeypatch):
    corpus = write("jsonl", tmp_path)
    with read_documents(build_corpus(corpus)) as read:
        train = read.by_split["train"]
        limit = train.bytes // 3
        expected = train_tokenizer("bpe:400", train.sample(limit)).hash
        of_all = train_tokenizer("bpe:400", train).hash
    assert expected != of_all
    monkeypatch.setattr(token_file, "SAMPLE_BYTES", limit)
    found = build_corpus(corpus)
    assert build_token_file(found, corpus_hash(found), "bpe:400").tokenizer_hash == expected


def test_a_large_file_is_hashed_once_and_again_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "LARGE_BYTES", 100)
    hashed: list[str] = []

    def new_process() -> None:
        token_file._sha256.cache_clear()
        hashed.clear()

    def sha256(path: str) -> str:
        hashed.append(Path(path).name)
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    monkeypatch.setattr(token_file.checksums, "sha256", sha256)
    corpus = build_corpus(write("jsonl", tmp_path))
    key = corpus_hash(corpus)
    folder = build_token_file(corpus, key, "byte").folder
    large = {path.name for path in folder.iterdir() if path.stat().st_size > 100} - {"manifest.json"}
    assert "train.bin" in large
    # What was written just now could change within the same tick of the clock.
    assert not (folder / token_file.CHECKED).exists()
    for path in folder.iterdir():
        os.utime(path, (1e9, 1e9))
    for expected in (large, set[str]()):
        new_process()
        assert token_file.find_token_file(key, "byte") is not None
        assert large & set(hashed) == expected
    content = (folder / "train.bin").read_bytes()
    (folder / "train.bin").write_bytes(content[:-1] + b"?")
    new_process()
    assert token_file.find_token_file(key, "byte") is None
    (folder / "train.bin").write_bytes(content)
    new_process()
    assert token_file.find_token_file(key, "byte") is not None
    assert "train.bin" in hashed
    # A note that is none is worth nothing.
    for note in (b"", b"[]", b'{"train.bin": 1}', b'{"train.bin": {"stamp": 1}}', b"\xff"):
        (folder / token_file.CHECKED).write_bytes(note)
        new_process()
        assert token_file.find_token_file(key, "byte") is not None
        assert large <= set(hashed)
