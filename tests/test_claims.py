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
from procpre_interp.claims.claim_json import CELLS_HASH, claim_from_json, claim_to_json
from procpre_interp.claims.contrast_text import contrast_estimate, predicted
from procpre_interp.claims.files import claim_scripts, find_claims, read_claims, write_claim
from procpre_interp.claims.judge import judge, judge_contrasts
from procpre_interp.claims.measures import Measure, measure_of
from procpre_interp.claims.sequential_rule import judge_contrast
from procpre_interp.cli import main
from procpre_interp.stats.decisions import Decision
from procpre_interp.store.store import RunStore
from procpre_interp.study.scripts import load_experiment
from procpre_interp.study.smoke_test import shortened
from procpre_interp.sweep.plan import plan
from tests.judged import ABOVE, CLAIM_FIELDS, MANY, NAN, SMALL
from tests.judged import gains_table as table

CLAIM = Claim(**CLAIM_FIELDS, primary=ABOVE)


def test_a_claim_with_failed_cells_is_judged_all_the_same():
    rows = table(0.5 + SMALL)
    failed = rows.copy()
    failed.loc[3, ["status", "accuracy", "limit", "seconds"]] = ["failed", NAN, NAN, NAN]
    judged = judge(CLAIM, failed, planned=rows)
    assert judged.verdict == "undecided"
    assert dict(zip(judged.conditions["condition"], judged.conditions["n"])) == {"none": 6, "a": 5}


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
@given(gains=st.lists(st.floats(-1, 1), min_size=6, max_size=30), margin=st.floats(0.01, 0.9))
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
    rows = table(0.5 + np.linspace(-0.02, 0.02, 20))
    secondary = [Contrast(name=str(i), weights=ABOVE.weights, predicted="above", margin=0.2) for i in range(3)]
    free = Contrast(name="free", weights=ABOVE.weights)
    found = judge_contrasts(Claim(**CLAIM_FIELDS, primary=ABOVE, secondary=(*secondary, free)), rows)
    assert [row.primary for row in found] == [True, False, False, False, False]
    assert len({row.p for row in found[:4]}) == 1
    assert 0.05 / 3 < found[0].p < 0.05
    assert [row.p_holm for row in found[:4]] == pytest.approx([found[0].p, *[3 * found[0].p] * 3])
    assert (found[0].verdict, found[0].decision, found[0].undecided_reason) == ("supported", Decision.SIGNIFICANT, "")
    # All secondary ones lie above their margin, and are not decided all the same.
    assert {(row.verdict, row.decision, row.reason) for row in found[1:4]} == {
        (Verdict.UNDECIDED, Decision.NOT_SIGNIFICANT, f"adjusted p = {3 * found[0].p:.3g}")
    }
    assert all(row.low > 0.2 for row in found[1:4])
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
    assert predicted(dataclasses.replace(judged.primary, margin=0.0002)) == "above +0.002"
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
    judged = judge(CLAIM, table(0.5 + MANY))
    assert judged.verdict == "supported"
    assert judged.seeds == tuple(range(1000, 1040))
    assert set(judged.conditions["condition"]) == {"none", "a"}
    assert set(judged.effects["measure"]) == {
        "restricted_time_steps",
        "breakthrough_share",
        "accuracy",
    }
    json.dumps(claim_to_json(judged), allow_nan=False)


def test_a_condition_may_be_called_null(tmp_path):
    """Pandas reads that as a missing value, and the claim's sequence was gone."""
    cells = table(0.5 + MANY, run="r", phase1_run="p").replace({"condition": {"a": "null"}})
    claim = dataclasses.replace(CLAIM, primary=dataclasses.replace(CLAIM.primary, weights={"null": 1, "none": -1}))
    write_claim(RunStore(tmp_path / "runs"), judge(claim, cells), cells, tmp_path / "results")
    (found,) = read_claims(None, tmp_path / "results")
    assert set(found.cells["condition"]) == {"null", "none"}


def test_claims_of_the_store_stand_before_bundled_ones(tmp_path, capsys):
    store, folder = RunStore(tmp_path / "runs"), tmp_path / "results"
    cells = table(0.5 + MANY, run="r", phase1_run="p")
    write_claim(store, judge(CLAIM, cells), cells, folder)
    weak = table(MANY, run="s", phase1_run="p")
    write_claim(store, judge(CLAIM, weak), weak)
    (found,) = read_claims(store, folder)
    assert (found.source, found.verdict) == ("store", "refuted")
    (bundled,) = read_claims(None, folder)
    assert (bundled.source, bundled.verdict) == ("bundled", "supported")
    assert bundled.cells["run"].tolist() == ["r"] * 80
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
    cells = table(0.5 + MANY, run="r", phase1_run="p")
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
    stored.pop(CELLS_HASH, None)  # of the file beside it, which `read_claims` compares
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
    stored.pop("cells_sha256", None)  # of the file beside it, which whoever writes both adds
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
    assert list(claim_scripts(tmp_path)) == [path.stem]
    experiment = load_experiment(path)
    assert (experiment.claim.name, experiment.claim.page) == (path.stem, "can_anything_cheaper")
    cells = plan(shortened(experiment.sweep)).cells
    assert set(cells["condition"]) == {"none", "queries_keys", "intact"}
    assert set(cells["problem"]) == {""}
    gains = [table(0.5 + MANY, condition=name) for name in ("queries_keys", "intact")]
    rows = pd.concat([gains[0], gains[1].query("condition != 'none'")])
    assert judge(experiment.claim, rows).verdict == Verdict.SUPPORTED


def test_a_stored_claim_is_judged_again_on_the_cells_that_it_has(tmp_path: Path, capsys):
    """What six replicates of a bootstrap had refuted is left open by the newest rule, and says what it was before."""
    claim = load_experiment(STORED.parents[1] / "parts_combine.py").claim
    store, folder = RunStore(tmp_path / "runs"), tmp_path / "results"
    stored = claim_from_json(json.loads((STORED / "parts_combine.json").read_bytes()))
    cells = pd.read_csv(STORED / "parts_combine.csv", keep_default_na=False, na_values=[""])
    contrasts = judge_contrasts(claim, cells, rule_version=1)
    first = dataclasses.replace(
        stored, rule_version=1, contrasts=contrasts, verdict=contrasts[0].verdict, looks=pd.DataFrame(), earlier=()
    )
    write_claim(store, first, cells)
    arguments = ["claims", "parts_combine", "--judge-again", "--store", str(store.path), "--results", str(folder)]
    assert main(arguments) == 0
    assert "Earlier: refuted by version 1 of the rule, n = 6" in " ".join(capsys.readouterr().out.split())
    (found,) = (each for each in read_claims(store, folder) if each.name == "parts_combine")
    assert (found.verdict, found.rule_version, found.protocol) == ("undecided", 2, stored.protocol)
    assert found.contrasts == judge(claim, cells).contrasts
    assert [each.verdict for each in found.earlier] == ["refuted"]
    assert (folder / "parts_combine.csv").is_file()
    assert main(arguments) == 0  # a second time there is nothing to do
    assert "version 2 of the rule, the newest, has judged it" in " ".join(capsys.readouterr().out.split())
    write_claim(store, dataclasses.replace(first, version=0), cells)
    assert main(arguments) == 2
    assert "is declared anew, as version 1" in capsys.readouterr().err
    assert main(["claims", "--judge-again", "--store", str(store.path)]) == 2
    assert "wants the names of claims" in capsys.readouterr().err
