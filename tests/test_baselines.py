"""Gains are over no pretraining on the same task: one test over all that compares conditions with a baseline."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from procpre_interp.data import TASKS
from procpre_interp.stats.baselines import baselines
from procpre_interp.stats.losses import summarise_losses
from procpre_interp.stats.resampling import paired_gains
from procpre_interp.stats.savings import replicate_savings
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.stats.survival import effect_sizes
from procpre_interp.sweep.chains import fresh_arms
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep
from procpre_interp.sweep.phases import Phase
from procpre_interp.train import TrainConfig

FRESH = {"none": "none", "union": "none", "none, code": "none, code", "union, code": "none, code", "union, sums": ""}
"""Condition -> the one without phase 1 on its text; of the sums there is none."""
ACCURACY = {"none": 0.5, "union": 0.4, "none, code": 0.8, "union, code": 0.7, "union, sums": 0.9}
CHANGES = {"union": -0.1, "union, code": -0.1}


def table() -> pd.DataFrame:
    rows = []
    for replicate in range(6):
        for condition, accuracy in ACCURACY.items():
            share = accuracy + 0.001 * replicate
            row = {"condition": condition, "label": condition, "replicate": replicate, "fresh_arm": FRESH[condition]}
            row |= {"status": "finished", "accuracy": share, "loss_nats": 3 - share, "epochs": 1.0, "limit": 100}
            row |= {"tokens": 100.0, "teraflops": 1.0, "phase1_tokens": 0.0, "phase1_teraflops": 0.0}
            rows.append(row | {"breakthrough_step": 10.0 if accuracy > 0.6 else np.nan})
    return pd.DataFrame(rows)


def curves() -> pd.DataFrame:
    """Losses fall by half with each tenfold of tokens, from where a condition ends."""
    rows = [
        {"condition": row["condition"], "replicate": row["replicate"], "split": "validation", "tokens": tokens}
        | {"loss_nats": row["loss_nats"] + 0.5 * (2 - np.log10(tokens))}
        for row in table().to_dict("records")
        for tokens in (1.0, 10.0, 100.0)
    ]
    return pd.DataFrame(rows)


def test_each_condition_is_compared_with_no_pretraining_on_its_own_task():
    cells = table()
    assert baselines(cells) == {"union": "none", "union, code": "none, code"}
    summary = summarise_conditions(cells).set_index("condition")
    losses = summarise_losses(cells).set_index("condition")
    effects = effect_sizes(cells).set_index(["measure", "condition"])
    for condition in ACCURACY:
        change = CHANGES.get(condition, np.nan)
        assert summary.loc[condition, "gain_mean"] == pytest.approx(change, nan_ok=True)
        assert summary.loc[condition, "loss_change_mean"] == pytest.approx(-change, nan_ok=True)
        assert losses.loc[condition, "gain_mean"] == pytest.approx(change, nan_ok=True)
    assert effects.loc["accuracy", "estimate"].to_dict() == pytest.approx(CHANGES)
    assert effects.loc["accuracy", "baseline"].to_dict() == {"union": "none", "union, code": "none, code"}
    assert effects.loc[("breakthrough_share", "union, code"), "estimate"] == 0
    assert paired_gains(cells).mean().to_dict() == pytest.approx(CHANGES)
    # Higher losses save nothing of the budget of their own baseline, and so much of that of the other text.
    saved = replicate_savings(cells, curves()).groupby("condition")["semantic_saved"].mean().to_dict()
    assert saved == pytest.approx({"union": 0.0, "union, code": 0.0})
    assert replicate_savings(cells.drop(columns="fresh_arm"), curves())["semantic_saved"].max() > 0.5


def test_a_baseline_that_is_asked_for_is_that_of_all():
    assert set(baselines(table(), "union").values()) == {"union"}
    assert baselines(table().drop(columns="fresh_arm")) == dict.fromkeys([*ACCURACY][1:], "none")


def test_a_sweep_says_what_its_conditions_compare_with():
    """Of conditions that end on another task, those without phase 1 to which nothing was done."""
    reverse, other = TASKS.build("reverse", length=4), TASKS.build("reverse", length=5)
    train = TrainConfig(steps=1)
    union = (Source(phase1="union"),)
    sweep = Sweep(
        name="several",
        phase1=(Pretraining(name="union", task=TASKS.build("union", length=4), train=train),),
        task=reverse,
        train=train,
        conditions=(
            Condition(name="union", sources=union),
            Condition(name="union, other", sources=union, task=other),
            Condition(name="none, other", task=other),
            Condition(name="union, then", sources=union, then=(Phase(task=other, train=train),)),
            Condition(name="union, third", sources=union, task=TASKS.build("reverse", length=6)),
        ),
    )
    assert fresh_arms(sweep) == {
        "none": "none",
        "union": "none",
        "union, other": "none, other",
        "none, other": "none, other",
        "union, then": "none, other",
        "union, third": "",
    }
    assert set(fresh_arms(dataclasses.replace(sweep, conditions=sweep.conditions[:1])).values()) == {"none"}
    between = Condition(name="none, then", then=(Phase(task=other, train=train),))
    arms = fresh_arms(dataclasses.replace(sweep, conditions=(*sweep.conditions, between)))
    assert (arms["union, then"], arms["union, other"]) == ("none, then", "none, other"), "phases before the end count"
    two = dataclasses.replace(sweep, task=reverse, then=(Phase(task=other, train=train),), conditions=())
    direct = (
        Condition(name="direct", task=other, then=()),
        Condition(name="union", sources=union, task=other, then=()),
    )
    assert fresh_arms(dataclasses.replace(two, conditions=direct)) == {
        "none": "none",
        "direct": "direct",
        "union": "direct",
    }
