"""The scripts of the claims: what they plan, whether their verdicts can come out either way, and one of them whole."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.claim_json import claim_from_json
from procpre_interp.claims.files import find_claims
from procpre_interp.claims.judge import judge, judge_contrasts
from procpre_interp.core.atomic_files import plain
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.store.store import RunStore
from procpre_interp.study.experiment import Experiment, main
from procpre_interp.study.smoke_test import few_steps, shortened
from procpre_interp.sweep.plan import plan
from tests.earlier_claims import LIMITS
from tests.figures import unbroken
from tests.judged import stored_claim

NAMES = (
    "dyck_teaches_recall",
    "attention_carries_the_gain",
    "selective_beats_full",
    "shuffling_weights_destroys_it",
    "noise_dose_response",
    "parts_combine",
    "needed_only_early",
    "recall_survives_english",
    "sharpness_is_not_enough",
    "closed_form_initialisation",
    "init_plus_entropy_replicates",
)
DRAWN = ("dyck_teaches_recall", "attention_carries_the_gain", "needed_only_early")
"""One for each way in which claims are drawn."""
OBSERVED = ("heads_sharpen", "circuits_are_reused")
"""Claims whose contrasts are of what is measured in models."""
SCRIPTS = Path(__file__).resolve().parents[1] / "experiments"


def script(name):
    return importlib.import_module(f"experiments.{name}")


def with_many_replicates(experiment: Experiment) -> Experiment:
    """As many as a sequence may take to decide."""
    own = [dataclasses.replace(each, replicates=None) for each in experiment.sweep.conditions]
    sweep = dataclasses.replace(experiment.sweep, conditions=tuple(own), replicates=40)
    return dataclasses.replace(experiment, sweep=sweep)


def made_up(experiment, accuracy) -> pd.DataFrame:
    """The table of the experiment's sweep: each condition near the accuracy given for it, replicates a bit apart."""
    rows = []
    for cell in plan(experiment.sweep).cells.to_dict("records"):
        noise = numpy_stream(cell["replicate"], cell["condition"]).normal(0, 0.004)
        rows.append({**cell, "accuracy": accuracy(cell["condition"]) + noise})
    outcome = {"status": "finished", "breakthrough_step": 2000.0, "limit": 5000, "exact_match": 0.5, "loss_nats": 1.0}
    return pd.DataFrame(rows).assign(**outcome, seconds=1.0, phase1_seconds=1.0, problem="")


def without_secondary(claim: Claim) -> Claim:
    """The primary contrast alone, with what is known of its measure, as if its premise held."""
    limits = {name: known for name, known in claim.limits.items() if name == claim.primary.measure}
    return dataclasses.replace(claim, premise=None, secondary=(), measures={}, limits=limits)


def check_statement(claim: Claim) -> None:
    """A claim is stated in sentences, and the margin in words begins with the number that it is judged by."""
    for text in (claim.claim, claim.prediction, claim.margin, claim.refuted_by):
        assert re.fullmatch(r"[A-Z0-9].*\.", text), text
    number = abs(claim.primary.margin)
    ways = (f"{number:g} of ", f"{number:g} nats ", f"{number:g} bits ", f"{100 * number:g} points of ")
    assert claim.margin.startswith(("A quarter of ",) if number == 0.25 else ways)


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_says_what_it_must_and_plans_seeds_of_its_own(name):
    experiment = script(name).EXPERIMENT
    claim, sweep = experiment.claim, experiment.sweep
    assert claim.name == sweep.name == name
    check_statement(claim)
    assert sweep.first_seed == (1000 if claim.version == 1 and not sweep.then else 3000)
    assert sweep.replicates >= 6
    assert claim.primary.margin > 0
    conditions = {condition.name for condition in sweep.of_replicate(sweep.first_seed)}
    for contrast in (claim.primary, *claim.secondary):
        assert set(contrast.weights) <= conditions
        # A contrast compares: what is common to all conditions cancels.
        assert sum(contrast.weights.values()) == pytest.approx(0)


@pytest.mark.parametrize("name", OBSERVED)
def test_a_claim_on_models_says_what_it_must(name):
    experiment = script(name).EXPERIMENT
    claim, sweep, observation = experiment.claim, experiment.sweep, experiment.observation
    assert claim.name == sweep.name == name
    check_statement(claim)
    assert (sweep.first_seed, sweep.replicates) == (3000, 14)
    trained = {condition.name for condition in sweep.of_replicate(3013)}
    assert set(observation.needs) <= trained
    assert not set(observation.conditions) & trained
    for contrast in (claim.primary, *claim.secondary):
        assert set(contrast.weights) <= trained | set(observation.conditions)
        assert sum(contrast.weights.values()) == pytest.approx(0)


@pytest.mark.parametrize("name", OBSERVED)
def test_the_verdict_follows_from_what_was_observed(name, tmp_path):
    experiment = with_many_replicates(script(name).EXPERIMENT)
    primary, alone = experiment.claim.primary, without_secondary(experiment.claim)
    table = made_up(experiment, lambda condition: 0.5).assign(run="")
    planned = plan(experiment.sweep).cells
    for sign, verdict in ((1, "supported"), (-1, "refuted")):
        sign *= 1 if primary.predicted == "above" else -1
        rows = [
            {
                "condition": condition,
                "label": condition,
                "replicate": replicate,
                "status": "finished",
                "observed": True,
                primary.measure: 0.4 * sign * weight + numpy_stream(replicate, condition).normal(0, 0.004),
            }
            for replicate in experiment.sweep.seeds
            for condition, weight in primary.weights.items()
        ]
        observed = pd.DataFrame(rows)
        whole = table.loc[~table["condition"].isin(list(primary.weights))].assign(observed=False)
        whole = pd.concat([whole, observed], ignore_index=True)
        (contrast,) = judge_contrasts(alone, whole, planned=pd.concat([planned, observed]))
        assert contrast.verdict == verdict
        figure = experiment.figure(whole, stored_claim(whole))
        assert len(figure.data) == 2
    assert judge_contrasts(alone, table, planned=pd.concat([planned, observed]))[0].n == 0


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory) -> Path:
    """The claims share runs, as they do in a real store."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.parametrize("name", OBSERVED)
def test_a_claim_on_models_runs_whole(name, shared_store, monkeypatch, capsys, runs_here):
    experiment = script(name).EXPERIMENT
    few = few_steps(experiment.sweep.train)
    monkeypatch.setattr("procpre_interp.study.smoke_test.few_steps", lambda train: dataclasses.replace(few, steps=4))
    assert main(experiment, arguments=["--quick", "--workers", "1", "--out", str(shared_store)]) == 0
    judged = RunStore(shared_store).read_table(f"quick-claim-{name}")
    assert judged.metadata["verdict"] == "undecided"
    measured = judged.frame.loc[judged.frame["observed"].astype(bool)]
    assert set(measured["condition"]) <= set(experiment.observation.conditions)
    assert set(experiment.claim.primary.weights) <= set(judged.frame["condition"])
    # After four steps a model is at chance, and shares of a gap that is not there are not measured.
    shares = {"faithfulness", "completeness"}
    assert {each["n"] for each in judged.metadata["contrasts"] if each["measure"] not in shares} == {1}
    assert {each["n"] for each in judged.metadata["contrasts"] if each["measure"] in shares} <= {0}
    assert "UNDECIDED" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_follows_from_the_table(name):
    experiment = with_many_replicates(script(name).EXPERIMENT)
    weights = experiment.claim.primary.weights
    apart = {condition: 0.1 + 0.6 * (weight > 0) for condition, weight in weights.items()}
    if experiment.claim.primary.predicted == "above":  # a margin of two points leaves much to say of small losses
        supported, refuted = apart, {condition: 0.1 + 0.6 * (weight < 0) for condition, weight in weights.items()}
    else:
        supported, refuted = dict.fromkeys(weights, 0.1), apart
    alone = without_secondary(experiment.claim)
    table = made_up(experiment, lambda condition: refuted.get(condition, 0.3))
    assert [each.verdict for each in judge_contrasts(alone, table)] == ["refuted"]
    table = made_up(experiment, lambda condition: supported.get(condition, 0.3))
    assert [each.verdict for each in judge_contrasts(alone, table)] == ["supported"]
    if name in DRAWN:
        judged = judge(experiment.claim, table)
        assert judged.verdict == "supported"
        figure = experiment.figure(table, judged)
        assert isinstance(figure, go.Figure)
        assert "supported" in unbroken(figure.layout.title.text)


def test_every_kind_of_figure_is_drawn_of_a_verdict():
    """But the one that needs half-doses, which is drawn of real runs below."""
    kinds = {name: script(name).EXPERIMENT.figure for name in NAMES}
    assert {kinds[name] for name in DRAWN} == set(kinds.values()) - {kinds["noise_dose_response"]}


def test_a_quick_run_decides_nothing_whatever_its_table():
    experiment = with_many_replicates(script("dyck_teaches_recall").EXPERIMENT)
    for accuracies, verdict in (({"full": 0.7}, "supported"), ({}, "refuted")):
        table = made_up(experiment, lambda condition, known=accuracies: known.get(condition, 0.1))
        assert judge(experiment.claim, table).verdict == verdict
        assert judge(experiment.claim, table, quick=True).verdict == "undecided"


def test_the_factorial_is_balanced():
    module = script("selective_beats_full")
    assert len(module.CELLS) == 16
    for factor in range(4):
        weights = module.main_effect(factor)
        assert sorted(set(weights.values())) == [-1 / 8, 1 / 8]
        assert sum(weights.values()) == 0
    # Only the named factor differs between a cell and its partner.
    runs = plan(module.EXPERIMENT.sweep).cells.drop_duplicates("condition").set_index("condition")["run"]
    assert runs.nunique() == 17
    for name, levels in module.CELLS.items():
        (condition,) = (each for each in module.EXPERIMENT.sweep.conditions if each.name == name)
        mlp, ln, embeddings, positions = levels
        assert condition.transfer.token_embedding == condition.transfer.unembedding == embeddings
        assert condition.transfer.positions == positions
        selector = condition.sources[0].selector
        assert ("mlp" in selector or selector == "all") == bool(mlp)
        assert ("ln" in selector or selector == "all") == bool(ln)


def test_quick_shortens_and_uses_tuning_seeds():
    sweep = shortened(script("dyck_teaches_recall").EXPERIMENT.sweep)
    assert sweep.replicates == 1
    assert sweep.first_seed < 100
    assert sweep.train.steps <= 20 >= max(each.train.steps for each in sweep.phase1)


def test_a_script_from_nothing_to_a_claim_file(tmp_path, monkeypatch, capsys, runs_here):
    out = tmp_path / "runs"
    experiment = script("noise_dose_response").EXPERIMENT
    few = few_steps(experiment.sweep.train)
    monkeypatch.setattr("procpre_interp.study.smoke_test.few_steps", lambda train: dataclasses.replace(few, steps=4))
    assert main(experiment, arguments=["--quick", "--out", str(out), "--workers", "2"]) == 0
    printed = capsys.readouterr().out
    assert "noise_dose_response: UNDECIDED" in printed
    store = RunStore(out)
    stored = store.read_table("quick-claim-noise_dose_response")
    assert stored.metadata["quick"] is True
    assert stored.metadata["reason"] == "quick: a smoke test, never evidence"
    assert len(stored.metadata["tables"]["half_doses"]) == 3
    assert len(stored.metadata["tables"]["finished_doses"]) == 7
    assert len(stored.frame) == 14
    page = (out / "quick-claim-noise_dose_response.html").read_text()
    assert "Plotly.newPlot" in page
    assert "undecided" in page
    # A second claim of the same runs computes nothing that is there.
    before = len(store.query())
    other = script("dyck_teaches_recall").EXPERIMENT
    results = tmp_path / "results"
    assert main(other, arguments=["--quick", "--out", str(out), "--results", str(results)]) == 0
    assert len(store.query()) == before + 1  # full transfer
    assert sorted(path.name for path in results.iterdir()) == [
        "quick-dyck_teaches_recall.csv",
        "quick-dyck_teaches_recall.json",
    ]
    assert find_claims(None, results) == ({}, [])
    (judged,) = find_claims(None, results, quick=True)[0].values()
    assert (judged.verdict, judged.quick, len(judged.cells)) == ("undecided", True, 3)


def test_a_script_runs_by_its_path_and_names_a_mistake(tmp_path):
    path = SCRIPTS / "shuffled_sequences_teach_nothing.py"
    command = [sys.executable, str(path), "--workers", "0", "--out", str(tmp_path / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "workers=0; there must be at least 1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


STORED = sorted((SCRIPTS / "results" / "claims").glob("*.json"))


@pytest.mark.parametrize("path", STORED, ids=[path.stem for path in STORED])
def test_stored_verdicts_are_those_of_the_stored_cells(path: Path):
    """Every contrast judged again: verdict, reason and all numbers (cells are stored to five digits)."""
    stored, cells = json.loads(path.read_bytes()), pd.read_csv(path.with_suffix(".csv"))
    contrasts = [
        Contrast(
            name=row["contrast"],
            weights=row["weights"],
            predicted=row["predicted"] or None,
            margin=row["margin"],
            measure=row["measure"],
        )
        for row in stored["contrasts"]
    ]
    about = {name: stored[name] for name in ("name", "claim", "prediction", "margin", "refuted_by")}
    # Of a claim that was declared anew, measures that the stored version did not have say nothing of it.
    known = {contrast.measure for contrast in contrasts}
    declared = script(path.stem).EXPERIMENT.claim
    ranges = declared.limits | LIMITS.get((path.stem, stored.get("version", 1)), {})
    limits = {name: each for name, each in ranges.items() if name in known}
    premise = declared.premise if declared.version == stored.get("version", 1) else None
    claim = Claim(**about, primary=contrasts[0], secondary=contrasts[1:], limits=limits, premise=premise)
    # Runs of conditions that the verdict does not need may be still to come: planned, and without a cell.
    first = sorted(cells["replicate"].unique())
    lacking = [
        {"condition": condition, "replicate": replicate}
        for row in stored["contrasts"]
        if row["missing"]
        for condition in row["weights"]
        for replicate in first[: int(row["missing"].split()[2])]
    ]
    planned = pd.concat([cells, pd.DataFrame(lacking)], ignore_index=True).drop_duplicates(["condition", "replicate"])
    rule = stored.get("rule_version", 1)
    found = judge_contrasts(claim, cells, planned=planned, task=stored["task"], rule_version=rule)
    for old, new in zip(claim_from_json(stored).contrasts, found, strict=True):
        assert (new.verdict, new.reason, new.decision) == (old.verdict, old.reason, old.decision)
        assert (new.undecided_reason, new.interval) == (old.undecided_reason, old.interval)
        for key in ("estimate", "low", "high", "level", "p", "p_holm", "smallest_p", "detectable", "n"):
            close = pytest.approx(getattr(old, key), abs=2e-5, rel=1e-6, nan_ok=True)
            assert plain(getattr(new, key)) is None or getattr(new, key) == close, key
            assert (plain(getattr(new, key)) is None) == (plain(getattr(old, key)) is None), key
    assert stored["verdict"] == stored["contrasts"][0]["verdict"]


def test_the_page_of_findings_prints_what_is_stored():
    """Tables of claims and of the transfer map: each number as it is rounded from the stored one, once."""
    text = (SCRIPTS / "README.md").read_text(encoding="utf-8")
    number = r"([+-]?\d[\d.]*)"
    shape = rf"\((\w+)\.py\) \| .* \| {number} \[{number}, {number}\] ?([a-z]*)(?: \((.*)\))? \| .* \| \W*(\w+)\W* \|$"
    rows = re.findall(shape, text, re.MULTILINE)
    without = set(re.findall(r"\((\w+)\.py\) \| .* \|  \| .* \| 0 \| undecided \|$", text, re.MULTILINE))
    estimates = {path.stem: json.loads(path.read_bytes())["contrasts"][0]["estimate"] for path in STORED}
    assert {name for name, *_ in rows} == {name for name, value in estimates.items() if value is not None}
    assert without == {name for name, value in estimates.items() if value is None}
    for name, *shown, unit, interval, verdict in rows:
        judged = json.loads((SCRIPTS / "results" / "claims" / f"{name}.json").read_bytes())
        first = judged["contrasts"][0]
        assert verdict == judged["verdict"]
        ninety = ["90 %"] if first["predicted"] == "within" and verdict != "refuted" else []
        method = first.get("interval", "bootstrap")
        assert interval == ", ".join([*ninety, *([method] if method != "bootstrap" else [])]), name
        digits, scale = len(shown[0].partition(".")[2]), 100 if unit == "points" else 1
        assert shown == [f"{scale * first[key]:+.{digits}f}" for key in ("estimate", "low", "high")], name
    for path in sorted((SCRIPTS / "results").glob("*_map.csv")):
        _, marked, table = text.partition(f"<!-- table: map {path.stem.removesuffix('_map')} -->")
        assert marked, f"{path.name} has no table"
        check_map(pd.read_csv(path), table.partition("<!-- end -->")[0])


def check_map(effects: pd.DataFrame, table: str):
    """The table has a line per player, with its effects on accuracy in points or on the loss, decided ones in bold."""
    accuracy = (effects["outcome"] == "accuracy").to_numpy()
    effects, scale, form = (effects.loc[accuracy], 100, "+.1f") if accuracy.any() else (effects, 1, "+.3f")
    for player in effects["player"].unique():
        (cells,) = re.findall(rf"^\| {re.escape(player)} \| (.*) \|$", table, re.MULTILINE)
        rows = effects.loc[effects["player"] == player].to_dict("records")
        for row, cell in zip(rows, cells.split(" | "), strict=True):
            shown = "{} [{}, {}]".format(*(format(scale * row[key], form) for key in ("estimate", "low", "high")))
            assert cell == (f"**{shown}**" if row["decision"] == "significant" else shown), (player, row["method"])
