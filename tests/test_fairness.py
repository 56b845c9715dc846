"""A claim on text is decided only beside its control arms, and where phase 1 was learnt."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.again import judged_again
from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.contrast_text import why
from procpre_interp.claims.fairness import CONTROLS, TUNING, is_on_text, what_it_lacks
from procpre_interp.claims.judge import judge
from procpre_interp.claims.text import describe_evidence
from procpre_interp.sweep.fair_arms import Kind
from tests.judged import CLAIM_FIELDS, NAN, stored_claim

LOSS = Contrast(name="loss", weights={"a": 1, "none": -1}, predicted="below", margin=-0.05, measure="loss_nats")
SECOND = dataclasses.replace(LOSS, name="against text", weights={"a": 1, "a natural text": -1})
CLAIM = Claim(**CLAIM_FIELDS, primary=LOSS, secondary=(SECOND,))
ARMS = {"none": "fresh", "a": "transfer", **{f"a {arm}": arm for arm in CONTROLS}}


def text_table(gain: float = -0.2, n: int = 10, **columns) -> pd.DataFrame:
    """Losses of all arms on text, in which `a` is better than the others by about this."""
    rows = [
        {"condition": name, "label": name, "replicate": 1000 + i, "arm": arm, "control_of": "a" if " " in name else ""}
        | {"loss_nats": 2 + 0.01 * i + (gain + 0.02 * np.sin(7 * i) if name == "a" else 0.0)}
        for i in range(n)
        for name, arm in ARMS.items()
    ]
    fixed = {"status": "finished", "accuracy": 0.5, "breakthrough_step": NAN, "limit": 100, "seconds": 1.0}
    return pd.DataFrame(rows).assign(**(fixed | {"phase1_learnt": True, "phase1_seconds": 0.0} | columns))


def test_the_names_of_arms_are_those_of_a_fair_sweep():
    assert set(ARMS.values()) == {str(kind) for kind in Kind}


def test_with_all_arms_a_claim_on_text_is_decided():
    judged = judge(CLAIM, text_table(), task="text")
    assert (judged.verdict, judged.contrasts[1].verdict) == ("supported", "supported")
    assert judge(CLAIM, text_table(0.2), task="text").verdict == "refuted"


def test_without_a_fair_sweep_it_is_not():
    plain = text_table().drop(columns=["arm", "control_of", "phase1_learnt"])
    for gain in (-0.2, 0.2):
        judged = judge(CLAIM, plain.assign(loss_nats=text_table(gain)["loss_nats"]), task="text")
        assert {row.verdict for row in judged.contrasts} == {"undecided"}
        assert judged.reason == (
            "on text it needs the arms of a fair sweep (fresh, scales, natural text, shuffled sequences), "
            "and its sweep has none"
        )
        assert why(judged.primary) == judged.reason
    # Elsewhere nothing changes.
    assert judge(CLAIM, plain, task="haystack").verdict == "supported"
    assert judge(CLAIM, plain).verdict == "supported"


@pytest.mark.parametrize("arm", ["fresh", *CONTROLS])
def test_an_arm_that_is_missing_is_named(arm):
    table = text_table()
    without = table.loc[(table["arm"] != arm) | (table["replicate"] > 1002)]
    assert what_it_lacks(["a"], without) == f"the arm '{arm}' of 'a' is missing in 3 of 10 replicates"
    failed = table.assign(status=np.where((table["arm"] == arm) & (table["replicate"] == 1000), "failed", "finished"))
    assert what_it_lacks(["a"], failed) == f"the arm '{arm}' of 'a' is missing in 1 of 10 replicates"
    # A contrast of controls alone is one on their transfer.
    assert "of 'a' is missing" in what_it_lacks(["a scales", "a natural text"], without)
    assert what_it_lacks(["none"], without) == ""


def test_a_gate_that_was_missed_leaves_it_open():
    table = text_table()
    table.loc[(table["condition"] == "a") & (table["replicate"] < 1002), "phase1_learnt"] = False
    judged = judge(CLAIM, table, task="text")
    assert judged.verdict == "undecided"
    assert judged.reason == "phase 1 of 'a' missed its gate in 2 of 10 replicates"


def test_what_was_tuned_to_the_edge_is_said():
    tuning = pd.DataFrame(
        {"arm": ["none", "a", "a scales"], "learning_rate": [0.008, 0.004, 0.016], "initial_scale": [1.0, 2.0, 1.0]}
    ).assign(at_edge=["", "learning_rate initial_scale", "learning_rate"])
    judged = judge(CLAIM, text_table(), task="text")
    said = describe_evidence(dataclasses.replace(judged, tables={TUNING: tuning})).splitlines()[-1]
    assert said.endswith("beyond: a (learning rate 0.004, initial scale 2); a scales (learning rate 0.016).")
    for nothing in ({}, {TUNING: tuning.head(1)}, {TUNING: pd.DataFrame()}):
        assert "edge" not in describe_evidence(dataclasses.replace(judged, tables=nothing))


@pytest.mark.parametrize(
    ("task", "step", "is_said"), [("haystack", 50.0, True), ("haystack", NAN, False), ("text", 50.0, False)]
)
def test_times_are_compared_where_some_run_broke_through_which_none_does_on_text(task, step, is_said):
    table = text_table()
    table.loc[table["condition"] == "a", "breakthrough_step"] = step
    assert ("Log-rank" in describe_evidence(judge(CLAIM, table, task=task))) == is_said


def test_what_is_undecided_keeps_its_own_reason():
    judged = judge(CLAIM, text_table(n=4).drop(columns="arm"), task="text")
    assert "n = 4" in judged.reason


def test_a_task_made_of_text_is_known_by_its_epochs():
    table = text_table()
    assert is_on_text("text", table)
    assert is_on_text("noisy", table.assign(epochs=0.5))
    assert not is_on_text("haystack", table.assign(epochs=NAN))
    assert judge(CLAIM, table.drop(columns="arm").assign(epochs=0.5), task="noisy").verdict == "undecided"


def test_a_stored_claim_judged_again_is_held_to_it():
    plain = text_table().drop(columns="arm")
    stored = stored_claim(plain, task="text", name=CLAIM.name)
    assert judged_again(CLAIM, stored).verdict == "undecided"
    assert judged_again(CLAIM, dataclasses.replace(stored, task="haystack")).verdict == "supported"


def test_a_stored_claim_that_lacks_replicates_is_not_judged_again():
    """What is there would decide it: until then it was undecided for what is not."""
    stored = stored_claim(text_table(), task="haystack", name=CLAIM.name)
    lacking = dataclasses.replace(stored.primary, missing="15 of 20 planned replicates are complete")
    stored = dataclasses.replace(stored, contrasts=(lacking, *stored.contrasts[1:]))
    with pytest.raises(ValueError, match="15 of 20 planned replicates are complete; --run computes the others"):
        judged_again(CLAIM, stored)


def test_a_premise_that_is_held_back_holds_back_the_claim():
    """Its transfer may be one that the primary contrast does not name."""
    premise = dataclasses.replace(LOSS, name="b is better", weights={"b": 1, "none": -1})
    claim = dataclasses.replace(CLAIM, secondary=(premise,), premise=premise.name)
    table = text_table()
    of_b = {name: name.replace("a", "b", 1) for name in ARMS if name != "none"}
    second = table.loc[table["condition"] != "none"].assign(
        condition=lambda rows: rows["condition"].map(of_b), control_of=lambda rows: rows["control_of"].replace("a", "b")
    )
    both = pd.concat([table, second], ignore_index=True)
    assert judge(claim, both, task="text").verdict == "supported"
    both.loc[(both["condition"] == "b") & (both["replicate"] == 1003), "phase1_learnt"] = False
    judged = judge(claim, both, task="text")
    assert judged.contrasts[1].reason == "phase 1 of 'b' missed its gate in 1 of 10 replicates"
    assert (judged.verdict, judged.reason) == ("undecided", "its premise, b is better, is undecided")
