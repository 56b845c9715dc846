"""What phase 1 saves: by hand on made-up curves."""

import math

import numpy as np
import pandas as pd
import pytest

from procpre_interp.cli import main
from procpre_interp.commands.savings import main as savings_command
from procpre_interp.stats.savings import SHARES, replicate_savings, summarise_savings, tokens_to_loss
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import results as exhibits
from procpre_interp.views.plots.savings import saved_against_spent, savings_by_condition
from tests.figures import subtitle

NAN = math.nan


def test_tokens_are_interpolated_in_their_logarithm():
    tokens, loss = np.array([0.0, 100.0, 400.0, 1600.0]), np.array([5.0, 4.0, 3.0, 2.0])
    assert tokens_to_loss(tokens, loss, 3.5) == pytest.approx(200)
    assert tokens_to_loss(tokens, loss, 2.5) == pytest.approx(800)
    assert tokens_to_loss(tokens, loss, 3.0) == pytest.approx(400)
    # There is no logarithm of the first step's tokens.
    assert tokens_to_loss(tokens, loss, 4.5) == pytest.approx(50)
    assert tokens_to_loss(tokens, loss, 6.0) == 0
    assert math.isnan(tokens_to_loss(tokens, loss, 1.9))
    assert tokens_to_loss(tokens, np.array([5.0, 2.0, 3.0, 1.0]), 3.0) == pytest.approx(100 * 2 / 3)


def test_a_power_law_is_exact():
    """Where the loss is linear in the logarithm, two evaluations are enough."""
    wanted = 3_000.0
    tokens = np.array([1_000.0, 10_000.0])
    assert tokens_to_loss(tokens, 9 - np.log(tokens), 9 - math.log(wanted)) == pytest.approx(wanted)


def curve(condition, replicate, losses, tokens=(0, 100, 400, 1600), **columns) -> pd.DataFrame:
    rows = pd.DataFrame({"tokens": list(tokens), "loss_nats": list(losses)})
    known = {"condition": condition, "label": condition, "replicate": replicate, "split": "validation"}
    return rows.assign(**(known | {"task_length": NAN, "step": range(len(rows))} | columns))


def cell(condition, replicate, **columns) -> dict[str, object]:
    known = {"condition": condition, "label": condition.title(), "replicate": replicate, "status": "finished"}
    known |= {"tokens": 1600, "teraflops": 16.0, "loss_nats": 2.0, "phase1_tokens": 0.0, "phase1_teraflops": 0.0}
    return known | columns


PHASE1 = {"phase1_tokens": 80.0, "phase1_teraflops": 2.0}


def test_savings_are_paired_and_phase_1_is_counted():
    table = pd.DataFrame(
        [
            cell("none", 0),
            cell("sort", 0, loss_nats=1.8, teraflops=32.0, **PHASE1),  # a dearer model: two a token
            cell("none", 1),
            cell("sort", 1, loss_nats=1.9, teraflops=32.0, **PHASE1),
        ]
    )
    curves = pd.concat(
        [
            curve("none", 0, [5, 4, 3, 2]),
            curve("sort", 0, [4, 3, 2, 1]),  # at 400
            curve("sort", 0, [0, 0, 0, 0], split="train"),
            curve("sort", 0, [0], tokens=[0], task_length=8.0),  # a curriculum's
            curve("none", 1, [5, 4, 3, 1.5]),
            curve("sort", 1, [4, 3, 2, 1]),  # 1.5: at 800
        ]
    )
    found = replicate_savings(table, curves)
    assert found["target_loss_nats"].tolist() == [2.0, 1.5]
    assert found["tokens_needed"].tolist() == pytest.approx([400, 800])
    assert found["semantic_saved"].tolist() == pytest.approx([0.75, 0.5])
    assert found["tokens_saved"].tolist() == pytest.approx([0.7, 0.45])
    # (400 x .02 + 2) of 16, (800 x .02 + 2) of 16
    assert found["compute_saved"].tolist() == pytest.approx([1 - 10 / 16, 1 - 18 / 16])
    assert found["loss_change_nats"].tolist() == pytest.approx([-0.2, -0.1])
    assert found["phase1_tokens_share"].tolist() == pytest.approx([0.05, 0.05])
    assert found["phase1_compute_share"].tolist() == pytest.approx([0.125, 0.125])
    (row,) = summarise_savings(found).to_dict("records")
    assert (row["label"], row["n"], row["reached"]) == ("Sort", 2, 2)
    assert row["semantic_saved_mean"] == pytest.approx(0.625)
    assert row["semantic_saved_low"] <= 0.5 < 0.75 <= row["semantic_saved_high"]


def test_what_never_reaches_the_loss_saves_nothing_and_is_counted():
    table = pd.DataFrame(
        [
            *(cell("none", seed) for seed in range(4)),
            cell("worse", 0),
            cell("worse", 1, status="diverged", loss_nats=NAN),
            cell("worse", 2, tokens=400, teraflops=4.0),  # ended early: no saving either
            cell("worse", 3, tokens=3200, teraflops=32.0),  # had twice the budget
        ]
    )
    curves = pd.concat(
        [
            *(curve("none", seed, [5, 4, 3, 2]) for seed in range(4)),
            curve("worse", 0, [5, 4, 3, 2.1]),
            curve("worse", 1, [5, 4, 1, NAN]),
            curve("worse", 2, [5, 4, 3], tokens=[0, 100, 400]),
            curve("worse", 3, [5, 4, 3, 2.1, 2.05], tokens=[0, 100, 400, 1600, 3200]),
        ]
    )
    found = replicate_savings(table, curves)
    assert found["reached"].tolist() == [False] * 4
    assert found["tokens_needed"].tolist() == [1600, 1600, 1600, 3200]
    assert found["semantic_saved"].tolist() == [0, 0, 0, -1]
    alike = summarise_savings(found.iloc[:3]).iloc[0]
    # Three that are alike say little of others.
    assert alike["semantic_saved_low"] < -0.5
    assert alike["semantic_saved_high"] > 0.5
    spent = summarise_savings(found.iloc[:3].assign(tokens_saved=-0.2, phase1_tokens_share=0.2)).iloc[0]
    for bound in ("low", "high"):
        assert spent[f"tokens_saved_{bound}"] == pytest.approx(alike[f"semantic_saved_{bound}"] - 0.2)


def test_a_baseline_saves_nothing_against_itself():
    """One that overfits had its final loss before, and its budget is counted up to there."""
    table = pd.DataFrame([cell("none", 0), cell("twin", 0)])
    losses = [5, 3, 2, 3]
    found = replicate_savings(table, pd.concat([curve("none", 0, losses), curve("twin", 0, losses)]))
    assert found["baseline_tokens"].tolist() == [100]
    assert found["semantic_saved"].tolist() == [0]


def test_pairs_that_are_not_whole_are_left_out():
    table = pd.DataFrame(
        [cell("none", 0, status="diverged"), cell("a", 0), cell("a", 1), cell("none", 2), cell("a", 2)]
    )
    curves = pd.concat([curve("none", 0, [5, 4, 3, 2]), curve("a", 0, [5, 4, 3, 2]), curve("none", 2, [5, 4, 3, 2])])
    found = replicate_savings(table, curves)
    assert found.empty
    assert summarise_savings(found).empty
    with pytest.raises(ValueError, match="unknown baseline condition 'fresh'"):
        replicate_savings(table, curves, baseline="fresh")


def test_a_baseline_that_ends_no_better_than_it_began_has_no_budget_to_save():
    table = pd.DataFrame([cell("none", 0), cell("a", 0)])
    found = replicate_savings(table, pd.concat([curve("none", 0, [2, 3, 3, 2.5]), curve("a", 0, [5, 4, 3, 2])]))
    assert found.empty


def test_what_is_not_known_is_missing():
    """Tables of older versions lack the compute."""
    table = pd.DataFrame([cell("none", 0), cell("a", 0)]).drop(columns=["teraflops", "phase1_tokens"])
    found = replicate_savings(table, pd.concat([curve("none", 0, [5, 4, 3, 2]), curve("a", 0, [5, 4, 2, 1])]))
    assert found["semantic_saved"].tolist() == [0.75]
    assert found[["tokens_saved", "compute_saved"]].isna().all(axis=None)


def test_figures_show_the_means_and_say_what_the_intervals_are():
    table = pd.DataFrame([cell(name, seed, **PHASE1) for seed in range(3) for name in ("none", "a<b")])
    curves = pd.concat(
        [curve("none", seed, [5, 4, 3, 2]) for seed in range(3)]
        + [curve("a<b", seed, [4, 3, 2 - seed / 10, 1]) for seed in range(3)]
    )
    summary = summarise_savings(replicate_savings(table, curves))
    figure = savings_by_condition(summary)
    assert [trace.name for trace in figure.data] == list(SHARES.values())
    for trace, name in zip(figure.data, SHARES):
        assert list(trace.x) == summary[f"{name}_mean"].tolist()
        assert list(trace.y) == ["A&lt;B"]
    assert "n = 3 replicates; 95 % bootstrap interval" in subtitle(figure)
    marker, even = saved_against_spent(summary).data
    assert (marker.x[0], marker.y[0]) == (summary["phase1_tokens_share_mean"][0], summary["semantic_saved_mean"][0])
    assert list(even.x) == list(even.y)
    with pytest.raises(ValueError, match="no rows"):
        savings_by_condition(summary.iloc[:0])


def test_the_whole_name_of_a_sweep_is_none_of_another_that_begins_with_it(tmp_path, monkeypatch):
    names, opened = ["text_map_code-0a1b2c3d", "text_map-1a1b2c3d", "text_map-2a1b2c3d"], []
    monkeypatch.setattr(exhibits, "catalogue", lambda store: names)
    monkeypatch.setattr(exhibits, "load_results", lambda store, name: opened.append(name) or {}["stop"])
    for asked in ("text_map", "text_", "text_map_c", "text_map-2"):
        with pytest.raises(KeyError):
            savings_command(["--store", str(tmp_path), asked])
    assert opened == [names[1], names[0], names[0], names[2]]


def test_a_table_that_cannot_be_read_is_not_unknown(tmp_path, capsys):
    """Nor is a list of names printed where there are none."""
    store = RunStore(tmp_path / "store")
    store.write_table("mine-0a1b2c3d", pd.DataFrame({"run": ["x"]}), {})
    (store.path / "tables" / "mine-0a1b2c3d.parquet").write_bytes(b"")
    assert main(["savings", "mine", "--store", str(store.path)]) != 0
    said = capsys.readouterr().err
    assert "mine-0a1b2c3d" in said
    assert "unknown table" not in said
    assert main(["savings", "mine", "--store", str(tmp_path / "none")]) != 0
    assert "unknown table 'mine'. There are none" in capsys.readouterr().err
