"""Compression and entropy rate, on sources whose entropy is known."""

import gzip
import math

import numpy as np
import pytest

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.data.estimators import as_bytes, entropy_rate_bits, gzip_ratio, shuffled_tokens

N = 2**14
LENGTHS = np.full(N // 64, 64)


@pytest.mark.parametrize("n_symbols", [2, 16, 100, 300])
def test_uniform_tokens_have_the_entropy_of_a_guess(n_symbols: int):
    tokens = numpy_stream(0, "uniform", n_symbols).integers(n_symbols, size=N)
    assert entropy_rate_bits(tokens, LENGTHS, n_symbols) == pytest.approx(math.log2(n_symbols), rel=0.01)
    # gzip does not reach the entropy per byte, but never falls below it.
    n_bytes = 1 if n_symbols <= 256 else 2
    assert math.log2(n_symbols) / 8 / n_bytes < gzip_ratio(tokens, n_symbols) < 1.01
    assert gzip_ratio(shuffled_tokens(tokens), n_symbols) == pytest.approx(gzip_ratio(tokens, n_symbols), rel=0.02)


def test_ids_that_are_rarely_used_have_the_entropy_of_their_frequencies():
    tokens = (numpy_stream(0, "skewed").random(N) < 0.11).astype(np.int64)
    h = -0.11 * math.log2(0.11) - 0.89 * math.log2(0.89)
    assert entropy_rate_bits(tokens, LENGTHS, 40) == pytest.approx(h, abs=0.03)


def test_a_constant_has_none():
    tokens = np.zeros(N, np.int64)
    assert entropy_rate_bits(tokens, LENGTHS, 100) < 0.01
    assert gzip_ratio(tokens, 100) < 0.01


@pytest.mark.parametrize("order", [1, 2])
def test_a_markov_chain(order: int):
    """Its entropy rate is worked out from its own chances; the estimate is above it by the cost of learning them."""
    k = 6
    random = numpy_stream(0, "chain", order)
    chances = random.dirichlet(np.full(k, 0.3), size=k**order)
    tokens, context, bits = [], 0, 0.0
    for _ in range(N):
        token = int(random.choice(k, p=chances[context]))
        bits -= math.log2(chances[context][token])
        tokens.append(token)
        context = (context * k + token) % k**order
    found = entropy_rate_bits(np.array(tokens), LENGTHS, k)
    assert bits / N - 0.02 < found < bits / N + 0.08 * order
    assert gzip_ratio(np.array(tokens), k) < 0.9 * gzip_ratio(shuffled_tokens(np.array(tokens)), k)


def test_a_copy_within_the_sequence_costs_next_to_nothing():
    """Half of each sequence repeats the other: no k-gram over all sequences sees that."""
    half = numpy_stream(0, "copies").integers(100, size=(N // 128, 64))
    tokens = np.concatenate([half, half], axis=1).ravel()
    found = entropy_rate_bits(tokens, np.full(N // 128, 128), 100)
    assert math.log2(100) / 2 < found < math.log2(100) / 2 + 0.3


def test_contexts_end_with_their_sequence():
    """What stood in the sequence before says nothing: pairs of which the first is random, and the second its equal."""
    first = numpy_stream(0, "pairs").integers(32, size=N // 2)
    pairs = np.stack([first, first], axis=1).ravel()
    found = entropy_rate_bits(pairs, np.full(N // 2, 2), 32)
    assert found == pytest.approx(2.5, abs=0.15)


def test_a_sequence_of_any_length_counts():
    random = numpy_stream(0, "ragged")
    lengths = random.integers(1, 30, size=600)
    tokens = random.integers(9, size=lengths.sum())
    assert entropy_rate_bits(tokens, lengths, 9) == pytest.approx(math.log2(9), rel=0.02)


def test_no_predictor_looks_ahead():
    """Chances of all possible next tokens sum to one: what follows a half is predicted from that half alone."""
    random = numpy_stream(0, "sum")
    start = random.integers(3, size=24)
    lengths = np.array([8, 8, 9])
    # With three sequences all but the first count: here differences in the last token alone.
    bits = [entropy_rate_bits(np.append(start, token), lengths, 3) * 17 for token in range(3)]
    before = entropy_rate_bits(start, np.array([8, 8, 8]), 3) * 16
    assert sum(2 ** (before - each) for each in bits) == pytest.approx(1)


def test_how_tokens_become_bytes():
    assert as_bytes(np.array([0, 255]), 256) == b"\x00\xff"
    assert as_bytes(np.array([1, 256]), 257) == b"\x01\x00\x00\x01"
    tokens = np.arange(200)
    assert gzip_ratio(tokens, 200) == len(gzip.compress(bytes(range(200)), 9)) / 200
    with pytest.raises(ValueError, match="d_vocab=70000"):
        as_bytes(tokens, 70_000)


def test_shuffled_tokens_are_the_same_in_another_order():
    tokens = np.arange(100)
    shuffled = shuffled_tokens(tokens)
    assert sorted(shuffled) == list(range(100))
    assert shuffled.tolist() != tokens.tolist()
    assert shuffled.tolist() == shuffled_tokens(tokens).tolist() != shuffled_tokens(tokens, 1).tolist()


def test_one_sequence_is_too_few():
    with pytest.raises(ValueError, match="1 sequences"):
        entropy_rate_bits(np.zeros(9, np.int64), np.array([9]), 2)
