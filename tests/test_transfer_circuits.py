"""Circuits along a transfer: what is compared with what, on tiny runs."""

import pytest
import torch

from procpre_interp.analysis.circuit_overlap import circuit_overlaps, circuit_reuse, subject_circuit, subject_pairs
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.data import TASKS
from procpre_interp.patch import Graph, circuit_values, overlap_table
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.pipeline.lineage import at_stage
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig

SHAPE = Architecture(n_layers=2, n_heads=2, d_model=8)
RETAIN = TransferConfig(token_embedding="retain", unembedding="retain")


def trained(store, task, steps, **fields):
    train = TrainConfig(steps=steps, batch_size=16, warmup_steps=1, learning_rate=1e-2, evaluate_examples=8)
    return execute(RunConfig(task=task, seed=3, model=fields.pop("model", SHAPE), train=train, **fields), store)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RunStore:
    return RunStore(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def parent(store):
    return trained(store, TASKS.build("identity", vocab=8, length=4), 40)


@pytest.fixture(scope="module")
def run(store, parent):
    task = TASKS.build("reverse", vocab=8, length=4)
    return trained(store, task, 200, parents=(Parent(run=parent.id),), transfer=RETAIN)


def test_overlaps_are_of_the_circuits_on_each_stages_own_task(store, run):
    table = circuit_overlaps([run], store, n_draws=50)
    assert list(zip(table["first"], table["second"])) == [
        ("phase1", "transplanted"),
        ("phase1", "finished"),
        ("transplanted", "finished"),
    ]
    found = {name: at_stage(run, store, name).load(store) for name in ("phase1", "finished")}
    circuits = {name: subject_circuit(subject, subject_pairs(subject, 3)) for name, subject in found.items()}
    shared, all_edges = (
        (circuits["phase1"] & circuits["finished"]).sum(),
        (circuits["phase1"] | circuits["finished"]).sum(),
    )
    assert table["jaccard"][1] == pytest.approx(float(shared / all_edges))
    assert int(circuits["phase1"].sum()) == round(0.2 * len(Graph(found["phase1"].model.config).edges))
    assert set(table["replicate"]) == {3}
    assert (table["null_low"] <= table["null_mean"] + 1e-9).all()
    assert (table["null_mean"] <= table["null_high"] + 1e-9).all()


def test_a_model_that_was_not_trained_on_has_its_parents_circuit(store, parent):
    task = TASKS.build("identity", vocab=8, length=4)
    train = TrainConfig(
        steps=1, batch_size=2, warmup_steps=0, learning_rate=1e-12, weight_decay=0.0, evaluate_examples=8
    )
    config = RunConfig(task=task, seed=3, model=SHAPE, train=train, parents=(Parent(run=parent.id),), transfer=RETAIN)
    table = circuit_overlaps([execute(config, store)], store, n_draws=20)
    assert table["jaccard"].tolist() == [1.0, 1.0, 1.0]
    assert (table["null_mean"] < 1).all()


def test_what_a_circuit_carries_is_measured_in_the_finished_model(store, run):
    table = circuit_reuse([run], store, n_random=4).set_index("circuit")
    assert list(table.index) == ["phase1", "transplanted", "finished", "random"]
    assert table["gap_told"].all()
    last = at_stage(run, store, "finished").load(store)
    pairs = subject_pairs(last, 3)
    mask = subject_circuit(last, pairs)
    masks = torch.stack([mask, ~mask, torch.ones_like(mask), torch.zeros_like(mask)])
    inside, outside, full, empty = circuit_values(last.model, pairs, masks, replacement="mean").mean(1)
    assert table.at["finished", "faithfulness"] == pytest.approx(float((inside - empty) / (full - empty)), abs=1e-4)
    assert table.at["finished", "completeness"] == pytest.approx(float((outside - empty) / (full - empty)), abs=1e-4)


def test_a_model_whose_tokens_are_all_alike_has_no_circuit(store, parent):
    task = TASKS.build("reverse", vocab=8, length=4)
    child = trained(store, task, 12, parents=(Parent(run=parent.id, selector="attn+ln"),))
    transplanted = at_stage(child, store, "transplanted").load(store)
    assert subject_circuit(transplanted, subject_pairs(transplanted, 3)) is None
    assert list(circuit_reuse([child], store, n_random=2)["circuit"]) == ["phase1", "finished", "random"]
    assert len(circuit_overlaps([child], store, n_draws=10)) == 1


def test_the_ceiling_is_what_identical_circuits_would_have(store, run):
    table = circuit_overlaps([run], store, n_draws=50)
    phase1 = at_stage(run, store, "phase1").load(store)
    own = Graph(phase1.model.config).circuit(subject_circuit(phase1, subject_pairs(phase1, 3)))
    alone = overlap_table(
        Graph(phase1.model.config), {"a": own, "b": own}, generator=numpy_stream(0, "ceiling"), n_draws=400
    )
    assert table["ceiling"][0] == pytest.approx(1 - alone["null_mean"][0], abs=0.1)


def test_what_cannot_be_compared(store, parent):
    with pytest.raises(ValueError, match="has no parents"):
        circuit_overlaps([parent], store)
    wide = Architecture(n_layers=1, n_heads=2, d_model=8)
    task = TASKS.build("reverse", vocab=8, length=4)
    child = trained(store, task, 2, model=wide, parents=(Parent(run=parent.id, selector="blocks.0"),))
    with pytest.raises(ValueError, match="another number of layers or heads"):
        circuit_reuse([child], store)
