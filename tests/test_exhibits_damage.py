"""Damage as exhibits, on cells whose gains are known, and the results that come with the package."""

import dataclasses

import pandas as pd
import pytest

from procpre_interp.ablate import ABLATIONS
from procpre_interp.analysis.diagnosis import explain_signatures
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import damage
from procpre_interp.views.exhibits.claims import load_claims
from procpre_interp.views.exhibits.results import Results, load_results
from tests.explorer import DEMO
from tests.judged import contrast_result, stored_claim

NOISED = ["condition", "component", "noise_std"]


def cells(accuracies: dict[str, float], replicates: int = 4) -> pd.DataFrame:
    rows = [
        {"condition": name, "label": name.replace("attn noise", "noise of"), "replicate": seed, "run": f"{name}{seed}"}
        | {"status": "finished", "accuracy": accuracy + 0.01 * (seed - 1001.5), "breakthrough_step": None, "limit": 100}
        for name, accuracy in accuracies.items()
        for seed in range(1000, 1000 + replicates)
    ]
    table = pd.DataFrame(rows)
    return table.assign(breakthrough_step=float("nan"), phase1_run=[()] * len(table), loss_nats=1.0)


def judged(accuracies: dict[str, float], **more) -> StoredClaim:
    first = contrast_result(contrast="shuffled over none", predicted="within", margin=0.214, n=4)
    return stored_claim(cells(accuracies), contrasts=(first,), page=damage.PAGE, **more)


def test_the_ladder_shows_gains_over_none():
    claim = judged({"none": 0.1, "shuffle": 0.15, "intact": 0.9})
    exhibit = damage.controls(claim)
    assert exhibit.table.set_index("condition")["estimate"].to_dict() == pytest.approx({"shuffle": 0.05, "intact": 0.8})
    dots, means, *references = exhibit.figure.data
    assert sorted(dots.x) == pytest.approx([5.0] * 4 + [80.0] * 4)
    assert list(means.y) == ["shuffle", "intact"]
    lines = {shape.x0 for shape in exhibit.figure.layout.shapes}
    assert {0.0, 21.4} <= lines
    assert [line.name for line in references] == ["no pretraining", "margin", "intact transfer"]
    assert exhibit.figure.layout.xaxis.title.text == "Gain over no pretraining<br>(percentage points)"
    assert exhibit.title == "Claim: A claim - undecided"
    assert exhibit.notes == ("Margin: the smallest gain that counts. 21.4 points.",)
    assert "2 seeds" in damage.origin(claim)


def test_a_sweep_with_damage_has_the_same_ladder():
    table = cells({"none": 0.1, "noised": 0.4, "intact": 0.9})
    found = Results(
        name="sweep",
        table=table,
        about=About(title="Noise"),
        summary=summarise_conditions(table),
        histories=pd.DataFrame(),
        problems=(),
    )
    exhibit = damage.controls_of(found)
    assert exhibit.table.set_index("condition")["estimate"].to_dict() == pytest.approx({"noised": 0.3, "intact": 0.8})
    assert exhibit.title.startswith("Noise: what is left of the gain?")
    with pytest.raises(ValueError, match="a ladder needs a table with status, accuracy; this one lacks accuracy"):
        damage.controls_of(dataclasses.replace(found, table=table.drop(columns="accuracy")))
    with pytest.raises(ValueError, match="a diagnosis needs a table with phase1_run"):
        damage.transferred_runs(dataclasses.replace(found, table=table.drop(columns="phase1_run")), RunStore(DEMO))


def test_noise_has_its_half_dose_where_half_of_the_gain_is_left():
    curve = {f"attn noise {dose:g}": 0.1 + 0.8 / (1 + (dose / 0.6) ** 4) for dose in (0.25, 0.5, 1, 2)}
    noised = pd.DataFrame([(name, "attention", float(name.rpartition(" ")[2])) for name in curve], columns=NOISED)
    exhibit = damage.noise(judged({"none": 0.1, "intact": 0.9} | curve, tables={"noised": noised}))
    assert set(exhibit.table["component"]) == {"attention"}
    assert exhibit.table["noise_std"].tolist() == [0.0, 0.25, 0.5, 1.0, 2.0]
    names = [trace.name for trace in exhibit.figure.data if trace.name]
    assert any("half dose 0.6" in name for name in names)


def test_what_comes_with_the_package():
    known, _ = load_claims()
    (noised,), (controls,) = damage.noise_claims(known).values(), damage.damage_claims(known).values()
    assert (controls.name, noised.name) == ("shuffling_weights_destroys_it", "noise_dose_response")
    assert damage.origin(noised).startswith("From results that come with the package")
    assert set(damage.noise(noised).table["component"]) == {"attention + LN"}
    assert set(damage.noise_on_finished(noised).table["component"]) == {"finished model"}
    # The claim file says what each control keeps, as the controls themselves do, so that a page needs no torch for it.
    said = controls.tables["controls"].itertuples(index=False, name=None)
    assert all((ABLATIONS[name].keeps, ABLATIONS[name].destroys) == tuple(rest) for name, *rest in said)
    assert damage.kept(controls)["Control"].tolist() == ["shuffle within layers"]
    assert damage.kept(judged({"none": 0.1})).empty
    rungs = damage.controls(controls).table["condition"].tolist()
    assert "shuffle_within_layers" in rungs
    assert "none" not in rungs


def test_diagnosis_is_of_the_runs_of_the_table():
    store = RunStore(DEMO)
    results = load_results(store)
    by_condition, findings = damage.diagnosis(results, store)
    assert list(dict.fromkeys(by_condition["Condition"])) == list(results.labels.values())[1:]
    full = by_condition.loc[by_condition["Condition"] == "Dyck, full transfer"].set_index("What is seen")
    assert full.loc["no gain"].tolist()[1:] == ["3 of 5", "9.5 %", "10.0 %", "-0.5 points"]
    assert damage.failures_answer(findings).text.startswith("17 of 25 runs with pretraining show a failure.")
    for part in {part for name in findings["signature"] for part in name.split(": ")}:
        assert any(line.startswith(f"{part}: ") for line in explain_signatures(findings["signature"])), part
    assert all("baseline accuracy" in numbers and " %" in numbers for numbers in findings["numbers"].head(1))
    assert not findings["numbers"].str.contains("baseline_|mean_gain|_step").to_numpy().any()
    assert set(findings["run"]) == set(results.table.loc[results.table["phase1_run"].map(bool), "run"])
    mlp = findings.loc[findings["label"] == "Dyck, MLP + LN"]
    assert set(mlp["replicate"]) == set(results.table["replicate"])
    assert set(mlp["signature"]) == {"no gain"}


def test_mistakes():
    with pytest.raises(ValueError, match="no condition 'none'"):
        damage.controls(judged({"intact": 0.9}))
    with pytest.raises(ValueError, match="no dose-response"):
        damage.noise(judged({"none": 0.1, "intact": 0.9}, tables={"noised": pd.DataFrame(columns=NOISED)}))
    with pytest.raises(ValueError, match="does not say which conditions have noise"):
        damage.noise(judged({"none": 0.1, "intact": 0.9}))
    with pytest.raises(ValueError, match="no noise on finished models"):
        damage.noise_on_finished(judged({"none": 0.1}))
