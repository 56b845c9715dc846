"""The page of benchmarks: every script has its table there, and writes that one alone."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from procpre_interp.core.environment import environment
from procpre_interp.views.benchmarks import measured_on, record
from procpre_interp.views.markdown import markers

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"


def test_every_benchmark_has_its_table_on_the_page():
    scripts = sorted(path.name for path in EXPERIMENTS.glob("bench_*.py"))
    assert sorted(markers((EXPERIMENTS / "BENCHMARKS.md").read_text(encoding="utf-8"))) == scripts


def test_a_script_writes_its_own_table_and_nothing_else(tmp_path: Path):
    page = tmp_path / "BENCHMARKS.md"
    page.write_text(
        "Intro.\n<!-- table: bench_a.py -->\nold\n<!-- end -->\n"
        "Between.\n<!-- table: bench_b.py -->\nkept\n<!-- end -->\nEnd.\n"
    )
    record(str(tmp_path / "bench_a.py"), pd.DataFrame({"What": ["a | b"], "s": ["1.0"]}))
    assert page.read_text() == (
        f"Intro.\n<!-- table: bench_a.py -->\n{measured_on(environment())}\n\n"
        "| What | s |\n| --- | --- |\n| a \\| b | 1.0 |\n<!-- end -->\n"
        "Between.\n<!-- table: bench_b.py -->\nkept\n<!-- end -->\nEnd.\n"
    )
    with pytest.raises(ValueError, match=r"no <!-- table: bench_c.py -->"):
        record(str(tmp_path / "bench_c.py"), pd.DataFrame())


def test_the_line_above_a_table_says_what_it_was_measured_on():
    about = {"started": "2026-11-28T10:00:00.000+00:00", "git_commit": "0123456789", "git_dirty": True}
    about |= {"cpu": "A CPU", "cores": 2, "packages": {"torch": "2.13.0"}}
    assert measured_on(about) == "2026-11-28, 0123456 with changes, A CPU, 2 cores, torch 2.13.0:"
    assert measured_on(about | {"git_commit": None, "git_dirty": None}).startswith("2026-11-28, no checkout, A CPU")


def run_script(name: str, *arguments: str) -> str:
    command = [sys.executable, str(EXPERIMENTS / name), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=EXPERIMENTS.parent).stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="what is said where there is no GPU")
def test_without_a_gpu_nothing_is_measured():
    page = (EXPERIMENTS / "BENCHMARKS.md").read_bytes()
    said = run_script("bench_cuda.py", "--record")
    assert said == "no GPU: torch.cuda.is_available() is False, so nothing was measured\n"
    assert (EXPERIMENTS / "BENCHMARKS.md").read_bytes() == page


@pytest.mark.slow
def test_memory_of_large_models_is_counted_and_that_of_small_ones_measured():
    said = run_script("bench_large.py", "--measure", "1", "--length", "64")
    lines = [[cell.strip() for cell in line.split("|")] for line in said.splitlines() if line.startswith("| ")]
    rows = {cells[1]: cells for cells in lines}
    counted, found = (float(number) for number in rows["8 layers, d_model 256"][10].split(" / "))
    assert found == pytest.approx(counted, rel=0.3)
    assert rows["1.3B"][2] == "1,314"
    assert rows["1.3B"][10] == ""


@pytest.mark.slow
def test_the_script_for_gpus_runs_on_a_cpu():
    said = run_script("bench_cuda.py", "--device", "cpu", "--quick", "--steps", "1", "--repeats", "1")
    for variant in ("Hugging Face, bfloat16", "one run, float32", "4 runs in a stack", "written by hand"):
        assert variant in said
