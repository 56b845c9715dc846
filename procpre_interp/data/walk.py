"""Walks through a finite set without replacement: a new random order in every epoch, and no state.

Where the walk stands is a function of the seed and of the step's number, so a resumed run finds its place, and memory
does not grow with the set. Each epoch's order is a Feistel network: rounds in which one half of the number is shifted
by a hash of the other, which is a permutation whatever the hash.
"""

import math

import numpy as np
from jaxtyping import Int64, UInt64

from procpre_interp.core.seeding import numpy_stream

ROUNDS = 12
"""Rounds of the network. Even those of a few dozen places then pass for uniform permutations."""

_MULTIPLIERS = np.array([0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53], np.uint64)
"""The constants of MurmurHash3's finaliser."""
_SHIFT = np.uint64(33)


def walk(steps: Int64[np.ndarray, " step"], size: int, *, seed: int, label: str) -> Int64[np.ndarray, " step"]:
    """The place, from 0 to `size`, of each of these steps: steps `e * size` to `(e + 1) * size` are epoch e, and come
    to every place once. Any number of steps may be asked for, in any order. Seed and label choose the orders."""
    keys = numpy_stream(seed, label, "walk").integers(2**64, size=ROUNDS, dtype=np.uint64)
    epochs, places = (part.astype(np.uint64) for part in np.divmod(steps, size))
    # A grid with hardly more places than are wanted; who comes to one of the others goes on until it is a wanted one.
    rows = math.isqrt(size - 1) + 1
    columns = -(-size // rows)
    places = _permuted(places, epochs, rows, columns, keys)
    while (beyond := places >= size).any():
        places[beyond] = _permuted(places[beyond], epochs[beyond], rows, columns, keys)
    return places.astype(np.int64)


def _permuted(
    places: UInt64[np.ndarray, " step"],
    epochs: UInt64[np.ndarray, " step"],
    rows: int,
    columns: int,
    keys: UInt64[np.ndarray, " round"],
) -> UInt64[np.ndarray, " step"]:
    """A permutation of `rows * columns` places for each epoch."""
    row, column = np.divmod(places, np.uint64(columns))
    for number, key in enumerate(keys):
        if number % 2:
            row = (row + _hash(column, epochs, key) % np.uint64(rows)) % np.uint64(rows)
        else:
            column = (column + _hash(row, epochs, key) % np.uint64(columns)) % np.uint64(columns)
    return row * np.uint64(columns) + column


def _hash(
    values: UInt64[np.ndarray, " step"], epochs: UInt64[np.ndarray, " step"], key: np.uint64
) -> UInt64[np.ndarray, " step"]:
    hashed = values ^ key
    for mixed in (epochs, np.uint64(0)):
        for multiplier in _MULTIPLIERS:
            hashed = (hashed ^ (hashed >> _SHIFT)) * multiplier  # modulo 2^64
        hashed = hashed ^ (hashed >> _SHIFT) ^ mixed
    return hashed
