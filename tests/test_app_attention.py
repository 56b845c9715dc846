"""The page "Where does attention look?" on the demo."""

import json

from tests.explorer import charts, check, open_page, said, title

PAGE = "questions/where_does_attention_look.py"


def test_it_opens_on_the_score_that_finds_the_answer_and_the_head_that_has_most_of_it(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert app.selectbox(key="score").value == "value"
    assert title(app, 0) == "Value: run f00f7121 after 5,000 steps"
    assert title(app, 1) == "Layer 1, head 3: run f00f7121 after 5,000 steps"
    assert "1 is all of it, and 0.051 what even attention gives" in said(app)
    phase1 = open_page(monkeypatch, tmp_path, PAGE, run="9643c1a2")
    assert phase1.selectbox(key="score").value == "stack_top"
    assert title(phase1, 1).startswith("Layer 1, head 2")


def test_a_head_from_the_address(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, layer="1", head="2")
    assert title(app, 1) == "Layer 1, head 2: run f00f7121 after 5,000 steps"
    check(app.number_input(key="head").set_value(3).run())
    assert "head 3" in title(app, 1)


def test_the_slider_goes_into_phase_1_whose_task_has_other_scores(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, score="value")
    check(app.select_slider(key="at").set_value("phase 1, step 488").run())
    assert app.selectbox(key="score").value in ("stack_top", "matching_bracket")
    assert "9643c1a2 after 488 steps" in title(app, 0)


def test_a_moment_and_a_score_from_the_address(monkeypatch, tmp_path):
    query = {"at": "phase 2, step 595", "score": "entropy_relative", "all_heads": "true"}
    app = open_page(monkeypatch, tmp_path, PAGE, **query)
    assert title(app, 0).startswith("Entropy relative: run f00f7121 after 595 steps")
    assert "All heads" in title(app, 1)


def test_a_typed_sequence(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tokens="k7 12 k3 90 k7?")
    heat = json.loads(charts(app)[1].proto.spec)["layout"]["xaxis"]["ticktext"]
    assert heat == ["k7", "12", "k3", "90", "k7?"]
    check(app.text_input(key="tokens").set_value("k7 nose").run())
    assert "no token 'nose'" in app.error[0].value


def test_two_runs_side_by_side(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, beside="true")
    titles = [title(app, index) for index in range(4)]
    assert len(charts(app)) == 4
    assert ["f00f7121" in each for each in titles] == [True, False, True, False]
    assert ["a7272db2" in each for each in titles] == [False, True, False, True]


def test_another_task_beside_has_no_such_score(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, beside="true", other="9643c1a2", score="value")
    assert "dyck has no score value" in said(app)


def test_training_and_all_scores(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Over training")
    assert len(charts(app)) == 2
    app = open_page(monkeypatch, tmp_path, PAGE, tab="All scores")
    table = app.dataframe[0].value.set_index("of")
    assert list(table.index) == ["even attention", *(f"L{layer}H{head}" for layer in (0, 1) for head in range(4))]
    assert {"value", "own key", "entropy bits", "previous token"} <= set(table)
    shown = json.loads(app.dataframe[0].proto.columns)
    assert {shown[name]["type_config"]["format"] for name in table} == {"%.3f"}


def test_nonsense_in_the_address(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, layer="99", head="x", at="never", example="-5", run="../../x")
    assert not app.error
    # Too large a layer is the last one; what is no number, the head that stands out.
    assert (app.number_input(key="layer").value, app.number_input(key="head").value) == (1, 3)
    assert "`../../x`" in said(app)
