"""The page "Where does it live?" on the demo."""

import json

from procpre_interp.store.store import RunStore
from tests.explorer import DEMO, charts, check, open_page, said, title

PAGE = "questions/where_does_it_live.py"
(COMPONENTS,) = RunStore(DEMO).tables("components-")


def spec(app, index: int) -> str:
    return charts(app)[index].proto.spec


def test_the_demo_begins_with_layers_and_with_what_is_decided(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert app.selectbox(key="experiment").value.startswith("text_map-")
    assert app.selectbox(key="outcome").value == "loss_nats"
    (answer,) = (box.value for box in app.success)
    assert answer.startswith("Carries the gain: blocks.1.attn (-0.069 [")
    assert "Decided: blocks.0.attn with blocks.1.attn" in title(app, 1)
    assert "lower is better" in said(app)
    # The demo has this table alone, and says so in place of curves.
    assert len(charts(app)) == 2


def test_the_answer_stands_on_top(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, experiment=COMPONENTS)
    assert not app.success  # a green box would say that something is decided
    answer = app.info[1].value
    assert answer.startswith("No part is decided.")
    assert "ln (+24.3 [" in answer
    assert "cannot be below 0" in answer
    assert "carries the gain" not in answer.lower()
    # The map, the pairs beside it, and the curves behind a part.
    assert len(charts(app)) == 3
    assert "Which parts need one another for accuracy?" in title(app, 1)
    assert "All 32 coalitions of 5 players in each replicate." in said(app)


def test_the_method_and_the_outcome_change_the_numbers(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, experiment=COMPONENTS)
    first = app.info[1].value
    check(app.selectbox(key="method").set_value("leave_one_out").run())
    second = app.info[1].value
    check(app.selectbox(key="outcome").set_value("restricted_time_steps").run())
    assert len({first, second, app.info[1].value}) == 3
    assert " steps)" in app.info[1].value


def test_a_part_from_the_address_shows_its_own_curves(monkeypatch, tmp_path):
    app = open_page(
        monkeypatch, tmp_path, PAGE, experiment=COMPONENTS, part="ln", method="add_one_in", tab="All methods"
    )
    first = spec(app, 1)
    assert app.selectbox(key="part").value == "ln"
    assert "Not drawn, as their runs are not in the store: ln alone, all but ln." in said(app)
    check(app.selectbox(key="part").set_value("attn").run())
    assert "attn alone" in said(app)
    assert "ln alone" not in said(app)
    assert "all but attn" in spec(app, 1)
    assert spec(app, 1) != first
    assert app.query_params["part"] == "attn"


def test_a_map_of_whole_parts_says_how_to_make_one_of_heads(monkeypatch, tmp_path):
    assert "`procpre-interp sweep head_map`" in said(open_page(monkeypatch, tmp_path, PAGE))


def test_maps_of_layers_are_shown_first_then_of_heads(monkeypatch, tmp_path):
    store, stored = RunStore(tmp_path), RunStore(DEMO).read_table(COMPONENTS)
    kinds = {
        "layers": {"attn": "blocks.0.attn", "mlp": "blocks.1.attn"},
        "heads": {"attn": "blocks.0.attn.head.0", "mlp": "blocks.0.attn.head.1"},
    }
    for kind, renamed in kinds.items():
        text = json.dumps([stored.frame[["condition", "label"]].to_dict("list"), stored.metadata])
        for old, new in renamed.items():
            text = text.replace(old, new)
        names, about = json.loads(text)
        store.write_table(f"a-{kind}", stored.frame.assign(**names), about)
    store.write_table("components", stored.frame, dict(stored.metadata))  # the newest
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert app.selectbox(key="experiment").options == ["a-layers", "a-heads", "components"]
    assert app.selectbox(key="part").value == "blocks.0.attn"
    check(app.selectbox(key="experiment").set_value("a-heads").run())
    assert app.selectbox(key="part").value == "blocks.0.attn.head.0"
    assert "sweep head_map" not in said(app)


def test_an_unknown_part_in_the_address_is_named(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, experiment=COMPONENTS, part="nose", outcome="joy")
    assert app.selectbox(key="part").value == "attn"
    assert not app.error
    assert "`nose` here; this is `attn`" in said(app)
    assert "`joy`" in said(app)
