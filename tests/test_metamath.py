"""Derivations of a formal database: the verifier against proofs by hand, and the task against a database of its own."""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task, check_task
from procpre_interp.data.procedural.metamath import MARKS, Metamath, anonymous, in_order
from procpre_interp.data.procedural.metamath_database import WrongProof, derivation, read_theorems
from procpre_interp.data.semantic.packages import FetchError
from tests.formal import A1I, DECLARED, database

ID = "id $p |- ( ph -> ph ) $= ( wi ax-1 ax-2 ax-mp ) AAABZBZFAACAFABBGFBAFCAFADEE $."
"""The compressed proof of set.mm, with formulas that are marked and used again."""


def derived(text: str) -> dict[str, list[str]]:
    return {t.label: [" ".join(f) for f in derivation(t, known)] for t, known in read_theorems(text, "a test")}


def test_a_proof_written_out():
    found = derived(DECLARED + A1I)
    # min and maj are those of ax-mp; what is given is no step.
    assert found == {"a1i": ["|- ( ph -> ( ps -> ph ) )", "|- ( ps -> ph )"]}


def test_a_compressed_proof_is_the_same_as_written_out():
    written_out = (
        "wph wph wph wi wi wph wph wi wph wph ax-1 wph wph wph wi wph wi wi wph wph wph wi wi wph wph wi wi "
        "wph wph wph wi ax-1 wph wph wph wi wph ax-2 ax-mp ax-mp"
    )
    steps = [
        "|- ( ph -> ( ph -> ph ) )",
        "|- ( ph -> ( ( ph -> ph ) -> ph ) )",
        "|- ( ( ph -> ( ( ph -> ph ) -> ph ) ) -> ( ( ph -> ( ph -> ph ) ) -> ( ph -> ph ) ) )",
        "|- ( ( ph -> ( ph -> ph ) ) -> ( ph -> ph ) )",
        "|- ( ph -> ph )",
    ]
    assert derived(DECLARED + ID)["id"] == steps
    assert derived(DECLARED + f"id $p |- ( ph -> ph ) $= {written_out} $.")["id"] == steps


WRONG = {
    "another formula": ("id $p |- ( ph -> ps ) $= wph wps ax-1 $.", "its proof ends with |- ( ph -> ( ps -> ph ) )"),
    "no unification": (
        "${ h $e |- ( ps -> ph ) $.  bad $p |- ps $= wph wps h h ax-mp $. $}",
        "|- ( ps -> ph ) is not what ax-mp needs",
    ),
    "too few": ("bad $p |- ph $= wph ax-1 $.", "ax-1 needs 2 formulas, and 1 are there"),
    "a type": ("bad $p |- ( x -> ( x -> x ) ) $= vx vx ax-1 $.", "ax-1 needs a wff for ph, not a set"),
    "unknown": ("bad $p |- ph $= wph later $.", "later is not known there"),
    "itself": ("bad $p |- ph $= wph bad $.", "bad is not known there"),
    "incomplete": ("bad $p |- ph $= ? $.", "its proof is incomplete"),
    "incomplete letters": ("bad $p |- ph $= ( ax-1 ) AA?B $.", "its proof is incomplete"),
    "a mark of nothing": ("bad $p |- ph $= ( ) Z $.", "nothing is there to be marked"),
    "no mark": ("bad $p |- ph $= ( ) AD $.", "refers to one that was not marked"),
    "cut off": ("bad $p |- ph $= ( wi $.", "cut off"),
    "a letter": ("bad $p |- ph $= ( ) a $.", "'a' in its proof"),
    "more than one": ("bad $p |- ph $= wph wph $.", "its proof ends with wff ph ; wff ph"),
    "not distinct": ("bad $p |- ( A. x ph -> A. x A. x ph ) $= wph vx wal vx ax-5 $.", "ph and x to be distinct"),
    "not said to be": ("bad $p |- ( ps -> A. y ps ) $= wps vy ax-5 $.", "needs (y and ps|ps and y) to be distinct"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_a_proof_that_shows_something_else(name: str):
    proof, said = WRONG[name]
    with pytest.raises(WrongProof, match=said if "distinct" in said else re.escape(said)):
        derived(DECLARED + proof)


def test_variables_that_are_said_to_be_distinct():
    good = "${ $d y ps $.  good $p |- ( ps -> A. y ps ) $= wps vy ax-5 $. $}"
    assert derived(DECLARED + good)["good"] == ["|- ( ps -> A. y ps )"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${ ", "ends within a block"),
        ("$}", "a block ends that did not begin"),
        ("$[ other.mm $]", "must be whole"),
        ("x $a |- ph", "is not followed by $."),
        ("x $p |- ph $. y", "is not followed by $="),
    ],
)
def test_what_is_no_database(text: str, said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        derived(DECLARED + text)


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Metamath:
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    task = TASKS.build("metamath", database=database(tmp_path), symbols=8, length=64)
    assert isinstance(task, Metamath)
    return task


def texts(task: Task, n: int, split, seed: int = 0) -> list[list[str]]:
    batch = task.split_batch(n, split, generator=stream(seed, "test"))
    return [task.example(row[:length].tolist()).split() for row, length in zip(batch.tokens, batch.lengths)]


def test_what_is_to_be_made_is_said_and_then_made(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    task = TASKS.build("metamath", database=database(tmp_path), symbols=8, length=64)
    assert "proofs of file:" in task.to_be_made()
    task.prepare()
    assert task.to_be_made() == ""
    assert "set-mm is to be fetched" in TASKS.build("metamath").to_be_made()


def test_every_derivation_is_a_theorem_and_its_proof_is_what_is_scored(tiny: Metamath):
    check_task(tiny)
    known = derived((Path(tiny.database.removeprefix("file:"))).read_text())
    plain = TASKS.build("metamath", database=tiny.database, symbols=8, length=64, rename=False)
    batch = plain.batch(50, generator=stream(0, "test"))
    for row, mask, length in zip(batch.tokens, batch.loss_mask, batch.lengths):
        words = plain.example(row[:length].tolist()).split()
        proof = words.index("$proof")
        steps = " ".join(words[proof + 1 : -1]).split(" $then ")
        assert words[-1] == "$end"
        assert [f"|- {step}" for step in steps] in known.values()
        assert " ".join(words[:proof]).rpartition("$show ")[2] == steps[-1]
        assert mask.nonzero()[:, 0].tolist() == list(range(proof, int(length) - 1))


def test_a_renamed_derivation_is_one_of_the_same_theorem(tiny: Metamath):
    kinds = {"ph": "wff", "ps": "wff", "ch": "wff", "x": "set", "y": "set"}
    plain = TASKS.build("metamath", database=tiny.database, symbols=8, length=64, rename=False)
    known = {tuple(anonymous(words, kinds)) for words in texts(plain, 400, "train")}
    renamed = texts(tiny, 400, "train")
    assert {tuple(anonymous(words, kinds)) for words in renamed} <= known
    assert len({tuple(words) for words in renamed}) > len({tuple(words) for words in texts(plain, 400, "train")})
    assert any("ch" in words for words in renamed)


def test_theorems_are_in_one_split_whatever_their_variables_are_called(tiny: Metamath):
    kinds = {"ph": "wff", "ps": "wff", "ch": "wff"}
    splits = [
        {tuple(anonymous(words, kinds)) for words in texts(tiny, 300, split, seed)}
        for seed, split in enumerate(("train", "validation", "test"))
    ]
    assert all(splits)
    assert not any(one & other for one, other in pairwise([*splits, splits[0]]))


def test_rare_symbols_and_long_derivations_are_left_out(tiny: Metamath):
    short = TASKS.build("metamath", database=tiny.database, symbols=8, length=56)
    words = texts(short, 300, "train")
    assert max(map(len, words)) <= 56
    used = Counter(word for each in words for word in each if word not in MARKS)
    few = TASKS.build("metamath", database=tiny.database, symbols=5, length=64)
    assert set(few.named_tokens) <= set(range(few.d_vocab))
    assert len({word for each in texts(few, 300, "train") for word in each} - set(MARKS)) <= 5 < len(used)
    with pytest.raises(ValueError, match="allow longer ones, more symbols"):
        TASKS.build("metamath", database=tiny.database, symbols=2).prepare()


def test_a_database_that_changes_or_is_damaged_or_gone(tiny: Metamath, tmp_path: Path):
    resolved = tiny.resolve()
    assert resolved.resolve() == resolved
    batch = resolved.batch(5, generator=stream(0, "test"))
    (folder,) = (path for path in (tmp_path / "cache" / "metamath").iterdir() if path.is_dir())
    (folder / "train.npy").write_bytes(b"damaged")
    meta = folder / "meta.json"
    meta.write_bytes(meta.read_bytes())
    assert torch.equal(resolved.batch(5, generator=stream(0, "test")).tokens, batch.tokens), "made again"
    path = Path(tiny.database.removeprefix("file:"))
    path.write_text(path.read_text() + "\n$( more $)")
    assert torch.equal(resolved.batch(5, generator=stream(0, "test")).tokens, batch.tokens), "from the cache"
    with pytest.raises(ValueError, match="changed since `resolve`"):
        resolved.resolve()
    path.unlink()
    assert resolved.from_cache().batch(5, generator=stream(0, "test")).tokens.equal(batch.tokens)


def test_a_stored_run_names_no_file_that_is_read(tiny: Metamath):
    for hashed in ("", "0" * 16):
        foreign = TASKS.build("metamath", database=tiny.database, database_hash=hashed).from_cache()
        with pytest.raises(ValueError, match="only the command line reads one"):
            foreign.batch(2, generator=stream(0, "test"))


def test_set_mm_that_is_not_here_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))  # without apt-get
    with pytest.raises(FetchError, match=r"corpus set-mm could not be fetched: .*Corpora that work here: ") as problem:
        TASKS.build("metamath", database="set-mm").prepare()
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"database": "/etc/passwd"}, "write set-mm or file:PATH"),
        ({"symbols": 1}, "there must be 2 to 16384"),
        ({"length": 4}, "has 5 tokens"),
    ],
)
def test_fields_that_do_not_fit(fields, said):
    with pytest.raises(ValueError, match=said):
        TASKS.build("metamath", **fields)


def test_the_words_of_a_derivation():
    words = in_order([("|-", "ph"), ("|-", "ps")], [("|-", "ch"), ("|-", "ps", "ch")])
    assert " ".join(words) == "$given ph $given ps $show ps ch $proof ch $then ps ch $end"
    assert " ".join(anonymous(words, {"ph": "wff", "ps": "wff", "ch": "wff"})) == "$given 0 $given 1 $show 1 2"


@pytest.mark.slow
def test_all_of_set_mm():
    """Some 40,000 proofs, each checked as it is read."""
    task = TASKS.build("metamath")
    check_task(task)
    epochs = task.epochs(10**6)
    assert epochs is not None
    assert 1 < epochs < 20
