"""The greedy search over recipes, against exhaustive search on made-up scores; and the file of the lab."""

import dataclasses
import itertools
import json

import pytest

from experiments import search_initialisation as script
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.stats.greedy_search import NOTHING, greedy_search, neighbours, recipe_name
from procpre_interp.store.store import RunStore
from procpre_interp.study.initialisation_lab import SCALES, Lab, fit_options, read_lab, write_lab
from procpre_interp.study.protocols import PROTOCOLS
from procpre_interp.study.smoke_test import few_steps
from procpre_interp.train import Initialisation
from tests.models import random_model
from tests.serial import execute_here
from tests.test_closed_form import PHASE1

OPTIONS = {"a": ("a1", "a2"), "b": ("b1",), "c": ("c1", "c2")}


def additive(seed: int):
    """A score to which each option adds a number of its own: greedy steps find the best of all."""
    names = [name for options in OPTIONS.values() for name in options]
    worth = dict(zip(names, numpy_stream(seed, "worth").normal(size=len(names))))
    return lambda recipes: [float(sum(worth[name] for name in recipe.values())) for recipe in recipes]


def every_recipe():
    for picked in itertools.product(*([None, *options] for options in OPTIONS.values())):
        yield {factor: option for factor, option in zip(OPTIONS, picked) if option is not None}


def test_neighbours_differ_in_one_factor():
    found = neighbours({"a": "a1", "c": "c2"}, OPTIONS)
    assert [recipe_name(recipe) for recipe in found] == [
        "c2",
        "a2 + c2",
        "a1 + b1 + c2",
        "a1",
        "a1 + c1",
    ]
    assert recipe_name({}) == NOTHING


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("start", [{}, {"a": "a2", "b": "b1"}])
def test_the_search_finds_the_best_where_options_add_up(seed, start):
    score = additive(seed)
    search = greedy_search(OPTIONS, start, score, budget=100)
    assert search.best == max(every_recipe(), key=lambda recipe: score([recipe])[0])
    assert search.reason == "no recipe that differs in one factor is better"
    assert search.rounds[0] == {recipe_name(start): search.score if start == search.best else score([start])[0]}


def test_a_recipe_is_scored_once_and_the_budget_holds():
    scored: list[str] = []

    def score(recipes):
        scored.extend(recipe_name(recipe) for recipe in recipes)
        return additive(1)(recipes)

    search = greedy_search(OPTIONS, {}, score, budget=3 * 11, cost=3)
    assert len(scored) == len(set(scored)) <= 11
    assert search.reason == "the next round would take 9 runs, and 0 are left"
    assert search.score == max(additive(1)([recipe])[0] for recipe in every_recipe() if recipe_name(recipe) in scored)
    least = greedy_search(OPTIONS, {}, score, budget=2)
    assert least.best == {}
    assert least.reason == "the next round would take 5 runs, and 1 are left"


def test_a_tie_stays_where_it_is():
    search = greedy_search(OPTIONS, {"b": "b1"}, lambda recipes: [0.0] * len(recipes), budget=50)
    assert search.best == {"b": "b1"}
    assert len(search.rounds) == 2


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(ValueError, match="unknown option of a recipe 'a: b1'"):
        greedy_search(OPTIONS, {"a": "b1"}, additive(0), budget=9)
    with pytest.raises(ValueError, match="budget=3"):
        greedy_search(OPTIONS, {}, additive(0), budget=3, cost=4)


def test_a_lab_is_kept_as_it_is(tmp_path):
    fitted = fit_options([random_model(PHASE1, seed=seed) for seed in range(2)])
    lab = Lab(fitted=fitted, about={"tuning_seeds": [0, 1]})
    assert all(SCALES[factor] in lab.options[factor] for factor in SCALES)
    search = greedy_search(lab.options, SCALES, lambda recipes: [-float(len(each)) for each in recipes], budget=100)
    assert search.best == {}
    search = greedy_search(lab.options, SCALES, lambda recipes: [float(len(each)) for each in recipes], budget=100)
    lab = Lab(fitted=fitted, search=search, about=lab.about)
    write_lab(lab, tmp_path / "lab.json")
    again = read_lab(tmp_path / "lab.json")
    assert again.fitted == lab.fitted
    assert again.search == search
    assert again.best == {**SCALES, "mlp": "MLP scale"}
    assert again.about == {"tuning_seeds": [0, 1]}
    done = again.interventions(again.best)
    assert len(done) == 6
    assert all(isinstance(each, Initialisation) for each in done)
    condition = again.condition("x", {"norms": "LayerNorm scale"}, label="norms")
    assert condition.interventions == (fitted["norms"]["LayerNorm scale"],)
    for damaged in ({}, {"search": {}, "fitted": {}}, {"search": {"recipe": {"a": "b"}}, "fitted": {"a": {}}}):
        (tmp_path / "lab.json").write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match="holds no fitted initialisations"):
            read_lab(tmp_path / "lab.json")


def test_the_search_from_nothing_to_its_file_and_on_again(tmp_path, monkeypatch, capsys, runs_here):
    few = few_steps(PROTOCOLS["cheap"].phase2)
    monkeypatch.setattr(script, "execute_all", execute_here)
    monkeypatch.setattr(script, "few_steps", lambda train: dataclasses.replace(few, steps=4))
    arguments = ["--quick", "--out", str(tmp_path), "--workers", "2", "--budget", "12"]
    assert script.main(arguments) == 0
    printed = capsys.readouterr().out
    lab = read_lab(tmp_path / "initialisation.json")
    assert lab.about["quick"] is True
    assert lab.about["tuning_seeds"] == [0]
    assert len(lab.search.rounds[1]) == 11
    assert recipe_name(lab.best) in printed
    before = set(RunStore(tmp_path).query()["run"])
    assert len(before) == 2 + 1 + 12  # phase 1, none, the start and its neighbours
    assert script.main(arguments) == 0
    assert set(RunStore(tmp_path).query()["run"]) == before
    assert read_lab(tmp_path / "initialisation.json").search == lab.search
    capsys.readouterr()
    assert script.main([*arguments[:-1], "0"]) == 2
    assert "budget=0; scoring the start alone takes 1 runs" in capsys.readouterr().err
