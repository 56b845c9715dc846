"""Circuits as exhibits: a live patch whose outcome is known, and numbers that are those of `patch`."""

import pytest
import torch

from procpre_interp.data import TASKS
from procpre_interp.data.tokens import token_names
from procpre_interp.model import ModelConfig
from procpre_interp.patch import activation_patching
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import circuits
from tests.explorer import DEMO
from tests.figures import unbroken
from tests.models import random_model

TASK = TASKS.build("haystack", max_pairs=4)
MODEL = random_model(ModelConfig(n_layers=2, n_heads=3, d_model=12, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab))


def probabilities(table, run: str) -> list[float]:
    return table.loc[table["run"] == run, "probability"].tolist()


def live(site: str, layer: int, position=None, head=None, pair: int = 2):
    return circuits.live_patch(MODEL, TASK, "query", pair, site, layer, position, head).table


def test_the_whole_stream_brings_the_clean_run_back_and_an_equal_place_changes_nothing():
    whole = live("resid_pre", 1)
    assert probabilities(whole, "patched") == pytest.approx(probabilities(whole, "clean"))
    # The pair differs at the query, the last position: before it both runs are the same.
    nothing = live("resid_pre", 0, position=0)
    assert probabilities(nothing, "patched") == pytest.approx(probabilities(nothing, "corrupted"))
    assert probabilities(nothing, "clean") != pytest.approx(probabilities(nothing, "corrupted"), abs=1e-4)


def test_one_head_is_that_of_activation_patching():
    pair = circuits.one_pair(TASK, "query", 2)
    position = pair.clean.shape[1] - 1
    expected = activation_patching(MODEL, pair, sites=["z"], metric="probability")
    row = expected.query(f"layer == 1 and head == 2 and position == {position}").iloc[0]
    table = live("z", 1, position, 2)
    assert probabilities(table, "patched")[0] == pytest.approx(row["value"], rel=1e-4)
    assert probabilities(table, "clean")[0] == pytest.approx(row["clean"], rel=1e-4)
    all_heads = live("z", 1, position)
    assert probabilities(all_heads, "patched")[0] != pytest.approx(row["value"], rel=1e-6)


def test_bars_of_tokens_that_are_numbers_stand_beside_those_with_names():
    figure = circuits.live_patch(MODEL, TASK, "query", 2, "z", 1).figure
    assert figure.layout.xaxis.type == "category"
    assert len(figure.data) == 3
    assert all(len(trace.x) == len(set(trace.x)) >= 2 for trace in figure.data)


def test_a_bar_says_in_words_which_token_is_an_answer():
    exhibit = circuits.live_patch(MODEL, TASK, "query", 2, "z", 1)
    pair = circuits.one_pair(TASK, "query", 2)
    clean, corrupted = token_names(TASK, [int(pair.answers), int(pair.wrong)])
    labels = list(exhibit.figure.data[0].x)
    assert [unbroken(label) for label in labels[:2]] == [f"{clean} clean answer", f"{corrupted} corrupted answer"]
    assert exhibit.table["role"].tolist()[:3] == ["clean answer", "corrupted answer", ""]
    assert exhibit.table["token"].tolist()[:2] == [clean, corrupted]


def test_a_pair_is_shown_token_by_token():
    pair = circuits.one_pair(TASK, "query", 0)
    table = circuits.pair_table(TASK, pair)
    assert table["differs"].tolist() == [False] * (len(table) - 2) + [True, True]
    assert table["position"].iloc[-1] == "next"
    assert table["clean"].iloc[-2].endswith("?")
    found = circuits.pairs_of(TASK, "query")
    assert torch.equal(found.clean[0, : pair.clean.shape[1]], pair.clean[0])


@pytest.mark.parametrize("site", ["z", "resid_pre"])
def test_a_clicked_cell_is_its_patch(site):
    exhibit = circuits.effects_on_pair(MODEL, TASK, "query", 0, site)
    heat, targets = exhibit.figure.data
    table = exhibit.table
    without = [None] * len(table)
    expected = zip(table["layer"], without if site == "resid_pre" else table["head"], table["position"])
    assert sorted(targets.customdata, key=str) == sorted(([*place] for place in expected), key=str)
    # A target covers all of its cell, wherever it is clicked.
    for x, y, height, base, place, hover in zip(
        targets.x, targets.base, targets.y, targets.base, targets.customdata, targets.hovertext
    ):
        row = int(base + 0.5)
        assert (height, targets.width) == (1, 1)
        assert y == row - 0.5
        assert list(heat.customdata[row][x]) == place
        assert hover.startswith(f"L{place[0]}")


def test_graph_and_faithfulness_are_of_the_cause():
    """On the demo's run, which knows its task; `test_patch_gap.py` has a model at chance."""
    run = RunStore(DEMO).open("f00f7121")
    model, task = load_model(run), load_task(run)
    graph, faithful = circuits.graph(model, task, "value"), circuits.faithfulness(model, task, "value", n_random=1)
    assert len(graph.table) > 50
    assert not any("not told" in note for each in (graph, faithful) for note in each.notes)
    curve = faithful.table
    top = curve.loc[curve["search"] == "top"].sort_values("n_edges")
    assert top["faithfulness"].iloc[0] == pytest.approx(0, abs=1e-4)
    assert top["faithfulness"].iloc[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (("z", 5), "layer=5; the model has layers 0 to 1"),
        (("z", 0, 0, 7), "head=7"),
        (("z", 0, 99), "position=99; this pair is read at"),
        (("nose", 0), "unknown site 'nose'"),
    ],
)
def test_mistakes(place, said):
    with pytest.raises(ValueError, match=said):
        live(*place)


def test_more_mistakes():
    with pytest.raises(ValueError, match="pair=64"):
        circuits.one_pair(TASK, "query", 64)
    with pytest.raises(ValueError, match="has no cause"):
        circuits.causes(TASKS.build("shuffled", task=TASK))
