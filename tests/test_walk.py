"""Walks without replacement, and text that is trained on in such an order."""

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from procpre_interp.claims.text import conditions_table
from procpre_interp.cli import main
from procpre_interp.core.config import content_hash, from_dict, to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.data.prefetch import VARIABLE, Prefetch
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.stream import TaskStream
from procpre_interp.data.walk import walk
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, load_task
from procpre_interp.stats.summary import summarise_conditions
from procpre_interp.store.about import About
from procpre_interp.store.outcomes import scores
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted, TrainConfig, Trainer
from tests.results import reproduce_table

LENGTH = 16


def steps(first: int, n: int, size: int, seed: int = 0) -> list[int]:
    return walk(np.arange(first, first + n), size, seed=seed, label="test").tolist()


@settings(deadline=None)
@given(size=st.integers(1, 300) | st.sampled_from([2**10 - 1, 2**10, 2**10 + 1, 4099]), seed=st.integers(0, 2**62))
def test_every_epoch_comes_to_every_place_once(size, seed):
    places = np.array(steps(0, 3 * size, size, seed)).reshape(3, size)
    assert (np.sort(places) == np.arange(size)).all()


@given(size=st.integers(1, 99), first=st.integers(0, 10**12), n=st.integers(0, 99), cut=st.integers(0, 99))
def test_any_part_of_the_walk_may_be_asked_for(size, first, n, cut):
    cut = min(cut, n)
    assert steps(first, cut, size) + steps(first + cut, n - cut, size) == steps(first, n, size)


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(steps(epoch * 50, 50, 50, seed)) for epoch in range(20) for seed in range(20)}
    assert len(orders) == 400


def test_a_large_set_takes_no_memory_of_its_size():
    places = steps(10**14, 1000, 10**13)
    assert len(set(places)) == 1000
    assert 0.45 < np.mean(places) / 10**13 < 0.55


def test_orders_are_those_of_a_uniform_draw():
    """All 120 orders of 5 places alike; of 200 places, where each stands and who follows whom."""
    n = 24_000
    orders = Counter(map(tuple, np.array(steps(0, 5 * n, 5)).reshape(n, 5)))
    assert len(orders) == math.factorial(5)
    assert chisquare(list(orders.values())).pvalue > 1e-3
    places = np.array(steps(0, 200 * 2000, 200)).reshape(2000, 200)
    for position in (0, 1, 99, 199):
        assert chisquare(np.bincount(places[:, position], minlength=200)).pvalue > 1e-3
    distances = (np.diff(places) % 200).ravel()
    assert chisquare(np.bincount(distances, minlength=200)[1:]).pvalue > 1e-3


# Text


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"Document {i} has its number in it: {i}."}) + "\n" for i in range(200))
    )
    return f"files:{path}"


@pytest.fixture
def task(corpus) -> Text:
    found = TASKS.build("text", corpus=corpus, length=LENGTH).resolve()
    assert isinstance(found, Text)
    return found


def train_tokens(task: Text) -> np.ndarray:
    return task._open().tokens("train")


def rows(source: Task, first: int, n: int, size: int = 8) -> list[tuple[int, ...]]:
    """The sequences of training batches `first` to `first + n`."""
    batches = TaskStream(source, seed=3, split="train", size=size)
    return [tuple(row) for index in range(first, first + n) for row in batches.batch(index).tokens.tolist()]


def test_an_epoch_has_every_window_once(task):
    tokens = train_tokens(task)
    n = len(tokens) // LENGTH
    windows = Counter(map(tuple, tokens[: n * LENGTH].reshape(n, LENGTH).tolist()))
    drawn = rows(task, 0, 3 * n, size=1)
    epochs = [drawn[i * n : (i + 1) * n] for i in range(3)]
    assert all(Counter(epoch) == windows for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("block_tokens", [1, 5 * 8 * LENGTH, 2**20])
def test_batches_do_not_depend_on_blocks_nor_on_where_a_run_begins(task, block_tokens, monkeypatch):
    whole = rows(task, 0, 80)
    monkeypatch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", block_tokens)
    assert rows(task, 0, 80) == whole
    assert rows(task, 37, 3) == whole[37 * 8 : 40 * 8]
    assert rows(task, 0, 20, size=32) == whole
    monkeypatch.setenv(VARIABLE, "1")
    batches = TaskStream(task, seed=3, split="train", size=8)
    with Prefetch(threads=1, end=80) as prefetch:
        ahead = [tuple(row) for i in range(80) for row in prefetch.batch(batches, i).tokens.tolist()]
    assert ahead == whole


def test_validation_and_single_batches_stay_uniform(task):
    uniform = dataclasses.replace(task, order=None)
    assert not uniform.walks
    for split in ("validation", "test"):
        one, other = (TaskStream(each, seed=0, split=split, size=50).batch(0) for each in (task, uniform))
        assert one.tokens.equal(other.tokens)
    assert task.batch(9, generator=stream(0)).tokens.equal(uniform.batch(9, generator=stream(0)).tokens)
    assert rows(task, 0, 5) != rows(uniform, 0, 5)


def test_a_resumed_run_trains_on_the_same_batches(task, tmp_path):
    config = TrainConfig(steps=40, batch_size=8, warmup_steps=2, evaluate_every=20, evaluate_examples=16)

    def trainer(path: Path, stop_at: int = 0) -> Trainer:
        shape = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
        made = Trainer(HookedTransformer.from_seed(shape, 0), task, config, seed=3, state_path=path)
        made.should_stop = lambda: made.state.step == stop_at
        return made

    whole = trainer(tmp_path / "whole")
    whole.run()
    with pytest.raises(Interrupted):
        trainer(tmp_path / "cut", stop_at=17).run()
    resumed = trainer(tmp_path / "cut")
    assert resumed.state.step == 17
    resumed.run()
    assert torch.equal(resumed.model.flat, whole.model.flat)


# Identity

STORED = {
    "name": "text",
    "version": 1,
    "corpus": "docstrings",
    "length": 128,
    "corpus_hash": "0123456789abcdef",
    "tokenizer_hash": "46b1f52b27edb557",
}
"""A config of a run from before there was an order."""


def test_a_stored_run_without_an_order_is_uniform_and_keeps_its_id():
    stored = from_dict(Task, STORED)
    assert not stored.walks
    assert to_dict(stored) == STORED
    assert content_hash(stored) == "4675263e433cd0fd"


def test_a_new_run_walks_and_says_so(corpus, task):
    assert task.walks
    assert to_dict(task)["order"] == "single_pass"
    assert task == task.resolve() == from_dict(Task, to_dict(task))
    assert TASKS.build("text", corpus=corpus, length=LENGTH).walks, "before it is resolved, too"
    uniform = TASKS.build("text", corpus=corpus, length=LENGTH, order="uniform").resolve()
    assert "order" not in to_dict(uniform)
    assert uniform == uniform.resolve() == dataclasses.replace(task, order=None)
    assert not uniform.walks
    with pytest.raises(ValueError, match="order"):
        TASKS.build("text", order="backwards")


def test_the_shuffled_control_sees_the_same_windows(task):
    shuffled = TASKS.build("shuffled", task=task)
    assert shuffled.walks
    pairs = list(zip(rows(task, 0, 40), rows(shuffled, 0, 40)))
    assert all(sorted(one) == sorted(other) for one, other in pairs)
    assert any(one != other for one, other in pairs)


def test_a_mixture_draws_its_text(corpus):
    text = {"name": "text", "corpus": corpus, "length": LENGTH}
    mixture = TASKS.build("mixture", tasks=[{"name": "set"}, text]).resolve()
    assert not mixture.walks
    assert [to_dict(each).get("order") for each in mixture.tasks] == [None, None]
    with pytest.raises(ValueError, match="order=single_pass within a mixture"):
        TASKS.build("mixture", tasks=[{"name": "shuffled", "task": text | {"order": "single_pass"}}]).resolve()


# Epochs


def test_epochs_by_hand(task):
    n = len(train_tokens(task))
    assert task.epochs(3 * n) == 3
    assert TASKS.build("shuffled", task=task).epochs(n) == 1
    assert TASKS.build("dyck").epochs(10**9) is None
    assert TASKS.build("mixture", tasks=[TASKS.build("dyck")]).epochs(10**9) is None
    # Of 3 sequences of 1 + 16 tokens, 2 are of text, 32 tokens of it.
    halves = TASKS.build("mixture", tasks=[task, TASKS.build("reverse", length=8)], weights=[2, 1])
    assert halves.n_ctx == LENGTH + 1 + (halves.tasks[1].n_ctx > LENGTH)
    sequence = 2 * (1 + LENGTH) + 1 + halves.tasks[1].n_ctx
    assert halves.epochs(sequence * n) == pytest.approx(2 * LENGTH)


def test_epochs_are_a_column_where_there_is_text():
    table = reproduce_table()
    assert "Epochs of text" not in conditions_table(summarise_conditions(table), About())
    shown = conditions_table(summarise_conditions(table.assign(epochs=[0.25, 2, 0.75, 2, 0.5, 2])), About())
    assert shown["Epochs of text"].tolist() == ["0.5", "2"]


def test_the_epochs_of_a_run_are_in_its_summary_and_in_tables(task, tmp_path, capsys):
    train = TrainConfig(steps=7, batch_size=4, evaluate_every=7, evaluate_examples=8, kernel="torch", threads=1)
    config = RunConfig(task=task, model=Architecture(n_layers=1, n_heads=2, d_model=8), train=train)
    run = execute(config, RunStore(tmp_path / "store"))
    epochs = 7 * 4 * LENGTH / len(train_tokens(task))
    assert run.summary["epochs"] == pytest.approx(epochs)
    assert load_task(run) == task
    assert scores(run, [])["epochs"] == run.summary["epochs"]
    assert main(["runs", "--store", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out
    assert "epochs" in shown
    assert f"{epochs:.2g}" in shown
