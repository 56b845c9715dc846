"""Whether a sweep of very many short runs keeps memory, open files and temporary files flat.

    python experiments/bench_long_sweep.py [--runs 1000] [--every 50] [--workers 2] [--minutes 120] [--record]

Runs of two steps: in each replicate a phase 1, a transfer of its attention, and no pretraining. They draw their data in
small blocks, since two steps need 128 tokens of the million that a run draws at once, for longer than all else takes.
After every `--every` runs a row is printed with what the driver and its workers hold: memory (resident; the least that
was seen since the row before, since what a run takes comes and goes), open file descriptors, threads, temporary files,
and what is left of unfinished runs; of the workers the one that has most. `--record` writes rows of the whole time into
BENCHMARKS.md.
"""

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from procpre_interp.core.terminal import time_limit
from procpre_interp.data import TASKS, stream
from procpre_interp.engine.engines import Processes
from procpre_interp.engine.events import Event
from procpre_interp.pipeline import execute
from procpre_interp.pipeline.config import Architecture
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep
from procpre_interp.sweep.plan import Plan, run_sweep
from procpre_interp.train import TrainConfig
from procpre_interp.views.benchmarks import record as record_table

RUNS_OF_A_REPLICATE = 3
RECORDED_ROWS = 8

if __name__ in ("__main__", "__mp_main__"):  # in this process, and in its workers
    stream.BLOCK_TOKENS, execute.TEST_EXAMPLES = 2**12, 100


def main(
    runs: int = 1000, every: int = 50, workers: int = 2, minutes: float | None = None, record: bool = False
) -> None:
    """Run the sweep, at most for the minutes given, and print a row after every so many runs."""
    with tempfile.TemporaryDirectory() as folder:
        table = measure(Path(folder), runs, every, workers, minutes, say=lambda row: print(row, flush=True))
    print(table.to_string(index=False))
    if table.empty:
        raise ValueError(f"fewer than {every} runs were finished; give more time, or a smaller --every")
    if record:
        shown = np.unique(np.linspace(0, len(table) - 1, RECORDED_ROWS).round().astype(int))
        record_table(__file__, table.iloc[shown].astype(str))


def measure(
    folder: Path,
    runs: int,
    every: int,
    workers: int,
    minutes: float | None = None,
    say: Callable[[dict[str, float]], None] = lambda row: None,
) -> pd.DataFrame:
    """The rows: what the driver and its workers held after every so many runs."""
    train = TrainConfig(steps=2, batch_size=8, warmup_steps=1, evaluate_every=1, evaluate_examples=8)
    dyck, model = TASKS.build("dyck", k=2, length=8), Architecture(n_layers=1, n_heads=2, d_model=16)
    sweep = Sweep(
        name="long",
        phase1=(Pretraining(name="dyck", task=dyck, model=model, train=train),),
        task=TASKS.build("dyck", k=3, length=8),
        model=model,
        train=train,
        conditions=(Condition(name="attn", sources=(Source(phase1="dyck", selector="attn"),)),),
        replicates=-(-runs // RUNS_OF_A_REPLICATE),
    )
    store, temporary = RunStore(folder / "runs"), folder / "temporary"
    rows: list[dict[str, float]] = []
    seen: dict[int, list[dict[str, float]]] = {}
    temporary.mkdir()
    started, done = time.monotonic(), 0

    @contextmanager
    def show(_: Plan) -> Iterator[Callable[[Event], None]]:
        def note(event: Event) -> None:
            nonlocal done
            for pid in pids():
                with suppress(OSError):  # a worker that has just ended
                    seen.setdefault(pid, []).append(of_process(pid))
            done += event.kind == "finished"
            if event.kind == "finished" and done % every == 0:
                files = {"temporary files": sum(1 for _ in temporary.rglob("*"))}
                files["unfinished"] = sum(1 for _ in (store.path / "partial").iterdir())
                rows.append({"runs": done, "seconds": round(time.monotonic() - started), **held(seen), **files})
                say(rows[-1])
                seen.clear()

        yield note

    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"], tempfile.tempdir = str(temporary), None  # for the workers, and for this process
    try:
        _, problems = run_sweep(sweep, store, engine=Processes(workers), show=show, may_start=time_limit(minutes))
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        tempfile.tempdir = None
    if problems:
        raise RuntimeError(f"{len(problems)} runs failed, such as: {next(iter(problems.values()))}")
    return pd.DataFrame(rows)


def pids() -> list[int]:
    """This process and its workers."""
    return [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid is not None)]


def held(seen: Mapping[int, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """The least that each process was seen to hold: that of this one, and of its workers the largest."""
    found: dict[str, float] = {}
    for who in ("driver", "worker"):
        own = [each for pid, each in seen.items() if (pid == os.getpid()) == (who == "driver")]
        for name in ("MB", "files", "threads"):
            found[f"{who}: {name}"] = max((min(one[name] for one in each) for each in own if each), default=0)
    return found


def of_process(pid: int) -> dict[str, float]:
    """Resident memory in MB, open file descriptors, and threads."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    return {
        "MB": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(fields["Threads"]),
    }


if __name__ == "__main__":
    tyro.cli(main)
