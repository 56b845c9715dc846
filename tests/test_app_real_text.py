"""The page "Does it help on real text?": claims on text by their arms, and fair sweeps of a store."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from procpre_interp.claims.claim import Claim
from procpre_interp.claims.fairness import TUNING
from procpre_interp.claims.files import find_claims, write_claim
from procpre_interp.claims.judge import judge
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import claims as verdicts
from procpre_interp.views.exhibits import real_text
from tests.explorer import charts, check, open_page, said, title
from tests.judged import stored_claim
from tests.test_fairness import CLAIM, text_table

PAGE = "questions/does_it_help_on_real_text.py"
CELLS = text_table().assign(
    phase1_run=[() for _ in range(len(text_table()))], run="", learning_rate=2e-3, initial_scale=1.0
)


def judged(cells=CELLS):
    claim: Claim = dataclasses.replace(CLAIM, page="does_it_help_on_real_text")
    return dataclasses.replace(judge(claim, cells, task="text"), task="text", limit=100, threshold=0.5)


def test_a_claim_by_its_arms(monkeypatch, tmp_path):
    tuning = pd.DataFrame({"arm": ["a"], "learning_rate": [2e-3], "initial_scale": [1.0], "at_edge": ["learning_rate"]})
    write_claim(RunStore(tmp_path), dataclasses.replace(judged(), tables={TUNING: tuning}), CELLS)
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert "supported" in app.success[0].value
    assert len(charts(app)) == 2
    assert title(app, 0).endswith(" - supported")
    assert app.dataframe[0].value["Learning rate"].tolist() == ["0.002"] * 5
    assert any("may lie beyond: a (learning rate 0.002" in each.value for each in app.caption)


def test_a_fair_sweep(monkeypatch, tmp_path):
    store = RunStore(tmp_path)
    store.write_table("fair-1", CELLS.assign(label=CELLS["condition"]), {"title": "Does a help?"})
    store.write_table("plain-1", CELLS.drop(columns=["arm"]), {"title": "Plain"})
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Fair sweeps")
    assert app.selectbox(key="sweep").options == ["fair-1"]
    assert title(app, 0) == "Does a help? Below the fresh model: a"
    check(app)


@pytest.fixture
def no_claims(monkeypatch):
    """Neither claims that come with the package, nor those that another test's page has remembered of the demo."""
    monkeypatch.setattr(verdicts, "find_claims", lambda store, folder, quick: find_claims(store, None, quick=quick))
    st.cache_data.clear()
    yield
    st.cache_data.clear()


def test_what_is_not_there_is_said(monkeypatch, tmp_path, no_claims):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert "No claim on real text is judged yet" in said(app)
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Fair sweeps")
    assert "procpre-interp sweep fair_text" in [code.value for code in app.code]


def test_what_is_measured_on_runs_was_not_tuned():
    seen = CELLS.iloc[:1].assign(condition="seen", label="the smaller lead", learning_rate=np.nan, observed=True)
    cells = pd.concat([CELLS.assign(observed=False), seen], ignore_index=True)
    pd.testing.assert_frame_equal(real_text.tuned(cells), real_text.tuned(CELLS))


def test_arms_are_compared_with_the_fresh_arm_of_their_text():
    second = CELLS.assign(
        condition=CELLS["condition"] + ", second", control_of=np.where(CELLS["control_of"] == "a", "a, second", "")
    )
    both = [
        cells.assign(loss_nats=cells["loss_nats"] + shift, fresh_arm=fresh)
        for cells, shift, fresh in ((CELLS, 0, "none"), (second, 3, "none, second"))
    ]
    exhibit = real_text.arms(stored_claim(pd.concat(both, ignore_index=True)))
    means = exhibit.table.groupby("condition")["loss_change_nats"].mean()
    assert means["a"] == pytest.approx(means["a, second"])
    assert means["a"] == pytest.approx(-0.2, abs=0.01)
    assert means["a scales"] == pytest.approx(0)
    # A claim in another unit has its figure in that one.
    bits = stored_claim(CELLS.assign(bits_per_byte=2 * CELLS["loss_nats"]))
    primary = dataclasses.replace(bits.primary, measure="bits_per_byte")
    exhibit = real_text.arms(dataclasses.replace(bits, contrasts=(primary, *bits.contrasts[1:])))
    assert exhibit.table.groupby("condition")["loss_change_bits"].mean()["a"] == pytest.approx(-0.4, abs=0.02)
    assert "bits per byte" in exhibit.figure.layout.xaxis.title.text
    with pytest.raises(ValueError, match="columns arm and control_of, which this table lacks"):
        real_text.arms(stored_claim(CELLS.drop(columns="arm")))
