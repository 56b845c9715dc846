import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import given, settings

from procpre_interp.core.seeding import MT_WORDS, numpy_stream, stream

labels = st.lists(st.one_of(st.text(max_size=5), st.integers(-5, 5)), max_size=3).map(tuple)


def first_words(generator: torch.Generator, n: int = 8) -> list[int]:
    return torch.empty(n, dtype=torch.int32).random_(generator=generator).tolist()


@settings(deadline=None)
@given(seed=st.integers(0, 2**70), names=labels)
def test_a_stream_is_a_function_of_its_labels(seed, names):
    assert first_words(stream(seed, *names)) == first_words(stream(seed, *names))


@settings(deadline=None)
@given(seeds=st.tuples(st.integers(0, 3), st.integers(0, 3)), names=st.tuples(labels, labels))
def test_streams_of_other_labels_differ(seeds, names):
    same = (seeds[0], names[0]) == (seeds[1], names[1])
    first, second = (stream(seed, *name) for seed, name in zip(seeds, names))
    assert (first_words(first) == first_words(second)) == same


def test_labels_do_not_run_into_one_another():
    variants = [("ab", "c"), ("a", "bc"), ("abc",), (1, "a"), ("1", "a"), ("a",), (), ("",), ("a", "")]
    drawn = {tuple(first_words(stream(0, *names))) for names in variants}
    assert len(drawn) == len(variants)
    assert first_words(stream(1)) != first_words(stream(0, 1))


def test_drawing_from_one_stream_leaves_the_others_alone():
    expected = first_words(stream(3, "b"))
    one = stream(3, "a")
    other = stream(3, "b")
    first_words(one, 1000)
    assert first_words(other) == expected


def test_the_words_are_those_of_numpys_mersenne_twister():
    """The state that `stream` sets is the engine's whole state, read as numpy reads it."""
    generator = stream(7, "words")
    packed = generator.get_state().numpy()
    key = packed[24 : 24 + 8 * MT_WORDS].view(np.uint64).astype(np.uint32)
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": key, "pos": MT_WORDS}}
    expected = np.random.Generator(twister).integers(0, 2**32, 2000, dtype=np.uint32)
    # torch takes the low 31 bits of each 32-bit word.
    assert first_words(generator, 2000) == (expected & 0x7FFFFFFF).tolist()


def test_streams_do_not_collide_as_seeds_of_32_bits_would():
    """The whole state differs: of its 624 words two streams share about as many as chance has it, none."""
    states = {}
    for seed in range(2000):
        state = stream(seed, "collide").get_state().numpy()[24 : 24 + 8 * MT_WORDS].tobytes()
        assert state not in states
        states[state] = seed
    first, second = (np.frombuffer(state, np.uint64) for state in list(states)[:2])
    assert (first == second).sum() <= 1


def test_the_128_bits_of_the_labels_reach_the_state():
    """`manual_seed` keeps 32 bits: two seeds 2^32 apart are one there, and two here."""
    manual = [torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32)]
    assert first_words(manual[0]) == first_words(manual[1])
    assert first_words(stream(5)) != first_words(stream(5 + 2**32))


def test_draws_are_uniform_across_streams():
    """First draws of neighbouring streams: as random as the draws of one."""
    first = torch.cat([torch.rand(1, generator=stream(seed, "across")) for seed in range(4000)])
    assert abs(first.mean().item() - 0.5) < 0.02
    counts = (first * 10).long().bincount(minlength=10)
    assert ((counts - 400).abs() < 5 * 400**0.5).all()
    following = torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1]
    assert following.abs() < 0.06


def test_numpy_streams_are_streams_too():
    drawn = numpy_stream(0, "a").random(5).tolist()
    assert numpy_stream(0, "a").random(5).tolist() == drawn
    assert numpy_stream(0, "b").random(5).tolist() != drawn
    assert numpy_stream(1, "a").random(5).tolist() != drawn


def test_the_numpy_stream_is_not_the_torch_stream():
    """Different engines of one 128-bit seed: the numbers have nothing to do with one another."""
    ours = torch.rand(2000, generator=stream(0, "a"), dtype=torch.float64).numpy()
    assert abs(np.corrcoef(ours, numpy_stream(0, "a").random(2000))[0, 1]) < 0.1


def test_global_generators_are_left_alone():
    def state():
        return torch.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002

    before = state()
    first_words(stream(0, "a"))
    numpy_stream(0, "a").random()
    after = state()
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
