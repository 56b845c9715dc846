"""The page "Which circuit?" on the demo."""

import pytest

from tests.explorer import charts, check, open_page, said, title

PAGE = "questions/which_circuit.py"


def test_a_live_patch_from_the_address(monkeypatch, tmp_path):
    query = {"site": "resid_pre", "layer": "1", "position": "4", "pair": "3"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert title(app, 1) == "Pair 3: resid_pre of layer 1 at position 4"
    check(app.toggle(key="everywhere").set_value(True).run())
    assert title(app, 1).endswith("at all positions")
    check(app.selectbox(key="site").set_value("z").run())
    assert "z of L1H0" in title(app, 1)


@pytest.mark.parametrize("tab", ["Many pairs", "Edges", "Faithfulness"])
def test_the_other_tabs(monkeypatch, tmp_path, tab):
    app = open_page(monkeypatch, tmp_path, PAGE, tab=tab, cause="value", edges="7")
    assert len(charts(app)) == 1
    if tab == "Edges":
        assert title(app, 0).startswith("The 7 strongest edges; cause: value")


def test_phase_1_has_its_own_causes(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    check(app.select_slider(key="at").set_value("phase 1, step 20,000").run())
    assert app.selectbox(key="cause").value == "type"
    assert len(charts(app)) == 2


def test_nonsense_in_the_address(monkeypatch, tmp_path):
    nonsense = {"cause": "nose", "site": "x", "pair": "1e9", "layer": "9", "head": "-2", "position": "777"}
    app = open_page(monkeypatch, tmp_path, PAGE, **nonsense)
    assert not app.error
    assert "`nose`" in said(app)
    assert app.number_input(key="layer").value == 1
