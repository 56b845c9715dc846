"""Transfer maps as exhibits, on a sweep whose effects are known."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import yaml

from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About, StoredMap
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import pairs, where
from procpre_interp.views.exhibits.results import Results, load_results
from tests.explorer import DEMO
from tests.figures import colour_title

VALUES = {"attn": 0.5, "mlp": -0.2, "ln": 0.0}
"""What each part adds to an accuracy of 0.3; attn and ln together add 0.1 more."""


def sweep(values=VALUES, replicates: int = 6, outcome: str = "accuracy", on_text: bool = False) -> Results:
    rows, effects = [], []
    for size in range(len(values) + 1):
        for chosen in itertools.combinations(values, size):
            both = 0.1 * ({"attn", "ln"} <= set(chosen))
            for replicate in range(1000, 1000 + replicates):
                noise = 0.001 * (replicate - 1002.5) * len(chosen)
                accuracy = 0.3 + sum(values[name] for name in chosen) + both + noise
                condition = f"dyck {{{', '.join(chosen)}}}"
                row = {
                    "condition": condition,
                    "label": condition,
                    "replicate": replicate,
                    "run": f"{condition}{replicate}",
                }
                row |= {"phase1_run": ("p",), "status": "finished", "accuracy": accuracy, "breakthrough_step": np.nan}
                rows.append(row | {"limit": 100, "loss_nats": 2 - accuracy})
    for method in ("add_one_in", "leave_one_out", "shapley"):
        effects += [{"method": method, "player": name, "outcome": outcome} for name in values]
    table = pd.DataFrame(rows)
    config = yaml.safe_dump({"maps": [{"phase1": "dyck", "players": list(values)}]})
    about = About(config=config, maps=(StoredMap(title="Map", effects=pd.DataFrame(effects)),))
    histories = pd.DataFrame({"condition": [], "label": [], "accuracy": []})
    if on_text:
        table = table.assign(epochs=0.5)
        seen = table[["condition", "label", "replicate", "run"]].assign(split="validation", step=10, accuracy=0.3)
        histories = seen.assign(loss_nats=2.0, bits_per_byte=1.0, perplexity=7.4)
    return Results(
        name="sweep",
        table=table,
        about=about,
        summary=summarise_conditions(table),
        histories=histories,
        problems=(),
    )


def estimates(method: str) -> dict[str, float]:
    (found,) = where.maps(sweep())
    table = where.effects(found)
    return table.loc[table["method"] == method].set_index("player")["estimate"].to_dict()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("add_one_in", {"attn": 0.5, "mlp": -0.2, "ln": 0.0}),
        ("leave_one_out", {"attn": 0.6, "mlp": -0.2, "ln": 0.1}),
        ("shapley", {"attn": 0.55, "mlp": -0.2, "ln": 0.05}),
    ],
)
def test_effects_are_those_that_were_put_in(method, expected):
    assert estimates(method) == pytest.approx(expected, abs=1e-9)


def test_a_map_is_first_shown_by_the_outcome_that_it_explains():
    for outcome, sign in (("accuracy", 1), ("loss_nats", -1)):
        (found,) = where.maps(sweep(outcome=outcome))
        assert next(iter(found.outcomes)) == outcome
        table = where.effects(found)
        assert set(table["outcome"]) == {outcome}
        alone = table.loc[(table["method"] == "add_one_in") & (table["player"] == "attn")]
        assert alone["estimate"].tolist() == pytest.approx([0.5 * sign])
        assert ("lower is better" in where.heatmap(alone).reading) == (sign < 0)
        together = pairs.interactions(found)
        assert together is not None
        assert set(together["outcome"]) == {outcome}


def test_colours_are_read_by_the_outcome():
    """Up is better or worse by the outcome, which the reading says apart."""
    (found,) = where.maps(sweep())
    for outcome in found.outcomes:
        table = where.effects(found, outcome)
        for method in found.methods:
            reading = where.heatmap(table.loc[table["method"] == method]).reading
            assert "better" not in reading.replace("(here lower is better)", ""), (outcome, method)


def test_the_answer_names_what_helps_and_what_harms():
    (found,) = where.maps(sweep(replicates=30))
    table = where.effects(found)
    said = where.answer(table.loc[table["method"] == "leave_one_out"])
    assert said.decided
    assert said.text.startswith("Carries the gain: attn (+61.2 [")
    assert "Harms it: mlp (-18.8 [" in said.text
    assert "The rule: p of at most 0.05, adjusted for 3 parts (Holm)." in said.text
    assert "breakthrough_share" in found.outcomes
    assert "area" not in found.outcomes


def test_nothing_is_called_a_carrier_that_cannot_be_decided():
    """With six replicates of three parts no adjusted p can be below 0.05, whatever the intervals are."""
    (found,) = where.maps(sweep(replicates=6))
    table = where.effects(found)
    shown = table.loc[table["method"] == "leave_one_out"]
    assert (shown["smallest_p"] < 0.05).to_numpy().all(), "a single part could be"
    said = where.answer(shown)
    assert not said.decided
    assert said.text.startswith("No part is decided.")
    assert "with n = 6 replicates it cannot be below 0.124, so no result could decide" in said.text
    assert "Carries" not in said.text
    assert "Harms" not in said.text
    for exhibit in (where.heatmap(shown), where.bars(table)):
        assert exhibit.title == "Which parts matter for accuracy? None is decided"
        assert "for sure" not in exhibit.reading
    assert "<b>" not in str(where.heatmap(shown).figure.data[0].text)


@pytest.mark.parametrize("replicates", [6, 30])
def test_box_title_figure_and_table_follow_one_rule(replicates):
    (found,) = where.maps(sweep(replicates=replicates))
    effects = where.effects(found)
    for method in found.methods:
        table = effects.loc[effects["method"] == method]
        decided = set(table.loc[table["decision"] == "significant", "player"])
        exhibit, said = where.heatmap(table), where.answer(table)
        text = dict(zip(exhibit.figure.data[0].customdata[:, 0], exhibit.figure.data[0].text[:, 0]))
        assert {player for player, shown in text.items() if "<b>" in shown} == decided
        assert said.decided == bool(decided)
        carried, _, rest = said.text.partition("The rule:")
        for player in found.players:
            assert (f"{player} (" in carried) == (player in decided)
            assert (f"{player} (" in rest) == (player not in decided)
        decisions = where.as_text(table).set_index("Player")["Decision"]
        assert set(decisions.index[decisions == "significant"]) == decided
        assert all(name in exhibit.title for name in decided)


def test_units_are_points_everywhere():
    (found,) = where.maps(sweep())
    table = where.effects(found)
    shown = table.loc[table["method"] == "shapley"]
    heat, bars = where.heatmap(shown).figure, where.bars(table).figure
    assert heat.data[0].z[0, 0] == pytest.approx(55.0)
    assert "percentage points" in colour_title(heat)
    assert "percentage points" in bars.layout.xaxis.title.text
    assert max(np.nanmax(np.asarray(trace.x, dtype=float)) for trace in bars.data) == pytest.approx(60.0)
    assert "Effect on accuracy, points" in where.as_text(table)
    assert "percentage points" in found.outcomes["accuracy"]
    assert " points)" in where.answer(shown).text


def test_the_names_of_parts_are_explained():
    (found,) = where.maps(sweep())
    table = where.effects(found)
    for exhibit in (where.heatmap(table.loc[table["method"] == "shapley"]), where.bars(table)):
        (note,) = exhibit.notes
        assert all(f"{name} = " in note for name in VALUES)


ATTN = {"method": "shapley", "player": "attn", "outcome": "loss_nats", "decision": "significant", "n": 6}
ATTN |= {"smallest_p_holm": 0.03}


def test_a_loss_that_falls_is_a_gain():
    row = ATTN | {"estimate": -1.5, "low": -2.0, "high": -1.0}
    said = where.answer(pd.DataFrame([row])).text
    assert said.startswith("Carries the gain: attn (-1.500 [-2.000, -1.000] nats per scored token). The rule:")
    harm = pd.DataFrame([row | {"estimate": 1.5, "low": 1.0, "high": 2.0}])
    assert where.answer(harm).text.startswith("Harms it: attn")
    unsure = pd.DataFrame([row | {"decision": "not significant"}])
    assert "Not decided, with 95 % intervals of each part alone: attn" in where.answer(unsure).text


def test_the_answer_on_effects_without_interval_and_on_many_parts():
    nan = float("nan")
    single = pd.DataFrame([ATTN | {"outcome": "accuracy", "estimate": 0.2, "low": nan, "high": nan}])
    single = single.assign(decision="undecided: n = 1 can give no p below 1", smallest_p_holm=1.0)
    assert "attn (+20.0 points, no interval)." in where.answer(single).text
    assert "attn (no complete replicate)" in where.answer(single.assign(estimate=nan)).text
    heads = [
        ATTN | {"player": f"blocks.0.attn.head.{i}", "estimate": -i, "low": -i - 1, "high": -i / 2}
        for i in range(1, 10)
    ]
    said = where.answer(pd.DataFrame(heads)).text.partition(" The rule")[0]
    assert said.startswith("Carries the gain: blocks.0.attn.head.9 (-9.00")
    assert said.endswith("and 3 more.")
    assert "head.3" not in said


@pytest.mark.parametrize(
    ("player", "is_fine"),
    [("attn", False), ("blocks.1", False), ("blocks.0.attn.head.1", True), ("blocks.0.attn.W_Q", True)],
)
def test_which_maps_have_heads_or_matrices(player, is_fine):
    (found,) = where.maps(sweep())
    assert dataclasses.replace(found, players=(player,)).is_fine == is_fine


def test_every_cell_can_be_clicked_and_is_its_part():
    (found,) = where.maps(sweep())
    table = where.effects(found)
    exhibit = where.heatmap(table.loc[table["method"] == "shapley"])
    heat, targets = exhibit.figure.data
    assert (heat.type, targets.type) == ("heatmap", "bar")
    assert list(targets.customdata) == list(VALUES)
    assert list(exhibit.figure.layout.yaxis.ticktext) == ["attn", "mlp", "ln"]


def test_curves_compare_a_part_with_its_absence():
    results = load_results(RunStore(DEMO), "components-8f8b2195")
    (found,) = where.maps(results)
    labels = {"nothing", "attn alone", "all but attn", "all parts"}
    assert set(where.compared(found, "attn").values()) == labels
    behind = where.runs_behind(found, "attn")
    assert behind.groupby("transferred").size().to_dict() == dict.fromkeys(labels, 6)
    alone = behind.loc[behind["transferred"] == "attn alone", "run"]
    expected = results.table.loc[results.table["condition"] == "dyck {attn}", "run"]
    assert set(alone) == set(expected)
    drawn = {trace.name for trace in where.curves(results, found, "attn").figure.data if trace.name}
    assert drawn <= labels
    assert drawn


def test_mistakes():
    results = sweep()
    (found,) = where.maps(results)
    with pytest.raises(ValueError, match="no part 'nose' in this map"):
        where.compared(found, "nose")
    empty = dataclasses.replace(results.about, maps=(StoredMap(title="Map", effects=pd.DataFrame(), problem="none"),))
    with pytest.raises(ValueError, match="no transfer map with a complete replicate"):
        where.maps(dataclasses.replace(results, about=empty))
    odd = dataclasses.replace(results.about, config="maps: [1, 2]")
    with pytest.raises(ValueError, match="no transfer map that can be read"):
        where.maps(dataclasses.replace(results, about=odd))


def test_layers_come_before_heads_matrices_and_parts_of_all_layers():
    kinds = [
        ["blocks.0.attn", "blocks.1.mlp"],
        ["blocks.0.attn.head.0", "blocks.0.attn.head.1", "blocks.1.mlp"],
        ["blocks.0.attn.W_Q", "blocks.0.mlp.W_in", "blocks.1.attn.W_Q", "blocks.1.mlp.W_in"],
        ["attn", "mlp.W_in", "mlp.W_out", "ln", "embed"],
    ]
    ranks = [where.priority(each) for each in kinds]
    assert ranks == sorted(set(ranks), reverse=True)
    assert where.priority(["attn", "mlp"]) > where.priority(["attn"])  # alike, the one of more parts
