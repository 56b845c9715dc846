import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.checks import check_batch
from tests.checks import check_against_oracle, rows_of

moderate = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**63)


@moderate
@given(pairs=st.tuples(st.integers(1, 30), st.integers(1, 30)).map(sorted), seed=seeds)
def test_haystack_is_the_oracles(pairs, seed):
    config = dict(zip(("min_pairs", "max_pairs"), pairs))
    task = TASKS.build("haystack", **config)
    batch = task.batch(40, generator=stream(seed, "oracle"))
    check_batch(task, batch, 40)
    check_against_oracle(batch, task, **config)


@pytest.mark.parametrize(("name", "most"), [("addition", 18), ("reversed_addition", 18), ("multiplication", 9)])
@moderate
@given(data=st.data(), mask=st.sampled_from(["answer", "paper"]), seed=seeds)
def test_arithmetic_is_the_oracles(name, most, data, mask, seed):
    config = {"digits": data.draw(st.integers(1, most)), "mask": mask}
    task = TASKS.build(name, **config)
    batch = task.batch(40, generator=stream(seed, "oracle"))
    check_batch(task, batch, 40)
    check_against_oracle(batch, task, **config)


@moderate
@given(length=st.integers(1, 20), seed=seeds)
def test_sorting_is_the_oracles(length, seed):
    task = TASKS.build("sorting", length=length)
    check_against_oracle(task.batch(40, generator=stream(seed, "oracle")), task)


def test_formats_of_the_paper():
    haystack = TASKS.build("haystack")
    assert (haystack.n_ctx, haystack.model_n_ctx, haystack.d_vocab) == (63, 100, 256)
    for name in ("addition", "reversed_addition", "multiplication"):
        assert (TASKS.build(name).model_n_ctx, TASKS.build(name).d_vocab) == (40, 31)
    sorting = TASKS.build("sorting")
    assert (sorting.n_ctx, sorting.model_n_ctx) == (21, 21)


def test_the_papers_mask_leaves_out_the_first_answer_digit_alone():
    ours, paper = (
        TASKS.build("addition", mask=mask).batch(500, generator=stream(0, "mask")) for mask in ("answer", "paper")
    )
    assert torch.equal(ours.tokens, paper.tokens)
    left_out = ours.loss_mask & ~paper.loss_mask
    assert not (paper.loss_mask & ~ours.loss_mask).any()
    assert (left_out.sum(1) == 1).all()
    assert (ours.tokens[left_out] == 11).all(), "what stands before the first answer digit is ="


def test_the_stop_token_is_scored():
    batch = TASKS.build("multiplication").batch(500, generator=stream(0, "stop"))
    assert ((batch.targets == 30) & batch.loss_mask).sum(1).eq(1).all()
    assert len(batch.lengths.unique()) == 2, "products have 9 or 10 digits"


def test_haystack_queries_keys_and_values_are_uniform():
    n = 20_000
    task = TASKS.build("haystack", min_pairs=5, max_pairs=5)
    tokens = task.batch(n, generator=stream(0, "uniform")).tokens
    keys, values, query = tokens[:, 0:10:2], tokens[:, 1:10:2], tokens[:, 10]
    place = (keys == query[:, None] - 30).int().argmax(1).bincount(minlength=5)
    assert ((place / n - 1 / 5).abs() < 0.015).all()
    for column in range(5):
        assert ((keys[:, column].bincount(minlength=158)[128:] / n - 1 / 30).abs() < 0.007).all()
    assert ((values.flatten().bincount(minlength=128)[1:] / (5 * n) - 1 / 127).abs() < 0.002).all()
    # The second key knows nothing of the first but that it is another: all 870 ordered pairs are alike.
    pairs = ((keys[:, 0] - 128) * 30 + keys[:, 1] - 128).bincount(minlength=900)
    assert (pairs > 0).sum() == 870
    assert pairs.max() < 60


def test_haystack_number_of_pairs_is_uniform():
    n = 30_000
    lengths = TASKS.build("haystack").batch(n, generator=stream(0, "pairs")).lengths
    counts = lengths.bincount(minlength=63)
    assert counts[4::2].sum() == n
    assert ((counts[4::2] / n - 1 / 30).abs() < 0.006).all()


def test_operands_cover_all_numbers_of_their_length():
    task = TASKS.build("addition", digits=1)
    sums = [tokens[:3:2] for tokens in rows_of(task.batch(3000, generator=stream(0, "operands")))]
    assert {tuple(pair) for pair in sums} == {(a, b) for a in range(1, 10) for b in range(1, 10)}


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("haystack", {"max_pairs": 31}, "max_pairs=31"),
        ("haystack", {"max_pairs": 0}, "max_pairs=0"),
        ("haystack", {"min_pairs": 4, "max_pairs": 3}, "min_pairs=4"),
        ("addition", {"digits": 0}, "digits=0"),
        ("addition", {"digits": 19}, "digits=19"),
        ("multiplication", {"digits": 10}, "digits=10"),
        ("addition", {"mask": "answr"}, "Did you mean 'answer'"),
    ],
)
def test_impossible_configurations_say_why(name, config, message):
    with pytest.raises(ValueError, match=message):
        TASKS.build(name, **config)


def test_examples_read_well():
    addition = TASKS.build("addition", digits=2)
    assert addition.example([1, 2, 10, 9, 0, 11, 21, 20, 22, 30]) == "12+90=102."
    multiplication = TASKS.build("multiplication", digits=1)
    assert multiplication.example([3, 10, 4, 11, 21, 22, 30]) == "3*4=12."
    assert TASKS.build("haystack").example([135, 12, 131, 90, 165, 12]) == "k7=12 k3=90 k7? 12"
    assert TASKS.build("sorting").example([7, 3, 100, 3, 7]) == "7 3 | 3 7"
