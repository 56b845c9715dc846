import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.checks import check_batch
from procpre_interp.data.procedural.automata import evolve
from procpre_interp.data.procedural.sequence import SequenceTask
from tests.checks import check_against_oracle, rows_of
from tests.oracles import ORACLES

moderate = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**63)

OTHER_INPUTS = {"composed", "sorting"}
"""Tasks of the family with a program besides the input, and with other symbols."""
X_THEN_ANSWER = sorted({name for name in ORACLES if issubclass(TASKS[name], SequenceTask)} - OTHER_INPUTS)


@st.composite
def lengths(draw, name):
    """Fields `length` and `min_length` of a valid configuration."""
    valid = TASKS.build(name, length=24).valid_lengths
    length = draw(st.sampled_from(valid))
    shorter = [None, *(n for n in valid if n <= length)]
    return {"length": length, "min_length": draw(st.sampled_from(shorter))}


@pytest.mark.parametrize("name", X_THEN_ANSWER)
@moderate
@given(data=st.data(), seed=seeds, vocab=st.sampled_from([3, 4, 10, 100, 40000]))
def test_answers_are_the_oracles(name, data, seed, vocab):
    config = data.draw(lengths(name))
    task = TASKS.build(name, vocab=vocab, **config)
    batch = task.batch(40, generator=stream(seed, "oracle"))
    check_batch(task, batch, 40)
    check_against_oracle(batch, task, vocab=vocab)


@moderate
@given(k=st.integers(1, 40), half=st.integers(1, 20), p_open=st.floats(0, 1), seed=seeds)
def test_dyck_balances(k, half, p_open, seed):
    task = TASKS.build("dyck", k=k, length=2 * half, p_open=p_open)
    batch = task.batch(40, generator=stream(seed, "oracle"))
    check_batch(task, batch, 40)
    check_against_oracle(batch, task, k=k)
    assert task.d_vocab == 2 * k + 1


@moderate
@given(
    k=st.integers(1, 40),
    length=st.integers(2, 40),
    p_open=st.floats(0, 1),
    max_depth=st.integers(1, 16),
    seed=seeds,
)
def test_dyck_shuffle_closes_what_is_open(k, length, p_open, max_depth, seed):
    task = TASKS.build("dyck_shuffle", k=k, length=length, p_open=p_open, max_depth=max_depth)
    batch = task.batch(40, generator=stream(seed, "oracle"))
    check_batch(task, batch, 40)
    check_against_oracle(batch, task, k=k, max_depth=max_depth)


@moderate
@given(
    rule=st.integers(0, 255),
    bits=st.integers(1, 8),
    per_row=st.integers(1, 5),
    rows=st.integers(2, 6),
    seed=seeds,
)
def test_automaton_follows_its_rule(rule, bits, per_row, rows, seed):
    config = {"rule": rule, "bits": bits, "cells": bits * per_row, "rows": rows}
    task = TASKS.build("eca", **config)
    batch = task.batch(20, generator=stream(seed, "oracle"))
    check_batch(task, batch, 20)
    check_against_oracle(batch, task, **config)


@pytest.mark.parametrize("name", [name for name in ORACLES if hasattr(TASKS[name], "k") or name in X_THEN_ANSWER])
def test_defaults_are_the_oracles(name):
    task = TASKS.build(name)
    check_against_oracle(task.batch(50, generator=stream(0, "default")), task)


def test_rule_110_from_a_single_cell():
    """The first steps that Wolfram draws: the pattern grows to the left."""
    row = torch.zeros(1, 8, dtype=torch.bool)
    row[0, 6] = True
    drawn = []
    for _ in range(4):
        drawn.append("".join(".#"[int(cell)] for cell in row[0]))
        row = evolve(row, 110)
    assert drawn == ["......#.", ".....##.", "....###.", "...##.#."]


def test_defaults_of_the_paper():
    assert TASKS.build("identity").d_vocab == 102
    assert TASKS.build("identity").n_ctx == TASKS.build("set").n_ctx == 41
    assert (TASKS.build("dyck").n_ctx, TASKS.build("dyck").d_vocab) == (128, 33)


@pytest.mark.parametrize("name", X_THEN_ANSWER)
def test_length_is_exact_and_a_range_uniform(name):
    def input_symbols(batch, task):
        # Up to the first scored position stands the input, with the separators and delete's t.
        return batch.loss_mask.int().argmax(1) + 1 - task.n_separators - int(name == "delete")

    exact = TASKS.build(name, length=12)
    assert (input_symbols(exact.batch(100, generator=stream(0, "exact")), exact) == 12).all()
    ranged = TASKS.build(name, length=12, min_length=4, vocab=1000)
    n = 6000
    drawn = input_symbols(ranged.batch(n, generator=stream(1, "lengths", name)), ranged)
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == [length for length in ranged.valid_lengths if length >= 4]
    expected = n / len(values)
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert chi2 < len(values) + 5 * math.sqrt(2 * len(values))


def test_symbols_are_uniform():
    task = TASKS.build("identity", vocab=10, length=20)
    counts = task.batch(5000, generator=stream(0, "symbols")).tokens[:, :20].flatten().bincount(minlength=10)
    assert counts[0] == 0
    assert ((counts[1:] / 100_000 - 1 / 9).abs() < 0.005).all()


def test_dyck_opens_with_its_probability():
    """Over the positions where both are possible; types are uniform over all opens."""
    task = TASKS.build("dyck", k=4, length=64)
    tokens = task.batch(3000, generator=stream(0, "open")).tokens
    opens = tokens < 4
    before = torch.cat([torch.zeros(3000, 1), (2 * opens.int() - 1).cumsum(1)[:, :-1]], 1)
    remaining = 64 - torch.arange(64)
    free = (before > 0) & (before < remaining - 1)
    n = free.sum().item()
    assert n > 50_000
    assert abs(opens[free].float().mean().item() - 0.49) < 4 * 0.5 / math.sqrt(n)
    types = tokens[opens].bincount() / opens.sum()
    assert ((types - 0.25).abs() < 0.005).all()


def test_dyck_shuffle_opens_and_closes_uniformly():
    k, length, n = 3, 24, 4000
    task = TASKS.build("dyck_shuffle", k=k, length=length, max_depth=4)
    opened_freely, free, share, expected = 0, 0, torch.zeros(k), torch.zeros(k)
    for tokens in rows_of(task.batch(n, generator=stream(0, "open"))):
        counts = [0] * k
        for token in tokens:
            if 0 < sum(counts) < 4:
                free += 1
                opened_freely += token < k
            if token >= k:
                types = [i for i in range(k) if counts[i]]
                share[token - k] += 1
                for i in types:
                    expected[i] += 1 / len(types)
            counts[token % k] += 1 if token < k else -1
    assert abs(opened_freely / free - 0.5) < 4 * 0.5 / math.sqrt(free)
    assert ((share - expected).abs() < 5 * share.sum().sqrt()).all()


def test_stack_pushes_with_its_probability():
    task = TASKS.build("stack", length=21)
    pushes, free = [0, 0], [0, 0]
    for tokens in rows_of(task.batch(3000, generator=stream(0, "push"))):
        depth = 0
        for step, operation in enumerate(tokens[:20]):
            if depth > 1:
                free[step >= 14] += 1
                pushes[step >= 14] += operation != 0
            depth += 1 if operation else -1
    for part, p in enumerate((0.75, 0.25)):
        assert abs(pushes[part] / free[part] - p) < 4 * 0.5 / math.sqrt(free[part])


def test_delete_removes_from_a_uniform_position():
    task = TASKS.build("delete", vocab=10_000, length=8)
    positions = [tokens.index(tokens[9]) for tokens in rows_of(task.batch(4000, generator=stream(0, "t")))]
    shares = torch.tensor(positions).bincount(minlength=8) / 4000
    assert ((shares - 1 / 8).abs() < 0.03).all()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("dyck", {"k": 0}, "k=0 bracket types; k must be at least 1"),
        ("dyck", {"k": -3}, "k=-3 bracket types"),
        ("dyck", {"length": 7}, "length=7 tokens; length must be at least 2 and even"),
        ("dyck", {"p_open": 1.5}, "p_open=1.5"),
        ("dyck_shuffle", {"max_depth": 0}, "max_depth=0"),
        ("union", {"length": 5}, "length=5 input symbols"),
        ("identity", {"length": 0}, "length=0 input symbols"),
        ("identity", {"length": 4, "min_length": 5}, "min_length=5 exceeds length=4"),
        ("identity", {"vocab": 1}, "vocab=1 leaves no symbol"),
        ("stack", {"vocab": 2}, "vocab=2"),
        ("delete", {"length": 1}, "length=1"),
        ("eca", {"rule": 256}, "rule=256"),
        ("eca", {"cells": 30}, "cells=30"),
        ("eca", {"bits": 0}, "bits=0"),
        ("eca", {"rows": 1}, "rows=1"),
    ],
)
def test_impossible_configurations_say_why(name, config, message):
    with pytest.raises(ValueError, match=message):
        TASKS.build(name, **config)


def test_examples_read_well():
    assert TASKS.build("dyck", k=2, length=6).example([0, 1, 3, 2, 0, 2]) == "( [ ] ) ( )"
    assert TASKS.build("dyck", k=16, length=4).example([3, 7, 23, 19]) == "(3 (7 )7 )3"
    assert TASKS.build("set").example([7, 3, 3, 100, 7, 3]) == "7 3 3 | 7 3"
    assert TASKS.build("eca", cells=4, bits=2, rows=2).example([0, 1, 3, 2]) == "...# ###."
