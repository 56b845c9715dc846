"""Claims as exhibits: the bundled ones, and stores with damaged, quick and newer ones."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.claim import Claim, Contrast, Verdict
from procpre_interp.claims.claim_json import claim_from_json, claim_to_json
from procpre_interp.claims.contrast_text import contrast_estimate, predicted, why
from procpre_interp.claims.files import find_claims, table_name, write_claim
from procpre_interp.claims.judge import judge, judge_contrasts
from procpre_interp.claims.judged import StoredClaim
from procpre_interp.claims.looks import past, with_looks
from procpre_interp.claims.text import describe_evidence
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import Answer
from procpre_interp.views.exhibits import claims as exhibits
from tests.figures import unbroken


@pytest.fixture(scope="module")
def bundled() -> dict:
    return find_claims(None, exhibits.FOLDER)[0]


def stored(claim: StoredClaim, **changes) -> dict:
    """What its file holds, with changes."""
    return claim_to_json(claim) | changes


def test_the_bundled_claims_can_all_be_shown(bundled):
    found, problems = exhibits.load_claims()
    assert problems == []
    assert len(found) >= 10
    for claim in found.values():
        assert len(exhibits.contrasts(claim).table) == len(claim.contrasts)
        assert all(row.about.level or row.about.unit or row.measure == "share" for row in claim.contrasts)


def test_the_values_behind_a_contrast_average_to_its_estimate(bundled):
    for claim in bundled.values():
        for row in claim.contrasts:
            if row.n:
                values = exhibits.replicates(claim, row.contrast).table["value"]
                assert len(values) == row.n, (claim.name, row.contrast)
                assert np.mean(values) == pytest.approx(row.estimate, abs=1e-4)


def test_formulas_and_weights_say_the_same(bundled):
    for claim in bundled.values():
        for row in claim.contrasts:
            assert all(name in row.formula for name in row.weights)


def test_what_was_measured_has_no_survival(bundled):
    overlap = bundled["circuits_are_reused"]
    assert not exhibits.was_trained(overlap, overlap.primary.contrast)
    with pytest.raises(ValueError, match="measured, not trained"):
        exhibits.survival(overlap, overlap.primary.contrast)
    recall = bundled["dyck_teaches_recall"]
    table = exhibits.survival(recall, recall.primary.contrast).table
    assert set(table["condition"]) == {"full", "none"}


def test_the_store_stands_before_the_package_and_smoke_tests_beside_both(bundled, tmp_path):
    store, claim = RunStore(tmp_path), bundled["dyck_teaches_recall"]
    smoke = dataclasses.replace(claim, quick=True)
    write_claim(store, dataclasses.replace(claim, verdict=Verdict.REFUTED), claim.cells)
    write_claim(store, smoke, claim.cells)
    assert table_name(smoke) == "quick-claim-dyck_teaches_recall"
    found, problems = exhibits.load_claims(store)
    assert problems == []
    assert (found["dyck_teaches_recall"].source, found["dyck_teaches_recall"].verdict) == ("store", "refuted")
    assert found["quick-dyck_teaches_recall"].quick
    assert found["parts_combine"].source == "bundled"
    overview = exhibits.overview(found).set_index("Name")
    assert overview.loc["quick-dyck_teaches_recall", "Verdict"].endswith("(quick)")
    assert exhibits.command("quick-dyck_teaches_recall") == "procpre-interp claims dyck_teaches_recall --run --quick"


def test_damaged_files_are_named_and_the_others_are_there(bundled, tmp_path):
    store, claim = RunStore(tmp_path / "store"), bundled["dyck_teaches_recall"]
    write_claim(store, claim, claim.cells)
    (tmp_path / "store" / "tables" / "claim-dyck_teaches_recall.parquet").write_bytes(b"no")
    folder = tmp_path / "claims"
    folder.mkdir()
    (folder / "empty.json").write_text("{}")
    (folder / "empty.csv").write_text("condition\n")
    (folder / "list.json").write_text(json.dumps([1]))
    (folder / "list.csv").write_text("condition\n")
    for name, change in {
        "verdict": {"verdict": "<b>true"},
        "seeds": {"seeds": ["x"]},
        "quick": {"quick": "no"},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(stored(claim, **change)))
        (folder / f"{name}.csv").write_text(claim.cells.to_csv(index=False))
    for name, change in {
        "estimate": {"estimate": "1"},
        "predicted": {"predicted": "over"},
        "weights": {"weights": {}},
    }.items():
        rows = [row | change for row in stored(claim)["contrasts"]]
        (folder / f"{name}.json").write_text(json.dumps(stored(claim, contrasts=rows)))
        (folder / f"{name}.csv").write_text(claim.cells.to_csv(index=False))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "alone.json").write_text(json.dumps(stored(claim)))
    lacks = stored(claim)
    lacks["contrasts"] = [{"contrast": "x"}]
    (folder / "lacks.json").write_text(json.dumps(lacks))
    (folder / "lacks.csv").write_text(claim.cells.to_csv(index=False))
    found, problems = exhibits.load_claims(store, folder)
    assert found == {}
    named = ["empty", "list", "verdict", "seeds", "quick", "estimate", "predicted", "weights", "deep", "alone", "lacks"]
    assert len(problems) == len(named) + 1
    for name in [*(f"{each}.json" for each in named), "claim-dyck_teaches_recall"]:
        assert len([problem for problem in problems if f"{name} cannot be read" in problem.problem]) == 1, name
    (folder / "parts_combine.json").write_text(json.dumps(stored(bundled["parts_combine"])))
    (folder / "parts_combine.csv").write_text(bundled["parts_combine"].cells.to_csv(index=False))
    assert list(exhibits.load_claims(store, folder)[0]) == ["parts_combine"]


def test_mistakes(bundled):
    with pytest.raises(ValueError, match="unknown contrast"):
        exhibits.replicates(bundled["parts_combine"], "nonsense")
    claim = bundled["parts_combine"]
    fields = stored(claim)
    fields["contrasts"] = [
        {key: value for key, value in row.items() if key != "weights"} for row in fields["contrasts"]
    ]
    old = dataclasses.replace(claim, contrasts=claim_from_json(fields).contrasts)
    with pytest.raises(ValueError, match="judge it again"):
        exhibits.replicates(old, old.primary.contrast)
    assert not exhibits.was_trained(old, old.primary.contrast)
    failed = dataclasses.replace(claim, cells=claim.cells.assign(status="failed"))
    assert "No replicate" in exhibits.why_no_replicates(failed, failed.primary.contrast)


def by_version_1(claim: StoredClaim) -> StoredClaim:
    """The primary contrast as the first version of the rule judges it."""
    row = claim.primary
    primary = Contrast(name=row.contrast, weights=row.weights, predicted=row.predicted, margin=row.margin)
    statement = {name: getattr(claim, name) for name in ("name", "claim", "prediction", "margin", "refuted_by")}
    contrasts = judge_contrasts(Claim(**statement, primary=primary), claim.cells, rule_version=1)
    return dataclasses.replace(claim, rule_version=1, contrasts=contrasts, looks=pd.DataFrame(), earlier=())


def test_smoke_tests_do_not_count_as_verdicts(bundled):
    few = {name: bundled[name] for name in ("parts_combine", "dyck_teaches_recall")}
    assert exhibits.answer(few) == Answer("Of 2 claims: 1 supported, 1 undecided.", decided=True)
    smoke = dataclasses.replace(bundled["parts_combine"], verdict=Verdict.UNDECIDED, quick=True)
    quick = {"quick-parts_combine": smoke}
    assert exhibits.answer(few | quick).text.startswith("Of 2 claims: 1 supported, 1 undecided. Smoke tests")
    assert exhibits.answer(quick) == Answer("Smoke tests, which are no evidence: 1.", decided=False)
    assert exhibits.cannot_say(quick["quick-parts_combine"]).startswith("A smoke test says")


def test_what_a_verdict_cannot_say_has_its_n_and_task(bundled):
    said = exhibits.cannot_say(bundled["chained_primitives"])
    assert "Refuted says" in said
    assert "task (composed)" in said
    assert "n = 10 seeds" in said


def test_the_contrast_in_words(bundled):
    claim = bundled["attention_carries_the_gain"]
    undecided = claim.contrasts[1]
    said = exhibits.describe_contrast(claim, undecided.contrast)
    assert said == f"{undecided.contrast} = {undecided.formula}\nUndecided: {undecided.reason}"
    assert exhibits.rows_of(claim)["Why"].tolist()[1] == undecided.reason


def test_titles_say_the_verdict_and_assert_nothing_that_is_open(bundled):
    for claim in bundled.values():
        exhibit = exhibits.contrasts(claim)
        assert exhibit.title == f"Claim: {claim.claim.rstrip('.')} - {claim.verdict}"
        for row in claim.contrasts:
            if row.n:
                verdict = row.verdict or "not predicted"
                assert exhibits.replicates(claim, row.contrast).title.endswith(f"? {verdict.capitalize()}")
    quick = exhibits.contrasts(dataclasses.replace(bundled["parts_combine"], quick=True))
    assert quick.title.endswith(" - a smoke test, no evidence")


def test_figures_tables_and_sentences_of_a_claim_have_one_unit(bundled):
    """Every contrast of every claim: its estimate, margin and reason in the unit of the axis on which it is drawn."""
    for claim in bundled.values():
        table, figure = exhibits.rows_of(claim), exhibits.contrasts(claim).figure
        drawn = np.concatenate([np.asarray(trace.x, float) for trace in figure.data if trace.mode == "markers"])
        axes = " ".join(axis.title.text.replace("<br>", " ") for axis in figure.select_xaxes())
        for row, estimate, reason in zip(claim.contrasts, table["Estimate"], table["Why"]):
            about = row.about
            assert estimate == contrast_estimate(row)
            assert about.axis in axes
            assert bool(estimate) == bool(row.n)
            if row.n:
                assert np.isclose(drawn, about.scale * row.estimate).any()
                assert estimate.startswith(f"{about.scale * row.estimate:+{about.form}}")
            assert reason == why(row, quick=claim.quick)
            if about.unit == "points" and row.n:
                assert estimate.endswith(" points")
                # The share that the stored reason has; 0 is the same in both.
                assert not row.margin or f"{row.margin:+.3g}" not in reason
            if "wholly" in reason or "crosses" in reason:
                assert predicted(row) in reason


def test_a_reason_that_is_no_margin_stays_as_it_was_stored(bundled):
    claim = bundled["attention_carries_the_gain"]
    first, few = claim.primary, next(row for row in claim.contrasts if row.contrast == "LN is not enough")
    assert why(first) == "the 95 % interval lies wholly above +21.4 points"
    assert f"n = {few.n} can give no" in why(few)
    tested = dataclasses.replace(first, low=0.1, high=0.3, smallest_p=0.01, verdict=Verdict.UNDECIDED)
    missing = dataclasses.replace(tested, missing="5 of 6 planned replicates are complete", reason="5 of 6 planned")
    assert why(missing) == "5 of 6 planned"
    crossing = dataclasses.replace(tested, missing="")
    assert why(crossing) == "the 95 % interval crosses the margin (predicted: above +21.4 points)"
    beside = dataclasses.replace(crossing, low=0.25, p=0.0625)
    assert (
        why(beside)
        == "p = 0.0625 is above 0.05, though the 95 % interval does not cross the margin (above +21.4 points)"
    )
    assert why(dataclasses.replace(beside, p=0.03, reason="adjusted p = 0.1")) == "adjusted p = 0.1"
    assert why(dataclasses.replace(crossing, reason="quick: a smoke test"), quick=True) == "quick: a smoke test"


def test_what_a_claim_rests_on_reads_as_a_sentence(bundled):
    claim = by_version_1(bundled["dyck_teaches_recall"])
    said = describe_evidence(claim)
    assert re.search(
        r"A study of this size finds a difference of [\d.]+ points from the margin with a probability of", said
    )
    assert "With n = 15, an outcome that occurs in up to 18 % of replicates can go unseen." in said
    assert claim.claim not in said  # it is the heading above


def test_the_list_of_claims_begins_with_the_sentence(bundled):
    assert list(exhibits.overview(bundled))[:3] == ["Claim", "Verdict", "Estimate"]


def test_a_stored_diagnostic_table_stands_before_the_bundled_one(tmp_path):
    row = {"task": "haystack", "phase1": "dyck", "transfer": "full", "gain_mean": 0.3, "gain_low": 0.1}
    row |= {"gain_high": 0.5, "n": 3, "claimed_gain": 0.8, "verdict": "agrees"}
    store = RunStore(tmp_path)
    store.write_table("table1", pd.DataFrame({"task": ["haystack"]}), {"summary": [row]})
    summary, source = exhibits.load_beside(store)
    assert source == "this store"
    assert exhibits.beside_the_paper(summary).table["paper_gain"].tolist() == [0.8]
    store.write_table("table1", pd.DataFrame({"task": ["haystack"]}), {"summary": [{"task": "haystack"}]})
    with pytest.raises(ValueError, match="table1 has columns"):
        exhibits.load_beside(store)
    store.write_table("table1", pd.DataFrame({"task": ["haystack"]}), {})  # older than summaries
    assert exhibits.load_beside(store)[1] == "results that come with the package"


def test_the_papers_numbers_stand_beside_ours():
    summary, source = exhibits.load_beside()
    assert source == "results that come with the package"
    table = exhibits.beside_the_paper(summary).table
    dyck = table.loc[(table["task"] == "haystack") & (table["phase1"] == "dyck") & (table["transfer"] == "full")]
    assert dyck["paper_gain"].tolist() == pytest.approx([0.969 - 0.113], abs=1e-3)


def test_a_claim_judged_by_a_sequence_can_be_shown_from_look_to_look(bundled, tmp_path):
    """In the unit of its estimate, with the looks that were taken."""
    old = by_version_1(bundled["dyck_teaches_recall"])
    assert exhibits.sequence(old, old.primary.contrast) is None, "a bootstrap holds at one n alone"
    weights = old.primary.weights
    primary = Contrast(name="gain", weights=weights, predicted="above", margin=0.214)
    statement = {name: getattr(old, name) for name in ("name", "claim", "prediction", "margin", "refuted_by")}
    judged = judge(Claim(**statement, primary=primary), old.cells)
    judged = dataclasses.replace(judged, looks=with_looks(judged.looks, judged.contrasts, "monday"))
    store = RunStore(tmp_path)
    write_claim(store, judged, old.cells)
    claim = exhibits.load_claims(store)[0]["dyck_teaches_recall"]
    exhibit = exhibits.sequence(claim, "gain")
    n = old.primary.n
    assert exhibit.table["n"].tolist() == list(range(1, n + 1))
    assert exhibit.table["estimate"].tolist()[-1] == pytest.approx(100 * claim.primary.estimate)
    assert exhibit.notes == (f"Looked at with n = {n}.",)
    assert "betting confidence sequence" in unbroken(exhibit.figure.layout.title.subtitle.text)
    table = exhibits.rows_of(claim)
    assert table["Interval"].tolist() == ["95 % betting"]
    assert re.search(rf"full \d+ of {n} \[\d+, \d+\] %; none \d+ of {n}", table["Broke through"].tolist()[0])
    said = describe_evidence(claim)
    assert f"n = {n} replicates; 95 % betting confidence sequence over replicates, which holds at every n" in said
    assert "Broke through, with exact 95 % intervals: full " in said
    assert "Boschloo's exact test: p = " in said
    assert "can go unseen" not in said
    assert exhibits.rows_of(old)["Interval"].tolist()[0] == "95 % bootstrap"
    earlier = dataclasses.replace(claim, earlier=past(old, "another protocol", 1).earlier)
    said = f"Earlier: supported by version 1 of the rule, n = {n}, bootstrap interval"
    assert f"{said}, on version 2 of its declaration." in describe_evidence(earlier)
    assert f"{said}." in describe_evidence(dataclasses.replace(earlier, version=2))
    assert "95 % betting confidence sequence" in unbroken(exhibits.contrasts(claim).figure.layout.title.subtitle.text)
    assert "95 % bootstrap interval" in unbroken(exhibits.contrasts(old).figure.layout.title.subtitle.text)
