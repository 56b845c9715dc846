"""Data sets of the Hugging Face hub, tested on local parquet files: the real library, and no network."""

import sys
from collections import Counter

import pandas as pd
import pytest

from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.semantic import huggingface
from procpre_interp.data.semantic.huggingface import HuggingFace
from tests.documents import read_all


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def rows(monkeypatch):
    """The rows of a data set of our own, and how many of them were skipped."""
    texts: list[str] = []
    skips: list[int] = []

    def open_rows(path, config, skip):
        skips.append(skip)
        return iter([{"text": text} for text in texts][skip:])

    monkeypatch.setattr(huggingface, "open_rows", open_rows)
    return texts, skips


def documents(corpus) -> list[str]:
    contents = [(file.name, file.path.read_bytes()) for file in corpus.files()]
    return list(corpus.documents(contents, Counter()))


def test_a_local_parquet_file_is_streamed_by_the_library(tmp_path):
    pytest.importorskip("datasets")
    texts = [f"Row {i}.\nIt has two lines, größer." for i in range(300)]
    pd.DataFrame({"n": range(300), "content": texts}).to_parquet(tmp_path / "rows.parquet")
    corpus = build_corpus(f"huggingface:{tmp_path / 'rows.parquet'}")
    assert corpus.state() == "to be fetched"
    assert documents(corpus) == texts
    assert corpus.state() == "in the cache"
    (tmp_path / "rows.parquet").unlink()
    assert len(read_all(corpus)[1]) == 300
    assert corpus.versions()["datasets"]


@pytest.mark.parametrize("harm", ["truncated", "empty", "no columns"])
def test_a_damaged_parquet_file_is_one_line(tmp_path, harm):
    pytest.importorskip("datasets")
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"body": [f"Row {i}." for i in range(1000)]}).to_parquet(path)
    if harm != "no columns":
        path.write_bytes(path.read_bytes()[:2000] if harm == "truncated" else b"")
    with pytest.raises((ValueError, OSError), match=r"^corpus huggingface:.*rows\.parquet") as caught:
        build_corpus(f"huggingface:{path}").files()
    assert "\n" not in str(caught.value)
    assert harm != "no columns" or "its columns are: body" in str(caught.value)


def test_without_the_library_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(OSError, match=r"datasets is not installed \(`pip install datasets`\)\. Corpora that"):
        build_corpus("huggingface:allenai/c4:en").files()


def test_reading_ends_after_the_megabytes_asked_for(rows, monkeypatch):
    texts, _ = rows
    monkeypatch.setattr(huggingface, "FILE_BYTES", 300_000)
    texts += [f"{i:05}" + "x" * 99_995 for i in range(40)]
    read = build_corpus("huggingface:some/set@1")
    assert documents(read) == texts[:10]
    assert [file.name for file in read.files()] == ["00000.jsonl", "00001.jsonl", "00002.jsonl", "00003.jsonl"]
    assert len(documents(build_corpus("huggingface:some/set:config@2"))) == 20


def test_an_interrupted_reading_goes_on_after_the_last_whole_file(rows, monkeypatch):
    texts, skips = rows
    monkeypatch.setattr(huggingface, "FILE_BYTES", 30)
    texts += [f"Document {i}" for i in range(20)]
    opened = huggingface.open_rows

    def interrupted(path, config, skip):
        for i, row in enumerate(opened(path, config, skip)):
            if i == 8:
                raise ConnectionError("the network\nis gone")
            yield row

    monkeypatch.setattr(huggingface, "open_rows", interrupted)
    corpus = build_corpus("huggingface:some/set")
    with pytest.raises(OSError, match="corpus huggingface:some/set could not be fetched: the network is gone. Corpora"):
        corpus.files()
    monkeypatch.setattr(huggingface, "open_rows", opened)
    assert documents(corpus) == texts
    assert skips == [0, 6]


def test_the_lines_of_an_article_of_wikitext_are_a_document(rows):
    texts, _ = rows
    first = ["", " = Title = \n", "", " A line . \n", " = = Section = = \n", " Another . \n", ""]
    texts += [*first, " = Second = \n", " Its line . \n"]
    assert documents(build_corpus("huggingface:some/wikitext")) == ["", "".join(first[1:]), "".join(texts[7:])]


def test_lists_of_tokens_are_joined(monkeypatch):
    monkeypatch.setattr(huggingface, "open_rows", lambda *_: iter([{"id": 1, "code": ["int", "a", ";"]}]))
    assert documents(build_corpus("huggingface:google/code")) == ["int a ;"]


def test_wikitext_has_a_short_name_unless_there_is_such_a_folder(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(huggingface, "open_rows", lambda *given: asked.append(given) or iter([{"text": "Some text."}]))
    for name in ("wikitext", "wikitext@2", "wikitext:wikitext-2-raw-v1"):
        build_corpus(f"huggingface:{name}").files()
    whole = ("Salesforce/wikitext", "wikitext-103-raw-v1", 0)
    assert asked == [whole, whole, ("wikitext", "wikitext-2-raw-v1", 0)]
    (tmp_path / "wikitext").mkdir()
    monkeypatch.chdir(tmp_path)
    build_corpus("huggingface:wikitext").files()
    assert asked[3:] == [("wikitext", None, 0)]


@pytest.mark.parametrize("name", ["a/b:c@5", "a/b:c", "a/b@5", "a/b", "/folder/rows.parquet"])
def test_names(name):
    corpus = build_corpus(f"huggingface:{name}")
    assert isinstance(corpus, HuggingFace)
    assert str(corpus) == f"huggingface:{name}"


@pytest.mark.parametrize("name", ["a/b:c:d", "a/b@", "a/b@0", "a/b@5MB", ":c"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="write huggingface:NAME"):
        build_corpus(f"huggingface:{name}")
