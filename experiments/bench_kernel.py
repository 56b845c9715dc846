"""Where the native kernel's time goes: shares of a step's forward and backward on one thread, by what is done.

    python experiments/bench_kernel.py [--repeats 20] [--record]

The kernel is compiled once more with -DPROFILE (see `sections.h`), which reads the clock at the beginning of each kind
of work: `products` are those with weights and the gradients of weights, GELU included; `attention` is softmax(q K^T) V
and its gradient; `layout` transposes, gathers and sums over tokens; `loss` is the softmax over the vocabulary;
`packing` brings weights into the products' layout, once a step, and their gradient back. Beside them stands the rate
of the work that cannot be left out, and that of multiply-adds in registers alone, measured in between: no product can
be faster.
"""

import ctypes
import tempfile
import time
from pathlib import Path

import pandas as pd
import tyro
from bench_training import peak_gflops
from training_work import Key, settings, useful_flops

from procpre_interp.model import HookedTransformer
from procpre_interp.train.native import NativeStep
from procpre_interp.train.native.build import compile_kernel
from procpre_interp.train.native.step import kernel_shape
from procpre_interp.train.process import run_threads
from procpre_interp.views.benchmarks import record as record_table

SECTIONS = ("products", "attention", "LayerNorm", "layout", "loss", "embedding", "packing")
"""Those of `sections.h`, in its order."""


def profile(key: Key, repeats: int) -> dict[str, str]:
    """One setting's row."""
    setting = settings()[key]
    with tempfile.TemporaryDirectory() as folder, run_threads(1):
        library = Path(folder) / "profiled.so"
        compile_kernel(kernel_shape(setting.model), library, flags=["-DPROFILE"])
        kernel = NativeStep(HookedTransformer.from_seed(setting.model, 0), threads=1, library=library)
        kernel.backward(setting.batch)
        before, seconds, peaks = section_seconds(kernel), [], []
        for _ in range(repeats):
            started = time.perf_counter()
            kernel.backward(setting.batch)
            seconds.append(time.perf_counter() - started)
            peaks.append(peak_gflops(kernel))
        spent = [after - start for after, start in zip(section_seconds(kernel), before)]
    rate = useful_flops(setting.model, setting.batch) / min(seconds) / 1e9
    shares = {f"{name}, %": f"{100 * part / sum(spent):.0f}" for name, part in zip(SECTIONS, spent)}
    return {"Setting": setting.title, **shares, "GFLOP/s": f"{rate:.0f}", "in registers": f"{max(peaks):.0f}"}


def section_seconds(kernel: NativeStep) -> list[float]:
    """Seconds of each section so far."""
    seconds = (ctypes.c_double * len(SECTIONS))()
    kernel.library.kernel_sections(seconds)
    return list(seconds)


def main(repeats: int = 20, record: bool = False) -> None:
    """Print one row per setting that the native kernel does."""
    rows = [profile(key, repeats) for key, setting in settings().items() if "native" in setting.variants]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    if record:
        record_table(__file__, table)


if __name__ == "__main__":
    tyro.cli(main)
