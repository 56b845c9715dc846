"""Counterfactual pairs of every task and cause, against the tasks' oracles and plain loops over each pair."""

import json
from collections import Counter

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, reject, settings

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, checks
from procpre_interp.data.counterfactual import Pairs, collect_pairs
from procpre_interp.data.draws import choose, other_than
from procpre_interp.data.mixture import Mixture
from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.semantic.text import second_occurrences
from procpre_interp.data.task import Task
from tests.oracles import ORACLES, split_at

moderate = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**63)

ONE_SYMBOL = ["identity", "reverse", "ww", "sort", "sorting"]
INPUT_THEN_ANSWER = sorted(name for name in ORACLES if issubclass(TASKS[name], SequenceTask) and name != "composed")
ARITHMETIC = ["addition", "reversed_addition", "multiplication"]

EVERY_CAUSE = [(name, cause) for name in ORACLES for cause in TASKS[name].causes]


def differing(clean: list[int], corrupted: list[int], end: int) -> list[int]:
    """Where the sequences differ before `end`."""
    return [t for t in range(end) if clean[t] != corrupted[t]]


def check_symbol(task, cause, clean, corrupted, position):
    (changed,) = differing(clean, corrupted, position + 1)
    assert changed < (len(clean) // 2 if task.name == "ww" else clean.index(task.vocab))


def check_repeat(task, cause, clean, corrupted, position):
    (changed,) = differing(clean, corrupted, position + 1)
    first, *more = split_at(clean, task.vocab)[:-1]
    if task.name == "union":
        assert len(first) < changed <= 2 * len(first)
    else:
        assert changed < len(first)
        assert not more
    new = [tokens[changed] not in tokens[:changed] for tokens in (clean, corrupted)]
    assert sum(new) == 1
    # The new symbol is the next token where it is new, as in the other sequence it is not.
    whole = clean if new[0] else corrupted
    assert whole[position + 1] == whole[changed]


def check_target(task, cause, clean, corrupted, position):
    assert differing(clean, corrupted, position + 1) == [len(split_at(clean, task.vocab)[0]) + 1]


def check_top(task, cause, clean, corrupted, position):
    (changed,) = differing(clean, corrupted, position + 1)
    assert changed < clean.index(task.vocab)
    assert [clean[changed], corrupted[changed]] == [clean[position + 1], corrupted[position + 1]]


def check_type(task, cause, clean, corrupted, position):
    k = task.k
    (changed,) = differing(clean, corrupted, position + 1)
    assert clean[position] >= k, "the bracket itself would give the type away"
    for tokens in (clean, corrupted):
        open_ = []
        for t in range(position + 1):
            if tokens[t] < k:
                open_.append(t)
            elif task.name == "dyck":
                open_.pop()
            else:
                open_.remove(next(o for o in open_ if tokens[o] == tokens[t] - k))
        assert tokens[position + 1] == tokens[open_[-1]] + k
        if task.name == "dyck":
            assert open_[-1] == changed
        else:
            assert len(open_) == 1
            assert tokens[changed] == tokens[position + 1] - k


def check_cell(task, cause, clean, corrupted, position):
    per_row = task.cells // task.bits
    assert sum((a ^ b).bit_count() for a, b in zip(clean[:per_row], corrupted[:per_row])) == 1


def check_state(task, cause, clean, corrupted, position):
    per_row = task.cells // task.group
    (changed,) = differing(clean, corrupted, per_row)
    digits = [
        [tokens[changed] // task.states**place % task.states for place in range(task.group)]
        for tokens in (clean, corrupted)
    ]
    assert sum(a != b for a, b in zip(*digits)) == 1


def check_hops(task, cause, clean, corrupted, position):
    changed = differing(clean, corrupted, position + 1)
    if cause == "query":
        assert changed == [position - 1]
        return
    # Three references end elsewhere; one of them is followed.
    assert len(changed) == 3
    assert all(t % 2 == 1 for t in changed)
    name, followed = clean[position - 1], []
    for _ in range(clean[position] - task.vocab + 1):
        followed.append(clean[:position:2].index(name) * 2 + 1)
        name = clean[followed[-1]]
    assert set(followed) & set(changed)


def check_haystack(task, cause, clean, corrupted, position):
    changed = differing(clean, corrupted, position + 1)
    key = clean[position] - 30
    if cause == "query":
        assert changed == [position]
    elif cause == "value":
        assert changed == [clean[:position:2].index(key) * 2 + 1]
    else:
        assert len(changed) == 2
        assert all(t % 2 == 0 for t in changed)
        assert [clean[t] for t in changed] == [corrupted[t] for t in reversed(changed)]
        assert key in [clean[t] for t in changed]


def check_arithmetic(task, cause, clean, corrupted, position):
    digits, equals = task.digits, 2 * task.digits + 1
    (changed,) = differing(clean, corrupted, equals + 1)
    # Places from the last digit on: of the operand's digit, and of the answer's that is read.
    offset, length, read = changed % (digits + 1), clean.index(30) - equals - 1, position - equals
    place = offset if task.backwards else digits - 1 - offset
    read = read if task.backwards else length - 1 - read
    assert length == corrupted.index(30) - equals - 1
    numbers = []
    for tokens in (clean, corrupted):
        operands = [tokens[:digits], tokens[digits + 1 : equals]]
        numbers.append([part if task.backwards else part[::-1] for part in operands])
    if task.name == "multiplication":
        columns = [sum(a[i] * b[read - i] for i in range(digits) if 0 <= read - i < digits) for a, b in numbers]
        carries = [
            sum(a[i] * b[j] * 10 ** (i + j) for i in range(digits) for j in range(digits) if i + j < read) // 10**read
            for a, b in numbers
        ]
    else:
        columns = [a[read] + b[read] for a, b in numbers]
        carries = [sum((a[i] + b[i]) * 10**i for i in range(read)) // 10**read for a, b in numbers]
        assert (read == place) == (cause == "digit")
    if cause == "digit":
        assert columns[0] != columns[1]
    else:
        assert columns[0] == columns[1]
        assert carries[0] != carries[1]
    before = differing(clean, corrupted, position + 1)
    assert before == [changed, *([equals + 1 + place] if task.backwards and cause == "carry" else [])]


def check_composed(task, cause, clean, corrupted, position):
    (changed,) = differing(clean, corrupted, position + 1)
    program, x, *_ = split_at(clean, task.vocab + 6)
    first, length = (0, len(program)) if cause == "step" else (len(program) + 1, len(x))
    assert first <= changed < first + length


CHECKS = {
    "composed": check_composed,
    **dict.fromkeys(ONE_SYMBOL, check_symbol),
    **dict.fromkeys(["set", "union"], check_repeat),
    **dict.fromkeys(["dyck", "dyck_shuffle"], check_type),
    **dict.fromkeys(ARITHMETIC, check_arithmetic),
    "delete": check_target,
    **dict.fromkeys(["stack", "queue"], check_top),
    "multi_hop": check_hops,
    "eca": check_cell,
    "neural_ca": check_state,
    "haystack": check_haystack,
}


def without_padding(task: Task, tokens: list[int]) -> list[int]:
    pad = {"haystack": 0, **dict.fromkeys(ARITHMETIC, 12)}.get(task.name)
    pad = task.d_vocab - 1 if pad is None else pad  # the last id of all others
    while tokens and tokens[-1] == pad:
        tokens = tokens[:-1]
    return tokens


def check_pairs(task: Task, cause: str, pairs: Pairs, n: int, /, **oracle_config: object) -> None:
    """Both sequences are the task's, read where it scores them, and differ in the cause; so too when exchanged."""
    checks.check_pairs(task, pairs, n)
    for clean, corrupted, position in zip(pairs.clean.tolist(), pairs.corrupted.tolist(), pairs.positions.tolist()):
        clean, corrupted = without_padding(task, clean), without_padding(task, corrupted)
        for tokens in (clean, corrupted):
            expected, first_scored = ORACLES[task.name](tokens, **oracle_config)
            assert tokens == expected
            assert first_scored <= position < len(tokens) - 1
        CHECKS[task.name](task, cause, clean, corrupted, position)
        CHECKS[task.name](task, cause, corrupted, clean, position)


# Every task


def test_every_task_has_causes_but_the_shuffled_control_and_random_text():
    assert {name for name in TASKS if not TASKS[name].causes} == {"shuffled", "linear_rnn", "metamath"}
    for name, cause in EVERY_CAUSE:
        assert "read" in TASKS[name].causes[cause]


@pytest.mark.parametrize(("name", "cause"), EVERY_CAUSE)
def test_defaults_are_the_oracles(name, cause):
    task = TASKS.build(name)
    check_pairs(task, cause, task.counterfactual(cause, 200, generator=stream(0, name)), 200)


@pytest.mark.parametrize(("name", "cause"), EVERY_CAUSE)
def test_pairs_are_read_at_many_positions(name, cause):
    """None is left out by a place that is always taken first."""
    config = {
        "haystack": {"min_pairs": 2, "max_pairs": 4},
        "multi_hop": {"min_pairs": 4},
        "composed": {"length": 20},
    }.get(name, {})
    task = TASKS.build(name, **config)
    positions = task.counterfactual(cause, 2000, generator=stream(3, name)).positions.unique()
    # Addition and multiplication have five answer digits or fewer where a cause can show first.
    assert len(positions) >= (3 if name in ("haystack", *ARITHMETIC) else 8)


@pytest.mark.parametrize("name", INPUT_THEN_ANSWER)
@moderate
@given(data=st.data(), seed=seeds, vocab=st.sampled_from([10, 100, 40000]))
def test_input_and_answer(name, data, seed, vocab):
    # Of few symbols a long stack leaves no other, and a long half of a union no new one.
    longest = {"stack": 8, "queue": 8, "union": 16}.get(name, 24)
    lengths = [n for n in TASKS.build(name, length=longest).valid_lengths if n >= 4]
    length = data.draw(st.sampled_from(lengths))
    shortest = data.draw(st.sampled_from([None, *(n for n in lengths if n <= length)]))
    task = TASKS.build(name, vocab=vocab, length=length, min_length=shortest)
    (cause,) = task.causes
    check_pairs(task, cause, task.counterfactual(cause, 15, generator=stream(seed, "x")), 15, vocab=vocab)


@moderate
@given(k=st.integers(2, 40), half=st.integers(2, 20), p_open=st.floats(0.05, 1), seed=seeds)
def test_dyck(k, half, p_open, seed):
    task = TASKS.build("dyck", k=k, length=2 * half, p_open=p_open)
    check_pairs(task, "type", task.counterfactual("type", 15, generator=stream(seed, "x")), 15, k=k)


@moderate
@given(
    k=st.integers(2, 40),
    length=st.integers(4, 40),
    p_open=st.floats(0.2, 0.8),
    max_depth=st.integers(2, 16),
    seed=seeds,
)
def test_dyck_shuffle(k, length, p_open, max_depth, seed):
    task = TASKS.build("dyck_shuffle", k=k, length=length, p_open=p_open, max_depth=max_depth)
    pairs = task.counterfactual("type", 15, generator=stream(seed, "x"))
    check_pairs(task, "type", pairs, 15, k=k, max_depth=max_depth)


@moderate
@given(rule=st.integers(1, 254), bits=st.integers(1, 8), per_row=st.integers(3, 5), rows=st.integers(2, 6), seed=seeds)
def test_automaton(rule, bits, per_row, rows, seed):
    config = {"rule": rule, "bits": bits, "cells": bits * per_row, "rows": rows}
    task = TASKS.build("eca", **config)
    check_pairs(task, "cell", task.counterfactual("cell", 15, generator=stream(seed, "x")), 15, **config)


@moderate
@given(
    states=st.integers(2, 5),
    radius=st.integers(1, 2),
    group=st.integers(1, 3),
    per_row=st.integers(3, 5),
    rows=st.integers(3, 6),
    rules=st.integers(1, 3),
    seed=seeds,
)
def test_neural_automaton(states, radius, group, per_row, rows, rules, seed):
    sizes = {"states": states, "radius": radius, "group": group, "cells": group * per_row, "rows": rows}
    config = {**sizes, "rules": rules, "hidden": 9}
    task = TASKS.build("neural_ca", **config)
    # A rule may send all rows to one; what a cell changes is then gone at once.
    try:
        pairs = task.counterfactual("cell", 15, generator=stream(seed, "x"))
    except ValueError:
        reject()
    check_pairs(task, "cell", pairs, 15, **config)


@pytest.mark.parametrize("cause", ["query", "link"])
@moderate
@given(hops=st.tuples(st.integers(1, 4), st.integers(1, 4)).map(sorted), extra=st.integers(0, 6), seed=seeds)
def test_multi_hop(cause, hops, extra, seed):
    least = max(3, 2 * hops[1])
    config = {"min_hops": hops[0], "hops": hops[1], "min_pairs": least, "pairs": least + extra, "vocab": 20}
    task = TASKS.build("multi_hop", **config)
    check_pairs(task, cause, task.counterfactual(cause, 15, generator=stream(seed, "x")), 15, **config)


@pytest.mark.parametrize("cause", ["query", "value", "key"])
@moderate
@given(pairs=st.tuples(st.integers(1, 30), st.integers(2, 30)).map(sorted), seed=seeds)
def test_haystack(cause, pairs, seed):
    config = dict(zip(("min_pairs", "max_pairs"), pairs))
    task = TASKS.build("haystack", **config)
    check_pairs(task, cause, task.counterfactual(cause, 15, generator=stream(seed, "x")), 15, **config)


@pytest.mark.parametrize("cause", ["digit", "carry"])
@pytest.mark.parametrize(("name", "most"), [("addition", 18), ("reversed_addition", 18), ("multiplication", 9)])
@moderate
@given(data=st.data(), mask=st.sampled_from(["answer", "paper"]), seed=seeds)
def test_arithmetic(name, cause, most, data, mask, seed):
    config = {"digits": data.draw(st.integers(2, most)), "mask": mask}
    task = TASKS.build(name, **config)
    check_pairs(task, cause, task.counterfactual(cause, 15, generator=stream(seed, "x")), 15, **config)


def test_the_smallest_configurations():
    for name, cause, config in (
        ("haystack", "value", {"max_pairs": 1}),
        ("haystack", "key", {"max_pairs": 2}),
        ("dyck", "type", {"k": 2, "length": 4}),
        ("dyck_shuffle", "type", {"k": 2, "length": 4, "max_depth": 2}),
        ("identity", "symbol", {"length": 1, "vocab": 3}),
        ("sorting", "symbol", {"length": 1, "vocab": 2}),
        ("ww", "symbol", {"length": 1, "vocab": 3}),
        ("set", "repeat", {"length": 3, "vocab": 4}),
        ("union", "repeat", {"length": 4, "vocab": 4}),
        ("delete", "target", {"length": 2, "vocab": 3}),
        ("stack", "top", {"length": 1, "vocab": 3}),
        ("stack", "top", {"length": 3, "vocab": 4}),
        ("queue", "front", {"length": 1, "vocab": 3}),
        ("queue", "front", {"length": 3, "vocab": 4}),
        ("addition", "digit", {"digits": 1}),
        ("multiplication", "digit", {"digits": 1}),
    ):
        task = TASKS.build(name, **config)
        oracle_config = {key: value for key, value in config.items() if key != "length"}
        check_pairs(task, cause, task.counterfactual(cause, 40, generator=stream(0, name)), 40, **oracle_config)


@pytest.mark.parametrize(
    ("name", "cause", "config", "message"),
    [
        ("haystack", "query", {"max_pairs": 1}, "max_pairs=1; cause 'query' of haystack needs a second pair"),
        ("haystack", "key", {"max_pairs": 1}, "max_pairs must be at least 2"),
        ("dyck", "type", {"k": 1}, "k=1; cause 'type' of dyck needs a second type, so k must be at least 2"),
        ("dyck", "type", {"length": 2}, "length=2"),
        ("dyck", "type", {"p_open": 0}, "p_open=0"),
        ("dyck_shuffle", "type", {"k": 1}, "k=1"),
        ("dyck_shuffle", "type", {"length": 3}, "length=3"),
        ("dyck_shuffle", "type", {"max_depth": 1}, "max_depth=1"),
        ("dyck_shuffle", "type", {"p_open": 1}, "p_open=1"),
        ("identity", "symbol", {"vocab": 2}, "vocab=2; cause 'symbol' of identity needs a second symbol"),
        ("sorting", "symbol", {"vocab": 1}, "vocab must be at least 2"),
        ("set", "repeat", {"length": 2}, "length=2"),
        ("set", "repeat", {"vocab": 3}, "vocab=3"),
        ("union", "repeat", {"length": 2}, "length=2"),
        ("delete", "target", {"vocab": 2}, "vocab=2"),
        ("stack", "top", {"vocab": 3}, "vocab=3"),
        ("queue", "front", {"vocab": 3}, "vocab=3; cause 'front' of queue needs a symbol that is not in the queue"),
        ("multi_hop", "link", {"pairs": 2, "hops": 1}, "pairs=2; cause 'link' of multi_hop needs three references"),
        ("linear_rnn", "token", {}, "its next token is drawn, so nothing before it decides it"),
        ("dyck", "type", {"p_open": 1e-9}, r"0 of 5 pairs of cause 'type' of dyck in \d+ draws; .*too rare"),
        ("addition", "carry", {"digits": 1}, "digits=1"),
        ("eca", "cell", {"rule": 255}, "rule=255"),
        ("haystack", "qury", {}, "unknown cause of haystack 'qury'. Did you mean 'query'"),
        ("shuffled", "type", {"task": {"name": "dyck"}}, "shuffled has no cause .*: its tokens are in random order"),
        ("mixture", "type", {"tasks": [{"name": "dyck"}]}, "Did you mean 'dyck.type'"),
        ("mixture", "type", {"tasks": [{"name": "shuffled", "task": {"name": "set"}}]}, "none of its components"),
    ],
)
def test_impossible_causes_say_why(name, cause, config, message):
    with pytest.raises(ValueError, match=message):
        TASKS.build(name, **config).counterfactual(cause, 5, generator=stream(0, "x"))


# What is drawn


def test_the_other_key_is_any_of_the_others():
    task = TASKS.build("haystack", min_pairs=4, max_pairs=4)
    pairs = task.counterfactual("query", 12_000, generator=stream(0, "others"))
    places = Counter()
    for clean, corrupted in zip(pairs.clean.tolist(), pairs.corrupted.tolist()):
        keys = clean[:8:2]
        places[keys.index(clean[8] - 30), keys.index(corrupted[8] - 30)] += 1
    assert len(places) == 12
    assert all(abs(count - 1000) < 5 * 1000**0.5 for count in places.values())


def test_clean_sequences_have_repeats_and_new_symbols():
    task = TASKS.build("set", vocab=12, length=10)
    pairs = task.counterfactual("repeat", 300, generator=stream(0, "both"))
    lengths = [len(without_padding(task, row)) for row in pairs.clean.tolist()]
    others = [len(without_padding(task, row)) for row in pairs.corrupted.tolist()]
    longer = sum(a > b for a, b in zip(lengths, others))
    assert 60 < longer < 240


def test_an_integer_other_than_the_given_is_uniform():
    values = torch.arange(4).repeat(6000)
    drawn = other_than(values, 4, generator=stream(0, "other"))
    counts = (4 * values + drawn).bincount(minlength=16).view(4, 4)
    assert counts.diagonal().tolist() == [0] * 4
    assert ((counts[~torch.eye(4, dtype=torch.bool)] - 2000).abs() < 5 * 2000**0.5).all()


def test_a_chosen_place_is_uniform_over_the_true_ones():
    mask = torch.tensor([[True, False, True, True], [False, False, False, False], [False, False, False, True]])
    drawn = choose(mask.repeat(6000, 1), generator=stream(0, "choose")).view(6000, 3)
    counts = drawn[:, 0].bincount(minlength=4)
    assert counts[1] == 0
    assert ((counts[[0, 2, 3]] - 2000).abs() < 5 * 2000**0.5).all()
    assert (drawn[:, 1] == 0).all()
    assert (drawn[:, 2] == 3).all()


# Mixtures


def test_a_mixtures_pairs_are_its_components_behind_its_prefix():
    components = (TASKS.build("set", length=6), TASKS.build("dyck", k=3, length=8), TASKS.build("dyck", k=4, length=6))
    task = Mixture(tasks=(*components, TASKS.build("haystack", max_pairs=3)))
    assert list(task.causes) == [
        "set.repeat",
        "dyck.1.type",
        "dyck.2.type",
        "haystack.query",
        "haystack.value",
        "haystack.key",
    ]
    for name, sentence in task.causes.items():
        i = ["set", "dyck.1", "dyck.2", "haystack"].index(name.rpartition(".")[0])
        cause = name.rpartition(".")[2]
        pairs = task.counterfactual(name, 20, generator=stream(0, "mixture"))
        own = task.tasks[i].counterfactual(cause, 20, generator=stream(0, "mixture"))
        assert sentence == task.tasks[i].causes[cause]
        checks.check_pairs(task, pairs, 20)
        assert torch.equal(pairs.positions, own.positions + 1)
        for whole, part in ((pairs.clean, own.clean), (pairs.corrupted, own.corrupted)):
            for tokens, expected, position in zip(whole.tolist(), part.tolist(), pairs.positions.tolist()):
                kept = [task.first_prefix + i, *expected[: position + 1]]
                assert tokens == kept + [task.pad] * (task.n_ctx - len(kept))


def test_mixtures_nest():
    inner = Mixture(tasks=(TASKS.build("set", length=6),))
    task = Mixture(tasks=(inner, TASKS.build("dyck", length=8)))
    assert list(task.causes) == ["mixture.set.repeat", "dyck.type"]
    pairs = task.counterfactual("mixture.set.repeat", 10, generator=stream(0, "nested"))
    checks.check_pairs(task, pairs, 10)
    assert pairs.clean[:, :2].unique(dim=0).tolist() == [[task.first_prefix, inner.first_prefix]]


# Text


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Task:
    rng = torch.randint(26, (400, 30), generator=stream(0, "letters")).tolist()
    rows = [json.dumps({"text": "".join(chr(97 + letter) for letter in row)}) for row in rng]
    path = tmp_path_factory.mktemp("text") / "rows.jsonl"
    path.write_text("\n".join(rows))
    return TASKS.build("text", corpus=f"files:{path}", length=24).resolve()


def test_text_is_copied_from_the_one_earlier_occurrence(text):
    pairs = text.counterfactual("copy", 200, generator=stream(0, "copy"))
    checks.check_pairs(text, pairs, 200)
    checks.check_task(text, n=100)
    for clean, corrupted, position in zip(pairs.clean.tolist(), pairs.corrupted.tolist(), pairs.positions.tolist()):
        for tokens in (clean, corrupted):
            (earlier,) = [t for t in range(position) if tokens[t] == tokens[position]]
            assert tokens[earlier + 1] == tokens[position + 1]
            assert differing(clean, corrupted, len(clean)) == [earlier + 1, position + 1]
    assert len(pairs.positions.unique()) > 8
    assert len(pairs.wrong.unique()) > 8, "any token of the corpus can take the answer's place"


def test_a_text_without_repeats_has_no_pairs(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": "abcdefghijklmnop"[i % 9 :] + f"{i:03}"}) for i in range(200)))
    short = TASKS.build("text", corpus=f"files:{path}", length=3)
    with pytest.raises(ValueError, match="length=3; cause 'copy' of text needs two tokens twice"):
        short.counterfactual("copy", 1, generator=stream(0, "x"))
    with pytest.raises(ValueError, match="0 of 2 pairs of cause 'copy'"):
        TASKS.build("text", corpus=f"files:{path}", length=5).resolve().counterfactual(
            "copy", 2, generator=stream(0, "x")
        )


@moderate
@given(rows=st.lists(st.lists(st.integers(0, 5), min_size=7, max_size=7), min_size=1, max_size=5))
def test_second_occurrences_against_a_loop(rows):
    earlier, second = second_occurrences(torch.tensor(rows))
    for row, found, again in zip(rows, earlier.tolist(), second.tolist()):
        for t in range(7):
            before = [s for s in range(t) if row[s] == row[t]]
            assert again[t] == (len(before) == 1)
            assert found[t] == (before[-1] if before else 0)


# Pairs


def test_pairs_of_sequences_by_hand():
    clean = torch.tensor([[5, 1, 2], [5, 1, 2], [5, 1, 2], [5, 1, 2]], dtype=torch.int16)
    corrupted = torch.tensor([[6, 1, 3], [6, 1, 2], [6, 1, 3], [6, 4, 2]], dtype=torch.int16)
    kept = torch.tensor([True, True, False, True])
    pairs = Pairs.from_sequences(clean, corrupted, torch.tensor([1, 1, 2, 0]), kept)
    assert pairs.clean.tolist() == [[5, 1, 2], [5, 1, 2]]
    assert pairs.corrupted.tolist() == [[6, 1, 3], [6, 4, 2]]
    assert (pairs.positions.tolist(), pairs.answers.tolist(), pairs.wrong.tolist()) == ([1, 0], [2, 1], [3, 4])
    assert pairs.swapped.answers.tolist() == [3, 4]
    assert pairs[torch.tensor([1])].clean.tolist() == [[5, 1, 2]]


def test_pairs_that_are_none_are_refused():
    tokens, one = torch.tensor([[1, 2]]), torch.tensor([1])
    with pytest.raises(ValueError, match=r"positions must be in 0\.\.1"):
        Pairs(tokens, tokens, one + 1, one, one + 1)
    with pytest.raises(ValueError, match="the same answer twice"):
        Pairs(tokens, tokens, one, one, one)
    # The checks of shapes come before the class's own here, and raise their own error.
    with pytest.raises((ValueError, TypeError)):
        Pairs(tokens, tokens[:, :1], one, one, one + 1)
    with pytest.raises((ValueError, TypeError)):
        Pairs(tokens, tokens, one[:0], one, one + 1)


def test_collecting_asks_for_what_is_missing_and_gives_up():
    asked = []

    def every_tenth(rows: int) -> Pairs:
        asked.append(rows)
        tokens = torch.arange(rows)[:, None].repeat(1, 2)
        return Pairs.from_sequences(tokens, tokens + 1, torch.zeros(rows).long(), torch.arange(rows) % 10 == 0)

    pairs = collect_pairs(every_tenth, 25, at_once=100, what="a test")
    assert len(pairs) == 25
    assert asked == [25, 100, 100, 39]
    asked.clear()
    with pytest.raises(ValueError, match="0 of 3 pairs of a test in 12[0-9]{3} draws"):
        collect_pairs(lambda rows: every_tenth(rows)[:0], 3, at_once=100, what="a test")
    assert max(asked) == 100


def test_pairs_of_every_cause_one_after_the_other():
    task = TASKS.build("haystack")
    together = task.counterfactuals(3, generator=stream(0, "all"))
    generator = stream(0, "all")
    for i, cause in enumerate(task.causes):
        alone = task.counterfactual(cause, 3, generator=generator)
        assert torch.equal(together.corrupted[3 * i : 3 * i + 3], alone.corrupted)
    assert len(together) == 3 * len(task.causes)
    with pytest.raises(ValueError, match="no cause that a pair could differ in"):
        TASKS.build("shuffled", task=task).counterfactuals(3, generator=stream(0, "all"))
