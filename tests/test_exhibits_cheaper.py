"""Shares of a gain, entropy beside breakthrough, and the search, on numbers that are known and on the package's own."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.claim import Verdict
from procpre_interp.claims.files import claim_scripts
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.stats.greedy_search import recipe_name
from procpre_interp.stats.recovered_share import FULL
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About
from procpre_interp.study.scripts import load_experiment
from procpre_interp.views.exhibits import cheaper
from procpre_interp.views.exhibits.claims import load_claims
from procpre_interp.views.exhibits.results import Results
from tests.judged import contrast_result, stored_claim
from tests.results import NAN

CONDITIONS = {"none": 0.1, "recipe": 0.5, "worse": 0.05, "intact": 0.9}


def judged(*, entropies: bool = True, weights: dict | None = None, **more) -> StoredClaim:
    rows = []
    for seed in range(1000, 1006):
        for name, accuracy in CONDITIONS.items():
            value = accuracy if name == "none" else accuracy + 0.02 * (seed - 1002.5)
            row = {"condition": name, "label": f"the {name}", "replicate": seed, "run": f"{name}{seed}"}
            row |= {"status": "finished", "accuracy": value, "breakthrough_step": NAN, "limit": 5000, "observed": False}
            if name == "intact":
                row["breakthrough_step"] = 1000.0 + 100 * (seed - 1000)
            if entropies and name != "worse":
                row |= {"entropy_start": 0.99 if name == "none" else 0.9, "entropy_relative": accuracy / 2}
            rows.append(row)
    first = contrast_result(weights=weights or {"recipe": 1, "intact": -1})
    return stored_claim(pd.DataFrame(rows), contrasts=(first,), **more)


def test_shares_are_of_the_transfers_gain():
    exhibit = cheaper.shares(judged())
    table = exhibit.table.set_index("condition")
    assert table["estimate"].to_dict() == pytest.approx({"recipe": 0.5, "worse": -0.0625})
    dots, means, *references = exhibit.figure.data
    assert sorted(dots.x)[-1] == pytest.approx(100 * (0.4 + 0.05) / 0.8)
    assert exhibit.title == "Claim: A claim - undecided"
    assert "% of the real transfer's" in exhibit.figure.layout.xaxis.title.text.replace("<br>", " ")
    assert [line.name for line in references] == ["no pretraining", "real transfer"]
    assert len(dots.x) == 12
    assert list(means.y) == ["the recipe", "the worse"]
    assert {shape.x0 for shape in exhibit.figure.layout.shapes} == {0.0, 100.0}
    # Replicates without the transfer have no share of its gain, and no dot.
    claim = judged()
    cells = claim.cells.query("not (condition == 'intact' and replicate == 1005)")
    assert len(cheaper.shares(dataclasses.replace(claim, cells=cells)).figure.data[0].x) == 10


def test_a_stored_table_has_shares_of_any_of_its_transfers():
    table = judged().cells
    found = Results(
        name="mine",
        table=table,
        about=About(title="Mine"),
        summary=summarise_conditions(table),
        histories=pd.DataFrame(),
        problems=(),
    )
    exhibit = cheaper.shares_of(found, "recipe")
    assert exhibit.title.startswith("Mine: how much of the gain of the recipe? At most 200 %")
    assert cheaper.answer_of(found, "recipe").text.startswith("Most of the gain of the recipe has the intact: 200 % [")
    assert exhibit.table.set_index("condition").loc["intact", "estimate"] == pytest.approx(2.0)
    with pytest.raises(ValueError, match="need a table with accuracy, which this one lacks"):
        cheaper.shares_of(dataclasses.replace(found, table=table.drop(columns="accuracy")), "recipe")


def test_the_answer_is_of_the_claims_own_recipe():
    assert cheaper.answer(judged()).text.startswith("The recipe: 50 % [")
    assert "n = 6. The claim is undecided." in cheaper.answer(judged()).text
    assert not cheaper.answer(judged()).decided
    assert cheaper.answer(judged(verdict=Verdict.REFUTED)).decided
    assert cheaper.answer(judged(weights={"intact": 1, "none": -1})).text == "The claim is undecided."


def test_entropy_stands_beside_the_breakthrough():
    exhibit = cheaper.entropy_and_breakthrough(judged())
    panels = dict(iter(exhibit.table.groupby("panel")))
    time = panels["Time to breakthrough (steps)"].set_index("condition")["estimate"]
    assert time.to_dict() == {"none": 5000.0, "recipe": 5000.0, "worse": 5000.0, "intact": 1250.0}
    start = panels["Attention entropy before phase 2"].set_index("condition")["estimate"]
    assert start.to_dict() == pytest.approx({"none": 0.99, "recipe": 0.9, "intact": 0.9})
    assert len(exhibit.figure.data) == 6
    assert exhibit.figure.data[4].x.tolist().count(5000.0) == 18
    assert exhibit.figure.layout.yaxis.categoryarray[-1] == "the none"
    # Panels one below the other, each with its own names of rows: side by side a narrow screen has no room for them.
    assert exhibit.figure.layout.xaxis3.title.text == "Time to breakthrough (steps)"
    assert exhibit.figure.layout.xaxis3.domain == exhibit.figure.layout.xaxis.domain
    assert exhibit.title == "How sharp, and how soon? The claim is undecided"


def test_a_claim_without_measured_attention_says_so():
    assert not cheaper.has_entropies(judged(entropies=False))
    with pytest.raises(ValueError, match="attention was not measured"):
        cheaper.entropy_and_breakthrough(judged(entropies=False))


def test_what_was_measured_and_not_run_is_no_run():
    claim = judged()
    extra = {"condition": "transplanted", "label": "x", "replicate": 1000, "status": "finished", "observed": True}
    cells = pd.concat([claim.cells, pd.DataFrame([extra])], ignore_index=True)
    shown = cheaper.shares(dataclasses.replace(claim, cells=cells)).table
    assert "transplanted" not in set(shown["condition"])


def test_the_search_shows_every_recipe(tmp_path):
    found = {
        "tuning_seeds": [0, 1],
        "search": {
            "recipe": {"a": "y"},
            "name": "y",
            "reason": "no recipe is better",
            "rounds": [{"x": 0.2}, {"y": 0.5, "z": 0.1}],
        },
    }
    path = tmp_path / "search.json"
    path.write_text(json.dumps(found))
    read = cheaper.load_search(path)
    assert read is not None
    exhibit = cheaper.search(read)
    assert exhibit.table["recipe"].tolist() == ["x", "y", "z"]
    assert exhibit.table["best"].tolist() == [True, True, False]
    dots, best = exhibit.figure.data
    assert list(dots.text) == ["x", "y", "z"]
    assert list(best.x) == [20.0, 50.0]
    assert exhibit.title == "Which recipe does the search find? Y"
    said = cheaper.search_answer(read).text
    assert said.startswith("Of 3 recipes the search found y, with a mean validation accuracy of 50.0 % over training.")
    assert list(best.y) == ["start", "round 1"]
    assert "tuning seeds 0, 1" in exhibit.figure.layout.title.subtitle.text
    assert cheaper.load_search(tmp_path / "none.json") is None
    path.write_text('{"search": {"rounds": []}}')
    with pytest.raises(ValueError, match="holds no search over recipes"):
        cheaper.load_search(path)


def test_every_claim_of_the_page_has_a_real_transfer():
    for name, path in claim_scripts(Path(__file__).parents[1] / "experiments").items():
        experiment = load_experiment(path)
        if experiment.claim.page == cheaper.PAGE:
            assert {FULL, "full"} & {each.name for each in experiment.sweep.conditions}, name


def test_what_comes_with_the_package():
    claims = cheaper.cheaper_claims(load_claims()[0])
    assert list(claims) == [
        "closed_form_initialisation",
        "init_plus_entropy_replicates",
        "needed_only_early",
        "sharpness_is_not_enough",
        "tuned_baseline",
    ]
    tuned = cheaper.answer(claims["tuned_baseline"]).text
    assert tuned.startswith("Tuned fresh initialisation")
    assert "real transfer, n = 14. The claim is supported." in tuned
    for claim in claims.values():
        assert "%" in cheaper.answer(claim).text
        table = cheaper.shares(claim).table
        assert np.isfinite(table["estimate"]).all()
    measured = [name for name, claim in claims.items() if cheaper.has_entropies(claim)]
    assert measured == ["init_plus_entropy_replicates", "sharpness_is_not_enough"]
    for name, n in zip(measured, (3, 10)):  # of the penalty alone there are three runs under the present kernel
        table = cheaper.entropy_and_breakthrough(claims[name]).table
        assert set(table.loc[table["panel"].str.startswith("Attention entropy"), "n"]) == {n}
    search = cheaper.load_search()
    assert search is not None
    assert recipe_name(search.search.best) in set(cheaper.search(search).table["recipe"])
