"""Successive halving: many options tried cheaply, the best of them again on a larger budget. No torch.

What it finds was chosen for its score on the tuning seeds, which flatters it: it is worth what it does on others.
Source: Jamieson and Talwalkar, Non-stochastic best arm identification (arXiv 1502.07943).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Halving:
    """What was found, and how."""

    best: str
    """The option with the highest score of the last round."""
    rounds: list[dict[str, float]]
    """Scores of each round: option -> score, of those that were still in it."""


def successive_halving(
    options: Sequence[str], score: Callable[[list[str], int], Sequence[float]], *, kept: Sequence[int]
) -> Halving:
    """The option that is left. `score(options, round)` gives one number each, higher is better, on the round's budget.

    After round i the best `kept[i]` go on; the last round, one more than these, decides. Ties go to the option that
    stands first. Raises `ValueError` for options that are none or not distinct, and unless fewer go on each time.
    """
    sizes = [len(options), *kept]
    if not options or len(set(options)) < len(options):
        raise ValueError(f"options={list(options)}; give at least one, and each once")
    if any(more <= fewer for more, fewer in itertools.pairwise(sizes)) or sizes[-1] < 1:
        raise ValueError(f"of {len(options)} options {list(kept)} are kept; fewer must go on each time, and at least 1")
    left, rounds = list(options), list[dict[str, float]]()
    for size in (*kept, 1):
        scores = dict(zip(left, score(left, len(rounds)), strict=True))
        rounds.append(scores)
        best = sorted(left, key=lambda option: -scores[option])[:size]
        left = [option for option in left if option in best]
    return Halving(best=left[0], rounds=rounds)


def halving_from_plain(found: Mapping[str, Any]) -> Halving:
    """A search that was stored as `dataclasses.asdict` gives it. Raises `ValueError`, `LookupError`, `TypeError` or
    `AttributeError` for anything else."""
    rounds = [{str(option): float(value) for option, value in scores.items()} for scores in found["rounds"]]
    best = str(found["best"])
    if not rounds or best not in rounds[-1]:
        raise ValueError(f"best={best!r} is not among the options of the last round")
    return Halving(best=best, rounds=rounds)
