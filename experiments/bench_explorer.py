"""How fast the explorer is: first page, page changes with a warm cache, and a list of 5,000 runs.

    python experiments/bench_explorer.py [--runs 5000] [--repeats 5] [--record]

Pages show the demo and run under streamlit's AppTest: the script alone, without drawing. First pages run in processes
of their own, imports included; the list is that of a made-up store. Prints a line per measurement: median and least
seconds. `--record` writes them into BENCHMARKS.md.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from procpre_interp.core import checksums
from procpre_interp.core.children import child_environment
from procpre_interp.core.environment import environment
from procpre_interp.core.terminal import beside_package
from procpre_interp.store.store import RunStore
from procpre_interp.views.benchmarks import record
from procpre_interp.views.exhibits.runs import listing

TASKS = ("haystack", "dyck", "addition", "sorting", "reversed_addition", "set", "stack", "identity")
SELECTORS = ("all", "attn", "attn+ln", "mlp+ln", "blocks.0", "all - pos")


def make_store(path: Path, runs: int = 5000) -> RunStore:
    """A store of made-up runs of 21 evaluations and three kept steps, one in five without parents; one in a hundred
    lost its history, and three are interrupted. Runs share files, so that they take no space."""
    shared = path / "shared"
    (shared / "weights").mkdir(parents=True)
    steps = np.arange(0, 2001, 100)
    accuracy = 0.1 + 0.8 / (1 + np.exp((1000 - steps) / 150))
    history = {"step": steps, "tokens": steps * 15_750, "split": "validation", "accuracy": accuracy}
    history |= {"exact_match": accuracy, "loss_nats": 3 - 2.5 * accuracy, "seconds": steps / 160}
    pd.DataFrame(history).to_parquet(shared / "history.parquet", index=False)
    (shared / "environment.json").write_text(json.dumps(environment(threads=1)))
    for step in (0, 1000, 2000):
        (shared / "weights" / f"step_{step:08d}.safetensors").write_bytes(bytes(36_000))
    names = [found.relative_to(shared).as_posix() for found in sorted(shared.rglob("*")) if found.is_file()]
    entries = {name: _entry(shared / name) for name in names}
    noise = np.random.Generator(np.random.PCG64(0))
    for index in range(runs):
        folder = path / "runs" / f"{index * 2654435761 % 2**64:016x}"
        (folder / "weights").mkdir(parents=True)
        for name in names:
            os.link(shared / name, folder / name)
        first = index % 5 == 0
        task, seed, selector = TASKS[index % len(TASKS)], 1000 + index % 40, SELECTORS[index % len(SELECTORS)]
        parent = f"{(index - index % 5) * 2654435761 % 2**64:016x}"
        parents = "" if first else f"parents:\n- run: {parent}\n  selector: {selector}\n"
        (folder / "config.yaml").write_text(f"task:\n  name: {task}\n  version: 1\nseed: {seed}\n{parents}")
        summary = {"run": folder.name, "status": "finished", "stop_reason": "step limit", "task": task, "seed": seed}
        summary |= {"parents": None if first else parent, "components": None if first else selector}
        summary |= {"n_layers": 2, "n_heads": 4, "d_model": 16, "n_parameters": 8224, "steps": 2000}
        summary |= {"loss_nats": float(noise.normal(1, 0.1)), "accuracy": float(noise.uniform()), "exact_match": 0.5}
        summary |= {"breakthrough_step": 1000, "breakthrough_limit": 2000, "prompt_overlap": 0.0, "tokens": 9_302_684}
        summary |= {"positions_carried": not first, "seconds": 8.9, "kernel": "native", "threads": 1, "device": "cpu"}
        summary |= {"created": f"2026-01-{1 + index % 28:02d}T10:{index % 60:02d}:{index // 60 % 60:02d}.000+00:00"}
        (folder / "summary.json").write_text(json.dumps(summary, indent=1))
        own = {name: _entry(folder / name) for name in ("config.yaml", "summary.json")}
        (folder / checksums.MANIFEST).write_text(json.dumps(checksums.sealed(entries | own), indent=1))
        if index % 100 == 99:
            (folder / "history.parquet").unlink()
    for index in range(3):
        folder = path / "partial" / f"interrupted{index}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("task:\n  name: haystack\n  version: 1\n")
    shutil.rmtree(shared)
    return RunStore(path)


def _entry(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": checksums.sha256(path)}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How fast is the explorer?"""

    runs: int = 5000
    """Runs in the list."""
    repeats: int = 5
    """Measurements of each."""
    record: bool = False
    """Write the table into BENCHMARKS.md."""


FIRST = """
import sys, time
started = time.perf_counter()
sys.path.insert(0, {app!r})
from streamlit.testing.v1 import AppTest
page = AppTest.from_file({main!r}, default_timeout=60)
assert not page.switch_page({page!r}).run().exception
print(time.perf_counter() - started)
"""


def first_page(page: str) -> float:
    """Seconds from the start of a process to a page on an empty store, less what the interpreter itself takes."""
    app = beside_package("app")
    code = FIRST.format(app=str(app), main=str(app / "main.py"), page=f"questions/{page}.py")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=child_environment(PROCPRE_STORE="/nonexistent"),
    )
    return float(done.stdout)


def report(name: str, measure: Callable[[], float], repeats: int) -> dict[str, str]:
    """One line, and a row of the page: median and least of some measurements, in seconds."""
    seconds = [measure() for _ in range(repeats)]
    print(f"{name:48} median {statistics.median(seconds):6.2f} s, least {min(seconds):6.2f} s")
    return {"What": name, "Median, s": f"{statistics.median(seconds):.2f}", "Least, s": f"{min(seconds):.2f}"}


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(bench: Bench) -> None:
    """Measure and print."""
    rows = []
    rows.append(
        report("first page, process and imports included", lambda: first_page("did_transfer_help"), bench.repeats)
    )
    rows.append(
        report("attention page first, torch included", lambda: first_page("where_does_attention_look"), bench.repeats)
    )
    os.environ["PROCPRE_STORE"], app = "/nonexistent", beside_package("app")
    sys.path.insert(0, str(app))
    from streamlit.testing.v1 import AppTest

    page = AppTest.from_file(str(app / "main.py"), default_timeout=60)
    for path in sorted((app / "questions").glob("*.py")):
        page.switch_page(f"questions/{path.name}").run()  # warm
        rows.append(report(f"to {path.stem}, warm cache", lambda: timed(page.run), bench.repeats))
    attention = AppTest.from_file(str(app / "main.py"), default_timeout=60)
    attention.switch_page("questions/where_does_attention_look.py").run()

    def look(example: int) -> float:
        attention.number_input(key="example").set_value(example)
        return timed(attention.run)

    numbers = iter(range(1, 100))
    rows.append(report("attention, another 63-token sequence", lambda: look(next(numbers)), bench.repeats))
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), bench.runs)
        rows.append(
            report(f"list of {bench.runs:,} runs", lambda: timed(lambda: listing(store.query(), {})), bench.repeats)
        )
        os.environ["PROCPRE_STORE"] = folder
        many = AppTest.from_file(str(app / "main.py"), default_timeout=60)
        rows.append(report(f"page of {bench.runs:,} runs", lambda: timed(many.switch_page("questions/runs.py").run), 1))
    if bench.record:
        record(__file__, pd.DataFrame(rows))


if __name__ == "__main__":
    main(tyro.cli(Bench, description=__doc__))
