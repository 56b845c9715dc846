"""Data made ahead are those of the stream, bit for bit, and their thread goes with the run."""

import dataclasses
import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from procpre_interp.core.environment import usable_cores
from procpre_interp.data import TASKS
from procpre_interp.data.prefetch import VARIABLE, Prefetch, has_spare_core
from procpre_interp.data.stream import TaskStream
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train import Interrupted, TrainConfig, Trainer

TASK = TASKS.build("dyck", k=2, length=8)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three batches of 16 sequences of 8 per block, made ahead however many cores there are; nothing is left over."""
    monkeypatch.setenv(VARIABLE, "1")
    monkeypatch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 3 * 16 * 8)
    yield
    assert threads() == []


def train_stream(task=TASK) -> TaskStream:
    return TaskStream(task, seed=0, split="train", size=16)


def test_batches_are_those_of_the_stream():
    expected, stream = train_stream(), train_stream()
    assert stream.batches_per_block == 3
    with Prefetch(threads=1, end=30) as prefetch:
        assert threads() == ["prefetch_0"]
        for index in (0, 1, 2, 3, 4, 5, 6, 12, 13, 2, 29):  # in order, and leaps to and fro
            batch, plain = prefetch.batch(stream, index), expected.batch(index)
            assert torch.equal(batch.tokens, plain.tokens)
            assert torch.equal(batch.loss_mask, plain.loss_mask)
        # A new stream, as after a change of length: nothing of the old one is used.
        shorter = train_stream(TASK.at_length(4))
        assert torch.equal(prefetch.batch(shorter, 3).tokens, train_stream(TASK.at_length(4)).batch(3).tokens)
    assert torch.equal(prefetch.batch(stream, 7).tokens, expected.batch(7).tokens)  # afterwards it makes them itself


def drawn_by(stream: TaskStream, prefetch: Prefetch, batches: int) -> list[tuple[int, str]]:
    """Which block was drawn by which thread, for a run of so many batches."""
    drawn, draw = [], stream.draw
    stream.draw = lambda block: (drawn.append((block, threading.current_thread().name)), draw(block))[1]
    with prefetch:
        for index in range(batches):
            prefetch.batch(stream, index)
    return drawn


def test_only_what_the_run_needs_is_drawn_once():
    here = threading.current_thread().name
    assert drawn_by(train_stream(), Prefetch(threads=1, end=7), 7) == [(0, here), (1, "prefetch_0"), (2, "prefetch_0")]


def test_without_a_spare_core_nothing_is_drawn_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "0")
    here = threading.current_thread().name
    assert drawn_by(train_stream(), Prefetch(threads=1, end=7), 7) == [(0, here), (1, here), (2, here)]
    monkeypatch.delenv(VARIABLE)
    cores = usable_cores()
    assert [has_spare_core(n) for n in (cores - 1, cores, cores + 1)] == [True, False, False]


def test_its_thread_computes_with_one_thread_and_leaves_others_theirs():
    seen, stream, before = [], train_stream(), torch.get_num_threads()
    draw = stream.draw
    stream.draw = lambda block: (seen.append(torch.get_num_threads()), draw(block))[1]
    torch.set_num_threads(2)
    try:
        with Prefetch(threads=2, end=6) as prefetch:
            for index in range(6):
                prefetch.batch(stream, index)
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert seen == [2, 1, 2]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_error_is_raised_when_its_batch_is_read():
    stream = train_stream()
    draw = stream.draw

    def failing(block: int):
        if block == 1:
            raise RuntimeError("no more sequences")
        return draw(block)

    stream.draw = failing
    with Prefetch(threads=1, end=30) as prefetch:
        for index in range(3):
            prefetch.batch(stream, index)
        with pytest.raises(RuntimeError, match="no more sequences"):
            prefetch.batch(stream, 3)


CONFIG = TrainConfig(steps=24, batch_size=16, warmup_steps=2, evaluate_every=4, evaluate_examples=32, kernel="torch")


def trained(config: TrainConfig, **options) -> tuple[Trainer, torch.Tensor]:
    model = HookedTransformer.from_seed(
        ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab), 0
    )
    trainer = Trainer(model, TASK, config, seed=0, **options)
    trainer.run()
    return trainer, model.flat.detach().clone()


@pytest.mark.parametrize("curriculum", [False, True])
def test_a_run_is_the_same_to_the_bit(curriculum: bool, monkeypatch: pytest.MonkeyPatch):
    if curriculum:  # which grows at every evaluation
        monkeypatch.setattr("procpre_interp.train.loop.CURRICULUM_ACCURACY", 0.0)
        monkeypatch.setattr("procpre_interp.train.loop.CURRICULUM_STEP", 2)
    config = dataclasses.replace(CONFIG, curriculum=curriculum)
    ahead, weights = trained(config)
    monkeypatch.setenv(VARIABLE, "0")
    plain, expected = trained(config)
    assert torch.equal(weights, expected)
    assert ahead.state.tokens == plain.state.tokens
    lengths = {row["task_length"] for row in ahead.state.history}
    assert len(lengths) == (4 if curriculum else 1)


def test_an_interrupted_run_leaves_no_thread():
    with pytest.raises(Interrupted):
        trained(CONFIG, should_stop=lambda: True)
    assert threads() == []


def test_a_sweep_says_to_its_workers_whether_cores_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from procpre_interp.engine import processes
    from procpre_interp.engine.start import start

    chosen = []
    monkeypatch.setattr(processes, "work", lambda *arguments: chosen.append(os.environ[VARIABLE]))
    for workers in (usable_cores() - 1, usable_cores()):
        monkeypatch.delenv(VARIABLE, raising=False)
        start(multiprocessing.Pipe()[0], tmp_path, (), workers)
    assert chosen == ["1", "0"]
