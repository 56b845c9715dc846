import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from procpre_interp.core.config import content_hash, from_yaml, to_yaml
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.data.checks import check_batch, check_task
from procpre_interp.data.derived import Noisy, Shuffled
from procpre_interp.data.mixture import Mixture
from procpre_interp.data.task import is_separable, prompt_hash, prompt_overlap
from tests.checks import rows_of
from tests.oracles import ORACLES

moderate = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**63)

COMPONENTS = [
    TASKS.build("set", length=6, min_length=2),
    TASKS.build("dyck", k=3, length=8),
    TASKS.build("union", length=8, vocab=300),
    TASKS.build("haystack", max_pairs=4),
]
ORACLE_CONFIGS = {"dyck": {"k": 3}, "union": {"vocab": 300}}


@moderate
@given(tasks=st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=4), seed=seeds)
def test_each_sequence_is_its_components_behind_its_prefix(tasks, seed):
    task = Mixture(tasks=tuple(tasks))
    batch = task.batch(40, generator=stream(seed, "mixture"))
    check_batch(task, batch, 40)
    padding = torch.arange(task.n_ctx) >= batch.lengths[:, None]
    assert (batch.tokens[padding] == task.pad).all()
    assert not (batch.tokens[~padding] == task.pad).any()
    for (prefix, *tokens), scored in zip(rows_of(batch), batch.loss_mask.tolist()):
        component = tasks[prefix - task.first_prefix]
        expected, first_scored = ORACLES[component.name](tokens, **ORACLE_CONFIGS.get(component.name, {}))
        assert tokens == expected
        # One place further, behind the prefix. Where everything is scored, so is the step from the prefix.
        first = 0 if first_scored == 0 else first_scored + 1
        assert scored == [first <= t < len(tokens) for t in range(task.n_ctx)]


def test_prefixes_follow_all_ids_and_the_padding_follows_them():
    task = Mixture(tasks=tuple(COMPONENTS))
    assert task.first_prefix == max(component.d_vocab for component in COMPONENTS) == 302
    assert (task.pad, task.d_vocab, task.n_ctx) == (306, 307, 1 + 18)


def test_weights_are_relative_shares():
    task = Mixture(tasks=tuple(COMPONENTS[:2]), weights=(1.0, 3.0))
    first = task.batch(8000, generator=stream(0, "weights")).tokens[:, 0]
    assert abs((first == task.first_prefix).float().mean().item() - 0.25) < 0.02


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": ()}, "at least one"),
        ({"tasks": tuple(COMPONENTS), "weights": (1.0,)}, "1 weights for 4 tasks"),
        ({"tasks": tuple(COMPONENTS[:2]), "weights": (1.0, -1.0)}, "must be finite and above 0"),
    ],
)
def test_impossible_mixtures_say_why(fields, message):
    with pytest.raises(ValueError, match=message):
        Mixture(**fields)


def test_configs_nest():
    task = TASKS.build("mixture", tasks=[{"name": "set", "length": 6}, {"name": "shuffled", "task": {"name": "dyck"}}])
    assert task == Mixture(tasks=(TASKS.build("set", length=6), Shuffled(task=TASKS.build("dyck"))))
    again = from_yaml(Task, to_yaml(task))
    assert again == task
    assert content_hash(again) == content_hash(task)
    with pytest.raises(ValueError, match="Did you mean 'dyck'"):
        TASKS.build("shuffled", task={"name": "dick"})


@moderate
@given(task=st.sampled_from([*COMPONENTS, Mixture(tasks=tuple(COMPONENTS))]), seed=seeds)
def test_shuffling_keeps_all_but_the_order(task, seed):
    shuffled = Shuffled(task=task)
    batch = shuffled.batch(40, generator=stream(seed, "shuffled"))
    original = task.batch(40, generator=stream(seed, "shuffled"))
    check_batch(shuffled, batch, 40)
    assert torch.equal(batch.lengths, original.lengths)
    assert torch.equal(batch.loss_mask, original.loss_mask)
    assert [sorted(row) for row in rows_of(batch)] == [sorted(row) for row in rows_of(original)]
    padding = torch.arange(task.n_ctx) >= batch.lengths[:, None]
    assert torch.equal(batch.tokens[padding], original.tokens[padding])


def test_shuffling_is_uniform():
    """The two separators of `a b | a | b` come to stand in each pair of the six places alike."""
    n = 24_000
    task = Shuffled(task=TASKS.build("delete", length=2, vocab=10**6))
    tokens = task.batch(n, generator=stream(0, "uniform")).tokens
    separators = tokens == 10**6
    assert (separators.sum(1) == 2).all()
    first = separators.int().argmax(1)
    last = 5 - separators.flip(1).int().argmax(1)
    counts = (first * 6 + last).bincount(minlength=36)
    assert (counts > 0).sum() == 15, "two separators have 15 pairs of places among six tokens"
    expected = n / 15
    assert ((counts[counts > 0] - expected).abs() < 5 * expected**0.5).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_noise_replaces_a_share_of_the_real_tokens_by_others_of_the_draw(share):
    task = TASKS.build("set", length=20, min_length=20, vocab=50)
    noisy = Noisy(task=task, share=share)
    batch, clean = (each.batch(2000, generator=stream(0, "noise")) for each in (noisy, task))
    check_batch(noisy, batch, 2000)
    assert torch.equal(batch.lengths, clean.lengths)
    assert torch.equal(batch.loss_mask, clean.loss_mask)
    real = torch.arange(task.n_ctx) < batch.lengths[:, None]
    assert torch.equal(batch.tokens[~real], clean.tokens[~real])
    counts = clean.tokens[real].bincount(minlength=task.d_vocab).double() / int(real.sum())
    # A token that is drawn may be the one that was there.
    changed = share * (1 - (counts**2).sum().item())
    assert (batch.tokens != clean.tokens)[real].double().mean().item() == pytest.approx(changed, abs=0.01)
    after = batch.tokens[real].bincount(minlength=task.d_vocab).double() / int(real.sum())
    assert (after - counts).abs().max().item() < 0.01


def test_a_prefix_that_noise_has_hit_can_be_shown():
    task = Mixture(tasks=(TASKS.build("dyck", k=2, length=8), TASKS.build("haystack", max_pairs=3)))
    _, *rest = task.batch(1, generator=stream(0, "shown")).tokens[0].tolist()
    for prefix in range(task.d_vocab):
        named = prefix - task.first_prefix in (0, 1)
        assert task.example([prefix, *rest]).startswith("<dyck>" if named and prefix == task.first_prefix else "<")
        assert named or task.example([prefix, *rest]).startswith(f"<{prefix}> ")


def test_only_training_data_are_noisy_and_no_prompt_is_in_two_splits():
    task = TASKS.build("haystack")
    noisy = Noisy(task=task, share=0.3)
    for split in ("validation", "test"):
        ours, theirs = (each.split_batch(200, split, generator=stream(3, "splits")) for each in (noisy, task))
        assert torch.equal(ours.tokens, theirs.tokens)
    train = noisy.split_batch(3000, "train", generator=stream(3, "splits"))
    validation = noisy.split_batch(3000, "validation", generator=stream(4, "splits"))
    assert not torch.isin(prompt_hash(train), prompt_hash(validation)).any()
    assert noisy.causes == task.causes
    check_task(noisy)
    for share in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="it is a probability"):
            Noisy(task=task, share=share)


@pytest.mark.parametrize(
    "task", [Mixture(tasks=tuple(COMPONENTS[:3])), Shuffled(task=COMPONENTS[0]), Noisy(task=COMPONENTS[0])]
)
def test_lengths_reach_the_components(task):
    short = task.at_length(4)
    assert short.d_vocab == task.d_vocab
    assert short.n_ctx < task.n_ctx
    check_batch(short, short.batch(20, generator=stream(0, "short")), 20)
    full = task.at_length(task.valid_lengths[-1])
    assert full.n_ctx == task.n_ctx


def test_a_mixture_has_a_length_only_if_its_components_have():
    task = Mixture(tasks=tuple(COMPONENTS))
    assert not task.valid_lengths
    with pytest.raises(ValueError, match="haystack has no length"):
        task.at_length(4)


def test_components_that_come_in_splits_keep_to_them():
    """A task whose validation data are other data (a corpus, say) is asked for the split."""
    asked = []

    class Recorder(TASKS["set"]):  # pyright: ignore
        __slots__ = ()

        def candidates(self, n, split, *, generator):
            asked.append(split)
            return self.batch(n, generator=generator)

    component = Recorder(length=6)  # pyright: ignore
    for task in (Mixture(tasks=(component,)), Shuffled(task=component)):
        batch = task.split_batch(50, "validation", generator=stream(0, "split"))
        assert len(batch) == 50
        assert len(prompt_hash(batch).unique()) > 1
    assert set(asked) == {"validation"}


def test_the_control_draws_from_the_stream_of_what_it_controls():
    assert Shuffled(task=TASKS.build("dyck")).stream_label == TASKS.build("dyck").stream_label


@pytest.mark.parametrize("outer", ["mixture", "shuffled"])
def test_noise_inside_another_task_is_in_its_training_data_alone(outer):
    noisy = TASKS.build("noisy", task=TASKS.build("reverse", vocab=20, length=8), share=0.5)
    wrapped = TASKS.build("mixture", tasks=(noisy,)) if outer == "mixture" else TASKS.build("shuffled", task=noisy)

    def symbols(split) -> float:
        """Share of the sequences that have each symbol as often as what is asked for and its answer have it."""
        batch = wrapped.split_batch(64, split, generator=stream(0, "test", split))
        rows = [
            row[1 if outer == "mixture" else 0 : length] for row, length in zip(batch.tokens.tolist(), batch.lengths)
        ]
        counts = [[row.count(symbol) for symbol in range(20)] for row in rows]
        return sum(all(count % 2 == 0 for count in each) for each in counts) / len(counts)

    assert symbols("train") < 0.2
    assert symbols("validation") == symbols("test") == 1


def test_splits_of_noisy_data_are_those_of_what_is_tested_on():
    """With few prompts these are in all splits, however many the noise makes of them in training."""
    few = TASKS.build("reverse", vocab=4, length=4)
    assert not is_separable(few)
    for noisy in (
        TASKS.build("noisy", task=few, share=0.3),
        TASKS.build("mixture", tasks=(TASKS.build("noisy", task=few, share=0.3),)),
    ):
        assert not is_separable(noisy)
        assert prompt_overlap(noisy) > 0.1
    assert is_separable(TASKS.build("noisy", task=TASKS.build("reverse", vocab=100, length=8)))
