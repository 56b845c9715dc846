"""Measures of a plateau over training, and their lead over the breakthrough."""

import math

import numpy as np
import pandas as pd
import pytest

from procpre_interp.analysis.hidden_progress import half_loss_step, hidden_progress, lead_times
from procpre_interp.cli import main
from procpre_interp.core.seeding import stream
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.probe.plateau import plateau_table
from tests.test_timeline import PHASE1, STEPS1, STEPS2, child, store  # noqa: F401  (the fixture)


def test_every_kept_step_of_both_phases_is_measured(store):  # noqa: F811
    run = store.open(child().run_id)
    table = hidden_progress([run], store, n_sequences=20)
    points = table[["phase", "step", "axis_step"]].drop_duplicates().to_numpy().tolist()
    assert points == [[1, step, step] for step in STEPS1] + [[2, step, 10 + step] for step in STEPS2]
    first = store.open(PHASE1.run_id)
    task = load_task(first)
    batch = task.batch(20, generator=stream(run.seed, "hidden progress", task.stream_label))
    wanted = plateau_table(load_model(first, step=3), batch)
    rows = table.loc[(table["phase"] == 1) & (table["step"] == 3), [*wanted]].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, wanted, check_dtype=False)
    assert table["breakthrough_step"].isna().all()  # after seven steps
    with pytest.raises(ValueError, match="none of these runs broke through"):
        lead_times(table)


def curve(measure: str, values: list[float], *, layer: float = math.nan, broke: float = 80.0) -> pd.DataFrame:
    """A run that is measured every ten steps."""
    row = {"run": "r", "replicate": 0, "phase": 2, "task": "haystack", "measure": measure, "layer": layer}
    row |= {"head": math.nan, "reference": 0.0, "breakthrough_step": broke}
    return pd.DataFrame([{**row, "step": 10 * i, "value": value} for i, value in enumerate(values)])


def test_a_lead_is_from_the_first_change_to_the_breakthrough():
    noise = np.array([0.01, -0.012, 0.004, -0.006, 0.011, -0.003, 0.002, -0.009, 0.006, -0.01, 0.003, 0.008])
    early, late = (np.where(np.arange(12) >= place, 1.0, 0.0) + noise for place in (4, 8))
    flat = [math.nan, *noise[1:].tolist()]
    table = pd.concat(
        [curve("cosine", early.tolist(), layer=0), curve("cosine", late.tolist(), layer=1), curve("commonest", flat)]
    )
    found = lead_times(table)
    assert found["lead_steps"].tolist()[:2] == [40.0, 0.0]
    assert found[["step_before", "step"]].to_numpy()[0].tolist() == [30.0, 40.0]
    assert found.loc[0, "level_before"] == pytest.approx(early[:4].mean())
    assert found.loc[2, ["step", "lead_steps"]].isna().all()
    assert found["measure"].tolist() == ["cosine", "cosine", "commonest"]


def test_half_of_the_fall_of_a_loss():
    losses = [5.0, 4.5, 3.9, 2.0, 3.0, 3.2]  # half way from 5 to 2 is 3.5
    rows = [{"step": 10 * i, "split": "validation", "loss_nats": loss} for i, loss in enumerate(losses, 1)]
    history = pd.DataFrame([*rows[::-1], {"step": 5, "split": "train", "loss_nats": 0.1}])
    assert half_loss_step(history) == 40
    assert half_loss_step(history.assign(loss_nats=history["loss_nats"].where(history["step"] != 40))) == 30
    for flat in ([], rows[:1], rows[3:]):
        assert math.isnan(half_loss_step(pd.DataFrame(flat, columns=["step", "split", "loss_nats"])))


def test_the_command_line_has_it(store, capsys):  # noqa: F811
    assert main(["probe", child().run_id, "--store", str(store.path), "--what", "progress", "--sequences", "10"]) == 0
    printed = capsys.readouterr().out
    assert "participation" in printed
    assert "lead" in printed
