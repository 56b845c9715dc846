import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch, Split, Task, check_task
from procpre_interp.data.checks import check_batch
from procpre_interp.data.task import (
    clip_length,
    concatenate,
    is_separable,
    prompt_hash,
    prompt_overlap,
    split_mask,
)
from tests.oracles import ORACLES

NEEDS_A_CORPUS = ["metamath", "text"]
"""Tasks that read files; they have a test file of their own."""

REQUIRED = {
    "mixture": {"tasks": [{"name": "set"}, {"name": "dyck", "length": 16}, {"name": "addition"}]},
    "noisy": {"task": {"name": "set"}},
    "shuffled": {"task": {"name": "set"}},
}
"""Fields of the tasks that cannot be built without."""

SPLITS: tuple[Split, ...] = ("train", "validation", "test")

EVERY_TASK = [name for name in TASKS if name not in NEEDS_A_CORPUS]


def build(name: str) -> Task:
    return TASKS.build(name, **REQUIRED.get(name, {}))


def test_every_task_of_one_sequence_has_an_oracle():
    assert set(ORACLES) | set(REQUIRED) == set(EVERY_TASK)


@pytest.mark.parametrize("name", EVERY_TASK)
def test_what_holds_for_every_task(name):
    check_task(build(name))


@pytest.mark.parametrize("name", ["identity", "reverse", "sort", "set", "union", "delete", "stack", "queue", "sorting"])
def test_the_first_scored_position_is_the_last_separator(name):
    batch = build(name).batch(200, generator=stream(0, "separator"))
    separators = batch.tokens == 100
    last = batch.tokens.shape[1] - 1 - separators.flip(1).int().argmax(1)
    assert torch.equal(batch.loss_mask.int().argmax(1), last)


@pytest.mark.parametrize("name", EVERY_TASK)
def test_the_first_line_of_the_docstring_describes_the_task(name):
    first = (TASKS[name].__doc__ or "").splitlines()[0]
    assert first.endswith(".")
    assert not first.startswith(TASKS[name].__name__ + "("), "dataclasses write a signature where there is no docstring"


@pytest.mark.parametrize("name", EVERY_TASK)
def test_no_validation_or_test_prompt_occurs_in_training(name):
    task = build(name)
    assert is_separable(task)
    assert prompt_overlap(task, 200) == 0
    batches = {
        split: task.split_batch(n, split, generator=stream(5, name, split), separable=True)
        for split, n in zip(SPLITS, (10_000, 300, 300))
    }
    # In spaces this large no prompt comes twice by chance either: the rule is checked beside its effect.
    assert all(split_mask(batches[split], split).all() for split in SPLITS)
    prompts = {split: prompt_hash(batch) for split, batch in batches.items()}
    assert not torch.isin(prompts["validation"], prompts["train"]).any()
    assert not torch.isin(prompts["test"], prompts["train"]).any()
    assert not torch.isin(prompts["test"], prompts["validation"]).any()


def test_splits_are_held_out_as_sequences_not_only_as_hashes():
    """Where so few prompts exist that training sees them all, none of them is a validation prompt."""
    task = TASKS.build("identity", vocab=11, length=3)
    prompts = {
        split: {tuple(row) for row in task.split_batch(n, split, generator=stream(0, split)).tokens[:, :3].tolist()}
        for split, n in zip(SPLITS, (30_000, 3000, 3000))
    }
    assert is_separable(task)
    assert sum(len(found) for found in prompts.values()) == 10**3 == len(set.union(*prompts.values()))
    assert len(prompts["train"]) > 800


@pytest.mark.parametrize(
    ("name", "config"),
    [("identity", {"length": 1, "vocab": 5}), ("addition", {"digits": 1}), ("dyck", {"k": 1, "length": 4})],
)
def test_where_the_space_is_too_small_the_overlap_is_measured(name, config):
    task = TASKS.build(name, **config)
    assert not is_separable(task)
    assert prompt_overlap(task) == 1
    assert len(task.split_batch(10, "test", generator=stream(0, "small"))) == 10


@pytest.mark.parametrize("name", EVERY_TASK)
def test_at_length(name):
    task = build(name)
    if not task.valid_lengths:
        with pytest.raises(ValueError, match="has no length"):
            task.at_length(2)
        return
    full = task.valid_lengths[-1]
    for length in {2, 4, full - 2, full, full + 50} | set(task.valid_lengths[:3]):
        short = task.at_length(length)
        assert short.d_vocab == task.d_vocab
        assert short.n_ctx <= task.n_ctx
        check_batch(short, short.batch(20, generator=stream(0, "short")), 20)
    assert task.at_length(full).n_ctx == task.n_ctx
    assert task.at_length(full + 50) == task.at_length(full)


def test_a_range_of_lengths_becomes_one_length():
    task = TASKS.build("set", length=20, min_length=2).at_length(6)
    assert task == TASKS.build("set", length=6)


@given(length=st.integers(-5, 60), start=st.integers(1, 8), step=st.integers(1, 4), n=st.integers(1, 9))
def test_clipping_finds_the_longest_valid_length(length, start, step, n):
    valid = range(start, start + step * n, step)
    assert clip_length(length, valid) == max([v for v in valid if v <= length], default=start)


def test_from_sequences():
    tokens = torch.tensor([[5, 6, 7, 9], [5, 6, 9, 9]], dtype=torch.int16)
    batch = Batch.from_sequences(tokens, torch.tensor([3, 2]), torch.tensor([1, 0]), pad=9)
    assert batch.tokens.dtype == torch.int64
    assert batch.targets.tolist() == [[6, 7, 9, 9], [6, 9, 9, 9]]
    assert batch.loss_mask.tolist() == [[False, True, False, False], [True, False, False, False]]


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=10))
def test_rows_of_a_batch_and_their_concatenation(rows):
    batch = build("set").batch(10, generator=stream(0, "rows"))
    picked = concatenate([batch[torch.tensor([row])] for row in rows])
    assert len(picked) == len(rows)
    assert torch.equal(picked.tokens, batch.tokens[rows])
    assert torch.equal(picked.loss_mask, batch.loss_mask[rows])


def test_the_prompt_hash_is_of_the_prompt_alone():
    tokens = torch.tensor([[3, 4, 100, 3], [3, 4, 100, 7], [4, 3, 100, 3], [3, 4, 100, 3]])
    hashes = prompt_hash(Batch.from_sequences(tokens, torch.full((4,), 4), 2, pad=101)).tolist()
    assert hashes[0] == hashes[1] == hashes[3] != hashes[2]
    everything = prompt_hash(Batch.from_sequences(tokens, torch.full((4,), 4), 0, pad=101)).tolist()
    assert everything[0] == everything[3]
    assert len(set(everything)) == 3
