"""Verdicts on tables whose answer is known, and claim files."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.claims.claim import Claim, Contrast, Verdict
from procpre_interp.claims.claim_json import claim_from_json, claim_to_json
from procpre_interp.claims.files import find_claims, read_claims, write_claim
from procpre_interp.claims.judge import judge, judge_contrast, judge_contrasts
from procpre_interp.claims.measures import Measure, measure_of
from procpre_interp.claims.text import contrast_estimate, predicted
from procpre_interp.cli import main
from procpre_interp.stats.decisions import Decision
from procpre_interp.store.store import RunStore
from procpre_interp.study.experiment import load_experiment, scripts, shortened
from procpre_interp.sweep.plan import plan

NAN = math.nan
ABOVE = Contrast(name="gain", weights={"a": 1, "none": -1}, predicted="above", margin=0.2)
BELOW = Contrast(name="loss", weights={"a": 1, "none": -1}, predicted="below", margin=-0.2)
WITHIN = Contrast(name="as good", weights={"a": 1, "none": -1}, predicted="within", margin=0.2)
CLAIM_FIELDS = {"name": "a_helps", "claim": "A helps.", "prediction": "more", "margin": "a fifth", "refuted_by": "less"}
CLAIM = Claim(**CLAIM_FIELDS, primary=ABOVE)


def table(gains, *, none=0.1, condition="a", first=1000, **columns) -> pd.DataFrame:
    """A baseline and one condition, whose gains over it are given, one replicate each."""
    rows = []
    for i, gain in enumerate(gains):
        for name, accuracy in (("none", none), (condition, none + gain)):
            rows.append({"condition": name, "label": name, "replicate": first + i, "accuracy": accuracy})
    fixed = {"status": "finished", "breakthrough_step": NAN, "limit": 5000, "seconds": 1.0, "phase1_seconds": 0.0}
    return pd.DataFrame(rows).assign(**(fixed | columns))


SMALL = np.linspace(-0.02, 0.02, 6)


@pytest.mark.parametrize(
    ("contrast", "gain", "verdict"),
    [
        (ABOVE, 0.5, "supported"),
        (ABOVE, 0.2, "undecided"),
        (ABOVE, 0.1, "refuted"),
        (ABOVE, -0.5, "refuted"),
        (BELOW, -0.5, "supported"),
        (BELOW, -0.2, "undecided"),
        (BELOW, 0.5, "refuted"),
        (WITHIN, 0.0, "supported"),
        (WITHIN, 0.15, "supported"),
        (WITHIN, 0.2, "undecided"),
        (WITHIN, 0.5, "refuted"),
        (WITHIN, -0.5, "refuted"),
    ],
)
def test_the_interval_decides(contrast, gain, verdict):
    row = judge_contrast(contrast, table(gain + SMALL))
    assert row.verdict == verdict, row
    assert row.estimate == pytest.approx(gain)
    assert row.n == 6
    assert row.low < gain < row.high


def test_not_significant_is_not_support_of_equality():
    wide = judge_contrast(WITHIN, table([-0.6, 0.6, -0.5, 0.5, -0.4, 0.4]))
    assert wide.verdict == "undecided"
    assert "crosses the margin" in wide.reason


@pytest.mark.parametrize(("contrast", "fewest"), [(ABOVE, 6), (WITHIN, 5)])
def test_too_few_replicates_decide_nothing(contrast, fewest):
    gain = 0.5 if contrast is ABOVE else 0.0
    for n in range(1, 8):
        row = judge_contrast(contrast, table(gain + np.linspace(-0.01, 0.01, n)))
        assert row.verdict == ("supported" if n >= fewest else "undecided")
        if n < fewest:
            assert f"n = {n} can give no p below" in row.reason
            assert row.smallest_p > 0.05


def test_quick_and_diverged_runs_decide_nothing():
    clear = table(0.5 + SMALL)
    assert judge_contrast(ABOVE, clear, quick=True).verdict == "undecided"
    diverged = clear.assign(status=["finished"] * 11 + ["diverged"])
    row = judge_contrast(ABOVE, diverged)
    assert (row.verdict, row.n) == ("undecided", 5)
    assert row.reason == "5 of 6 planned replicates are complete (1 runs diverged)"
    # A diverged run of a condition that the contrast does not name changes nothing.
    other = table([0.5], condition="b", status="diverged")
    both = pd.concat([clear, other.loc[other["condition"] == "b"]]).assign(limit=5000)
    assert judge_contrast(ABOVE, both).verdict == "supported"


def test_what_was_planned_and_is_not_there_leaves_it_undecided():
    clear = table(0.5 + np.linspace(-0.02, 0.02, 7))
    rows = clear.loc[~((clear["replicate"] == 1003) & (clear["condition"] == "a"))]
    found = judge_contrast(ABOVE, rows, planned=clear)
    assert (found.n, found.verdict) == (6, "undecided")
    assert found.reason == "6 of 7 planned replicates are complete"
    # A condition that was planned for fewer replicates is complete with these.
    assert judge_contrast(ABOVE, rows, planned=rows).verdict == "supported"
    failed = rows.copy()
    failed.loc[failed["replicate"] == 1006, ["status", "accuracy"]] = ["failed", NAN]
    found = judge_contrast(ABOVE, failed, planned=clear)
    assert found.reason == "5 of 7 planned replicates are complete (2 runs failed)"
    nothing = judge_contrast(ABOVE, clear.loc[clear["condition"] == "none"], planned=clear)
    assert (nothing.n, nothing.verdict) == (0, "undecided")


def test_a_claim_with_failed_cells_is_judged_all_the_same():
    rows = table(0.5 + SMALL)
    failed = rows.copy()
    failed.loc[3, ["status", "accuracy", "limit", "seconds"]] = ["failed", NAN, NAN, NAN]
    judged = judge(CLAIM, failed, planned=rows)
    assert judged.verdict == "undecided"
    assert dict(zip(judged.conditions["condition"], judged.conditions["n"])) == {"none": 6, "a": 5}


def test_an_interval_without_a_significant_test_decides_nothing():
    row = judge_contrast(ABOVE, table([0.78, 0.80, 0.75, 0.77, 0.79, 0.15]))
    assert row.low > 0.2
    assert row.p > 0.05
    assert row.verdict == "undecided"


def test_replicates_that_are_all_alike_decide_nothing():
    row = judge_contrast(ABOVE, table([0.5] * 8))
    assert row.verdict == "undecided"
    assert "alike" in row.reason


@pytest.mark.parametrize("margin", [0.02, 0.2, 0.38])
def test_a_difference_that_no_test_set_resolves_changes_no_verdict(margin):
    """Six gains of 0, and five of 0 and one of 0.001: both are judged by what six replicates can miss."""
    within = Contrast(name="x", weights=WITHIN.weights, predicted="within", margin=margin)
    rows = [judge_contrast(within, table([0.0] * 5 + [last])) for last in (0.0, 0.001)]
    assert [row.verdict for row in rows] == ["undecided"] * 2
    for row in rows:
        assert "with n = 6 an outcome that occurs in up to 39% of replicates can go unseen" in row.reason
        assert (row.low, row.high) == pytest.approx((-0.393, 0.393), abs=1e-3)
    # Twenty that are alike leave less open.
    many = [judge_contrast(WITHIN, table([0.0] * 19 + [last])) for last in (0.0, 0.001)]
    assert [row.verdict for row in many] == ["supported"] * 2
    assert many[0].high == pytest.approx(1 - 0.05 ** (1 / 20))
    # Of a measure whose range is not known nothing can be said.
    unknown = table([0.0] * 20).assign(entropy=0.5)
    row = judge_contrast(
        Contrast(name="x", weights=WITHIN.weights, predicted="within", margin=1, measure="entropy"), unknown
    )
    assert (row.verdict, math.isnan(row.low)) == ("undecided", True)


def test_a_contrast_reaches_as_far_as_its_weights():
    doubled = Contrast(name="x", weights={"a": 2, "none": -2}, predicted="within", margin=0.3)
    assert judge_contrast(doubled, table([0.0] * 20)).high == pytest.approx(2 * (1 - 0.05 ** (1 / 20)))


def test_the_log_rank_test_stands_beside_a_pair():
    rows = table(0.5 + SMALL).assign(breakthrough_step=[NAN, 1000.0] * 6)
    found = judge(CLAIM, rows).log_rank
    assert (found.sooner, found.than) == ("a", "none")
    assert found.p == pytest.approx(2 / 64)
    three = Claim(**{**CLAIM_FIELDS, "primary": Contrast(name="x", weights={"a": 1, "none": -0.5}, predicted="above")})
    assert judge(three, rows).log_rank is None


def test_a_contrast_weighs_conditions_within_replicates():
    both = pd.concat([table([0.3] * 6), table([0.7] * 6, condition="b").query("condition == 'b'")])
    found = judge_contrast(Contrast(name="i", weights={"b": 1, "a": -0.5, "none": -0.5}), both)
    assert found.estimate == pytest.approx(0.8 - 0.5 * 0.4 - 0.5 * 0.1)
    assert found.verdict is None
    assert found.formula == "b - 0.5 a - 0.5 none"


def test_time_counts_at_most_the_limit():
    rows = table([0.0] * 6).assign(breakthrough_step=[NAN, 1000.0] * 6)
    found = judge_contrast(Contrast(name="t", weights={"none": 1, "a": -1}, measure="restricted_time_steps"), rows)
    assert found.estimate == 4000


@settings(deadline=None, max_examples=30)
@given(gains=st.lists(st.floats(-1, 1), min_size=6, max_size=9), margin=st.floats(0.01, 0.9))
def test_verdicts_never_contradict_one_another(gains, margin):
    rows = table(np.array(gains))
    above = judge_contrast(Contrast(name="x", weights=ABOVE.weights, predicted="above", margin=margin), rows)
    below = judge_contrast(Contrast(name="x", weights=ABOVE.weights, predicted="below", margin=margin), rows)
    within = judge_contrast(Contrast(name="x", weights=ABOVE.weights, predicted="within", margin=margin), rows)
    assert (above.verdict, below.verdict) != ("supported", "supported")
    assert (above.verdict == "supported") <= (below.verdict == "refuted")
    if above.verdict == "supported":
        assert within.verdict != "supported"


def test_secondary_contrasts_are_adjusted_for_their_number_and_the_primary_is_not():
    rows = table(0.5 + SMALL)
    secondary = [Contrast(name=str(i), weights=ABOVE.weights, predicted="above", margin=0.1) for i in range(3)]
    free = Contrast(name="free", weights=ABOVE.weights)
    found = judge_contrasts(Claim(**CLAIM_FIELDS, primary=ABOVE, secondary=(*secondary, free)), rows)
    assert [row.primary for row in found] == [True, False, False, False, False]
    assert [row.p for row in found[:4]] == pytest.approx([2 / 64] * 4)
    assert [row.p_holm for row in found[:4]] == pytest.approx([2 / 64, 6 / 64, 6 / 64, 6 / 64])
    assert (found[0].decision, found[0].undecided_reason) == (Decision.SIGNIFICANT, "")
    assert found[1].decision is Decision.UNDECIDED
    assert found[1].undecided_reason == "n = 6 can give no adjusted p below 0.0938"
    # All secondary ones lie above their margin, and are not decided all the same.
    assert {(row.verdict, row.reason) for row in found[1:4]} == {
        (Verdict.UNDECIDED, "undecided: n = 6 can give no adjusted p below 0.0938")
    }
    assert math.isnan(found[4].p)
    assert (found[4].decision, found[4].verdict) == (None, None)


def test_a_claim_declares_how_its_measures_are_read():
    rows = table(0.5 + SMALL).assign(grip=lambda cells: cells["accuracy"])
    grip = Contrast(name="grip", weights=ABOVE.weights, predicted="above", margin=0.2, measure="grip")
    hours = Measure("grip of the heads", "hours", "hours", 10.0)
    claim = Claim(
        **CLAIM_FIELDS, primary=grip, secondary=(ABOVE,), page="can_anything_cheaper", measures={"grip": hours}
    )
    judged = judge(claim, rows)
    assert contrast_estimate(judged.primary).startswith("+5.000 [")
    assert contrast_estimate(judged.primary).endswith("] hours")
    assert predicted(judged.primary) == "above +2.00"
    assert contrast_estimate(judged.contrasts[1]).endswith("] points"), "accuracy is read as everywhere"
    again = claim_from_json(json.loads(json.dumps(claim_to_json(judged))))
    assert (again.page, again.primary.about) == ("can_anything_cheaper", hours)
    undeclared = judge(Claim(**CLAIM_FIELDS, primary=grip), rows)
    assert (undeclared.page, undeclared.primary.about) == ("do_the_claims_hold", Measure("grip"))
    with pytest.raises(ValueError, match="no contrast has the measure 'grip'"):
        Claim(**CLAIM_FIELDS, primary=ABOVE, measures={"grip": hours})


def test_impossible_contrasts_are_refused():
    with pytest.raises(ValueError, match="wants \\['b'\\], which no cell was planned for"):
        judge_contrast(Contrast(name="g", weights={"b": 1, "none": -1}), table([0.5]))
    with pytest.raises(ValueError, match="within needs a margin above 0"):
        Contrast(name="g", weights={"a": 1}, predicted="within")
    with pytest.raises(ValueError, match="give each condition a number"):
        Contrast(name="g", weights={})
    with pytest.raises(ValueError, match="predicts nothing"):
        Claim(name="x", claim="", prediction="", margin="", refuted_by="", primary=Contrast(name="g", weights={"a": 1}))


def test_a_judged_claim_has_the_numbers_behind_it():
    judged = judge(CLAIM, table(0.5 + SMALL))
    assert judged.verdict == "supported"
    assert judged.seeds == tuple(range(1000, 1006))
    assert set(judged.conditions["condition"]) == {"none", "a"}
    assert set(judged.effects["measure"]) == {
        "restricted_time_steps",
        "breakthrough_share",
        "accuracy",
    }
    json.dumps(claim_to_json(judged), allow_nan=False)


def test_claims_of_the_store_stand_before_bundled_ones(tmp_path, capsys):
    store, folder = RunStore(tmp_path / "runs"), tmp_path / "results"
    cells = table(0.5 + SMALL, run="r", phase1_run="p")
    write_claim(store, judge(CLAIM, cells), cells, folder)
    weak = table(SMALL, run="s", phase1_run="p")
    write_claim(store, judge(CLAIM, weak), weak)
    (found,) = read_claims(store, folder)
    assert (found.source, found.verdict) == ("store", "refuted")
    (bundled,) = read_claims(None, folder)
    assert (bundled.source, bundled.verdict) == ("bundled", "supported")
    assert bundled.cells["run"].tolist() == ["r"] * 12
    assert main(["claims", "--store", str(store.path)]) == 0
    printed = capsys.readouterr().out
    assert "A helps." in printed
    assert "refuted" in printed
    assert main(["claims", "a_helps", "--store", str(store.path)]) == 0
    printed = capsys.readouterr().out
    assert "A_HELPS" not in printed
    assert "REFUTED" in printed
    assert "above +20.0" in printed
    assert main(["claims", "a_helps", "--store", str(store.path), "--format", "json"]) == 0
    (plain,) = json.loads(capsys.readouterr().out)
    assert plain["cells"][0]["run"] == "s"
    assert main(["claims", "b_helps", "--store", str(store.path)]) == 2
    assert "Did you mean 'a_helps'" in capsys.readouterr().err
    (folder / "broken.json").write_text("{")
    with pytest.raises(ValueError, match="broken.json cannot be read"):
        read_claims(None, folder)


def test_a_verdict_never_stands_next_to_the_cells_of_other_runs(tmp_path):
    """As after a kill between the writes of the two files, or a flipped bit in the second."""
    cells = table(0.5 + SMALL, run="r", phase1_run="p")
    write_claim(RunStore(tmp_path / "runs"), judge(CLAIM, cells), cells, tmp_path / "results")
    (found,) = read_claims(None, tmp_path / "results")
    assert found.verdict == "supported"
    path = tmp_path / "results" / "a_helps.csv"
    other = path.read_text().replace("0.5", "0.4", 1)
    path.write_text(other)
    with pytest.raises(ValueError, match=r"a_helps.csv is not what it was judged on; compute it again"):
        read_claims(None, tmp_path / "results")
    content = json.loads((tmp_path / "results" / "a_helps.json").read_text())
    del content["cells_sha256"]  # as older versions wrote it
    (tmp_path / "results" / "a_helps.json").write_text(json.dumps(content))
    assert len(read_claims(None, tmp_path / "results")) == 1


STORED = Path(__file__).resolve().parents[1] / "experiments" / "results" / "claims"


@pytest.mark.parametrize("path", sorted(STORED.glob("*.json")), ids=lambda path: path.stem)
def test_every_stored_claim_is_written_as_it_was_read(path: Path):
    """From JSON to dataclasses and back: every key in its order, and every digit."""
    stored = json.loads(path.read_bytes())
    judged = claim_from_json(stored)
    assert json.dumps(claim_to_json(judged), indent=1) == json.dumps(stored, indent=1)
    # Its script declares the same contrasts, page and measures, or a later version of the claim.
    claim = load_experiment(STORED.parents[1] / f"{path.stem}.py").claim
    assert judged.version <= claim.version
    if judged.version < claim.version:
        return
    assert [row.contrast for row in judged.contrasts] == [contrast.name for contrast in claim.contrasts]
    assert [row.about for row in judged.contrasts] == [claim.measure_of(contrast) for contrast in claim.contrasts]
    assert judged.page == claim.page


def test_a_verdict_says_which_version_of_the_claim_it_is_on():
    stored = json.loads((STORED / "retrieval_head_forms.json").read_bytes())
    assert claim_from_json(stored).version == 1
    assert "version" not in claim_to_json(claim_from_json(stored))
    second = dataclasses.replace(claim_from_json(stored), version=2)
    assert claim_to_json(second)["version"] == 2
    assert claim_from_json(claim_to_json(second)).version == 2


def as_before(stored: dict) -> dict:
    """A claim file as it was before claims declared page and measures, with decision and reason in one text."""
    older = {name: value for name, value in stored.items() if name not in ("page", "measures", "tables")}
    contrasts = []
    for row in stored["contrasts"]:
        reason = row["undecided_reason"]
        kept = {name: value for name, value in row.items() if name != "undecided_reason"}
        contrasts.append(kept | ({"decision": f"undecided: {reason}"} if reason else {}))
    return older | stored["tables"] | {"contrasts": contrasts}


@pytest.mark.parametrize("name", ["noise_dose_response", "retrieval_head_forms"])
def test_a_claim_file_of_an_older_version_says_the_same(name: str, tmp_path: Path):
    stored = json.loads((STORED / f"{name}.json").read_bytes())
    new = claim_from_json(stored)
    old = claim_from_json(as_before(stored))
    assert (old.page, old.primary.about.unit) == ("do_the_claims_hold", measure_of(old.primary.measure).unit)
    assert claim_to_json(claim_from_json(as_before(stored), new)) == stored
    # In a store, it takes page and measures from the file that comes with the package.
    cells = pd.read_csv(STORED / f"{name}.csv")
    RunStore(tmp_path).write_table(f"claim-{name}", cells, as_before(stored))
    found, problems = find_claims(RunStore(tmp_path), STORED)
    assert problems == []
    assert found[name].source == "store"
    assert (found[name].page, found[name].contrasts) == (new.page, new.contrasts)


def test_the_claim_on_the_page_for_contributors_can_be_run_and_judged(tmp_path: Path):
    page = (STORED.parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (text,) = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "EXPERIMENT" in block]
    path = tmp_path / "queries_and_keys_are_enough.py"
    path.write_text(text)
    assert list(scripts(tmp_path)) == [path.stem]
    experiment = load_experiment(path)
    assert (experiment.claim.name, experiment.claim.page) == (path.stem, "can_anything_cheaper")
    cells = plan(shortened(experiment.sweep)).cells
    assert set(cells["condition"]) == {"none", "queries_keys", "intact"}
    assert set(cells["problem"]) == {""}
    gains = [table(0.5 + SMALL, condition=name) for name in ("queries_keys", "intact")]
    rows = pd.concat([gains[0], gains[1].query("condition != 'none'")])
    assert judge(experiment.claim, rows).verdict == Verdict.SUPPORTED
