"""What the caller does to torch's global defaults changes nothing that a run id stands for."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
from procpre_interp.store.store import Run, RunStore
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
SHORT = dataclasses.replace(TRAIN, steps=4, evaluate_every=2, evaluate_examples=4)
CONFIG = RunConfig(
    task=TASKS.build("haystack"),
    seed=5,
    model=Architecture(n_layers=2, n_heads=4, d_model=16),
    train=TRAIN,
)
SETTINGS = ("float64", "bfloat16", "float16", "meta", "matmul")
MODES = ("autocast", "no_grad", "inference", "threads")
KERNELS = ("torch", "native", "stacked")


@contextmanager
def setting(name: str) -> Iterator[None]:
    """The caller's torch, with one default changed for good, or a mode entered."""
    stack, threads = ExitStack(), torch.get_num_threads()
    try:
        if name == "all at once":
            for each in ("float64", "meta", "autocast", "no_grad", "threads"):
                stack.enter_context(setting(each))
        elif name == "nothing":
            pass
        elif name == "meta":
            torch.set_default_device("meta")
        elif name == "matmul":
            torch.set_float32_matmul_precision("medium")
        elif name == "threads":
            torch.set_num_threads(3)
        elif name in MODES:
            modes = {"autocast": lambda: torch.autocast("cpu", torch.bfloat16), "inference": torch.inference_mode}
            stack.enter_context(modes.get(name, torch.no_grad)())
        else:
            torch.set_default_dtype(getattr(torch, name))
        yield
    finally:
        stack.close()
        torch.set_num_threads(threads)
        torch.set_default_device(None)
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)


def run_of(kernel: str, folder, train: TrainConfig = TRAIN) -> tuple[str, bytes, pd.DataFrame, pd.DataFrame]:
    """What `outcome` says of a run that is computed here and now."""
    store = RunStore(folder)
    return outcome(execute(dataclasses.replace(CONFIG, train=dataclasses.replace(train, kernel=kernel)), store), store)


def outcome(run: Run, store: RunStore) -> tuple[str, bytes, pd.DataFrame, pd.DataFrame]:
    """Id, stored weights with those that training began with, history and test of a run."""
    start = starting_model(run, store).flat.detach()
    assert start.dtype == load_model(run).flat.dtype == torch.float32
    history = run.history().drop(columns="seconds")
    return run.id, run.weights_path().read_bytes() + start.numpy().tobytes(), history, run.examples()


def assert_same(found: tuple, expected: tuple) -> None:
    assert found[:2] == expected[:2]
    for mine, theirs in zip(found[2:], expected[2:]):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


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
    assert_same(found, usual[kernel])


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A few steps with every kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "TEST_EXAMPLES", 8)
        patch.setenv("OMP_SCHEDULE", "static")
        patch.setenv("SECRET", "not this")
        folders = {kernel: tmp_path_factory.mktemp(kernel) for kernel in KERNELS}
        yield {
            kernel: (run_of(kernel, folder, SHORT), RunStore(folder).open("latest"))
            for kernel, folder in folders.items()
        }


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "name", ["all at once", *(pytest.param(name, marks=pytest.mark.slow) for name in ("nothing", "float64", *MODES))]
)
def test_a_run_of_every_kernel_repeats_its_bits_whatever_the_caller_has_set(name, kernel, short, tmp_path):
    with setting(name):
        found = run_of(kernel, tmp_path, SHORT)
    assert_same(found, short[kernel][0])


ANOTHER_PROCESS = """
import sys
from procpre_interp.pipeline import execute as pipeline
from tests import small_draws
from tests.test_torch_defaults import KERNELS, SHORT, run_of

small_draws.set_draws(*small_draws.SMALL)
pipeline.TEST_EXAMPLES = 8
for kernel in reversed(KERNELS):
    run_of(kernel, f"{sys.argv[1]}/{kernel}", SHORT)
"""


def test_another_process_computes_the_same_bits_with_every_kernel(short, tmp_path):
    """One with another hash seed, other threads, and the kernels in another order."""
    environment = os.environ | {"PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "3"}
    folder = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path)], env=environment, cwd=folder, check=True)
    for kernel in KERNELS:
        store = RunStore(tmp_path / kernel)
        assert_same(outcome(store.open("latest"), store), short[kernel][0])


def test_whatever_the_caller_has_the_threads_are_the_runs(monkeypatch, tmp_path):
    """In the initialisation, in training, and in the final test."""
    seen: dict[str, int] = {}

    def noted(name, function):
        def note(*arguments, **options):
            seen[name] = torch.get_num_threads()
            return function(*arguments, **options)

        return note

    monkeypatch.setattr(pipeline, "TEST_EXAMPLES", 40)
    monkeypatch.setattr(pipeline, "transplant", noted("transplant", pipeline.transplant))
    monkeypatch.setattr(pipeline, "evaluate", noted("test", pipeline.evaluate))
    monkeypatch.setattr(SpectrumLaw, "initialise", noted("initialise", SpectrumLaw.initialise))
    monkeypatch.setattr("procpre_interp.train.loop.evaluate", noted("validation", evaluate))
    train = dataclasses.replace(TRAIN, threads=2, steps=2, warmup_steps=1, kernel="torch")
    with setting("threads"):
        execute(dataclasses.replace(CONFIG, train=train), RunStore(tmp_path))
        assert torch.get_num_threads() == 3
    assert seen == dict.fromkeys(("transplant", "test", "initialise", "validation"), 2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_environment_says_what_would_change_the_bits(kernel, short):
    environment = short[kernel][1].environment
    found = environment["numerics"]
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert found["variables"]["OMP_SCHEDULE"] == "static"
    assert "SECRET" not in found["variables"]
    assert not found["denormals_flushed"]
    assert ("native_library" in found) == (kernel == "native")
    assert environment["kernel"] == kernel
    assert {"cpu", "threads", "packages"} <= set(environment)


@pytest.mark.parametrize("name", [*SETTINGS, "autocast", "no_grad", "inference"])
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
