"""A long sweep of short runs: memory, open files, threads and temporary files stay as they are."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "bench_long_sweep.py"
MEGABYTES = 12
"""What an allocator may keep; a leak of a tenth of a megabyte per run would be more."""


def assert_flat(table: pd.DataFrame, runs: int) -> None:
    """Nothing grows after the warm-up."""
    warm = table.loc[table["runs"] >= runs / 4]
    first, last = warm.iloc[0], warm.iloc[-1]
    for who in ("driver", "worker"):
        assert last[f"{who}: MB"] - first[f"{who}: MB"] < MEGABYTES, table
        for name in ("files", "threads"):
            assert last[f"{who}: {name}"] <= first[f"{who}: {name}"] + 1, table
    assert last["temporary files"] <= first["temporary files"], table
    assert table["unfinished"].max() <= 2 * 4, table  # a folder, a lock and what is written now, of each worker


@pytest.mark.slow
def test_a_sweep_of_very_many_runs_holds_no_more_at_its_end(tmp_path: Path):
    runs = 180
    table = runpy.run_path(str(SCRIPT))["measure"](tmp_path, runs=runs, every=15, workers=2)
    assert len(table) == runs // 15
    assert_flat(table, runs)


@pytest.mark.parametrize("column", ["driver: MB", "worker: MB", "driver: files", "worker: threads", "temporary files"])
def test_growth_is_noticed(column: str):
    columns = ("driver: MB", "driver: files", "driver: threads", "worker: MB", "worker: files", "worker: threads")
    rows = [{"runs": 10 * i, **dict.fromkeys((*columns, "temporary files", "unfinished"), 5)} for i in range(1, 11)]
    table = pd.DataFrame(rows)
    assert_flat(table, 100)
    table[column] += list(range(0, 30, 3))
    with pytest.raises(AssertionError):
        assert_flat(table, 100)
