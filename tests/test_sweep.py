"""Sweeps: which runs a grid and a transfer map stand for, and a whole sweep of a few steps."""

import dataclasses
import math
import re
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from experiments.make_demo import FINE_MAPS
from procpre_interp.ablate import Noise
from procpre_interp.cli import main
from procpre_interp.commands.sweep import sweep_file
from procpre_interp.core.config import from_dict, from_yaml, to_yaml
from procpre_interp.core.terminal import beside_package
from procpre_interp.data import TASKS
from procpre_interp.data.semantic.text import Text
from procpre_interp.engine.engines import Processes
from procpre_interp.pipeline.config import Architecture
from procpre_interp.pipeline.execute import execute
from procpre_interp.stats.transfer_map import Grain, transfer_map
from procpre_interp.store.about import about_table
from procpre_interp.store.outcomes import cost_of, scores
from procpre_interp.store.store import RunStore
from procpre_interp.study.protocols import PROTOCOLS, haystack_sweep, reproduction
from procpre_interp.study.smoke_test import shortened
from procpre_interp.sweep.chains import pretraining_run
from procpre_interp.sweep.config import (
    Condition,
    Grid,
    Pretraining,
    Source,
    Sweep,
    coalition_condition,
    map_conditions,
)
from procpre_interp.sweep.maps import Map
from procpre_interp.sweep.plan import map_table, plan, results, run_sweep
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig

SHAPE = Architecture(n_layers=2, n_heads=2, d_model=8)
TRAIN = TrainConfig(steps=4, batch_size=4, learning_rate=1e-2, warmup_steps=1, evaluate_every=2, evaluate_examples=16)
DYCK = Pretraining(
    name="dyck",
    task=TASKS.build("dyck", k=2, length=64),
    model=dataclasses.replace(SHAPE, tied=True, n_ctx=100),
    train=dataclasses.replace(TRAIN, checkpoints=2),
)
FRESH = TransferConfig(token_embedding="fresh", unembedding="fresh", positions="fresh")


def tiny(**fields) -> Sweep:
    sweep = {"name": "tiny", "phase1": (DYCK,), "task": TASKS.build("haystack"), "model": SHAPE, "train": TRAIN}
    return Sweep(**{**sweep, "replicates": 2, **fields})


def test_a_grid_is_every_combination_and_shares_its_parents():
    grid = Grid(
        phase1=("dyck",),
        selector=("attn", "attn+ln"),
        ablation=(None, Noise(noise_std=0.5)),
        transfer=(TransferConfig(), FRESH),
    )
    planned = plan(tiny(grids=(grid,)))
    assert len(planned.cells) == 2 * (1 + 2 * 2 * 2)
    assert planned.cells["condition"].nunique() == 9
    assert len(planned.configs) == 2 * (9 + 1)
    assert "dyck attn noise(noise_std=0.5)" in set(planned.cells["condition"])
    for cell in planned.cells.to_dict("records"):
        config = planned.configs[cell["run"]]
        assert config.seed == cell["replicate"]
        assert [parent.run for parent in config.parents] == list(cell["phase1_run"])
        assert all(planned.configs[parent.run].seed == config.seed for parent in config.parents)
    order = list(planned.configs)
    assert all(order.index(p.run) < order.index(run) for run, c in planned.configs.items() for p in c.parents)


def test_a_sweep_is_yaml_and_back():
    sweep = tiny(
        conditions=(Condition(name="a", sources=(Source(phase1="dyck", ablation=Noise(noise_std=1.0)),)),),
        grids=(Grid(phase1=("dyck",), selector=("mlp",)),),
        maps=(Map(phase1="dyck", players=("attn", "mlp")),),
    )
    assert from_yaml(Sweep, to_yaml(sweep)) == sweep


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"grids": [{"phase1": ["dick"]}]}, "unknown pretraining of the sweep 'dick'"),
        ({"maps": [{"phase1": "set", "players": ["attn"]}]}, "unknown pretraining of the sweep 'set'"),
        ({"conditions": [{"name": "a"}, {"name": "a", "label": "b"}]}, "two conditions are named 'a'"),
        ({"replicates": 0}, "replicates=0; there must be at least 1"),
        ({"conditions": [{"name": "a", "replicates": -3}]}, "condition 'a': replicates=-3; it must not be negative"),
        ({"conditions": [{"name": "a", "sources": [{"phase1": "dyck", "step": -1}]}]}, "none of step -1"),
        ({"grids": [{"phase1": ["dyck"], "step": [None, 17]}]}, r"keeps weights of \[10000\] .*, none of step 17"),
        ({"name": "a/b"}, "name='a/b'; it names a table and a file"),
        ({"name": "n" * 300}, "has 300 characters; it names a table and a file: at most 150"),
        ({"grids": [{"phase1": ["dyck"], "ablation": [{"name": "nose", "noise_std": 1}]}]}, "Did you mean 'noise'"),
        ({"conditions": [{"name": "a", "selector": "all"}]}, "unknown field of Condition 'selector'"),
    ],
)
def test_a_mistake_is_named(fields, text):
    plain = {"name": "x", "task": {"name": "haystack"}, "train": {}}
    plain["phase1"] = [{"name": "dyck", "task": {"name": "dyck"}, "train": {}}]
    with pytest.raises(ValueError, match=text):
        from_dict(Sweep, {**plain, **fields})


@pytest.mark.parametrize(
    ("players", "given", "text"),
    [
        (
            ("attn", "blocks.0.attn+blocks.1.attn"),
            "",
            "player 'attn' and player 'blocks.0.attn[+]blocks.1.attn' both have attn;",
        ),
        (("attn", "blocks.0.attn", "mlp"), "", "both have blocks.0.attn;"),
        (("attn.head.1", "blocks.1.attn.W_V"), "", "both have blocks.1.attn.head.1.W_V;"),
        (("ln", "pos", "mlp+ln2"), "", "player 'ln' and player 'mlp[+]ln2' both have ln2;"),
        (("attn", "mlp", "embed", "pos"), "ln+mlp", "player 'mlp' and given 'ln[+]mlp' both have mlp;"),
        (("sharpest.1", "sharpest.2"), "", "players overlap"),
        (("sharpest.1", "blocks.1.attn"), "", "players overlap"),
        (("pos", "attn+pos"), "", "a player is a union of components, or pos or embed alone"),
        (("mlp", "attn+embed"), "", "a player is a union of components, or pos or embed alone"),
        (("mlp", "attn, unembed"), "", "a player is a union of components, or pos or embed alone"),
    ],
)
def test_players_that_share_weights_are_refused(players, given, text):
    """Leaving out one of a pair of twins would change nothing, and halve both their Shapley values."""
    with pytest.raises(ValueError, match=text):
        tiny(maps=(Map(phase1="dyck", players=players, given=given),))


@pytest.mark.parametrize("grain", get_args(Grain))
def test_players_of_a_grain_share_nothing(grain):
    tiny(maps=(Map(phase1="dyck", grain=grain, methods=("add_one_in",)),))


def test_ranked_heads_from_both_ends_share_nothing():
    tiny(maps=(Map(phase1="dyck", players=("sharpest.2", "bluntest.2", "ln"), given="mlp"),))


def test_sources_that_share_weights_are_refused():
    sources = tuple(Source(phase1="dyck", selector=selector) for selector in ("attn+ln", "mlp+ln"))
    with pytest.raises(ValueError, match=r"condition 'both': source 0 \(dyck, attn\+ln\) and .* both give ln;"):
        tiny(conditions=(Condition(name="both", sources=sources),))
    asked = tiny(conditions=(Condition(name="both", sources=sources, transfer=TransferConfig(overlap="later_wins")),))
    assert plan(asked).cells["problem"].eq("").all()


def test_ranked_heads_that_share_weights_are_a_problem_once_they_are_known():
    sources = tuple(Source(phase1="dyck", selector=selector) for selector in ("sharpest.2", "blocks.0.attn"))
    sweep = tiny(conditions=(Condition(name="both", sources=sources),), replicates=1)
    run = pretraining_run(DYCK, 1000).run_id
    heads = [f"blocks.{layer}.attn.head.{head}" for head in range(2) for layer in range(2)]
    planned = plan(sweep, orders={(run, None, "entropy"): heads})
    (problem,) = planned.cells.loc[planned.cells["condition"] == "both", "problem"]
    assert "both give blocks.0.attn.head.0" in problem


def test_a_condition_that_a_grid_and_a_map_both_have_is_one_run():
    each = Map(phase1="dyck", players=("attn", "ln"), methods=("shapley",))
    planned = plan(tiny(maps=(each,), grids=(Grid(phase1=("dyck",), selector=("attn",)),), replicates=1))
    runs = planned.cells.set_index("condition")["run"]
    assert runs["dyck {attn}"] == runs["dyck attn"]
    assert len(set(runs)) == len(runs) - 1


@pytest.mark.parametrize(
    ("coalition", "selector", "transfer"),
    [
        (("attn", "mlp", "ln", "pos", "embed"), "all", TransferConfig()),
        (("attn", "ln"), "attn+ln", FRESH),
        (("pos",), "none", dataclasses.replace(FRESH, positions="carry")),
        (("mlp", "embed"), "mlp", TransferConfig(positions="fresh")),
    ],
)
def test_a_coalition_is_a_transfer_of_its_players_alone(coalition, selector, transfer):
    players = ("attn", "mlp", "ln", "pos", "embed")
    condition = coalition_condition(Map(phase1="dyck", players=players), coalition)
    assert condition.sources == (Source(phase1="dyck", selector=selector),)
    assert condition.transfer == transfer


def test_the_empty_coalition_shares_the_run_of_no_pretraining():
    each = Map(phase1="dyck", players=("attn", "pos", "embed"))
    planned = plan(tiny(maps=(each,), replicates=1))
    runs = planned.cells.set_index("condition")["run"]
    assert runs["dyck {}"] == runs["none"]
    # With embeddings that every coalition has, the empty one is a transfer all the same.
    given = coalition_condition(Map(phase1="dyck", players=("attn",)), ())
    assert given.sources == (Source(phase1="dyck", selector="none"),)
    assert coalition_condition(Map(phase1="dyck", players=("attn",), given="ln"), ()).sources[0].selector == "ln"


def test_the_full_map_of_components_shares_runs_with_the_reproduction():
    each = Map(phase1="dyck", players=("attn", "mlp", "ln", "pos", "embed"))
    planned = plan(haystack_sweep("map", (), maps=(each,), replicates=1))
    theirs = plan(reproduction(PROTOCOLS["cheap"], replicates=1)).cells.set_index("condition")["run"]
    ours = planned.cells.set_index("condition")["run"]
    assert len(planned.configs) == 1 + 2**5
    assert ours["dyck {attn, mlp, ln, pos, embed}"] == theirs["dyck_full"]
    assert ours["dyck {attn, ln, pos, embed}"] == theirs["attention_ln"]
    assert ours["none"] == theirs["none"]


def test_sampled_orders_differ_between_replicates_and_are_planned_so():
    heads = tuple(f"blocks.{layer}.attn.head.{head}" for layer in range(2) for head in range(4))
    each = Map(phase1="dyck", players=heads, methods=("shapley",), given="ln")
    first, second = (set(map_conditions(each, seed)) for seed in (1000, 1001))
    assert first != second
    planned = plan(haystack_sweep("heads", (), maps=(each,), replicates=2))
    cells = planned.cells.loc[planned.cells["condition"] != "none"]
    assert cells.groupby("replicate").size().tolist() == [len(first), len(second)]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("sweep"))
    sweep = tiny(
        maps=(Map(phase1="dyck", players=("attn", "mlp")),),
        conditions=(
            Condition(name="sharp", sources=(Source(phase1="dyck", selector="ln+sharpest.2"),)),
            Condition(name="early", sources=(Source(phase1="dyck", selector="attn", step=1),)),
            Condition(name="broken", sources=(Source(phase1="dyck", selector="blocks.7.attn"),)),
        ),
    )
    planned, problems = run_sweep(sweep, store, engine=Processes(2))
    return sweep, store, planned, problems


def test_a_failed_cell_stops_no_other(swept):
    _sweep, store, planned, problems = swept
    table = results(planned, store, problems)
    assert len(table) == len(planned.cells) == 2 * (1 + 4 + 3)
    failed = table.loc[table["status"] == "failed"]
    assert failed["condition"].tolist() == ["broken"] * 2
    assert failed["problem"].str.contains("unknown component 'blocks.7.attn'").all()
    assert (table.loc[table["condition"] != "broken", "status"] == "finished").all()


def test_the_table_has_every_outcome(swept):
    _sweep, store, planned, problems = swept
    table = results(planned, store, problems)
    rows = table.loc[table["status"] == "finished"].to_dict("records")
    for row in rows:
        run = store.open(row["run"])
        history = run.history()
        seen = history.loc[history["split"] == "validation"]
        steps, accuracy = seen["step"].tolist(), seen["accuracy"].tolist()
        parts = zip(steps, steps[1:], accuracy, accuracy[1:])
        area = sum((b - a) * (x + y) / 2 for a, b, x, y in parts) / (steps[-1] - steps[0])
        assert row["area"] == pytest.approx(area)
        assert row["accuracy"] == run.summary["accuracy"]
        assert row["token_limit"] == run.summary["tokens"]
        assert math.isnan(row["breakthrough_step"]) == math.isnan(row["tokens_to_target"])
    spent = cost_of(planned.configs, store)
    assert spent["runs"] == len(planned.configs) - 2
    assert spent["tokens"] == store.query()["tokens"].sum()


def test_tokens_to_the_target_are_those_at_the_breakthrough(tmp_path, runs_here):
    # A model that predicts the padding-free answer of `ww` soon: any accuracy reaches a threshold of nothing.
    store = RunStore(tmp_path)
    sweep = tiny(phase1=(), replicates=1, train=dataclasses.replace(TRAIN, steps=2, evaluate_every=1))
    planned, _ = run_sweep(sweep, store, engine=Processes(1))
    run = store.open(planned.cells["run"].iloc[0])
    history = run.history()
    summary = {**run.summary, "breakthrough_step": 1}
    row = scores(dataclasses.replace(run, summary=summary), [])
    tokens = history.loc[(history["split"] == "validation") & (history["step"] == 1), "tokens"].iloc[0]
    assert row["tokens_to_target"] == tokens
    assert 0 < tokens < row["token_limit"]


def test_a_run_that_was_ended_soon_after_its_breakthrough_would_have_been_seen_to_the_end(tmp_path, runs_here):
    """As for steps: otherwise the run that was ended first would cut off all others."""
    store = RunStore(tmp_path)
    planned, _ = run_sweep(tiny(phase1=(), replicates=1), store, engine=Processes(1))
    run = store.open(planned.cells["run"].iloc[0])
    tokens = run.summary["tokens"]
    soon = {**run.summary, "breakthrough_step": 2, "breakthrough_limit": 40, "steps": 4}
    assert scores(dataclasses.replace(run, summary=soon), [])["token_limit"] == pytest.approx(10 * tokens)
    for other in ({"breakthrough_step": None, "breakthrough_limit": 4}, {"status": "diverged"}):
        assert scores(dataclasses.replace(run, summary=soon | other), [])["token_limit"] == tokens


def test_heads_by_entropy_are_planned_when_their_parent_is_there(swept):
    sweep, _store, planned, _ = swept
    before = plan(sweep)
    assert before.deferred == 2
    assert before.waiting[["condition", "replicate"]].values.tolist() == [["sharp", seed] for seed in sweep.seeds]
    assert planned.deferred == 0
    cells = planned.cells.loc[planned.cells["condition"] == "sharp"]
    for run in cells["run"]:
        (parent,) = planned.configs[run].parents
        assert parent.selector.count("head") == 2
        assert parent.selector.startswith("ln+blocks.")


def test_nothing_is_computed_twice(swept, runs_here):
    sweep, store, planned, _problems = swept
    before = store.query().set_index("run")["created"]
    again, _ = run_sweep(sweep, store, engine=Processes(1))
    assert again.table_name == planned.table_name
    assert store.query().set_index("run")["created"].equals(before)


def test_a_map_is_computed_from_its_cells(swept):
    sweep, store, planned, problems = swept
    table = results(planned, store, problems)
    (each,) = sweep.maps
    rows = map_table(planned, table, each)
    assert sorted(set(rows["coalition"])) == [(), ("attn",), ("attn", "mlp"), ("mlp",)]
    effects = transfer_map(rows, each.players, each.methods).set_index(["method", "player"])["estimate"]
    value = {coalition: some["accuracy"].mean() for coalition, some in rows.groupby("coalition")}
    assert effects["add_one_in", "attn"] == pytest.approx(value["attn",] - value[()])
    assert effects["leave_one_out", "attn"] == pytest.approx(value["attn", "mlp"] - value["mlp",])
    assert effects["shapley"].sum() == pytest.approx(value["attn", "mlp"] - value[()])


def test_the_command_goes_on_and_reports(swept, tmp_path, capsys, runs_here):
    sweep, store, planned, _ = swept
    path = tmp_path / "sweep.yaml"
    path.write_text(to_yaml(sweep))
    effects = tmp_path / "effects"
    command = ["sweep", str(path), "--out", str(store.path), "--workers", "1", "--results", str(effects)]
    assert main(command) == 1  # the broken cells
    printed = capsys.readouterr().out
    assert "14 cells finished, 2 failed, 0 not computed yet" in printed
    assert "unknown component 'blocks.7.attn'" in printed
    assert "Transfer map of dyck: attn, mlp" in printed
    assert "All 4 coalitions of 2 players in each replicate." in printed
    assert "attn with mlp" in printed
    assert store.read_table(planned.table_name).frame.shape[0] == 14
    html = (store.path / "tiny.html").read_text()
    assert "Transfer map" in html
    assert "Which parts need one another for accuracy?" in html
    (stored,) = about_table(store.read_table(planned.table_name).metadata).maps
    assert stored.interactions[["player", "other"]].to_numpy().tolist() == [["attn", "mlp"]]
    for kind, table in (("map", stored.effects), ("interactions", stored.interactions)):
        written = pd.read_csv(effects / f"tiny_{kind}.csv")
        assert written["estimate"].tolist() == pytest.approx(table["estimate"].tolist(), rel=1e-5)
    assert main(["sweep", str(path), "--count", "--out", str(store.path)]) == 0
    assert "To do in phase 1: 0 runs, at most 0 steps." in capsys.readouterr().out


def test_the_command_names_a_mistake(tmp_path, capsys):
    path = tmp_path / "sweep.yaml"
    path.write_text("name: x\ntask: {name: haystack}\ntrain: {steps: 2}\ngrids: [{phase1: [dyck]}]\n")
    assert main(["sweep", str(path), "--out", str(tmp_path / "runs")]) == 2
    assert "unknown pretraining of the sweep 'dyck'" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "runs")]) == 1
    assert not (tmp_path / "runs").exists()


def test_damage_is_part_of_the_identity_however_its_selector_is_spelt(tmp_path):
    def condition(selector: str) -> Condition:
        damage = Noise(noise_std=1.0, selector=selector)
        return Condition(name=selector, sources=(Source(phase1="dyck", ablation=damage),))

    planned = plan(tiny(conditions=(condition("attn + ln"), condition("attn,ln"), condition("attn")), replicates=1))
    runs = planned.cells.set_index("condition")["run"]
    assert runs["attn + ln"] == runs["attn,ln"] != runs["attn"]


def test_a_parent_can_give_embeddings_and_positions_alone(tmp_path):
    store = RunStore(tmp_path)
    sweep = tiny(conditions=(Condition(name="pos", sources=(Source(phase1="dyck", selector="none"),)),), replicates=1)
    planned = plan(sweep)
    for config in planned.configs.values():
        execute(config, store)
    table = results(planned, store).set_index("condition")
    assert bool(table.loc["pos", "positions_carried"])
    assert not bool(table.loc["none", "positions_carried"])


def test_a_condition_can_be_in_the_first_replicates_only():
    some = Condition(name="some", sources=(Source(phase1="dyck"),), replicates=1)
    cells = plan(tiny(conditions=(some,), replicates=3)).cells
    assert cells.groupby("condition")["replicate"].apply(list).to_dict() == {
        "none": [1000, 1001, 1002],
        "some": [1000],
    }


def test_a_condition_can_have_a_task_and_a_training_of_its_own():
    other, longer = TASKS.build("haystack", max_pairs=5), dataclasses.replace(TRAIN, steps=8)
    conditions = (
        Condition(name="other task", sources=(Source(phase1="dyck"),), task=other),
        Condition(name="longer", train=longer),
        Condition(name="none on the other task", task=other),
    )
    sweep = tiny(conditions=conditions)
    planned = plan(sweep)
    runs = {cell["condition"]: planned.configs[cell["run"]] for cell in planned.cells.to_dict("records")}
    assert runs["other task"].task == runs["none on the other task"].task == other
    assert runs["longer"].task == runs["none"].task == sweep.task
    assert (runs["longer"].train.steps, runs["other task"].train.steps) == (8, 4)
    assert runs["other task"].parents
    assert len({run.run_id for run in runs.values()}) == 4
    assert {run.train.steps for run in plan(shortened(sweep)).configs.values()} == {20}
    assert from_yaml(Sweep, to_yaml(sweep)) == sweep


def test_a_map_of_a_grain_has_all_its_players():
    each = Map(phase1="dyck", grain="layer_component", methods=("add_one_in",))
    (filled,) = tiny(maps=(each,)).filled_maps
    assert filled.players == ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp")
    assert len(plan(tiny(maps=(each,), replicates=1)).cells) == 1 + 2 + 4


@pytest.mark.parametrize("grain", get_args(Grain))
def test_parts_finer_than_components_have_fresh_embeddings_and_carried_positions(grain):
    each = Map(phase1="dyck", grain=grain, methods=("add_one_in",))
    (filled,) = tiny(maps=(each,)).filled_maps
    given = dataclasses.replace(FRESH, positions="carry")
    assert filled.treatment == (TransferConfig() if grain == "component" else given)
    assert coalition_condition(filled, filled.players[:1]).transfer == (FRESH if grain == "component" else given)
    asked = dataclasses.replace(each, transfer=FRESH)
    assert tiny(maps=(asked,)).filled_maps[0].treatment == FRESH
    assert Map(phase1="dyck", players=("blocks.0.attn",)).treatment == TransferConfig()


def test_a_map_can_have_all_coalitions_of_more_players_and_interactions():
    names = ("blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp", "ln", "pos")
    each = Map(phase1="dyck", players=names, methods=("shapley",))
    assert len(map_conditions(each, 1000)) < 2**6
    assert len(map_conditions(dataclasses.replace(each, exact_up_to=6), 1000)) == 2**6
    balanced = dataclasses.replace(each, interactions=True, n_orders=3)
    assert len(map_conditions(balanced, 1000)) == 22
    with pytest.raises(ValueError, match="exact_up_to=0"):
        dataclasses.replace(each, exact_up_to=0)
    with pytest.raises(ValueError, match="methods=.*give one or more of add_one_in, leave_one_out, shapley"):
        dataclasses.replace(each, methods=())


def test_the_bundled_sweeps_are_of_the_sizes_that_they_say(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(Text, "resolve", lambda self: self)  # which would read a whole corpus to name the runs
    said = {}
    for path in sorted((beside_package("experiments") / "sweeps").glob("*.yaml")):
        assert main(["sweep", path.stem, "--count", "--out", str(tmp_path / "none")]) == 0
        said[path.stem] = capsys.readouterr().out
        assert from_yaml(Sweep, path.read_text()).name == path.stem
    assert set(FINE_MAPS) < set(said), "the demo takes tables of sweeps that there are"
    assert not (tmp_path / "none").exists()
    assert "10 replicates, 10 runs of phase 1 and 170 of phase 2; 0 of them are finished." in said["layer_components"]
    assert "All 16 coalitions of 4 players" in said["layer_components"]
    assert "To do in phase 2: 304 runs, at most 1,520,000 steps." in said["head_map"]
    assert "37 of 256 coalitions of 8 players" in said["head_map"]
    assert "5 arms: none, sort attention, sort attention scales," in said["fair_text"]
    assert "2 replicates, 6 runs of phase 1 and 60 of phase 2; 0 of them are finished." in said["fair_text"]
    assert "8 replicates, 24 runs of phase 1 and 40 of phase 2; 0 of them are finished." in said["fair_text"]
    assert "79 of 4,096 coalitions of 12 players" in said["matrix_map"]
    assert "8 replicates, 8 runs of phase 1 and " in said["text_mlp_memory"]
    assert "36 cells are counted once their parents are finished" in said["heads"]
    assert "42 runs of phase 1, 72 of phase 2 and 54 of phase 3" in said["phases"]
    assert "To do in phase 2: 72 runs, at most 210,000 steps." in said["phases"]
    assert "8 replicates, 8 runs of phase 1 and 48 of phase 2" in said["text_budgets"]
    assert "24 runs of phase 1, 56 of phase 2 and 40 of phase 3" in said["text_phases"]
    for name in ("text_map", "text_map_code"):
        assert "6 replicates, 6 runs of phase 1 and 102 of phase 2; 0 of them are finished." in said[name]
    for name in ("text_parts", "text_parts_code"):
        assert "6 replicates, 6 runs of phase 1 and 48 of phase 2; 0 of them are finished." in said[name]


@pytest.mark.parametrize("player", ["attn-blocks.0", "pos_embed", "embed.W_E", "unembed"])
def test_players_that_would_take_from_others_are_refused(player):
    with pytest.raises(ValueError, match="a player is a union of components, or pos or embed"):
        Map(phase1="dyck", players=("mlp", player))


def test_a_map_has_players_or_a_grain():
    with pytest.raises(ValueError, match="the one or the other"):
        Map(phase1="dyck")
    with pytest.raises(ValueError, match="the one or the other"):
        Map(phase1="dyck", players=("attn",), grain="layer")


def test_more_heads_than_there_are_is_a_failed_cell_and_no_more(swept):
    _, store, _, _ = swept
    source = Source(phase1="dyck", selector="sharpest.9")
    sweep = tiny(conditions=(Condition(name="many", sources=(source,)),))
    planned, problems = run_sweep(sweep, store, engine=Processes(1))
    table = results(planned, store, problems).set_index(["condition", "replicate"])
    assert table.loc[("many", 1000), "problem"] == "sharpest.9: there are 4 heads; give a number from 1 to 4"
    assert set(table.loc["none", "status"]) == {"finished"}


def test_two_maps_of_one_pretraining_are_told_what_to_do():
    with pytest.raises(ValueError, match=r"two conditions are named 'dyck \{.*\}'; name its pretraining twice"):
        tiny(
            maps=(
                Map(phase1="dyck", players=("attn", "mlp")),
                Map(phase1="dyck", players=("attn", "mlp"), transfer=TransferConfig(positions="fresh")),
            )
        )


def test_a_sweep_with_a_diverged_run_goes_on(tmp_path, capsys, runs_here):
    """A diverged run has no accuracy, which the table of what was there had wanted as a number."""
    wild = dataclasses.replace(tiny().train, learning_rate=1e30, clip_norm=None, warmup_steps=0)
    conditions = (Condition(name="wild", train=wild),)
    path = tmp_path / "sweep.yaml"
    for replicates in (1, 2):
        path.write_text(to_yaml(tiny(conditions=conditions, replicates=replicates)))
        assert main(["sweep", str(path), "--out", str(tmp_path / "runs"), "--workers", "1"]) == 0
        assert f"{2 * replicates} cells finished, 0 failed" in capsys.readouterr().out
    store = RunStore(tmp_path / "runs")
    found = store.query().set_index("run")["status"]
    assert [math.isnan(store.open(run).accuracy) for run in found.index] == (found == "diverged").tolist()


def test_the_command_reports_what_it_can_of_an_incomplete_map(tmp_path, capsys, runs_here):
    path = tmp_path / "sweep.yaml"
    path.write_text(to_yaml(tiny(maps=(Map(phase1="dyck", players=("attn", "blocks.9.mlp")),), replicates=1)))
    assert main(["sweep", str(path), "--out", str(tmp_path / "runs"), "--outcome", "acuracy"]) == 2
    assert "Did you mean 'accuracy'" in capsys.readouterr().err
    assert main(["sweep", str(path), "--out", str(tmp_path / "runs"), "--workers", "1"]) == 1
    printed = capsys.readouterr().out
    assert "unknown component 'blocks.9.mlp'" in printed
    assert "report:" in printed


def test_bundled_sweeps_are_found_by_name_wherever_one_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in sorted((beside_package("experiments") / "sweeps").glob("*.yaml")):
        assert sweep_file(Path(path.stem)) == path
        assert main(["sweep", path.stem, "--show"]) == 0
        text = capsys.readouterr().out
        assert text == path.read_text()
        assert from_yaml(Sweep, text).name == path.stem
    own = tmp_path / "components"
    own.write_text("name: mine")
    assert sweep_file(Path("components")) == Path("components"), "a file of that name comes first"
    assert main(["sweep", "layer_components", "--count", "--outcome", "area", "--out", str(tmp_path / "runs")]) == 2
    assert "--outcome area compares runs of one length" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder; give a YAML file" in capsys.readouterr().err
    assert main(["train", "--config", str(tmp_path)]) == 2
    assert f"{tmp_path} is a folder; give a YAML file" in capsys.readouterr().err
    assert main(["sweep", "componets"]) == 2
    assert (
        "unknown sweep 'componets'. Did you mean 'components'? There are: components, fair_text, head_map, heads, "
        "layer_components, matrix_map, phases, text_budgets, text_map, text_map_code, "
        "text_mlp_memory, text_parts, text_parts_code, text_phases, timeline" in capsys.readouterr().err
    )
    assert main(["sweep", "experiments/sweeps/components.yaml"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_the_explorer_names_sweeps_that_every_installation_has():
    """In a checkout and from a wheel alike: no command that a page shows has a path in it."""
    bundled = {path.stem for path in (beside_package("experiments") / "sweeps").glob("*.yaml")}
    told = []
    for path in (beside_package("app") / "questions").glob("*.py"):
        told += re.findall(r"procpre-interp sweep ([^ `\"]+)", path.read_text())
    assert told
    assert set(told) <= bundled
