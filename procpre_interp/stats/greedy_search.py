"""Greedy search over combinations of options, within a fixed budget of runs. No torch.

A recipe takes one option, or none, of each factor. From a start the search tries every recipe that differs in one
factor, goes on from the best, and stops when none is better, or when the next round would cost more than is left.
What it finds was chosen for its score on the tuning seeds, which flatters it: it is worth what it does on others.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.terminal import beside_package

Options = Mapping[str, Sequence[str]]
"""Factor -> names of its options, beside none."""
Recipe = dict[str, str]
"""Factor -> option, in the order of the factors; one that is not there has none."""
FILE = beside_package("experiments") / "results" / "initialisation.json"
"""What `experiments/search_initialisation.py` wrote: fitted numbers, and the search over them."""
NOTHING = "nothing"
"""Name of the recipe without any option."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What a search found, and how."""

    best: Recipe
    """The best of all recipes that were scored."""
    score: float
    """Its own."""
    rounds: list[dict[str, float]]
    """The scores of each round: recipe's name -> score; the first has the start alone."""
    reason: str
    """Why it ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSearch:
    """A search in its file, and the seeds that recipes were scored on."""

    search: Search
    tuning_seeds: tuple[int, ...]


def recipe_name(recipe: Mapping[str, str]) -> str:
    """What people read: its options, joined by " + "."""
    return " + ".join(recipe.values()) or NOTHING


def neighbours(recipe: Mapping[str, str], options: Options) -> list[Recipe]:
    """Every recipe that differs in one factor: another option of it, or none."""
    found = []
    for factor, names in options.items():
        for option in (None, *names):
            if option != recipe.get(factor):
                changed = {**recipe, factor: option}
                found.append({key: name for key in options if (name := changed.get(key)) is not None})
    return found


def options_named(names: Sequence[str], options: Options) -> Recipe:
    """The recipe of these options. Raises `ValueError` for one that does not exist, and for two of one factor."""
    factors = {name: factor for factor, some in options.items() for name in some}
    recipe: Recipe = {}
    for name in names:
        if name not in factors:
            raise unknown_name("option of a recipe", name, list(factors))
        if other := recipe.get(factors[name]):
            raise ValueError(f"{other!r} and {name!r} are both options of {factors[name]}; choose one of them")
        recipe[factors[name]] = name
    return {factor: recipe[factor] for factor in options if factor in recipe}


def greedy_search(
    options: Options,
    start: Mapping[str, str],
    score: Callable[[list[Recipe]], list[float]],
    *,
    budget: int,
    cost: int = 1,
) -> Search:
    """The best recipe that greedy steps from `start` find. `score` gives one number per recipe; higher is better.

    A recipe costs `cost` runs, once: what was scored before is not scored again. Ties go to the recipe that was there
    first. Raises `ValueError` for a start that names no option, or a budget that does not even score it.
    """
    for factor, option in start.items():
        if factor not in options or option not in options[factor]:
            names = [f"{factor}: {name}" for factor, names in options.items() for name in names]
            raise unknown_name("option of a recipe", f"{factor}: {option}", names)
    if budget < cost:
        raise ValueError(f"budget={budget}; scoring the start alone takes {cost} runs")
    current = {factor: start[factor] for factor in options if factor in start}
    known: dict[str, tuple[float, Recipe]] = {recipe_name(current): (score([current])[0], current)}
    rounds = [{name: value for name, (value, _) in known.items()}]
    while True:
        here = known[recipe_name(current)][0]
        tried = neighbours(current, options)
        new = [recipe for recipe in tried if recipe_name(recipe) not in known]
        left = budget - cost * len(known)
        if cost * len(new) > left:
            reason = f"the next round would take {cost * len(new)} runs, and {left} are left"
            break
        for recipe, value in zip(new, score(new) if new else []):
            known[recipe_name(recipe)] = value, recipe
        rounds.append({recipe_name(recipe): known[recipe_name(recipe)][0] for recipe in tried})
        best = max(tried, key=lambda recipe: known[recipe_name(recipe)][0], default=current)
        if not known[recipe_name(best)][0] > here:
            reason = "no recipe that differs in one factor is better"
            break
        current = best
    score_of_best, best = max(known.values(), key=lambda pair: pair[0])
    return Search(best=best, score=score_of_best, rounds=rounds, reason=reason)


def plain_search(search: Search) -> dict[str, object]:
    """The search as plain values, for JSON."""
    return {
        "recipe": search.best,
        "name": recipe_name(search.best),
        "score": search.score,
        "rounds": search.rounds,
        "reason": search.reason,
    }


def search_from_plain(found: Mapping[str, Any]) -> Search:
    """The inverse of `plain_search`. Raises `ValueError`, `LookupError`, `TypeError` or `AttributeError` for anything
    else."""
    rounds = [{str(name): float(score) for name, score in tried.items()} for tried in found["rounds"]]
    if not (rounds and all(rounds)):
        raise ValueError("no rounds")
    best = {str(factor): str(option) for factor, option in found["recipe"].items()}
    scores = {name: score for tried in rounds for name, score in tried.items()}
    return Search(best=best, score=scores[recipe_name(best)], rounds=rounds, reason=str(found["reason"]))


def read_search(path: Path = FILE) -> StoredSearch:
    """The search in a file. Raises `ValueError` where it holds anything else."""
    try:
        found = json.loads(path.read_bytes())
        seeds = tuple(int(seed) for seed in found["tuning_seeds"])
        return StoredSearch(search=search_from_plain(found["search"]), tuning_seeds=seeds)
    except (LookupError, TypeError, AttributeError, ValueError) as problem:
        raise ValueError(f"{path} holds no search over recipes: {problem!r}") from None
