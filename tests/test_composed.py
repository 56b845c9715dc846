"""Chained primitives against the oracle, by hand, and what is held out."""

from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.checks import check_batch
from procpre_interp.data.downstream.composed import PRIMITIVES, is_held_out, permuted_names, programs
from procpre_interp.data.ragged import Ragged
from tests.oracles import composed

moderate = settings(max_examples=25, deadline=None)


def answer(names: list[str], x: list[int], target: int, **config) -> list[int]:
    task = TASKS.build("composed", n_primitives=len(names), length=len(x), programs="all", **config)
    steps = [task.first_step + PRIMITIVES.index(name) for name in names]
    parts = [
        Ragged(torch.tensor([part], dtype=torch.int16), torch.tensor([len(part)])) for part in (steps, x, [target])
    ]
    found = task.answer(*parts)
    return found.tokens[0, : int(found.lengths)].tolist()


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["identity"], [7, 3, 3, 9, 3]),
        (["reverse"], [3, 9, 3, 3, 7]),
        (["sort"], [3, 3, 3, 7, 9]),
        (["set"], [7, 3, 9]),
        (["delete"], [7, 3, 9, 3]),
        (["rotate"], [3, 3, 9, 3, 7]),
        (["delete", "reverse"], [3, 9, 3, 7]),
        (["reverse", "delete"], [9, 3, 3, 7]),
        (["set", "delete", "delete"], [7, 9]),
        (["delete", "delete", "delete"], [7, 9]),
        (["set", "sort", "rotate"], [7, 9, 3]),
    ],
)
def test_steps_by_hand(names, expected):
    assert answer(names, [7, 3, 3, 9, 3], 3) == expected


@moderate
@given(
    n_primitives=st.integers(1, 3),
    vocab=st.integers(3, 12),
    length=st.integers(2, 9),
    which=st.sampled_from(["seen", "unseen", "all"]),
    shortest=st.none() | st.integers(2, 9),
    seed=st.integers(0, 2**63),
)
def test_sequences_are_the_oracles(n_primitives, vocab, length, which, shortest, seed):
    which = "all" if n_primitives == 1 and which == "unseen" else which
    shortest = None if shortest is None else min(shortest, length)
    config = {"n_primitives": n_primitives, "vocab": vocab, "length": length, "programs": which}
    task = TASKS.build("composed", min_length=shortest, **config)
    batch = task.batch(40, generator=stream(seed, "composed"))
    check_batch(task, batch, 40)
    for row in range(40):
        tokens = batch.tokens[row, : batch.lengths[row]].tolist()
        expected, first = composed(tokens, vocab, n_primitives, which)
        assert tokens == expected
        assert batch.loss_mask[row].nonzero()[:, 0].tolist() == list(range(first, len(tokens) - 1))


def test_what_is_held_out():
    assert [len(programs(n, "seen")) for n in (1, 2, 3)] == [6, 30, 150]
    assert [len(programs(n, "unseen")) for n in (1, 2, 3)] == [0, 6, 66]
    held = programs(2, "unseen")
    assert {first for first, _ in held} == {second for _, second in held} == set(range(6))
    for program in programs(3, "seen"):
        assert not any(pair in held for pair in pairwise(program))
    assert is_held_out((0, 2))
    assert not is_held_out((2, 0))


def test_training_shows_no_held_out_pair_and_every_other():
    task = TASKS.build("composed")
    steps = task.split_batch(3000, "train", generator=stream(0, "x")).tokens[:, :2] - task.first_step
    assert {tuple(row) for row in steps.tolist()} == set(programs(2, "seen"))


@pytest.mark.parametrize("n", [2, 3])
def test_the_control_says_the_same_programs_under_other_names(n):
    names = permuted_names(n)
    for which in ("seen", "unseen"):
        meanings = [names[programs(n).index(program)] for program in programs(n, which)]
        assert sorted(meanings) == sorted(programs(n, which))
    moved = sum(name != meaning for name, meaning in zip(programs(n), names))
    assert moved > 0.9 * len(names)
    assert permuted_names(1) == programs(1)


def test_the_control_is_an_answer_to_another_program():
    x, plain = [7, 3, 3, 9, 3], ["reverse", "sort"]
    program = tuple(PRIMITIVES.index(name) for name in plain)
    meaning = [PRIMITIVES[step] for step in permuted_names(2)[programs(2).index(program)]]
    assert answer(plain, x, 3, naming="permuted") == answer(meaning, x, 3)
    task = TASKS.build("composed", naming="permuted")
    assert task.batch(5, generator=stream(0, "x")).tokens.shape == (5, task.n_ctx)


def test_inputs_have_two_symbols_even_where_that_is_rare():
    task = TASKS.build("composed", vocab=3, length=2)
    x = task.batch(500, generator=stream(0, "two")).tokens[:, 3:5]
    assert (x[:, 0] != x[:, 1]).all()
    assert 150 < (x[:, 0] == 1).sum() < 350


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n_primitives": 4}, "1 to 3 steps"),
        ({"n_primitives": 1, "programs": "unseen"}, "none is held out"),
        ({"vocab": 2}, "at least 3"),
        ({"length": 1}, "at least 2"),
        ({"programs": "both"}, "There are: all, seen, unseen"),
        ({"naming": "x"}, "There are: composed, permuted"),
    ],
)
def test_mistakes(config, said):
    with pytest.raises(ValueError, match=said):
        TASKS.build("composed", **config)


def test_an_example():
    task = TASKS.build("composed", vocab=10)
    assert task.example([11, 13, 16, 7, 3, 16, 3, 16, 3, 7]) == "reverse set | 7 3 | 3 | 3 7"
