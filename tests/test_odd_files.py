"""Files that no run of ours writes, at every place of a store: each is named and left out, and the rest goes on."""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from procpre_interp.analysis.diagnosis.evidence import Evidence
from procpre_interp.commands import runs as command
from procpre_interp.core import atomic_files, checksums, regular_files
from procpre_interp.jobs import JobStore
from procpre_interp.model.checkpoint import load_weights, read_weights
from procpre_interp.pipeline.execute import load_task
from procpre_interp.store import unfinished
from procpre_interp.store.ancestry import ancestry
from procpre_interp.store.run import OWN_FILES, DamagedRun, UnknownRun, load_history
from procpre_interp.store.store import RunStore, load_histories
from procpre_interp.views.exhibits import results, run_progress
from procpre_interp.views.exhibits import runs as exhibits
from procpre_interp.views.html_report import runs_report
from tests.explorer import DEMO, open_page
from tests.results import TABLE, fill

WHOLE, ODD = "0" * 16, "1" * 16
DEEP = "[" * 5_000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """A pipe that is opened waits for ever: then the test fails instead."""

    def late(*_: object) -> None:
        raise AssertionError("it waits for a file that never comes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write(store: RunStore, run_id: str, **summary: object) -> Path:
    """A finished run by hand, its manifest fitting whatever it holds."""
    folder = store.path / "runs" / run_id
    (folder / "weights").mkdir(parents=True)
    (folder / "config.yaml").write_text("task: {name: haystack}\nseed: 3\n")
    (folder / "environment.json").write_text("{}")
    fields = {"run": run_id, "status": "finished", "created": "2026", "task": "haystack", "seed": 3, "accuracy": 0.9}
    (folder / "summary.json").write_text(json.dumps(fields | summary))
    table = pd.DataFrame({"step": [0, 50], "split": "validation", "loss_nats": [2.0, 1.0], "accuracy": [0.1, 0.9]})
    table.to_parquet(folder / "history.parquet", index=False)
    (folder / "weights" / "step_00000050.safetensors").write_bytes(b"weights")
    checksums.seal(folder, OWN_FILES)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(tmp_path / "store")
    write(store, WHOLE)
    return store


def text(name: str, content: str) -> Callable[[Path], None]:
    """Writes a file of a run and seals it, so that only its content is odd."""

    def change(folder: Path) -> None:
        (folder / name).write_text(content)
        if name != checksums.MANIFEST:
            checksums.seal(folder, OWN_FILES)

    return change


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Puts something else in the place of a file."""

    def change(folder: Path) -> None:
        atomic_files.remove(folder / name)
        make(folder / name)

    return change


def link(path: Path) -> None:
    path.symlink_to(DEMO / "tables" / "reproduce-cacb0e48.json")


def summary(**fields: object) -> Callable[[Path], None]:
    return text("summary.json", json.dumps({"status": "finished", "created": "2026"} | fields))


NAMES = ("manifest.json", "config.yaml", "environment.json", "summary.json", "history.parquet")
ODDITIES = {
    **{f"{name} is {what}": text(name, content)
       for name in ("summary.json", "manifest.json")
       for what, content in (("a list", "[]"), ("a number", "5"), ("null", "null"), ("empty", ""), ("deep", DEEP))},
    **{f"{name} is {make.__name__}": instead(name, make) for name in NAMES for make in (os.mkfifo, os.mkdir, link)},
    "weights lead out": instead("weights", lambda path: path.symlink_to(DEMO / "runs")),
    "an empty manifest": text("manifest.json", "{}"),
    "a manifest of wrong types": text("manifest.json", '{"config.yaml": 5}'),
    "a manifest of null entries": text("manifest.json", '{"config.yaml": null}'),
    "a manifest without hashes": text("manifest.json", '{"config.yaml": {"bytes": 33}}'),
    "a manifest of other files": text("manifest.json", '{"../../x": {"bytes": 1, "sha256": ""}}'),
    "no status": summary(status=None),
    "another status": summary(status="sleeping"),
    "no time": summary(created=None),
    "a time that is a number": summary(created=5),
    "an accuracy that is text": summary(accuracy="high"),
    "an accuracy that is true": summary(accuracy=True),
    "an accuracy that is a list": summary(accuracy=[0.5]),
    "an endless loss": text("summary.json", '{"status": "finished", "created": "2026", "loss_nats": 1e999}'),
    "a huge seed": summary(seed=10**300),
    "parents that are a list of numbers": summary(parents=[1]),
    "a task that is a table": summary(task={"name": "haystack"}),
    "an unknown field that is a list": summary(colour=[1]),
    "a summary nested in depth": summary(colour=json.loads("[" * 500 + "]" * 500)),
}  # fmt: skip
"""What is seen in a list of runs."""
LATER = {
    **{f"{name} is {what}": text(name, content)
       for name in ("config.yaml", "environment.json")
       for what, content in (("a list", "[]"), ("a number", "5"), ("null", "null"), ("empty", ""), ("deep", DEEP))},
    "a task without a name": text("config.yaml", "task: {name: 5}"),
    "a task that is text": text("config.yaml", "task: haystack"),
    "training that is null": text("config.yaml", "task: {name: haystack}\ntrain:"),
    "a seed that is null": text("config.yaml", "seed:"),
    "a start that is a table": text("config.yaml", "train: {start_at: {}}"),
    "an imported model without files": text("config.yaml", "imported: {folder: x}"),
    "a seed that is text": text("config.yaml", "seed: three"),
    "parents that are text": text("config.yaml", "parents: abc"),
    "a parent without a run": text("config.yaml", "parents: [{selector: all}]"),
    "a parent that is a number": text("config.yaml", "parents: [5]"),
    "an ablation without a name": text("config.yaml", "parents: [{run: a, ablation: {noise_std: 1}}]"),
    "a date": text("config.yaml", "task: {name: haystack, length: !!timestamp 2026-01-01}"),
    "a key that is a number": text("config.yaml", "task: {name: haystack, 1: 2}"),
    "many aliases": text("config.yaml", BOMB),
    "aliases in a circle": text("config.yaml", "a: &a [*a]"),
    "history without steps": text("history.parquet", "PAR1"),
}  # fmt: skip
"""What is seen when the run is opened: a list does not read these files."""


@pytest.mark.parametrize("oddity", ODDITIES | LATER)
def test_one_odd_run_is_damaged_and_the_list_goes_on(store: RunStore, oddity: str):
    (ODDITIES | LATER)[oddity](write(store, ODD))
    listed = store.query().set_index("run")
    assert listed.loc[WHOLE, "status"] == "finished"
    assert listed.loc[ODD, "status"] == ("damaged" if oddity in ODDITIES else "finished")
    with pytest.raises(DamagedRun) as raised:
        store.open(ODD, verify=False).history()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    if oddity in ODDITIES:
        assert listed.loc[ODD, "problem"] == raised.value.problem
    store.delete(ODD)
    assert list(store.query()["run"]) == [WHOLE]


def test_all_of_them_at_once_take_nothing_down(store: RunStore, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    everything = {**ODDITIES, **LATER}.values()
    for index, change in enumerate(everything):
        change(write(store, f"{index + 1:016x}"))
    runs = store.query()
    assert len(runs) == len(everything) + 1
    assert command.main(["--store", str(store.path)]) == 0
    assert WHOLE in capsys.readouterr().out
    table = exhibits.listing(runs, exhibits.conditions(store))
    assert len(exhibits.names(table)) == len(runs)
    assert WHOLE in exhibits.with_weights(runs, store)
    assert len(run_progress.troubles(runs, store)) == 1
    assert "No run has it as a parent" in exhibits.deletion(runs, WHOLE, store)
    opened = [each.id for each in Evidence(store).comparable(store.open(WHOLE))]
    assert opened == [f"{len(everything):016x}"]  # the last, of which only the history is odd
    ids = pd.DataFrame({"condition": "x", "label": "x", "replicate": 0, "run": runs["run"]})
    histories, problems = load_histories(store, ids)
    assert set(histories["run"]) == {WHOLE}
    assert len(problems) == len(everything)
    assert runs_report(store, [store.open(WHOLE)], tmp_path / "report.html").exists()


def test_the_page_of_runs_shows_the_rest(store: RunStore, monkeypatch: pytest.MonkeyPatch):
    for index, name in enumerate(["summary.json is a list", "summary.json is mkfifo", "an empty manifest"]):
        ODDITIES[name](write(store, f"{index + 1:016x}"))
    app = open_page(monkeypatch, store.path, "questions/runs.py", run=WHOLE)
    assert "3 runs are damaged and not used" in [each.label for each in app.expander]
    assert not app.error


def test_a_config_without_a_task_is_damage_where_the_task_is_asked_for(store: RunStore):
    text("config.yaml", "seed: 3")(write(store, ODD))
    opened = store.open(ODD)
    for ask in (lambda: opened.task, lambda: load_task(opened)):
        with pytest.raises(DamagedRun, match=r"config.yaml names no task"):
            ask()


def test_configs_in_a_circle_end(store: RunStore):
    write(store, ODD)
    for run_id, parent in ((WHOLE, ODD), (ODD, WHOLE)):
        parents = f"task: {{name: haystack}}\nparents:\n- {{run: '{parent}', ablation: {{name: noise}}}}\n"
        text("config.yaml", parents)(store.path / "runs" / run_id)
    evidence, first = Evidence(store), store.open(WHOLE)
    assert evidence.key(first)
    assert len(evidence.damage(first)) == 2
    assert len(ancestry([first], store)[0]) == 2


# Deleted while it is read


@pytest.mark.parametrize("read_before", range(5))
def test_a_run_that_is_deleted_while_it_is_read_is_unknown(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, read_before: int
):
    template, folder = write(RunStore(store.path.parent / "other"), ODD), store.path / "runs" / ODD
    opened, before = [], regular_files.open_handle

    def open_handle(path: str | Path):
        opened.append(path)
        if len(opened) == read_before + 1:
            shutil.rmtree(folder)
        return before(path)

    monkeypatch.setattr(regular_files, "open_handle", open_handle)
    for read in (lambda: store.open(ODD, verify=False).history(), lambda: load_history(folder)):
        shutil.copytree(template, folder)
        opened.clear()
        with pytest.raises(UnknownRun, match=f"run {ODD} was deleted while it was read"):
            read()
    shutil.copytree(template, folder)
    shutil.rmtree(store.path / "runs" / WHOLE)
    opened.clear()
    assert len(store.query()) == (read_before > 1)  # it reads two files


def test_readers_and_a_deleter_at_once(store: RunStore):
    template, stop = write(RunStore(store.path.parent / "other"), ODD), threading.Event()

    def delete_and_bring_back() -> None:
        # Copied beside the store: a folder in `partial` whose lock nobody holds is a leftover, for readers to remove.
        copy = store.path.parent / "copy"
        while not stop.is_set():
            shutil.copytree(template, copy).rename(store.path / "runs" / ODD)
            store.delete(ODD)

    thread = threading.Thread(target=delete_and_bring_back)
    thread.start()
    try:
        for _ in range(100):
            table = store.query()
            assert WHOLE in set(table["run"])
            assert "damaged" not in set(table["status"])
            try:
                assert len(store.open(ODD).history()) == 2
            except UnknownRun:
                continue
    finally:
        stop.set()
        thread.join()


# Links


@pytest.mark.parametrize("kind", ["link to a folder", "dangling link", "file", "pipe"])
def test_what_stands_in_the_place_of_a_run_is_deleted_and_nothing_else(store: RunStore, tmp_path: Path, kind: str):
    place, outside = store.path / "runs" / ODD, tmp_path / "outside"
    shutil.copytree(store.path / "runs" / WHOLE, outside)
    match kind:
        case "link to a folder":
            place.symlink_to(outside)
        case "dangling link":
            place.symlink_to(tmp_path / "nowhere")
        case "file":
            place.write_text("")
        case _:
            os.mkfifo(place)
    if kind != "link to a folder":
        with pytest.raises(DamagedRun, match="no folder"), store.claim(ODD):
            pass
    store.delete(ODD)
    assert not os.path.lexists(place)
    assert len(list(outside.rglob("*"))) == 7
    with store.claim(ODD) as partial:
        assert partial is not None


def test_links_to_files_outside_are_not_followed(store: RunStore, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"secret": 1}))
    folder = write(store, ODD)
    for name in ("config.yaml", "environment.json", "weights/step_00000050.safetensors"):
        path = folder / name
        content = path.read_bytes()
        outside = tmp_path / "outside"
        outside.write_bytes(content)
        path.unlink()
        path.symlink_to(outside)
        with pytest.raises(DamagedRun, match=f"{name} is not a regular file"):
            store.open(ODD)
        path.unlink()
        path.write_bytes(content)
    store.open(ODD)
    store.write_table("linked", pd.DataFrame({"a": [1]}), {})
    table = store.path / "tables" / "linked.parquet"
    shutil.copyfile(table, tmp_path / "outside.parquet")
    table.unlink()
    table.symlink_to(tmp_path / "outside.parquet")
    with pytest.raises(ValueError, match="table linked is damaged: .* a link, which is not followed"):
        store.read_table("linked")


# Tables, locks, jobs, checkpoints


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link, lambda path: path.write_bytes(b"PAR1")])
def test_odd_tables_are_left_out(tmp_path: Path, make: Callable[[Path], object]):
    store = RunStore(tmp_path)
    fill(store, replicates=2)
    make(store.path / "tables" / "odd.parquet")
    (store.path / "tables" / "older.parquet").write_bytes((DEMO / "tables/reproduce-cacb0e48.parquet").read_bytes())
    make(store.path / "tables" / "older.json")
    for name in ("odd", "older"):
        with pytest.raises(ValueError, match=f"table {name} is damaged"):
            store.read_table(name)
    assert set(results.catalogue(store)) == {TABLE}
    assert exhibits.conditions(store)
    assert results.load_results(store, TABLE).problems == ()


@pytest.mark.parametrize(
    ("metadata", "frame"),
    [
        ("[]", {}),
        (DEEP, {}),
        ('{"maps": 5}', {}),
        ('{"maps": [5]}', {}),
        ('{"maps": [{"effects": 5}]}', {}),
        ('{"paper": [1]}', {}),
        ('{"paper": {"none": "high"}}', {}),
        ('{"threshold": "half"}', {}),
        ('{"title": ["x"]}', {}),
        ('{"cost": {"runs": "many"}}', {}),
        ("{}", {"run": [1]}),
        ("{}", {"condition": [1]}),
        ("{}", {"accuracy": ["high"]}),
    ],
)
def test_tables_of_wrong_types_are_damaged(tmp_path: Path, metadata: str, frame: dict[str, list]):
    """Such as an older version wrote them, whose metadata anyone could edit."""
    store = RunStore(tmp_path)
    (tmp_path / "tables").mkdir()
    columns = {"condition": ["none"], "label": ["x"], "replicate": [0], "run": ["a"], "breakthrough_step": [1.0]}
    pd.DataFrame(columns | frame).to_parquet(tmp_path / "tables" / "reproduce-1.parquet")
    (tmp_path / "tables" / "reproduce-1.json").write_text(metadata)
    with pytest.raises(ValueError, match="table reproduce-1 is damaged"):
        store.read_table("reproduce-1")
    assert results.catalogue(store) == {}
    with pytest.raises(ValueError, match="table reproduce-1 is damaged"):
        results.load_results(store)


def test_pipes_in_the_place_of_locks_and_jobs(store: RunStore, tmp_path: Path):
    (store.path / "partial" / ODD).mkdir(parents=True)
    for name in (f"{ODD}.lock", f"{ODD}/config.yaml", f"{ODD}/resume.safetensors"):
        os.mkfifo(store.path / "partial" / name)
    runs = store.query()
    assert runs.loc[runs["run"] == ODD, "status"].tolist() == ["interrupted"]
    assert run_progress.troubles(runs, store)[0][1]["saved step"].isna().all()
    with pytest.raises(OSError, match="not a regular file"), store.claim(ODD):
        pass
    jobs = JobStore(tmp_path)
    folder = tmp_path / "jobs" / "20260101-000000-train-0000"
    folder.mkdir(parents=True)
    about = {"name": "train", "arguments": [], "started": "now", "program": []}
    (folder / "job.json").write_text(json.dumps(about))
    for name in ("lock", "end.json", "log", "cancel"):
        os.mkfifo(folder / name)
    (job,) = jobs.all()
    assert (job.is_running, job.exit_code, job.log(), job.state) == (False, None, "", "died")
    with pytest.raises(OSError, match="cancel"):
        job.cancel()
    (folder / "log").unlink()
    (folder / "log").symlink_to(Path(__file__))
    assert job.log() == ""
    jobs.delete(job.id)
    for odd in ("[]", DEEP, "{}"):
        folder.mkdir()
        (folder / "job.json").write_text(odd)
        assert ["damaged" in job.problem for job in jobs.all()] == [True]
        shutil.rmtree(folder)


def test_a_checkpoint_that_is_a_pipe_is_refused(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for read in (load_weights, read_weights):
        with pytest.raises(ValueError, match="not a regular file"):
            read(tmp_path / "pipe.safetensors")


# What systems and editors leave


STRAY = (
    ".DS_Store",
    "._config.yaml",
    ".nfs00000000abc",
    ".config.yaml.swp",
    "config.yaml~",
    "weights/.DS_Store",
    "4913",
)


def test_stray_files_are_no_part_of_a_run(tmp_path: Path):
    store = RunStore(tmp_path)
    with store.claim(ODD) as partial:
        assert partial is not None
        partial.write_config("task: {name: haystack}\n")
        partial.write_json("environment.json", {})
        partial.weights_path(5).write_bytes(b"weights")
        for name in STRAY:
            (partial.folder / name).write_text("stray")
        partial.finish({})
    found = store.open(ODD)
    assert set(found.manifest) == {
        "config.yaml", "environment.json", "summary.json", "weights/step_00000005.safetensors",
    }  # fmt: skip
    for name in STRAY:
        (found.folder / name).write_text("changed")
        store.open(ODD)
        (found.folder / name).unlink()
    assert store.open(ODD).steps == [5]


def test_a_hidden_file_that_an_older_version_sealed_may_go(store: RunStore):
    """The manifest as it was written before: whatever lay in the folder, and without a hash of its own."""
    folder = store.path / "runs" / WHOLE
    entries = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": checksums.sha256(path)}
        for path in folder.rglob("*")
        if path.is_file() and path.name != checksums.MANIFEST
    }
    stray = {name: {"bytes": 5, "sha256": hashlib.sha256(b"stray").hexdigest()} for name in STRAY if "/." in f"/{name}"}
    atomic_files.write_json(folder / checksums.MANIFEST, entries | stray)
    assert set(store.open(WHOLE).manifest) == set(entries)
    # A file of the run's own whose name has changed by a bit is missing, however.
    wrong = {name.replace("step_00000050", "step_0000005:"): entry for name, entry in entries.items()}
    atomic_files.write_json(folder / checksums.MANIFEST, wrong)
    with pytest.raises(DamagedRun, match="step_0000005:.safetensors is missing"):
        store.open(WHOLE)


def test_a_run_has_no_other_files(tmp_path: Path):
    with RunStore(tmp_path).claim(ODD) as partial:
        assert partial is not None
        with pytest.raises(ValueError, match="'notes.json' is not a file of a run"):
            partial.write_json("notes.json", {})
        with pytest.raises(ValueError, match="'curves.parquet' is not a file of a run"):
            partial.write_table("curves", pd.DataFrame())
        with pytest.raises(ValueError, match="colour is a list"):
            partial.finish({"colour": [1]})
        with pytest.raises(FileNotFoundError, match=r"config.yaml was deleted while the run was computed"):
            partial.finish({})


def test_everything_of_the_version_before_opens():
    """The demo was written by it: manifests without a hash of their own, tables of two files."""
    store = RunStore(DEMO)
    runs = store.query()
    assert set(runs["status"]) == {"finished"}
    assert all(
        checksums.MANIFEST not in json.loads((DEMO / "runs" / name / checksums.MANIFEST).read_text())
        for name in runs["run"]
    )
    for name in runs["run"]:
        assert len(store.open(name).history())
    of_two_files = [name for name in store.tables() if (DEMO / "tables" / f"{name}.json").exists()]
    assert len(of_two_files) == 2
    for name in of_two_files:
        assert store.read_table(name).metadata["title"]
    assert unfinished.saved_step(DEMO) is None
