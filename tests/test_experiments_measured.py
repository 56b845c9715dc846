"""Claims whose primary contrast is of another measure than accuracy, not on text: chains."""

import dataclasses

import pandas as pd
import pytest

from experiments.retrieval_head_forms import order_of_formation
from procpre_interp.claims.judge import judge_contrasts
from procpre_interp.core.seeding import numpy_stream, stream
from procpre_interp.store.store import RunStore
from procpre_interp.study.experiment import main
from procpre_interp.study.smoke_test import few_steps
from procpre_interp.sweep.plan import plan
from tests.test_experiments import check_statement, made_up, script, with_many_replicates, without_secondary

NAMES = ("chained_primitives",)


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_says_what_it_must(name):
    experiment = script(name).EXPERIMENT
    claim, sweep, observation = experiment.claim, experiment.sweep, experiment.observation
    assert claim.name == sweep.name == name
    check_statement(claim)
    assert sweep.first_seed >= 1000
    assert sweep.replicates >= 8
    conditions = {condition.name for condition in sweep.of_replicate(sweep.first_seed)}
    observed = set() if observation is None else set(observation.conditions)
    for contrast in (claim.primary, *claim.secondary):
        assert set(contrast.weights) <= conditions | observed
        assert sum(contrast.weights.values()) == pytest.approx(0) or set(contrast.weights) <= observed
    assert {condition for contrast in claim.secondary for condition in contrast.weights} <= conditions


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_follows_from_what_was_measured(name):
    experiment = with_many_replicates(script(name).EXPERIMENT)
    primary, alone = experiment.claim.primary, without_secondary(experiment.claim)
    toward = 1 if primary.predicted == "above" else -1
    table = made_up(experiment, lambda condition: 0.5)
    missing = set(primary.weights) - set(table["condition"])
    rows = [
        {"condition": condition, "label": condition, "replicate": seed, "status": "finished", "observed": True}
        for condition in missing
        for seed in experiment.sweep.seeds
    ]
    table = pd.concat([table, pd.DataFrame(rows)], ignore_index=True)
    for sign, verdict in ((toward, "supported"), (-toward, "refuted")):
        values = [
            0.5
            + 0.4 * sign * primary.weights.get(condition, 0)
            + numpy_stream(seed, condition, "measure").normal(0, 0.004)
            for condition, seed in zip(table["condition"], table["replicate"])
        ]
        # The lead is a difference by itself, and so has no level that cancels.
        level = 0.5 if missing else 0.0
        table[primary.measure] = [value - level for value in values]
        assert judge_contrasts(alone, table)[0].verdict == verdict


@pytest.mark.parametrize("name", NAMES)
def test_a_claim_runs_whole(name, tmp_path, monkeypatch, capsys, runs_here):
    experiment = script(name).EXPERIMENT
    few = few_steps(experiment.sweep.train)
    monkeypatch.setattr("procpre_interp.study.smoke_test.few_steps", lambda train: dataclasses.replace(few, steps=4))
    assert main(experiment, arguments=["--quick", "--workers", "1", "--out", str(tmp_path)]) == 0
    judged = RunStore(tmp_path).read_table(f"quick-claim-{name}")
    assert judged.metadata["verdict"] == "undecided"
    assert {contrast["n"] for contrast in judged.metadata["contrasts"]} == {1}
    assert "Plotly.newPlot" in (tmp_path / f"quick-claim-{name}.html").read_text()
    assert "UNDECIDED" in capsys.readouterr().out


def test_chains_and_control_differ_in_what_programs_mean_alone():
    module = script("chained_primitives")
    planned = plan(module.EXPERIMENT.sweep)
    runs = {
        cell["condition"]: planned.configs[cell["run"]]
        for cell in planned.cells.loc[planned.cells["replicate"] == 1000].to_dict("records")
    }
    assert runs["pretrained"].task == runs["none"].task == dataclasses.replace(runs["control"].task, naming="composed")
    assert runs["pretrained"].parents == runs["pretrained control"].parents
    assert not runs["control"].parents
    assert len({run.train for run in runs.values()}) == 1
    parent = planned.configs[runs["pretrained"].parents[0].run]
    assert parent.task.n_primitives == 1
    assert parent.task.d_vocab == runs["pretrained"].task.d_vocab
    assert parent.model.n_ctx is not None  # so that positions can be carried
    batches = [task.batch(64, generator=stream(0, "x")) for task in (module.CHAINED, module.CONTROL)]
    assert batches[0].tokens[:, :2].equal(batches[1].tokens[:, :2])
    assert not batches[0].tokens.equal(batches[1].tokens)


def test_the_order_of_formation_is_that_of_the_first_head_that_keeps_each_score():
    """Four runs by hand: keys before values, the other way round, at one step, and no value at all."""
    curves = {
        "a": {"own_key": [0.1, 0.3, 0.8, 0.9], "value": [0.3, 0.1, 0.2, 0.8]},
        "b": {"own_key": [0.1, 0.1, 0.1, 0.9], "value": [0.1, 0.1, 0.7, 0.8]},
        "c": {"own_key": [0.1, 0.1, 0.3, 0.9], "value": [0.1, 0.1, 0.7, 0.8]},
        "d": {"own_key": [0.1, 0.1, 0.3, 0.9], "value": [0.1, 0.9, 0.1, 0.2]},
    }
    rows = [
        {"run": run, "score": score, "layer": layer, "head": head, "step": 10 * i, "value": value * share}
        for run, scores in curves.items()
        for layer, (score, values) in enumerate(scores.items())
        for head, share in ((0, 1.0), (1, 0.1))
        for i, value in enumerate(values)
    ]
    table = pd.DataFrame(rows).assign(replicate=0, phase=2, task="haystack", uniform=0.1)
    found = order_of_formation(table.assign(axis_step=table["step"]))
    assert found["own_key_step"].tolist() == [10, 30, 20, 20]
    assert found["value_step"].tolist()[:3] == [30, 20, 20]
    assert found["order"].tolist() == ["own_key, value", "value, own_key", "together", "without value"]
