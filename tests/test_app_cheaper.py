"""The page "Can anything cheaper do the same?" on the claims of the package, and on a store with one of its own."""

import dataclasses

import pytest

from procpre_interp.claims.files import write_claim
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import cheaper
from procpre_interp.views.exhibits.claims import load_claims
from tests.explorer import charts, check, open_page, said, title
from tests.results import TABLE, fill

PAGE = "questions/can_anything_cheaper.py"


def test_shares_of_the_packages_claims(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert len(charts(app)) == 2
    assert "measured before: undecided by version 1 of the rule" in said(app)
    assert app.success[0].value.startswith("Closed form")
    assert "of the gain of the real transfer, n = 12" in said(app)
    assert title(app, 0).endswith(" - refuted")
    assert "From results that come with the package" in said(app)
    first = title(app, 0)
    check(app.selectbox(key="recipes").set_value("needed_only_early").run())
    assert title(app, 0) != first
    assert app.query_params["recipes"] == "needed_only_early"


def test_entropy_and_breakthrough(monkeypatch, tmp_path):
    query = {"tab": "Entropy and breakthrough"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert title(app, 0) == "How sharp, and how soon? The claim is refuted"
    # Only claims whose attention was measured can be chosen; the other tab's choice in the address does no harm.
    offered = app.selectbox(key="measured").options
    assert len(offered) == 2
    app = open_page(
        monkeypatch, tmp_path, PAGE, recipes="needed_only_early", measured="sharpness_is_not_enough", **query
    )
    assert title(app, 0) == "How sharp, and how soon? The claim is undecided"
    assert not app.warning


def test_the_search(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tab="The search")
    assert title(app, 0).startswith("Which recipe does the search find? ")


def test_an_experiment_of_ones_own(monkeypatch, tmp_path):
    fill(RunStore(tmp_path), replicates=3)
    app = open_page(monkeypatch, tmp_path, PAGE, recipes=TABLE, full="dyck_full")
    assert len(charts(app)) == 1
    assert "Dyck, weights" in charts(app)[0].proto.spec
    check(app.selectbox(key="full").set_value("dyck_shuffled_weights").run())
    assert "Dyck, full transfer" in charts(app)[0].proto.spec


def test_without_claims_it_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(cheaper, "cheaper_claims", lambda known: {})
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Entropy and breakthrough")
    assert "procpre-interp claims --run" in "".join(code.value for code in app.code)


def test_a_claim_of_the_store_stands_before_the_packages(monkeypatch, tmp_path):
    claim = load_claims()[0]["needed_only_early"]
    write_claim(RunStore(tmp_path), dataclasses.replace(claim, claim="Mine <b>.</b>"), claim.cells)
    app = open_page(monkeypatch, tmp_path, PAGE, recipes="needed_only_early")
    assert "From this store" in said(app)
    assert "Mine" in title(app, 0)


def test_a_damaged_claim_gives_way_to_the_packages(monkeypatch, tmp_path):
    claim = load_claims()[0]["needed_only_early"]
    write_claim(RunStore(tmp_path), claim, claim.cells)
    (tmp_path / "tables" / "claim-needed_only_early.parquet").write_bytes(b"no table")
    app = open_page(monkeypatch, tmp_path, PAGE, recipes="needed_only_early")
    assert "cannot be read" in app.warning[0].value
    assert "come with the package" in said(app)


@pytest.mark.parametrize("tab", ["Share of the gain", "Nonsense"])
def test_nonsense_in_the_address(monkeypatch, tmp_path, tab):
    app = open_page(monkeypatch, tmp_path, PAGE, recipes="../../x", tab=tab)
    assert len(charts(app)) == 2
