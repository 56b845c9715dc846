"""Files that could never be written are refused before the work whose result they would hold."""

import os
import pickle
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from procpre_interp.cli import _os_problem, main
from procpre_interp.core import places
from procpre_interp.core.atomic_files import write_text
from procpre_interp.core.places import LONGEST_NAME, check_file, check_folder, unreadable
from procpre_interp.store.reading import UnreadableRun
from procpre_interp.store.store import RunStore
from tests.test_runs import ordinary_user


def test_the_longest_name_can_be_written_and_no_longer_one(tmp_path: Path):
    longest = tmp_path / ("n" * LONGEST_NAME)
    check_file(longest)
    write_text(longest, "text")
    with pytest.raises(OSError, match="Name too long, at most 230 bytes"):
        check_file(tmp_path / ("n" * (LONGEST_NAME + 1)))
    with pytest.raises(OSError, match="Name too long"):
        check_folder(tmp_path / ("n" * 300) / "reports")


def test_what_is_no_place_for_a_file(tmp_path: Path):
    check_file(tmp_path / "new" / "folders" / "report.html")
    assert os.listdir(tmp_path) == []
    with pytest.raises(IsADirectoryError, match="give the name of a file"):
        check_file(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        check_file(tmp_path / "file" / "new" / "report.html")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(places, "_may", lambda path, wanted: False)  # as for anybody but root
    with pytest.raises(PermissionError):
        check_file(tmp_path / "new" / "report.html")


@pytest.mark.parametrize("command", [["probe", "any", "--html"], ["report", "--out"], ["savings", "any", "--out"]])
def test_a_report_that_could_not_be_written_is_said_before_anything_is_measured(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([*command, str(tmp_path / f"{'n' * 300}.html"), "--store", str(tmp_path)]) == 1
    assert "Name too long" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        *(["train", "--config"], ["transfer", "--config"], ["sweep"], ["train", "--task", "dyck", "--import"]),
        *(["report", "--demo", "--out"], ["savings", "any", "--out"], ["probe", "any", "--html"]),
        *(["patch", "heads", "any", "--html"], ["claims", "--format", "markdown", "--update"]),
        *(["claims", "--run", "--results"], ["export", "any", "--to"], ["import"], ["runs", "--store"]),
    ],
    ids=" ".join,
)
def test_a_pipe_is_neither_waited_for_nor_replaced(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Wherever a command takes a file or a folder. A test that waits for its other end fails by the alarm."""
    monkeypatch.chdir(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def ring(signal_number: int, frame: object) -> None:
        pytest.fail("it waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    try:
        assert main([*command, str(pipe)]) != 0
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert "Traceback" not in capsys.readouterr().err
    assert pipe.is_fifo()


def test_a_pipe_that_holds_a_config_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """As shells make one of a command's output: `--config <(...)`."""
    read, write = os.pipe()
    os.write(write, b"task: {name: nonsense}")
    os.close(write)
    assert main(["train", "--config", f"/dev/fd/{read}", "--store", str(tmp_path)]) == 2
    os.close(read)
    assert "nonsense" in capsys.readouterr().err


def test_a_device_is_not_replaced(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="a pipe or a device"):
        write_text(pipe, "text")
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_table_has_a_name_that_a_file_can_have(tmp_path: Path):
    store, table = RunStore(tmp_path), pd.DataFrame({"x": [1]})
    store.write_table("n" * 150, table, {})
    assert store.tables() == ["n" * 150]
    for name in ("n" * 151, "a/b", ""):
        with pytest.raises(ValueError, match="names a table and a file"):
            store.write_table(name, table, {})


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


def test_what_may_not_be_read_is_found_on_the_way(folder: Path):
    file = folder / "closed" / "open" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("")
    with ordinary_user():
        assert unreadable(file) is None
        assert unreadable(file.with_name("not there")) is None
    file.chmod(0)
    with ordinary_user():
        assert unreadable(file) == file
    (folder / "closed").chmod(0o600)
    with ordinary_user():
        assert unreadable(file) == folder / "closed"
    (folder / "closed").chmod(0o711)
    file.chmod(0o644)
    with ordinary_user():
        assert unreadable(file) is None, "a way leads through a folder that may not be listed"


def test_a_file_that_may_not_be_read_is_no_reason_for_another_store(folder: Path, capsys: pytest.CaptureFixture[str]):
    config = folder / "sweep.yaml"
    config.write_text("")
    config.chmod(0)
    (folder / "store").mkdir()
    with ordinary_user():
        assert main(["sweep", str(config), "--out", str(folder / "store")]) == 1
    assert f"you may not read {config}: change its permissions" in capsys.readouterr().err
    config.chmod(0o644)
    with ordinary_user():
        assert main(["import", str(folder / "store"), "--store", str(folder / "store")]) == 2
    with ordinary_user(), pytest.raises(PermissionError) as problem, RunStore(folder / "store").claim("new"):
        pass
    assert "choose a folder that you may write to" in _os_problem(problem.value)


def test_a_run_that_may_not_be_read_is_not_to_be_removed(folder: Path):
    store = RunStore(folder)
    with store.claim("closed") as partial:
        assert partial is not None
        partial.write_config("seed: 1")
        partial.write_json("environment.json", {})
        partial.finish({"accuracy": 1.0})
    for name in ("manifest.json", "summary.json"):
        path = folder / "runs" / "closed" / name
        path.chmod(0)
        with ordinary_user():
            with pytest.raises(UnreadableRun, match="Permission denied.*Change the permissions") as problem:
                store.open("closed")
            assert "Remove" not in str(problem.value)
            assert store.query()["status"].tolist() == ["damaged"]
        path.chmod(0o644)
    assert isinstance(pickle.loads(pickle.dumps(problem.value)), UnreadableRun)
