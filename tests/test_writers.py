"""Several writers of one file: the last wins, and a reader sees one or the other, whatever names the writers have."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from procpre_interp.core import atomic_files
from procpre_interp.store.store import RunStore, UnknownRun

ROUNDS = 40


def check(table) -> None:
    """Rows and title are those of one writer."""
    assert set(table.frame["writer"]) == {table.metadata["title"]}
    assert len(table.frame) == 100


WRITER = """
import sys
import pandas as pd
from procpre_interp.store.store import RunStore
store, name, rounds = RunStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(rounds):
    store.write_table("shared", pd.DataFrame({"writer": [name] * 100}), {"title": name})
"""


def read_until(store: RunStore, over) -> int:
    """Reads of the table while others write it."""
    reads = 0
    while not over():
        try:
            check(store.read_table("shared"))
            reads += 1
        except UnknownRun:  # none has written yet
            continue
    return reads


def test_threads_that_write_one_table(tmp_path: Path):
    store, problems = RunStore(tmp_path), []

    def write(name: str) -> None:
        try:
            for _ in range(ROUNDS):
                store.write_table("shared", pd.DataFrame({"writer": [name] * 100}), {"title": name})
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    reads = read_until(store, lambda: not any(thread.is_alive() for thread in threads))
    assert problems == []
    assert reads > 0
    check(store.read_table("shared"))
    assert [path.name for path in (tmp_path / "tables").iterdir()] == ["shared.parquet"]


def test_writers_with_one_process_id(tmp_path: Path):
    """As in two containers on one store: each is process 1 of its own."""
    alone = ["unshare", "--fork", "--pid", "--kill-child"]
    try:
        subprocess.run([*alone, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as problem:
        pytest.skip(f"no process namespaces here: {problem}")
    command = [*alone, sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [
        subprocess.Popen([*command, name, str(ROUNDS)], stdin=-1, stdout=-1, stderr=-1, text=True) for name in "abcdef"
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    store = RunStore(tmp_path)
    reads = read_until(store, lambda: all(writer.poll() is not None for writer in writers))
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 6, errors
    assert reads > 0
    check(store.read_table("shared"))
    assert os.listdir(tmp_path / "tables") == ["shared.parquet"]


def test_two_writers_in_one_block_do_not_meet(tmp_path: Path):
    path = tmp_path / "file"
    with atomic_files.atomic_write(path) as first, atomic_files.atomic_write(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # whose block ended last
    assert os.listdir(tmp_path) == ["file"]


def test_what_killed_writers_left_is_removed_when_it_is_old(tmp_path: Path):
    hours_ago = time.time() - 3 * 3600
    for name in (".file.0123456789ab.tmp", ".file.77.tmp", ".file.new.tmp", ".other.77.tmp", "file.tmp"):
        (tmp_path / name).write_text("half")
        if "new" not in name:
            os.utime(tmp_path / name, (hours_ago, hours_ago))
    atomic_files.write_text(tmp_path / "file", "whole")
    assert sorted(os.listdir(tmp_path)) == [".file.new.tmp", ".other.77.tmp", "file", "file.tmp"]


KILLED = """
import os, sys
import pandas as pd
from procpre_interp.core import atomic_files
from procpre_interp.store.store import RunStore
replace, left = os.replace, int(sys.argv[2])
def die(source, target):
    global left
    left -= 1
    if left < 0: os._exit(9)
    replace(source, target)
os.replace = die
RunStore(sys.argv[1]).write_table("shared", pd.DataFrame({"writer": ["new"] * 100}), {"title": "new"})
"""


@pytest.mark.parametrize("replaced", [0, 1])
def test_a_writer_that_is_killed_leaves_the_old_table_or_the_new_one(tmp_path: Path, replaced: int):
    store = RunStore(tmp_path)
    store.write_table("shared", pd.DataFrame({"writer": ["old"] * 100}), {"title": "old"})
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(replaced)], timeout=120)
    table = store.read_table("shared")
    check(table)
    assert table.metadata["title"] == ("new" if replaced else "old")


def test_a_table_of_the_version_before_is_replaced_whole(tmp_path: Path):
    """It had its metadata in a JSON file, which must not outlive the rows that it is about."""
    store, folder = RunStore(tmp_path), tmp_path / "tables"
    folder.mkdir()
    pd.DataFrame({"writer": ["old"] * 100}).to_parquet(folder / "shared.parquet")
    (folder / "shared.json").write_text('{"title": "old"}')
    check(store.read_table("shared"))
    store.write_table("shared", pd.DataFrame({"writer": ["new"] * 100}), {"title": "new"})
    check(store.read_table("shared"))
    assert os.listdir(folder) == ["shared.parquet"]
