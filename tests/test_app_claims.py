"""The page "Do the claims hold?" on the demo and on a store with a damaged claim."""

from procpre_interp.runs import RunStore
from tests.explorer import charts, check, open_page, said
from tests.results import fill

PAGE = "questions/do_the_claims_hold.py"


def test_verdicts_and_the_papers_numbers(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert "supported" in app.success[0].value
    table = app.dataframe[0].value.set_index("Name")
    assert table.loc["attention_carries_the_gain", "Verdict"] == "supported"
    assert len(charts(app)) == 2


def test_a_claim_and_a_contrast_from_the_address(monkeypatch, tmp_path):
    query = {"claim": "parts_combine", "tab": "Replicates", "task": "sorting"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert "parts_combine: REFUTED" in said(app)
    assert len(charts(app)) == 3
    first = charts(app)[0].proto.spec
    options = app.selectbox(key="contrast").options
    check(app.selectbox(key="contrast").set_value(options[1]).run())
    assert charts(app)[0].proto.spec != first
    check(app.selectbox(key="claim").set_value("circuits_are_reused").run())
    assert "circuits_are_reused: REFUTED" in said(app)
    assert len(charts(app)) == 2


def test_a_damaged_claim_is_a_line_and_the_others_are_shown(monkeypatch, tmp_path):
    fill(RunStore(tmp_path), replicates=2)
    for suffix, content in (("json", b"{}"), ("parquet", b"no table")):
        (tmp_path / "tables" / f"claim-parts_combine.{suffix}").write_bytes(content)
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert "claim-parts_combine cannot be read" in app.warning[0].value
    assert "parts_combine" in app.dataframe[0].value["Name"].tolist()
