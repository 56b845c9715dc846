"""One flipped bit anywhere in a store: damage is said, or what comes out is what came out before, bit for bit.

`python -m tests.test_bit_flips` prints how 200 flips end.
"""

import dataclasses
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from procpre_interp.core.atomic_files import cache_folder
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, token_file
from procpre_interp.pipeline import execute as pipeline
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.store.store import DamagedRun, Run, RunStore
from procpre_interp.train import Interrupted, TrainConfig

CONFIG = RunConfig(
    task=TASKS.build("dyck", k=2, length=8),
    model=Architecture(n_layers=1, n_heads=2, d_model=8),
    train=TrainConfig(
        steps=9, batch_size=4, evaluate_every=3, evaluate_examples=8, checkpoints=3, save_seconds=0.0, kernel="torch"
    ),
)
STOP = 5
"""Step at which the interrupted run was stopped."""

Outcome = tuple[object, ...]
Case = Callable[[Path], tuple[list[Path], Callable[[], Outcome]]]
"""Fills a folder; returns the files of which bits are flipped, and a function that reads what is in them."""


def outcome_of(run: Run) -> Outcome:
    """All that a run holds, but for times."""
    tables = [run.history(), run.examples()]
    summary = {name: value for name, value in run.summary.items() if name not in ("seconds", "created")}
    weights = [load_model(run, step).flat.detach().numpy().tobytes() for step in run.steps]
    return (
        run.config,
        summary,
        run.environment["packages"],
        run.steps,
        weights,
        [table.drop(columns="seconds", errors="ignore").to_csv() for table in tables],
    )


def finished(folder: Path) -> tuple[list[Path], Callable[[], Outcome]]:
    run = execute(CONFIG, RunStore(folder))
    found = [path for path in run.folder.rglob("*") if path.is_file()]
    return found, lambda: outcome_of(RunStore(folder).open(run.id, verify=False))


def listed(folder: Path) -> tuple[list[Path], Callable[[], Outcome]]:
    """The list of runs, which reads manifests and summaries alone."""
    run = execute(CONFIG, RunStore(folder))

    def outcome() -> Outcome:
        row = RunStore(folder).query().iloc[0].to_dict()
        if row["status"] == "damaged":
            raise DamagedRun(run.folder, row["problem"])
        return tuple(row.items())

    return [run.folder / "summary.json", run.folder / "manifest.json"], outcome


def interrupted(folder: Path) -> tuple[list[Path], Callable[[], Outcome]]:
    steps: list[int] = []
    with pytest.raises(Interrupted):
        execute(
            CONFIG,
            RunStore(folder / "whole"),
            on_step=lambda state, train: steps.append(state.step),
            should_stop=lambda: steps[-1] == STOP,
        )
    stopped = folder / "whole" / "partial" / CONFIG.run_id
    assert {path.name for path in stopped.glob("resume*")} == {"resume.safetensors", "resume.previous.safetensors"}

    def outcome() -> Outcome:
        """Of the run when it is gone on with; in a copy, as it must be interrupted again for the next flip."""
        shutil.copytree(folder / "whole", folder / "copy")
        try:
            return outcome_of(execute(CONFIG, RunStore(folder / "copy")))
        finally:
            shutil.rmtree(folder / "copy")

    return [path for path in stopped.rglob("*") if path.is_file()], outcome


def tokens(folder: Path) -> tuple[list[Path], Callable[[], Outcome]]:
    corpus = folder / "corpus.txt"
    corpus.write_text("<|endoftext|>".join(chr(0x4E00 + i) * 20 for i in range(200)))
    task = TASKS.build("text", corpus=f"files:{corpus}", tokenizer="bpe:300", length=16).resolve()

    def outcome() -> Outcome:
        token_file._sha256.cache_clear()  # as in a new process, which trusts no time of change
        batches = [task.split_batch(20, split, generator=stream(0, split)).tokens for split in ("train", "test")]
        return (
            [batch.numpy().tobytes() for batch in batches],
            task.extra_metrics(1.0, "validation"),
            [task.example(row) for row in batches[0].tolist()],
        )

    return [path for path in (cache_folder() / "tokens").rglob("*") if path.is_file()], outcome


def tables(folder: Path) -> tuple[list[Path], Callable[[], Outcome]]:
    store = RunStore(folder)
    values = np.linspace(0, 1, 50)
    frame = pd.DataFrame({"condition": "none", "replicate": range(50), "accuracy": values, "run": "", "limit": 2000})
    store.write_table("reproduce-1", frame, {"title": "Haystack", "threshold": 0.5, "cost": {"runs": 3}})

    def outcome() -> Outcome:
        table = store.read_table("reproduce-1")
        return table.frame.to_csv(), table.frame.dtypes.to_dict(), table.metadata

    return [folder / "tables" / "reproduce-1.parquet"], outcome


CASES: dict[str, tuple[Case, int, int]] = {
    "finished run": (finished, 15, 60),
    "list of runs": (listed, 12, 30),
    "interrupted run": (interrupted, 9, 40),
    "token file": (tokens, 12, 40),
    "table": (tables, 12, 30),
}
"""Name -> what it is, flips in the fast suite, and in the slow one."""


@contextmanager
def flipped(path: Path, bit: int) -> Iterator[None]:
    """The file with one bit flipped in place: its times stay, as they do when a disk fails."""
    content, times = path.read_bytes(), path.stat()
    wrong = bytearray(content)
    wrong[bit // 8] ^= 1 << bit % 8
    with path.open("r+b") as file:
        file.write(wrong)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    yield
    path.write_bytes(content)


class Notes(logging.Handler):
    """What was logged: that a token file is built again, that a run starts over."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def flip(case: Case, n: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """How `n` flips end, the files taken in turn: detected, healed, harmless or silent; where those were."""
    found, outcome = case(folder)
    expected = outcome()
    draw = np.random.Generator(np.random.PCG64(n))
    ends: Counter[str] = Counter()
    silent: list[str] = []
    notes = Notes()
    logging.getLogger("procpre_interp").addHandler(notes)
    for i in range(n):
        path = sorted(found)[i % len(found)]
        bit = int(draw.integers(8 * path.stat().st_size))
        notes.lines.clear()
        with flipped(path, bit):
            try:
                same = outcome() == expected
            except ValueError:  # DamagedRun, and what a table or a cache that is damaged raises
                end = "detected"
            else:
                end = "silent" if not same else "healed" if notes.lines else "harmless"
        ends[end] += 1
        if end == "silent":
            silent.append(f"{path.name}, bit {bit}")
    logging.getLogger("procpre_interp").removeHandler(notes)
    return ends, silent


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pipeline, "TEST_EXAMPLES", 32)


@pytest.mark.parametrize("name", CASES)
def test_no_flipped_bit_is_silent(tmp_path: Path, name: str):
    case, n, _ = CASES[name]
    ends, silent = flip(case, n, tmp_path)
    assert not silent
    assert ends["detected"] + ends["healed"] >= n / 3, ends


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_no_flipped_bit_of_two_hundred_is_silent(tmp_path: Path, name: str):
    case, _, n = CASES[name]
    ends, silent = flip(case, n, tmp_path)
    assert not silent
    assert ends["detected"] + ends["healed"] >= n / 3, ends


def test_an_interrupted_run_goes_on_from_its_last_whole_state_and_says_so(tmp_path: Path):
    found, _ = interrupted(tmp_path)
    by_name = {path.name: path for path in found}
    whole = outcome_of(execute(CONFIG, RunStore(tmp_path / "uninterrupted")))

    def go_on(*damaged: str) -> tuple[int, list[str]]:
        """The first step taken and what was said, when a bit of each file was flipped; the outcome is always one."""
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", copy)
        for name in damaged:
            path = copy / by_name[name].relative_to(tmp_path / "whole")
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
        steps: list[int] = []
        notes: list[str] = []
        run = execute(CONFIG, RunStore(copy), on_step=lambda state, _: steps.append(state.step), on_note=notes.append)
        assert outcome_of(run) == whole
        assert not list(run.folder.glob("resume*"))
        return steps[0], notes

    assert go_on() == (STOP + 1, [])
    first, (note,) = go_on("resume.safetensors")
    assert first == STOP
    assert note == (
        "the saved state cannot be used (resume.safetensors is not a training state, or is damaged: its content has "
        f"changed since it was written): the run goes on from step {STOP - 1}"
    )
    first, (note,) = go_on("resume.safetensors", "resume.previous.safetensors")
    assert first == 1
    assert note.endswith("the run starts over")
    first, (note,) = go_on("step_00000003.safetensors")
    assert first == 1
    assert "weights/step_00000003.safetensors has changed since it was written" in note


def test_kept_weights_that_change_before_the_run_ends_are_computed_again(tmp_path: Path):
    whole = outcome_of(execute(CONFIG, RunStore(tmp_path / "whole")))
    store, done, notes = RunStore(tmp_path / "store"), [], []

    def damage(state: object, _: object) -> None:
        path = store.path / "partial" / CONFIG.run_id / "weights" / "step_00000003.safetensors"
        if path.exists() and not done:
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
            done.append(True)

    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, save_seconds=600.0))
    assert config.run_id == CONFIG.run_id
    run = execute(config, store, on_step=damage, on_note=notes.append)
    assert done
    assert outcome_of(run)[1:] == whole[1:]  # its config has another save_seconds
    assert notes == [
        "weights/step_00000003.safetensors has changed since it was written: the run goes back to an earlier state"
    ]


def test_weights_of_a_sitting_that_was_killed_later_are_not_taken_for_the_final_ones(tmp_path: Path):
    """Where the sitting that goes on has other last bits, it may end before the step that the first one had kept."""
    found, _ = interrupted(tmp_path)
    (kept, *_) = (path for path in found if path.name.startswith("step_"))
    later = kept.with_name("step_00000900.safetensors")
    later.write_bytes(kept.read_bytes())
    run = execute(CONFIG, RunStore(tmp_path / "whole"))
    assert 900 not in run.steps
    assert run.steps[-1] == run.summary["steps"]


def test_a_state_of_a_version_without_checksums_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import safetensors.torch

    found, outcome = interrupted(tmp_path)
    expected = outcome()
    for path in found:
        if path.name.startswith("resume"):
            state, tensors = pipeline_state(path)
            path.write_bytes(safetensors.torch.save(tensors, {"state": state}))
    assert outcome() == expected


def pipeline_state(path: Path) -> tuple[str, dict]:
    """A state as the version before wrote it: without hashes of weights."""
    import json

    from procpre_interp.train.state import read_state

    state, tensors = read_state(path)
    fields = dataclasses.asdict(state)
    del fields["kept"]
    return json.dumps(fields), tensors


def main() -> None:
    print(f"{'':16} {'flips':>6} {'detected':>9} {'healed':>7} {'harmless':>9} {'silent':>7}")
    pipeline.TEST_EXAMPLES = 32
    total: Counter[str] = Counter()
    for name, (case, _, n) in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            os.environ["PROCPRE_CACHE"] = f"{folder}/cache"
            ends, silent = flip(case, n, Path(folder))
        total += ends
        print_row(name, ends)
        for place in silent:
            print(f"  silent: {place}")
    print_row("all", total)


def print_row(name: str, ends: Counter[str]) -> None:
    columns = ((9, "detected"), (7, "healed"), (9, "harmless"), (7, "silent"))
    print(f"{name:16} {ends.total():6} " + " ".join(f"{ends[end]:{width}}" for width, end in columns))


if __name__ == "__main__":
    sys.exit(main())
