"""What transplanted heads still do among fresh weights: against the models built by hand."""

import pandas as pd
import pytest
import torch

from procpre_interp.analysis.head_jobs import MODELS, _host, head_scores, jobs
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import flat_mask
from procpre_interp.patch import edge_attribution
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, fresh_model, load_donor, load_model, load_task, run_config
from procpre_interp.probe import attention_scores
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig

TRAIN = TrainConfig(steps=40, batch_size=16, learning_rate=3e-2, warmup_steps=2, evaluate_examples=16)
SELECTOR = "ln+blocks.0.attn.head.1+blocks.1.attn.head.2"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return RunStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def runs(store):
    task = TASKS.build("dyck", k=3, length=70)
    parent = execute(RunConfig(task=task, seed=5, train=TRAIN, model=Architecture(tied=True)), store)
    parents = (Parent(run=parent.id, selector=SELECTOR),)
    child = RunConfig(task=TASKS.build("haystack", max_pairs=4), seed=5, train=TRAIN, parents=parents)
    return parent, execute(child, store)


@pytest.fixture(scope="module")
def scores(store, runs):
    return head_scores([runs[1]], store, n=32)


def test_a_host_is_fresh_but_for_what_was_transferred(store, runs):
    parent, child = runs
    source, (given,) = load_model(parent), run_config(child).parents
    host = _host(child, parent, load_donor(given, store, child.seed))
    fresh, own = fresh_model(run_config(child)), dict(host.named_parameters())
    taken = flat_mask(host, f"{SELECTOR}+embed+pos")
    assert torch.equal(host.flat[taken], source.flat[taken])
    for name, parameter in fresh.named_parameters():
        if name.startswith("blocks") and (".mlp." in name or name.endswith("attn.b_O")):
            assert torch.equal(own[name], parameter), name
    head = own["blocks.0.attn.W_Q"]
    assert torch.equal(head[0], dict(fresh.named_parameters())["blocks.0.attn.W_Q"][0])
    # Not the fresh weights that these heads were trained from.
    assert not torch.equal(head[0], dict(fresh_model(run_config(parent)).named_parameters())["blocks.0.attn.W_Q"][0])


def test_scores_are_those_of_the_heads_that_were_transferred(store, runs, scores):
    parent, child = runs
    assert set(zip(scores["layer"], scores["head"])) == {(0, 1), (1, 2)}
    assert set(scores["model"]) == set(MODELS)
    task = load_task(parent)
    batch = task.batch(32, generator=stream(5, "head jobs", task.stream_label))
    expected = attention_scores(load_model(parent), batch, task).set_index(["layer", "head", "score"])["value"]
    pairs = task.counterfactuals(32, generator=stream(5, "head circuit"))
    edges = edge_attribution(load_model(parent), pairs, method="eap_ig_inputs")
    for row in scores.loc[scores["model"] == "parent"].to_dict("records"):
        if row["score"] == "circuit":
            name = f"blocks.{row['layer']}.attn.head.{row['head']}"
            wanted = edges.loc[edges["writer"] == name, "score"].abs().sum()
        else:
            wanted = expected[row["layer"], row["head"], row["score"]]
        assert row["value"] == pytest.approx(wanted, rel=1e-6)
    without = head_scores([child], store, n=32, with_strength=False)
    assert set(scores["score"]) - set(without["score"]) == {"circuit"}


def test_a_head_of_the_first_layer_does_among_fresh_weights_what_it_did(scores):
    """It reads embeddings, positions and its LayerNorm, which the host has; a head of the second reads fresh heads."""
    attention = scores.loc[scores["score"] != "circuit"].pivot(
        index=["layer", "head", "score"], columns="model", values="value"
    )
    first, second = attention.loc[0], attention.loc[1]
    pd.testing.assert_series_equal(first["host"], first["parent"], check_names=False, rtol=1e-6)
    assert (second["host"] - second["parent"]).abs().max() > 1e-3
    assert (first["bare_host"] - first["parent"]).abs().max() > 1e-3


def test_the_job_is_what_the_parents_head_does_most_beyond_even_attention():
    rows = [
        (0, "parent", "value", 0.30, 0.25),
        (0, "host", "value", 0.9, 0.25),
        (0, "bare_host", "value", 0.25, 0.25),
        (0, "parent", "previous_token", 0.25, 0.05),
        (0, "host", "previous_token", 0.15, 0.05),
        (0, "bare_host", "previous_token", 0.06, 0.05),
        (0, "parent", "entropy_bits", 5.0, 1.0),
        (1, "parent", "value", 0.35, 0.25),
        (1, "host", "value", 0.2, 0.25),
        (1, "bare_host", "value", 0.3, 0.25),
        (1, "parent", "previous_token", float("nan"), float("nan")),
    ]
    table = pd.DataFrame(rows, columns=["head", "model", "score", "value", "uniform"])
    found = jobs(table.assign(run="a", replicate=3, layer=1))
    assert found.drop(columns=["run", "replicate", "layer"]).to_dict("records") == [
        {"head": 0, "job": "previous_token", "uniform": 0.05, "parent": 0.25, "host": 0.15, "bare_host": 0.06},
        {"head": 1, "job": "value", "uniform": 0.25, "parent": 0.35, "host": 0.2, "bare_host": 0.3},
    ]


def test_a_run_without_heads_or_parent_is_refused(store, runs):
    with pytest.raises(ValueError, match="has 0 parents"):
        head_scores([runs[0]], store)
    with pytest.raises(ValueError, match="no runs"):
        head_scores([], store)
