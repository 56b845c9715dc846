"""The page "Do the claims hold?" on the demo and on a store with a damaged claim."""

import dataclasses

from procpre_interp.claims.claim import Verdict
from procpre_interp.claims.files import write_claim
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.claims import load_claims
from tests.explorer import charts, check, open_page, said
from tests.results import fill

PAGE = "questions/do_the_claims_hold.py"


def test_verdicts_and_the_papers_numbers(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert app.success[0].value == "Of 36 claims: 10 supported, 16 refuted, 10 undecided."
    assert f"--store {tmp_path}" in [code.value for code in app.code][-1]
    assert "What it cannot say" in said(app)
    assert app.dataframe[0].value.columns[0] == "Claim"
    claim = "Given Dyck's LayerNorms and positions, its attention adds what teaches recall"
    assert app.subheader[0].value.replace("\\", "") == f"Claim: {claim} - supported"
    assert claim not in "".join(text.value for text in app.text)
    table = app.dataframe[0].value.set_index("Name")
    assert table.loc["attention_carries_the_gain", "Verdict"] == "supported"
    assert len(charts(app)) == 2


def test_a_claim_and_a_contrast_from_the_address(monkeypatch, tmp_path):
    query = {"claim": "parts_combine", "tab": "Replicates", "task": "sorting"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert app.subheader[0].value.endswith("undecided")
    assert len(charts(app)) == 4
    first = charts(app)[0].proto.spec
    options = app.selectbox(key="contrast").options
    check(app.selectbox(key="contrast").set_value(options[1]).run())
    assert charts(app)[0].proto.spec != first
    check(app.selectbox(key="claim").set_value("circuits_are_reused").run())
    assert "circuit of the finished haystack model" in app.subheader[0].value
    assert not app.warning  # the contrast of the claim before is forgotten
    assert app.query_params["contrast"] == "overlap over rewired circuits"
    assert len(charts(app)) == 3


def test_a_damaged_claim_is_a_line_and_the_others_are_shown(monkeypatch, tmp_path):
    fill(RunStore(tmp_path), replicates=2)
    for suffix, content in (("json", b"{}"), ("parquet", b"no table")):
        (tmp_path / "tables" / f"claim-parts_combine.{suffix}").write_bytes(content)
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert "claim-parts_combine cannot be read" in app.warning[0].value
    assert len(app.warning) == 1
    assert "parts_combine" in app.dataframe[0].value["Name"].tolist()
    assert len(charts(app)) == 2


def test_a_smoke_test_with_markup_and_no_finished_runs(monkeypatch, tmp_path):
    store, claim = RunStore(tmp_path), load_claims()[0]["parts_combine"]
    cells = claim.cells.assign(status="failed")
    changed = {"quick": True, "verdict": Verdict.UNDECIDED, "claim": "[a](http://b) <b>c</b>"}
    quick = dataclasses.replace(claim, **changed)
    write_claim(store, quick, cells)
    query = {"claim": "quick-parts_combine", "tab": "Replicates"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert r"[a\](http\://b) \<b\>c\</b\>" in app.subheader[0].value
    assert "Smoke tests, which are no evidence: 1" in said(app)
    assert "A smoke test" in app.warning[0].value
    assert "No replicate has finished" in said(app)
    assert "procpre-interp claims parts_combine --run --quick" in app.code[-1].value
