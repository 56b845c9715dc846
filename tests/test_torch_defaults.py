"""What the caller does to torch's global defaults changes nothing that a run id stands for."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest
import torch

from procpre_interp import load_model
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig, torch_defaults
from procpre_interp.patch import prune_heads
from procpre_interp.pipeline import execute as pipeline
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.pipeline.lineage import starting_model
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig, evaluate
from procpre_interp.train.closed_form import PositionCode, SpectrumLaw, TensorScale

RECIPE = (
    TensorScale(selector="attn+ln", rms=(("blocks.0.attn.b_Q", 0.1), ("blocks.0.ln1.b", 0.2))),
    SpectrumLaw(law=(("blocks.0.mlp.W_in", 1.0, 0.7),)),
    PositionCode(rms=0.1),
)
TRAIN = TrainConfig(
    steps=30,
    batch_size=8,
    learning_rate=1e-2,
    warmup_steps=2,
    evaluate_every=15,
    evaluate_examples=16,
    interventions=RECIPE,
)
CONFIG = RunConfig(
    task=TASKS.build("haystack"),
    seed=5,
    model=Architecture(n_layers=2, n_heads=4, d_model=16),
    train=TRAIN,
)
SETTINGS = ("float64", "bfloat16", "float16", "meta", "matmul")


@contextmanager
def setting(name: str) -> Iterator[None]:
    """The caller's torch, with one default changed for good."""
    try:
        if name == "meta":
            torch.set_default_device("meta")
        elif name == "matmul":
            torch.set_float32_matmul_precision("medium")
        else:
            torch.set_default_dtype(getattr(torch, name))
        yield
    finally:
        torch.set_default_device(None)
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)


def run_of(kernel: str, folder) -> tuple[str, bytes, pd.DataFrame, pd.DataFrame]:
    """Id, stored weights with those that training began with, history and test of a run."""
    store = RunStore(folder)
    run = execute(dataclasses.replace(CONFIG, train=dataclasses.replace(TRAIN, kernel=kernel)), store)
    start = starting_model(run, store).flat.detach()
    assert start.dtype == load_model(run).flat.dtype == torch.float32
    history = run.history().drop(columns="seconds")
    return run.id, run.weights_path().read_bytes() + start.numpy().tobytes(), history, run.examples()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "TEST_EXAMPLES", 40)
        yield {kernel: run_of(kernel, tmp_path_factory.mktemp(kernel)) for kernel in ("torch", "native")}


@pytest.mark.parametrize(
    ("name", "kernel"), [*((name, "torch") for name in SETTINGS), ("float64", "native"), ("meta", "native")]
)
def test_a_run_is_the_same_under_any_default(name, kernel, usual, tmp_path):
    with setting(name):
        found = run_of(kernel, tmp_path)
    assert found[:2] == usual[kernel][:2]
    for mine, theirs in zip(found[2:], usual[kernel][2:]):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_fresh_model_and_what_is_measured_on_it_are_the_same_under_any_default(name):
    config = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=64, d_vocab=CONFIG.task.d_vocab)
    batch = CONFIG.task.batch(6, generator=stream(0, "any"))

    def measured() -> list[pd.DataFrame | torch.Tensor]:
        model = HookedTransformer(config, generator=stream(0, "model"))
        gates = {"generator": stream(0, "gates"), "sparsities": [0.1], "steps": 2, "batch_rows": 2}
        seeded = HookedTransformer.from_seed(config, 3).flat.detach()
        return [model.flat.detach(), seeded, evaluate(model, batch), prune_heads(model, batch, **gates)]

    expected = measured()
    with setting(name):
        found = measured()
    for mine, theirs in zip(found, expected):
        if isinstance(theirs, torch.Tensor):
            assert mine.dtype == torch.float32
            assert torch.equal(mine, theirs)
        else:
            pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_callers_defaults_are_put_back(name):
    with setting(name):
        before = torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision()
        with torch_defaults():
            assert torch.empty(1).dtype == torch.float32
            assert torch.empty(1).device.type == "cpu"
            assert torch.get_float32_matmul_precision() == "highest"
        assert before == (torch.get_default_dtype(), torch.get_default_device(), torch.get_float32_matmul_precision())
