"""Named random streams: every use of randomness draws from a generator that its labels identify.

Two streams with different labels are independent, and a stream does not depend on which others were drawn
before it. So labels must never name the experimental condition: with the same seed, all conditions then see
the same data and the same fresh weights, which pairs the comparison.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

MT_WORDS = 624
"""State words of the Mersenne Twister, the engine of torch's CPU generator."""

_LEGACY_STATE = np.dtype(
    [
        ("seed", "<u8"),
        ("left", "<i4"),
        ("seeded", "<i4"),
        ("next", "<u8"),
        ("state", "<u8", (MT_WORDS,)),
        ("normals", "<f8", (3,)),
        ("normal_valid", "<i4"),
        ("padding", "<i4"),
        ("next_float", "<f4"),
        ("next_float_valid", "<i4"),
    ]
)


def _seed_sequence(seed: int, labels: tuple[str | int, ...]) -> np.random.SeedSequence:
    # A separator that no label contains keeps ("ab", "c") apart from ("a", "bc"); the type keeps 1 apart from "1".
    text = "\x1f".join([str(seed), *(f"{type(label).__name__}:{label}" for label in labels)])
    return np.random.SeedSequence(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def numpy_stream(seed: int, *labels: str | int) -> np.random.Generator:
    """The numpy generator of a named stream, for statistics; needs no torch."""
    return np.random.Generator(np.random.PCG64(_seed_sequence(seed, labels)))


def stream(seed: int, *labels: str | int) -> "torch.Generator":
    """The CPU `torch.Generator` of a named stream.

    The labels' SHA-256 gives 128 bits, and these the whole state of the engine. `manual_seed` would not do: a CPU
    generator keeps only 32 bits of its argument, so that two of some 10^5 streams would coincide.
    """
    import torch

    words = _seed_sequence(seed, labels).generate_state(MT_WORDS, np.uint32)
    generator = torch.Generator()
    raw = generator.get_state().numpy().view(_LEGACY_STATE)
    raw["state"] = words
    # One word left: the engine mixes the whole state at the next draw, as after its own seeding.
    raw["left"], raw["seeded"], raw["next"] = 1, 1, 0
    generator.set_state(torch.from_numpy(raw.view(np.uint8)))
    return generator
