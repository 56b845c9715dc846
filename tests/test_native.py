"""The native kernel against autograd, at every vector width that this machine can run, and under sanitizers."""

import copy
import ctypes
import math
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train.evaluate import evaluate
from procpre_interp.train.loss import backward
from procpre_interp.train.native import KernelUnavailable, NativeStep, why_not
from procpre_interp.train.native import build as native_build
from procpre_interp.train.native.build import KernelShape, Level, compile_kernel
from procpre_interp.train.native.step import _offsets
from tests.models import random_model

pytestmark = pytest.mark.usefixtures("a_compiler")

SHAPES = [
    (16, 1, 64),
    (16, 4, 64),
    (16, 16, 64),
    (16, 4, 48),
    (32, 1, 128),
    (32, 8, 128),
    (32, 32, 128),
    (64, 4, 256),
    (64, 2, 80),
    (128, 8, 512),
    (256, 4, 1024),
    (256, 16, 48),
]
"""d_model, n_heads, d_mlp: each is compiled, so these few stand for all heads that divide d_model."""
FEW_SHAPES = [(16, 4, 64), (16, 16, 64), (32, 1, 128), (64, 2, 80)]
"""Heads of one, four and 32 dimensions, a last vector of hidden ones that is not full, and inputs beyond one depth."""

FASTEST = pytest.param("avx512", marks=pytest.mark.slow)
"""What the level "native", with which all other tests compile, is on processors that have it."""

TOLERANCE = 1e-5
"""Largest difference from autograd, relative to the largest gradient."""
ROUNDING = 1e-6
"""What float32 may lose beside that, relative to the parts of a gradient, where these cancel one another: each row's is
rounded before they are added."""
CANCELLING = {
    "n_layers": 3,
    "n_ctx": 1,
    "d_vocab": 2,
    "tied": True,
    "rows": 3,
    "width": 1,
    "density": 1.0,
    "threads": 1,
    "std": 0.3,
    "seed": 1,
}
"""Three rows whose parts of the gradient, .4, .4 and .8, leave .02; `TOLERANCE` of that is a rounding of the parts."""


CASE = {
    "n_layers": 2,
    "n_ctx": 40,
    "d_vocab": 50,
    "tied": False,
    "rows": 9,
    "width": 37,
    "density": 0.4,
    "std": 0.3,
    "seed": 1,
}


@st.composite
def cases(draw: st.DrawFn) -> dict:
    """What one run of the kernel depends on, apart from the shape that it is compiled for."""
    n_ctx = draw(st.integers(1, 70))
    return {
        "n_layers": draw(st.integers(1, 3)),
        "n_ctx": n_ctx,
        "d_vocab": draw(st.integers(1, 80)),
        "tied": draw(st.booleans()),
        "rows": draw(st.integers(1, 7)),
        "width": draw(st.integers(1, n_ctx)),
        "density": draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0])),
        "threads": draw(st.integers(1, 3)),
        "std": draw(st.sampled_from([0.02, 0.3])),
        "seed": draw(st.integers(0, 10**6)),
    }


def make(case: dict, d_model: int, n_heads: int, d_mlp: int) -> tuple[HookedTransformer, Batch]:
    """A model and a batch, each token scored with probability `density`, the last one too."""
    config = ModelConfig(
        n_layers=case["n_layers"],
        n_heads=n_heads,
        d_model=d_model,
        d_mlp=d_mlp,
        n_ctx=case["n_ctx"],
        d_vocab=case["d_vocab"],
        tied=case["tied"],
    )
    generator = stream(case["seed"], "native case")
    shape = case["rows"], case["width"]
    tokens = torch.randint(0, case["d_vocab"], shape, generator=generator)
    targets = torch.randint(0, case["d_vocab"], shape, generator=generator)
    mask = torch.rand(shape, generator=generator) < case["density"]
    batch = Batch(tokens, targets, mask, torch.full((case["rows"],), case["width"]))
    # The wider the model, the more its sums grow: at the same std, float32 itself would lose digits.
    std = case["std"] * math.sqrt(16 / d_model)
    return random_model(config, seed=case["seed"], std=std), batch


def exact(model: HookedTransformer, batch: Batch) -> tuple[float, torch.Tensor]:
    """Loss and gradient by autograd, in double precision."""
    precise = copy.deepcopy(model).double()
    precise.zero_grad()
    loss = backward(precise, batch, max_tokens=4096)
    return loss.item(), precise.flat_grad


def check(loss: float, grad: torch.Tensor, model: HookedTransformer, batch: Batch) -> None:
    exact_loss, exact_grad = exact(model, batch)
    assert loss == pytest.approx(exact_loss, rel=1e-5, abs=1e-6)
    error, allowed = (grad.double() - exact_grad).abs().max(), TOLERANCE * exact_grad.abs().max()
    assert error <= allowed or error <= allowed + ROUNDING * sum_of_parts(model, batch)


def sum_of_parts(model: HookedTransformer, batch: Batch) -> torch.Tensor:
    """The largest sum over rows of the size of what each gives to a gradient, in double precision."""
    total = torch.zeros_like(model.flat, dtype=torch.float64)
    for row in range(len(batch)):
        part = batch[row : row + 1]
        if scored := part.loss_mask.sum():
            total += exact(model, part)[1].abs() * (scored / batch.loss_mask.sum())
    return total.max()


def runnable(level: Level) -> bool:
    """Whether this machine's processor has what the level is compiled for."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return level == "plain"
    return {"avx512": "avx512vl" in flags, "avx2": "avx2" in flags, "plain": True, "native": True}[level]


def require(level: Level) -> None:
    if not runnable(level):
        pytest.skip(f"this processor has no {level}")


@pytest.mark.parametrize(
    ("d_model", "n_heads", "d_mlp"),
    [pytest.param(*shape, marks=[] if shape in FEW_SHAPES else pytest.mark.slow) for shape in SHAPES],
)
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_gradients_equal_autograd(d_model, n_heads, d_mlp, case):
    model, batch = make(case, d_model, n_heads, d_mlp)
    kernel = NativeStep(model, threads=case["threads"])
    check(kernel.backward(batch), model.flat_grad, model, batch)


@given(case=cases())
@settings(max_examples=60, deadline=None)
def test_scores_equal_those_of_torch(case):
    model, batch = make(case, 16, 4, 64)
    loss, correct = NativeStep(model, threads=case["threads"]).score(batch)
    plain = evaluate(copy.deepcopy(model).double(), batch).set_index("example")
    scored = batch.loss_mask.any(1)
    assert not loss[~scored].any()
    assert not correct[~scored].any()
    assert scored.nonzero().flatten().tolist() == plain.index.tolist()
    assert loss[scored].tolist() == pytest.approx((plain.loss_nats * plain.n_scored).tolist(), rel=1e-4, abs=1e-5)
    assert correct[scored].tolist() == plain.n_correct.tolist()


def test_scores_of_other_parameters_leave_the_model_alone():
    model, batch = make(CASE, 16, 4, 64)
    other, _ = make({**CASE, "seed": 2}, 16, 4, 64)
    kernel, before = NativeStep(model, threads=1), model.flat.clone()
    loss, correct = kernel.score(batch, other.flat)
    expected = NativeStep(other, threads=1).score(batch)
    assert torch.equal(loss, expected[0])
    assert torch.equal(correct, expected[1])
    assert torch.equal(model.flat, before)
    for wrong in (model.flat[:-1], model.flat.double()):
        with pytest.raises(ValueError, match="in float32"):
            kernel.score(batch, wrong)


@pytest.mark.parametrize("level", [FASTEST, "avx2", "plain"])
@given(case=cases())
@example(case=CANCELLING)
@settings(max_examples=40, deadline=None)
def test_every_vector_width_equals_autograd(level, case):
    require(level)
    model, batch = make(case, 16, 4, 64)
    check(NativeStep(model, threads=1, level=level).backward(batch), model.flat_grad, model, batch)


@pytest.mark.parametrize("level", [FASTEST, "avx2", pytest.param("plain", marks=pytest.mark.slow)])
def test_every_vector_width_with_heads_wider_than_a_vector(level):
    require(level)
    case = {"n_layers": 2, "n_ctx": 33, "d_vocab": 40, "tied": False, "rows": 5, "width": 33, "density": 0.5}
    model, batch = make({**case, "std": 0.3, "seed": 0}, 32, 1, 128)
    check(NativeStep(model, threads=1, level=level).backward(batch), model.flat_grad, model, batch)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_number_of_threads_gives_the_same_bits(threads):
    model, batch = make(CASE, 16, 4, 64)
    kernel = NativeStep(model, threads=threads)
    results = []
    for step in (kernel, kernel, NativeStep(model, threads=threads)):
        model.zero_grad()
        results.append((step.backward(batch), model.flat_grad.clone()))
    for loss, grad in results[1:]:
        assert loss == results[0][0]
        assert torch.equal(grad, results[0][1])


def test_gradients_are_added():
    model, batch = make(CASE, 16, 4, 64)
    kernel = NativeStep(model, threads=1)
    kernel.backward(batch)
    once = model.flat_grad.clone()
    kernel.backward(batch)
    torch.testing.assert_close(model.flat_grad, 2 * once)


def test_long_sequences():
    case = {**CASE, "n_ctx": 300, "width": 300, "rows": 2}
    model, batch = make(case, 16, 4, 64)
    check(NativeStep(model, threads=1).backward(batch), model.flat_grad, model, batch)


def test_every_token_of_text_scored():
    """More words than go into one pass of a product, and more tokens than have their logits at a time."""
    case = {**CASE, "n_ctx": 150, "width": 150, "d_vocab": 700, "density": 1.0, "rows": 4}
    model, batch = make(case, 16, 4, 64)
    check(NativeStep(model, threads=2).backward(batch), model.flat_grad, model, batch)


def test_where_float32_is_ill_conditioned_it_is_as_good_as_torch():
    """Weights of std 1 saturate softmax and GELU: float32 itself is off by up to 4e-4 then, in torch as here."""
    ours, torchs = [], []
    for seed in range(40):
        model, batch = make({**CASE, "std": 1.0, "seed": seed}, 16, 4, 64)
        _, expected = exact(model, batch)
        for errors, step in ((ours, NativeStep(model, threads=1).backward), (torchs, torch_backward(model))):
            model.zero_grad()
            step(batch)
            errors.append(float((model.flat_grad.double() - expected).abs().max() / expected.abs().max()))
    assert np.median(ours) < 2 * np.median(torchs)
    assert max(ours) < 4 * max(torchs)


def torch_backward(model: HookedTransformer) -> Callable[[Batch], torch.Tensor]:
    return lambda batch: backward(model, batch, max_tokens=4096)


def test_confident_models_keep_their_precision():
    """Scores and logits in the hundreds: softmax must not overflow, and far keys have weight zero."""
    model, batch = make({**CASE, "std": 5.0}, 16, 4, 64)
    loss = NativeStep(model, threads=1).backward(batch)
    exact_loss, _ = exact(model, batch)
    assert loss == pytest.approx(exact_loss, rel=1e-4)
    assert torch.isfinite(model.flat_grad).all()


@pytest.mark.parametrize("name", ["embed.W_E", "blocks.0.attn.W_V", "blocks.1.mlp.b_out", "unembed.W_U"])
def test_nan_in_the_weights_reaches_the_loss(name):
    model, batch = make(CASE, 16, 4, 64)
    with torch.no_grad():
        dict(model.named_parameters())[name].fill_(torch.nan)
    assert np.isnan(NativeStep(model, threads=1).backward(batch))


def test_ids_out_of_range_are_refused():
    model, batch = make(CASE, 16, 4, 64)
    kernel = NativeStep(model, threads=1)
    for field in ("tokens", "targets"):
        for wrong in (-1, 50):
            bad = copy.deepcopy(batch)
            getattr(bad, field)[bad.loss_mask] = wrong
            with pytest.raises(ValueError, match=r"ids must be in 0\.\.49"):
                kernel.backward(bad)
    # A target that is not scored may be anything: -100, say.
    bad = copy.deepcopy(batch)
    bad.targets[~bad.loss_mask] = -100
    kernel.backward(bad)


def test_sequences_beyond_the_context_are_refused():
    model, batch = make(CASE, 16, 4, 64)
    wide = torch.cat([batch.tokens, batch.tokens], 1)
    mask = torch.ones_like(wide, dtype=torch.bool)
    with pytest.raises(ValueError, match="exceeds n_ctx=40"):
        NativeStep(model, threads=1).backward(Batch(wide, wide, mask, torch.full((9,), 74)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"d_model": 48, "n_heads": 4}, "d_model=48"), ({"d_mlp": 50}, "d_mlp=50")],
)
def test_shapes_that_it_does_not_do(change, reason):
    config = ModelConfig(**{"n_layers": 1, "n_heads": 4, "d_model": 16, "n_ctx": 8, "d_vocab": 9, **change})
    assert reason in (why_not(config) or "")
    with pytest.raises(KernelUnavailable, match=reason):
        NativeStep(random_model(config), threads=1)


def test_only_float32():
    model, _ = make(CASE, 16, 4, 64)
    with pytest.raises(KernelUnavailable, match="float64"):
        NativeStep(model.double(), threads=1)


SIZES = [(40, 37, 50, 3), (1, 1, 1, 1), (33, 33, 16, 2), (70, 5, 33, 1), (17, 16, 300, 2)]
"""n_ctx, tokens of the batch, d_vocab and threads."""


@pytest.mark.parametrize(
    ("d_model", "n_heads", "d_mlp", "level", "sizes", "optimise"),
    [
        (16, 4, 64, "plain", SIZES[:2], "-O0"),  # which compiles in a third of the time
        pytest.param(16, 4, 64, "native", SIZES, "-O1", marks=pytest.mark.slow),
        pytest.param(32, 1, 128, "plain", SIZES, "-O1", marks=pytest.mark.slow),
    ],
)
def test_address_and_undefined_behaviour_sanitizers(tmp_path, d_model, n_heads, d_mlp, level, sizes, optimise):
    """The kernel's own inputs of the cases above, in a program that stops at the first read or write out of bounds."""
    shape = KernelShape(n_heads=n_heads, d_model=d_model, d_mlp=d_mlp, tokens=256)
    program = build_with_sanitizers(tmp_path, shape, level, optimise)
    for n_ctx, width, d_vocab, threads in sizes:
        for tied in (False, True):
            for density in (0.05, 1.0):
                case = {**CASE, "n_ctx": n_ctx, "width": width, "d_vocab": d_vocab, "tied": tied}
                model, batch = make({**case, "density": density}, d_model, n_heads, d_mlp)
                check(*run_program(program, tmp_path, model, batch, threads), model, batch)


def build_with_sanitizers(folder: Path, shape: KernelShape, level: Level, optimise: str) -> Path:
    driver = Path(__file__).with_name("native_driver.cpp")
    program = folder / f"driver{shape.d_model}"
    flags = ["-g", optimise, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    compiled = folder / f"kernel{shape.d_model}.so"
    compile_kernel(shape, compiled, level=level, flags=flags)
    command = [*native_build.compiler(), "-std=c++20", *flags, str(driver), str(compiled), "-o", str(program)]
    subprocess.run([*command, f"-Wl,-rpath,{folder}", "-pthread"], check=True, capture_output=True, text=True)
    return program


def run_program(
    program: Path, folder: Path, model: HookedTransformer, batch: Batch, threads: int
) -> tuple[float, torch.Tensor]:
    """Loss and gradient as the program computes them."""
    config, offsets = model.config, np.ctypeslib.as_array(_offsets(model)).astype("<i8")
    n_scored = max(1, int(batch.loss_mask.sum()))
    counts = [config.n_layers, config.n_ctx, config.d_vocab, int(config.tied), len(offsets), model.flat.numel()]
    with open(folder / "input", "wb") as file:
        file.write(struct.pack("<9q2f", *counts, threads, *batch.tokens.shape, config.ln_eps, 1 / n_scored))
        for array in (offsets, model.flat, batch.tokens, batch.targets, batch.loss_mask):
            file.write(np.ascontiguousarray(array.detach() if isinstance(array, torch.Tensor) else array).tobytes())
    subprocess.run([program, folder / "input", folder / "output"], check=True, capture_output=True, text=True)
    output = (folder / "output").read_bytes()
    return struct.unpack("<d", output[:8])[0], torch.from_numpy(np.frombuffer(output[8:], "<f4").copy())


def test_the_pointer_of_the_handle_keeps_all_its_bits():
    """ctypes cuts a pointer to 32 bits where its type is not declared."""
    model, _ = make(CASE, 16, 4, 64)
    kernel = NativeStep(model, threads=1)
    assert kernel.library.kernel_create.restype is ctypes.c_void_p
