"""Compiled blocks: the same numbers, in training alone."""

import dataclasses
from pathlib import Path

import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions.rate import Rate
from procpre_interp.train.loss import backward
from tests.together import run_together

CONFIG = RunConfig(task=TASKS.build("haystack"))


def compare() -> int:
    """Exit code 0 where compiled blocks give the loss and the gradient of others, with and without checkpointing."""
    batch = CONFIG.task.batch(10, generator=stream(0, "compiled"))
    plain, compiled = (HookedTransformer.from_seed(model_config(CONFIG), 0) for _ in range(2))
    compiled.compile_blocks()
    for recompute in (False, True):
        losses = []
        for model in (plain, compiled):
            model.recompute = recompute
            model.zero_grad()
            losses.append(backward(model, batch, max_tokens=10_000).item())
        print(losses, (plain.flat_grad - compiled.flat_grad).abs().max())
        if abs(losses[0] - losses[1]) > 1e-5 or not torch.allclose(plain.flat_grad, compiled.flat_grad, atol=1e-5):
            return 1
    return 0


def trace() -> int:
    """Exit code 0 where a block can be traced with lengths left open, and computes the same; without code made of
    it."""
    model = HookedTransformer.from_seed(model_config(CONFIG), 0)
    block = model.block(0)
    traced = torch.compile(block.compute, backend="eager", dynamic=True)
    for length in (40, 41, 100, 12):
        resid = torch.randn(3, length, CONFIG.model.d_model, generator=stream(0, "trace", length))
        if not torch.allclose(traced(resid, None), block.compute(resid, None), atol=1e-5):
            return 1
    return 0


def test_a_block_can_be_traced_with_lengths_left_open(tmp_path: Path):
    ((code, said),) = run_together(trace, size=1, folder=tmp_path)
    assert code == 0, said


@pytest.mark.slow
@pytest.mark.usefixtures("a_compiler")
def test_compiled_blocks_compute_the_same(tmp_path: Path):
    """In a process without the checks of shapes, which cannot be compiled."""
    ((code, said),) = run_together(compare, size=1, folder=tmp_path)
    assert code == 0, said


def test_only_what_is_differentiated_is_compiled(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def compiled(function):
        return lambda *arguments: (calls.append(1), function(*arguments))[1]

    monkeypatch.setattr(torch, "compile", compiled)
    model, batch = HookedTransformer.from_seed(model_config(CONFIG), 0), CONFIG.task.batch(2, generator=stream(0, "x"))
    model.compile_blocks()
    with torch.no_grad():
        expected = model(batch.tokens)
    assert calls == []
    assert torch.equal(model(batch.tokens), expected)
    assert len(calls) == model.config.n_layers


def test_a_compiled_run_is_another_run_and_torchs():
    train, shape = TrainConfig(compile=True), model_config(CONFIG)
    assert train.resolve(shape).kernel == "torch"
    torchs = dataclasses.replace(CONFIG, train=TrainConfig(kernel="torch"))
    assert dataclasses.replace(CONFIG, train=train).run_id != torchs.run_id
    with pytest.raises(ValueError, match="kernel=native cannot be had: compile"):
        TrainConfig(compile=True, kernel="native").refuse(shape)
    for other in ({"kernel": "stacked"}, {"interventions": (Rate(selector="mlp"),)}):
        with pytest.raises(ValueError, match="which reaches into blocks; leave compile out"):
            TrainConfig(compile=True, **other).refuse(shape)


def test_without_a_compiler_there_is_no_compiling(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    with pytest.raises(ValueError, match="compile cannot be had: no C.. compiler: CXX=/nowhere/c.. is"):
        TrainConfig(compile=True, kernel="torch").refuse(model_config(CONFIG))
