"""Corpora, tokenizers, token files and the task `text`."""

import errno
import gc
import json
import logging
import math
import pickle
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procpre_interp.cli import main
from procpre_interp.core import checksums
from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.core.config import content_hash, from_yaml, to_yaml
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.corpus import CORPORA, build_corpus
from procpre_interp.data.documents import SHORTEST_BLOCK, Documents, blocks, corpus_hash, document_split, read_documents
from procpre_interp.data.semantic import language
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.semantic.tokenizers import load_tokenizer, train_tokenizer, vocabulary_size
from procpre_interp.data.task import is_separable, prompt_overlap
from procpre_interp.data.token_file import find_token_file

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))


def write_rows(path: Path, documents: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return f"files:{path}"


def ideographs(n: int) -> list[str]:
    """Documents that share no character: any token of a window tells which document it came from."""
    return [chr(0x4E00 + i) * 20 for i in range(n)]


@pytest.fixture
def corpus(tmp_path) -> str:
    return write_rows(tmp_path / "rows.jsonl", ideographs(300))


def build(corpus: str, tokenizer: str = "byte", length: int = 32) -> Text:
    task = TASKS.build("text", corpus=corpus, tokenizer=tokenizer, length=length).resolve()
    assert isinstance(task, Text)
    return task


def documents_of(corpus: str) -> dict[str, list[str]]:
    """The documents of each split."""
    with read_documents(build_corpus(corpus)) as documents:
        return {split: list(texts) for split, texts in documents.by_split.items()}


@pytest.fixture
def read() -> Iterator[Callable[[str], Documents]]:
    """Reads a corpus; what was read is closed after the test."""
    with ExitStack() as opened:
        yield lambda corpus: opened.enter_context(read_documents(build_corpus(corpus)))


def token_file(task: Text):
    found = find_token_file(task.corpus_hash, task.tokenizer)
    assert found
    return found


# The split


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
def test_windows_hold_tokens_of_their_own_split_alone(corpus, tokenizer):
    task = build(corpus, tokenizer)
    decode = token_file(task).tokenizer().decode
    by_split = documents_of(corpus)
    for split in SPLITS:
        batch = task.split_batch(400, split, generator=stream(0, split))
        drawn = set("".join(decode(row) for row in batch.tokens.tolist())) - set("<|endoftext|>\ufffd")
        assert len(drawn) > 10
        assert drawn <= {document[0] for document in by_split[split]}
    assert task.batch(50, generator=stream(1)).tokens.equal(task.split_batch(50, "train", generator=stream(1)).tokens)


def test_copies_share_a_split_and_others_do_not_move_a_document(tmp_path):
    once = documents_of(write_rows(tmp_path / "once.jsonl", ideographs(100)))
    more = [*ideographs(200)[::-1], *ideographs(50)]
    thrice = documents_of(write_rows(tmp_path / "more.jsonl", more))
    assert sum(map(len, thrice.values())) == 250
    for split in SPLITS:
        assert set(once[split]) <= set(thrice[split])
        assert all(set(thrice[split]).isdisjoint(thrice[other]) for other in SPLITS if other != split)


def test_split_shares_are_14_1_and_1_of_16():
    counts = Counter(document_split(str(i)) for i in range(16_000))
    assert counts["train"] == pytest.approx(14_000, abs=200)
    assert counts["validation"] == pytest.approx(1_000, abs=150)


def test_the_helpers_that_every_task_has_work_on_text(corpus):
    task = build(corpus)
    assert is_separable(task)
    assert prompt_overlap(task, 500) == 0


# Batches


def test_batch_layout(corpus):
    task = build(corpus, "bpe:300", length=24)
    batch = task.split_batch(7, "validation", generator=stream(0))
    assert (task.n_ctx, task.d_vocab) == (24, 300)
    assert batch.tokens.shape == (7, 24)
    assert batch.tokens[:, 1:].equal(batch.targets[:, :-1])
    assert batch.loss_mask[:, :-1].all()
    assert not batch.loss_mask[:, -1].any()
    assert batch.lengths.tolist() == [24] * 7
    assert 0 <= batch.tokens.min() <= batch.tokens.max() < task.d_vocab


def test_windows_start_anywhere(corpus):
    # 200 bytes reach over four documents, so each window has but one place.
    task = build(corpus, length=200)
    whole = token_file(task).tokens("train")
    rows = task.batch(300, generator=stream(0)).tokens.numpy().astype(whole.dtype)
    starts = np.array([whole.tobytes().index(row.tobytes()) / 2 for row in rows]) / (len(whole) - 200)
    assert starts.min() < 0.03
    assert starts.max() > 0.97
    assert starts.mean() == pytest.approx(0.5, abs=0.06)


def test_a_window_as_long_as_its_split_has_one_place(corpus):
    sizes = token_file(build(corpus)).splits
    split = min(SPLITS, key=lambda split: sizes[split].tokens)
    task = build(corpus, length=sizes[split].tokens)
    row = task.split_batch(1, split, generator=stream(0)).tokens[0]
    assert row.tolist() == token_file(task).tokens(split).tolist()


def test_the_same_stream_gives_the_same_batch_whether_resolved_or_not(corpus):
    resolved = build(corpus, "bpe:300")
    plain = Text(corpus=corpus, tokenizer="bpe:300", length=32)
    first = resolved.split_batch(20, "test", generator=stream(3))
    assert first.tokens.equal(plain.split_batch(20, "test", generator=stream(3)).tokens)
    assert not first.tokens.equal(resolved.split_batch(20, "test", generator=stream(4)).tokens)


def test_a_resolved_task_is_a_value_with_an_identity(corpus):
    plain = Text(corpus=corpus, tokenizer="byte", length=32)
    resolved = plain.resolve()
    assert resolved == plain.resolve() == resolved.resolve()
    assert len({content_hash(plain), content_hash(resolved)}) == 2
    assert pickle.loads(pickle.dumps(resolved)) == resolved
    assert hash(resolved) == hash(from_yaml(Text, to_yaml(resolved)))


def test_an_example_is_one_line(corpus):
    task = build(corpus)
    assert task.example([*b"a\n\tb\xe4\xb8\x80", 256, *b"\xff\r"]) == "a\\n\\tb一<|endoftext|>\ufffd\\r"


# Tokenizers

SAMPLE = [f"def f_{i}(x):\n    return x + {i}  # größer, 漢字\n" for i in range(50)]
TOKENIZERS = {spec: train_tokenizer(spec, SAMPLE) for spec in ("byte", "bpe:257", "bpe:400", "bpe:5000")}


@pytest.mark.parametrize("spec", TOKENIZERS)
@settings(deadline=None)
@given(text=st.text() | st.sampled_from(SAMPLE) | st.just("a <|endoftext|> that was spelled out"))
def test_tokens_give_the_text_back(spec, text):
    tokenizer = TOKENIZERS[spec]
    (tokens,) = tokenizer.encode([text])
    assert tokenizer.decode(tokens.tolist()) == text
    assert tokenizer.end_of_document not in tokens
    assert tokenizer.d_vocab == vocabulary_size(spec)
    assert (tokens < tokenizer.d_vocab).all()


@pytest.mark.parametrize("spec", TOKENIZERS)
def test_a_tokenizer_is_kept_whole(spec):
    tokenizer = TOKENIZERS[spec]
    loaded = load_tokenizer(spec, tokenizer.to_json())
    assert loaded.hash == tokenizer.hash == train_tokenizer(spec, SAMPLE).hash
    assert all(np.array_equal(a, b) for a, b in zip(loaded.encode(SAMPLE), tokenizer.encode(SAMPLE)))


def test_bpe_shortens_what_it_was_trained_on():
    n_byte, n_bpe = (sum(map(len, TOKENIZERS[spec].encode(SAMPLE))) for spec in ("byte", "bpe:400"))
    assert n_bpe < n_byte / 2


def test_bpe_learns_from_the_training_split_alone(tmp_path):
    # The held-out documents are thousands of times "qz", which no training document contains.
    texts = [f"{i} abcabcabc" if document_split(f"{i} abcabcabc") == "train" else "" for i in range(100)]
    held_out = [t for i in range(400) if document_split(t := f"{i} " + "qz" * 500) != "train"]
    task = build(write_rows(tmp_path / "rows.jsonl", texts + held_out), "bpe:300")
    encode = token_file(task).tokenizer().encode
    assert [len(tokens) for tokens in encode([" abcabcabc", " qzqzqzqz"])] == [1, 9]


# Perplexity and bits per byte


def test_bits_per_byte_by_hand(tmp_path):
    # Documents of 4 bytes are 5 tokens, their end included; ln 16 nats per token are 4 bits, so 5 bits per byte.
    task = build(write_rows(tmp_path / "rows.jsonl", [f"{i:04}" for i in range(300)]), length=5)
    for split in SPLITS:
        size = token_file(task).splits[split]
        assert (size.tokens, size.bytes) == (5 * size.documents, 4 * size.documents)
        metrics = task.extra_metrics(math.log(16), split)
        assert metrics == pytest.approx({"perplexity": 16, "bits_per_byte": 5})
    assert task.extra_metrics(0.0, "test") == {"perplexity": 1, "bits_per_byte": 0}
    assert task.extra_metrics(1e4, "test")["perplexity"] == math.inf
    assert math.isnan(task.extra_metrics(math.nan, "test")["perplexity"])


def test_other_tasks_have_no_extra_metrics():
    assert TASKS.build("dyck", k=2, length=8).extra_metrics(1.0, "test") == {}


# The token file


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=1, max_size=30), max_size=30), spec=st.sampled_from(["byte", "bpe:300"]))
def test_a_token_file_holds_every_document_with_its_end(tmp_path, texts, spec):
    corpus = write_rows(tmp_path / "rows.jsonl", ideographs(200) + texts)
    by_split = documents_of(corpus)
    found = token_file(build(corpus, spec))
    for split in SPLITS:
        tokens = found.tokens(split)
        assert found.tokenizer().decode(tokens.tolist()) == "".join(t + "<|endoftext|>" for t in by_split[split])
        size = found.splits[split]
        assert size.documents == len(by_split[split]) == (tokens == vocabulary_size(spec) - 1).sum()
        assert size.bytes == sum(len(text.encode()) for text in by_split[split])


def test_tokens_are_mapped_and_the_file_is_used_again(corpus, caplog):
    caplog.set_level(logging.INFO)
    task = build(corpus)
    tokens = token_file(task).tokens("train")
    assert isinstance(tokens, np.memmap)
    assert tokens.dtype == np.dtype("<u2")
    written = (token_file(task).folder / "train.bin").stat()
    task.prepare()
    build(corpus)
    assert (token_file(task).folder / "train.bin").stat() == written
    assert len(caplog.records) == 1
    meta = json.loads((token_file(task).folder / "meta.json").read_text())
    assert (meta["corpus"], meta["corpus_hash"], meta["skipped"]) == (corpus, task.corpus_hash, {})
    assert list(json.loads((token_file(task).folder / "sources.json").read_text())) == ["rows.jsonl"]


def test_a_large_vocabulary_takes_four_bytes(corpus):
    assert token_file(build(corpus, "bpe:70000")).tokens("train").dtype == np.dtype("<u4")


@pytest.mark.parametrize("harm", ["truncate", "remove", "garbage"])
def test_a_damaged_token_file_is_built_again(corpus, caplog, harm):
    task = build(corpus)
    before = task.batch(10, generator=stream(0)).tokens
    path = token_file(task).folder / ("manifest.json" if harm == "garbage" else "train.bin")
    content = path.read_bytes()
    path.unlink()
    if harm != "remove":
        path.write_bytes(content[:-100] if harm == "truncate" else b"{")
    assert task.batch(10, generator=stream(0)).tokens.equal(before)
    (notice,) = caplog.messages
    assert "damaged" in notice
    assert "\n" not in notice
    caplog.clear()
    task.prepare()
    assert not caplog.records


BUILD = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from procpre_interp.data import TASKS
print(TASKS.build("text", corpus=sys.argv[1], tokenizer="bpe:1000", length=32).resolve().tokenizer_hash)
"""


def test_two_processes_at_once_build_one_file(corpus, tmp_path, monkeypatch):
    command = [sys.executable, "-c", BUILD, corpus]
    processes = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    hashes = {out.strip() for out, _ in outputs}
    assert sum(err.count("building the token file") for _, err in outputs) == 1
    assert len(list((cache_folder() / "tokens").iterdir())) == 1
    # And another process trains the same tokenizer.
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "another"))
    assert hashes == {build(corpus, "bpe:1000").tokenizer_hash}


def test_the_leftovers_of_a_killed_process_are_removed(corpus):
    folder = token_file(build(corpus)).folder
    leftover = folder.with_name(f"{folder.name}.x1y2.building")
    folder.rename(leftover)
    assert token_file(build(corpus)).folder == folder
    assert not leftover.exists()


def test_a_cache_that_cannot_be_written_is_one_clear_line(corpus, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot write the token file of .* set PROCPRE_CACHE"):
        build(corpus)


def test_a_full_disk_leaves_nothing_behind(corpus, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(checksums, "seal", full)
        with pytest.raises(OSError, match=r"No space left on device; set PROCPRE_CACHE"):
            build(corpus)
    assert not list((cache_folder() / "tokens").iterdir())
    build(corpus)


def test_a_changed_corpus_is_not_taken_for_the_old_one(tmp_path, corpus):
    old = build(corpus)
    before = old.batch(10, generator=stream(0)).tokens
    write_rows(tmp_path / "rows.jsonl", ideographs(301))
    with pytest.raises(ValueError, match=r"its files changed since `resolve` .* leave out corpus_hash"):
        old.resolve()
    assert build(corpus).corpus_hash != old.corpus_hash
    # The token file still holds what the task names: stored runs go on.
    old.prepare()
    assert old.batch(10, generator=stream(0)).tokens.equal(before)
    for path in token_file(old).folder.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="its files changed"):
        old.prepare()


def test_another_tokenizer_of_the_same_name_is_refused(corpus):
    task = TASKS.build("text", corpus=corpus, tokenizer="bpe:300", length=8, tokenizer_hash="0" * 16)
    with pytest.raises(ValueError, match="its tokenizer bpe:300 changed"):
        task.resolve()


# What can be read


def test_a_folder_of_many_kinds(tmp_path, read):
    root = tmp_path / "folder"
    (root / "sub").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git" / "hidden.txt").write_text("hidden")
    (root / "a.txt").write_text("first<|endoftext|>second<|endoftext|>\n")
    (root / "b.md").write_text("\ufeffmarked <|endoftext|> down")
    (root / "latin.txt").write_bytes("größe".encode("latin-1"))
    (root / "image.png").write_bytes(b"\x00")
    (root / "dangling.txt").symlink_to(tmp_path / "nowhere")
    (root / "circle.txt").symlink_to(root / "circle.txt")
    (root / "linked.py").symlink_to(root / "sub" / "c.py")
    (root / "sub" / "c.py").write_text("code")
    (root / "sub" / "rows.jsonl").write_text(
        '{"content": "row\u2028"}\n\n{"text": "x", "content": 0}\n{"text": "\\ud800"}\n'
    )
    pd.DataFrame({"n": [1, 2, 3], "content": ["p", None, "q"]}).to_parquet(root / "z.parquet")
    documents = read(f"files:{root}")
    texts = [text for split in SPLITS for text in documents.by_split[split]]
    expected = ["first", "second", "marked <|endoftext|> down", "code", "code", "row\u2028", "x", "p", "q"]
    assert sorted(texts) == sorted(expected)
    assert documents.skipped == {
        "broken link": 2, "not UTF-8": 1, "not Unicode": 1, "row without text": 1,
    }  # fmt: skip
    assert list(documents.files) == [
        "a.txt", "b.md", "latin.txt", "linked.py", "sub/c.py", "sub/rows.jsonl", "z.parquet",
    ]  # fmt: skip
    # The names within the folder and the contents are the identity, not where the folder is.
    moved = root.rename(tmp_path / "moved")
    (moved / "linked.py").unlink()
    (moved / "linked.py").write_text("code")
    assert corpus_hash(build_corpus(f"files:{moved}")) == documents.hash
    (moved / "a.txt").rename(moved / "aa.txt")
    assert corpus_hash(build_corpus(f"files:{moved}")) != documents.hash


def test_what_was_left_out_is_said(tmp_path, caplog):
    write_rows(tmp_path / "rows.jsonl", ideographs(200))
    (tmp_path / "latin.txt").write_bytes(b"\xff")
    build(f"files:{tmp_path}")
    assert caplog.messages == [f"corpus files:{tmp_path}: 200 documents; left out: 1 x not UTF-8"]


def test_python_stdlib_of_this_interpreter():
    task = build("python-stdlib", length=256)
    found = token_file(task)
    sources = json.loads((found.folder / "sources.json").read_text())
    assert {"ast.py", "json/decoder.py"} < set(sources)
    parts = {part for name in sources for part in name.split("/")}
    assert parts.isdisjoint({"test", "tests", "idle_test", "lib2to3", "site-packages", "__pycache__"})
    assert sum(size.documents for size in found.splits.values()) > 400
    assert sum(size.bytes for size in found.splits.values()) > 5e6
    assert json.loads((found.folder / "meta.json").read_text())["versions"]


def test_docstrings_in_the_order_of_the_source():
    source = '''
"""Module."""
if True:
    class A:
        """A."""
        def f(self): """f."""
        x = [lambda: 1]
else:
    async def g():
        r"""g \\d
            indented
        """
        try:
            def h(): """h."""
        except ValueError:
            def i(): """i."""
        finally:
            def j(): "j."
match 1:
    case 1:
        def k(): """k."""
def no(): return "none"
'''
    texts = ["Module.", "A.", "f.", "g \\d\nindented", "h.", "i.", "j.", "k."]
    assert language.docstrings(source) == texts
    assert gc.isenabled()


def test_docstrings_of_installed_packages(tmp_path, monkeypatch, read):
    package = tmp_path / "imaginary"
    (package / "tests").mkdir(parents=True)
    (package / "__init__.py").write_text('"""Package."""\ndef f(): """Same."""\ndef g(): """Same."""\n')
    (package / "a.py").write_text('"""Module a."""\ndef f(): """Same."""\nx = "\\d"\n')
    (package / "broken.py").write_text("def {{name}}")
    (package / "tests" / "b.py").write_text('"""Test."""')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(language, "PACKAGES", ("imaginary", "not_installed"))
    documents = read("docstrings")
    texts = [text for split in SPLITS for text in documents.by_split[split]]
    assert sorted(texts) == ["Module a.", "Package.\n\nSame."]
    assert documents.skipped == {"not Python": 1}
    assert list(documents.files) == ["imaginary/__init__.py", "imaginary/a.py", "imaginary/broken.py"]


# Errors


def test_corpora_are_registered():
    assert {"docstrings", "files", "python-stdlib"} < set(CORPORA)
    assert str(build_corpus("files:a:b")) == "files:a:b"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"corpus": "python-stlib"}, r"unknown corpus 'python-stlib'. Did you mean 'python-stdlib'\?"),
        ({"corpus": "files"}, "write files:PATH"),
        ({"corpus": "files:"}, "write files:PATH"),
        ({"corpus": "python-stdlib:3.11"}, "write python-stdlib"),
        ({"tokenizer": "gpt4"}, "unknown tokenizer 'gpt4'. There are: byte, bpe:SIZE"),
        ({"tokenizer": "byte:8"}, "unknown tokenizer"),
        ({"tokenizer": "bpe:4k"}, "unknown tokenizer"),
        ({"tokenizer": "bpe"}, "unknown tokenizer"),
        ({"tokenizer": "bpe:256"}, "at least 257 ids"),
        ({"length": 1}, "length=1 tokens; a window needs at least 2"),
    ],
)
def test_what_is_typed_wrong_is_refused_at_once(fields, message):
    with pytest.raises(ValueError, match=message):
        TASKS.build("text", **{"corpus": "python-stdlib", "tokenizer": "byte", "length": 8, **fields})


def test_a_path_below_an_unknown_home_names_the_corpus(monkeypatch, capsys):
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(ValueError, match="corpus files:~nobody-of-that-name/x.txt: the home folder"):
        build("files:~nobody-of-that-name/x.txt")
    command = ["train", "--task", "text", "--task.corpus", "files:~nobody-of-that-name/x.txt"]
    assert main(command) == 2
    assert "corpus files:~nobody-of-that-name/x.txt" in capsys.readouterr().err


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_a_damaged_parquet_file_is_named_and_never_an_error_of_the_library(compression, tmp_path, read):
    path = tmp_path / "rows.parquet"
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, rng.integers(0, 999, 40))) for _ in range(200)]
    pd.DataFrame({"text": texts}).to_parquet(path, compression=compression)
    whole, said = path.read_bytes(), []
    for place in range(4, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[place : place + 8] = b"\xff" * 8
        path.write_bytes(damaged)
        try:
            read(f"files:{path}")
        except ValueError as problem:
            said.append(str(problem))
    assert len(said) > 5
    assert all(
        re.match(rf"corpus files:{re.escape(str(path))}, rows.parquet: (a|not a) .*parquet", text) for text in said
    )


CHAPTERS = "".join(f"Sentence {i} of a long text, which goes on.\n{chr(10) if i % 5 == 0 else ''}" for i in range(400))


@pytest.mark.parametrize("kind", ["files", "one book", "one line", "rows"])
def test_a_few_long_documents_are_cut_and_it_is_said(kind, tmp_path, caplog, read):
    text = CHAPTERS if kind != "one line" else CHAPTERS.replace("\n", " ")
    if kind == "rows":
        corpus = write_rows(tmp_path / "rows.jsonl", [text[:9000], text[9000:]])
    else:
        n = 7 if kind == "files" else 1
        for i in range(n):
            (tmp_path / f"{i}.txt").write_text(text[i * len(text) // n : (i + 1) * len(text) // n])
        corpus = f"files:{tmp_path}" if n > 1 else f"files:{tmp_path / '0.txt'}"
    with caplog.at_level(logging.WARNING):
        task = build(corpus)
    assert "cut into" in caplog.text
    assert corpus in caplog.text
    documents = read(corpus)
    assert documents.cut == SHORTEST_BLOCK
    pieces = [piece for pieces in documents.by_split.values() for piece in pieces]
    assert sorted("".join(pieces)) == sorted(text), "no character is lost"
    assert all(document_split(piece) == split for split, pieces in documents.by_split.items() for piece in pieces)
    sizes = token_file(task).splits
    assert sum(size.tokens for size in sizes.values()) == len(text) + len(pieces)
    assert json.loads((token_file(task).folder / "meta.json").read_text())["cut_characters"] == SHORTEST_BLOCK
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        assert build(corpus) == task
    assert not caplog.text, "said once, when the token file is built"


def test_blocks_end_with_a_paragraph_a_line_or_a_word():
    assert list(blocks("ab", 10)) == ["ab"]
    assert list(blocks("a" * 40, 10)) == ["a" * 10, "a" * 30]
    paragraphs = "".join(f"line {i}\nline\n\n" for i in range(30))
    assert all(block.endswith("\n\n") for block in blocks(paragraphs, 50))
    assert all(block.endswith("\n") for block in blocks(paragraphs.replace("\n\n", "\n"), 50))
    assert all(block.endswith(" ") for block in [*blocks("word " * 100, 50)][:-1])
    for text in (paragraphs, "word " * 100, "a" * 1000):
        assert "".join(blocks(text, 50)) == text
        assert all(50 <= len(block) <= 150 for block in blocks(text, 50))


def test_documents_that_fill_every_split_stay_whole(tmp_path, read):
    """However few and long: their numbers are those that they were."""
    long = {document_split(f"{i} " + "long " * 500): f"{i} " + "long " * 500 for i in range(60)}
    assert set(long) == set(SPLITS)
    documents = read(write_rows(tmp_path / "rows.jsonl", list(long.values())))
    assert documents.cut is None
    assert {split: [*texts] for split, texts in documents.by_split.items()} == {split: [t] for split, t in long.items()}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "there is no file or folder /"),
        ("image.png", b"", "cannot read image.png; a file must end in one of: .c "),
        ("empty.txt", b" \n", "no document in 1 files; left out: nothing"),
        ("latin.txt", b"\xff", "no document in 1 files; left out: 1 x not UTF-8"),
        (
            "book.txt",
            b"a long book",
            r"too short: even cut into 1 pieces none is in the .* split.* about 100 pieces of 200 characters are",
        ),
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', "a.jsonl, line 2: not JSON: "),
        ("a.jsonl", b'{"text": "x"}\n' + b"[" * 100_000, "a.jsonl, line 2: not JSON: "),
        ("a.jsonl", b'{"body": "x"}\n', "a.jsonl, line 1: expected an object with a string text or content"),
        ("a.jsonl", b'{"text": 3}\n', "line 1: expected an object with a string"),
        ("a.jsonl", b"[1]\n", "line 1: expected an object with a string"),
        ("a.parquet", b"PAR2", "a.parquet: not a parquet file, or a damaged one: "),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        build(f"files:{tmp_path / name}")
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_parquet_file_without_text_says_what_it_has(tmp_path):
    pd.DataFrame({"body": ["x"], "n": [1]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="no column text or content; there are: body, n"):
        build(f"files:{tmp_path / 'a.parquet'}")


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="no document in 0 files"):
        build(f"files:{tmp_path}")


def test_a_length_beyond_a_split(corpus):
    with pytest.raises(ValueError, match=r"length=100000 is longer than the \d+ tokens of the train split"):
        build(corpus, length=100_000)
    task = build(corpus)
    n_validation = token_file(task).splits["validation"].tokens
    with pytest.raises(ValueError, match=r"tokens of the (validation|test) split"):
        build(corpus, length=n_validation + 1)


# Damage that no size shows


@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "test.bin", "tokenizer.json", "meta.json"])
def test_a_flipped_bit_of_a_token_file_is_noticed_and_it_is_built_again(corpus, caplog, name):
    task = build(corpus, "bpe:300")
    before, path = task.batch(10, generator=stream(0)).tokens, token_file(task).folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert task.batch(10, generator=stream(0)).tokens.equal(before)
    (notice,) = caplog.messages
    assert f"damaged (the content of {name} has changed since it was written): it is built again" in notice
    assert path.read_bytes() != content


def test_stray_files_are_no_part_of_a_token_file(corpus, caplog, monkeypatch):
    sealed = checksums.seal

    def seal(folder: Path, *rest) -> None:
        (folder / ".DS_Store").write_text("stray")
        sealed(folder, *rest)

    monkeypatch.setattr(checksums, "seal", seal)
    task = build(corpus)
    (token_file(task).folder / ".DS_Store").unlink()
    task.prepare()
    assert not caplog.records
