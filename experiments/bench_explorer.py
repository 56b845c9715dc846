"""How fast the explorer is: cold start, page changes with a warm cache, and a list of 5,000 runs.

    python experiments/bench_explorer.py [--runs 5000] [--repeats 5] [--store PATH]

The list is read from a made-up store, the pages from the demo and, where `--store` names one, from that store. Times of
pages are those of the script alone (streamlit's AppTest) and, where playwright and chromium are installed, from a click on
the navigation to a page that no longer changes. Prints one row a measurement: median and minimum, in seconds.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from procpre_interp import files
from procpre_interp.environment import environment
from procpre_interp.runs import RunStore

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
        (folder / files.MANIFEST).write_text(json.dumps(entries | own, indent=1))
        if index % 100 == 99:
            (folder / "history.parquet").unlink()
    for index in range(3):
        folder = path / "partial" / f"interrupted{index}"
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text("task:\n  name: haystack\n  version: 1\n")
    shutil.rmtree(shared)
    return RunStore(path)


def _entry(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
