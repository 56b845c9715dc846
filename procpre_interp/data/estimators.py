"""How complex are sequences? Two measures of tokens alone, by compression and by prediction.

Both are of the sample, not of a model: the first is what the field compares generators by, the second an estimate from
above of the entropy rate.
"""

import gzip
import math

import numpy as np
from jaxtyping import Float, Int

from procpre_interp.core.seeding import numpy_stream

MOST_CONTEXT = 6
"""Tokens of the longest context that the predictors look at."""
MEMORIES = (0.8, 0.95, 0.99)
"""Factors by which a predictor's past success counts less with each further token."""
POSITION_MEMORY = 0.9
"""The same with each further sequence, for its success at the same position."""


def as_bytes(tokens: Int[np.ndarray, " token"], d_vocab: int) -> bytes:
    """One byte per token where 256 ids are enough, otherwise two, the lower first."""
    if d_vocab > 2**16:
        raise ValueError(f"d_vocab={d_vocab}; a token is written as two bytes at most, so d_vocab may be {2**16}")
    return tokens.astype("<u1" if d_vocab <= 2**8 else "<u2").tobytes()


def gzip_ratio(tokens: Int[np.ndarray, " token"], d_vocab: int) -> float:
    """Compressed bytes per byte of the tokens, gzip at level 9. Depends on how tokens become bytes: see `as_bytes`.

    Compare it with that of `shuffled_tokens`: both fall where few of the bytes' values are in use, which is no
    structure. gzip looks back over 32 kB.
    """
    raw = as_bytes(tokens, d_vocab)
    return len(gzip.compress(raw, compresslevel=9, mtime=0)) / len(raw)


def shuffled_tokens(tokens: Int[np.ndarray, " token"], seed: int = 0) -> Int[np.ndarray, " token"]:
    """The tokens in random order over the whole sample: the memoryless source with the same counts."""
    return numpy_stream(seed, "complexity", "shuffled").permutation(tokens)


def entropy_rate_bits(tokens: Int[np.ndarray, " token"], lengths: Int[np.ndarray, " sequence"], d_vocab: int) -> float:
    """Bits per token that a mixture of predictors needs for the second half of the sequences, having seen the rest.

    An estimate from above: sequences drawn alike cost on average at least their entropy under any predictor. What is
    missed is the structure that none of the predictors sees. They are k-gram models with contexts of 0 to 6 tokens of
    the same sequence, counted over all earlier tokens and over those of the same sequence only (which sees repeats and
    copies), and one of the position. A k-gram's chance is (count of token + chance by the shorter context) / (count of
    context + 1): a hierarchical Dirichlet prior of strength 1, from the uniform up. Predictors are weighted by how well
    they did, the recent past counting most or the same position of earlier sequences, and these ways to weight by how
    well they did. Each step is a probability distribution that only depends on the past, so the bound holds for any
    sample. Sorting, arithmetic or a cellular automaton count as noise here.

    Source: hierarchical prior, MacKay and Peto, "A hierarchical Dirichlet language model" (1995); mixing contexts as in
    context-tree weighting, which Gao, Kontoyiannis and Bienenstock, "Estimating the entropy of binary time series"
    (2008) find least biased among the estimators they compare; the weights by discounted success are our own.

    Raises:
        ValueError: fewer than two sequences.
    """
    if len(lengths) < 2:
        raise ValueError(f"{len(lengths)} sequences; the estimate needs at least 2, to predict one from the other")
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(len(tokens)) - (np.cumsum(lengths) - lengths)[sequence]
    log_chances = _predictors(tokens, sequence, position, d_vocab)
    mixtures = [_mixed(log_chances, _recent_success(log_chances, memory)) for memory in MEMORIES]
    mixtures.append(_mixed(log_chances, _success_by_position(log_chances, sequence, position)))
    chosen = np.stack(mixtures)
    bits = -_mixed(chosen, _recent_success(chosen, 1.0)) / math.log(2)
    return float(bits[sequence >= len(lengths) // 2].mean())


def _predictors(
    tokens: Int[np.ndarray, " token"],
    sequence: Int[np.ndarray, " token"],
    position: Int[np.ndarray, " token"],
    d_vocab: int,
) -> Float[np.ndarray, "predictor token"]:
    """Log of the chance that each predictor gave to each token."""
    uniform = np.full(len(tokens), 1 / d_vocab)
    everywhere, here = [], []
    context, own_context = np.zeros(len(tokens), np.int64), sequence
    for k in range(MOST_CONTEXT + 1):
        if k > 0:
            # One further token back, or the sequence's start.
            earlier = np.where(position >= k, np.roll(tokens, k), d_vocab)
            context = _numbered(context * (d_vocab + 1) + earlier)
            own_context = _numbered(own_context * (d_vocab + 1) + earlier)
        everywhere.append(_adaptive(tokens, context, everywhere[-1] if k else uniform, d_vocab))
        here.append(_adaptive(tokens, own_context, here[-1] if k else uniform, d_vocab))
    by_position = _adaptive(tokens, position, uniform, d_vocab)
    return np.log(np.stack([*everywhere, *here, by_position]))


def _adaptive(
    tokens: Int[np.ndarray, " token"],
    context: Int[np.ndarray, " token"],
    shorter: Float[np.ndarray, " token"],
    d_vocab: int,
) -> Float[np.ndarray, " token"]:
    """Chance of each token by what has followed its context so far, and by the `shorter` context."""
    return (_seen_before(context * d_vocab + tokens) + shorter) / (_seen_before(context) + 1)


def _numbered(values: Int[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    """The values replaced by small numbers, equal ones by equal ones."""
    return np.unique(values, return_inverse=True)[1]


def _seen_before(values: Int[np.ndarray, " token"]) -> Int[np.ndarray, " token"]:
    """How often each value occurs before its place."""
    order = np.argsort(values, kind="stable")
    ascending = values[order]
    first = np.flatnonzero(np.append(True, ascending[1:] != ascending[:-1]))
    sizes = np.diff(np.append(first, len(values)))
    count = np.empty(len(values), np.int64)
    count[order] = np.arange(len(values)) - np.repeat(first, sizes)
    return count


def _recent_success(
    log_chances: Float[np.ndarray, "predictor token"], memory: float
) -> Float[np.ndarray, "predictor token"]:
    """Sum of a predictor's earlier log-chances, each counted `memory` times less per token gone by."""
    return _discounted(log_chances, memory)


def _success_by_position(
    log_chances: Float[np.ndarray, "predictor token"],
    sequence: Int[np.ndarray, " token"],
    position: Int[np.ndarray, " token"],
) -> Float[np.ndarray, "predictor token"]:
    """The same at the same position of earlier sequences."""
    grid = np.zeros((len(log_chances), sequence[-1] + 1, position.max() + 1))
    grid[:, sequence, position] = log_chances
    return _discounted(grid, POSITION_MEMORY)[:, sequence, position]


def _discounted(
    values: Float[np.ndarray, "predictor time *rest"], memory: float
) -> Float[np.ndarray, "predictor time *rest"]:
    """Sum over all earlier times, each counted `memory` times less per time gone by."""
    from scipy.signal import lfilter  # slow to import, and listing tasks measures none

    return np.asarray(lfilter([0.0, 1.0], [1.0, -memory], values, axis=1))


def _mixed(
    log_chances: Float[np.ndarray, "predictor token"], success: Float[np.ndarray, "predictor token"]
) -> Float[np.ndarray, " token"]:
    """Log of the chances' mean, each weighted by the exponential of its predictor's success."""
    weights = success - np.logaddexp.reduce(success, axis=0)
    return np.logaddexp.reduce(log_chances + weights, axis=0)
