"""A URL beside a folder of runs: what is there is not computed again, what is finished goes there, and nothing else."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("fsspec", reason="pip install 'procpre-interp[s3]'")

from procpre_interp.cli import main
from procpre_interp.core.config import to_yaml
from procpre_interp.engine import remote
from procpre_interp.engine.engines import Engine, Processes, Ray, Serial, Slurm, chosen_engine
from procpre_interp.engine.events import Event
from procpre_interp.engine.mirror import mirrored
from procpre_interp.engine.options import EngineOptions
from procpre_interp.engine.remote import compute, execute_remotely, node_folder, task_of
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.remote_copy import RemoteCopy
from procpre_interp.store.store import RunStore
from tests.object_store import bucket  # noqa: F401  (the fixture)
from tests.test_engine import by_id
from tests.test_pipeline import PHASE1, PHASE2, child
from tests.test_remote import Here, same_runs
from tests.test_sweep import tiny

BOTH = [PHASE1.run_id, child().run_id]


@pytest.fixture(scope="module")
def there(tmp_path_factory) -> Path:
    """A URL with phase 1 and its child."""
    ours, folder = RunStore(tmp_path_factory.mktemp("ours")), tmp_path_factory.mktemp("there")
    execute(PHASE1, ours)
    execute(child(), ours)
    RemoteCopy(str(folder)).push(ours)
    return folder


def compute_with(engine: Engine, url: str, store: RunStore, *configs, events: list[Event] | None = None):
    with mirrored(engine, url, store) as chosen:
        return chosen.execute(by_id(*configs), store, on_event=(events if events is not None else []).append)


def runs_at(url: Path | str) -> list[str]:
    return sorted(RemoteCopy(str(url)).runs())


def test_what_is_finished_goes_there_and_comes_from_there(tmp_path):
    url, first, second = tmp_path / "there", RunStore(tmp_path / "first"), RunStore(tmp_path / "second")
    assert compute_with(Serial(), str(url), first, PHASE1, child()) == {}
    assert runs_at(url) == sorted(BOTH)
    events: list[Event] = []
    assert compute_with(Serial(), str(url), second, PHASE1, child(), PHASE2, events=events) == {}
    assert {event.run for event in events if event.kind == "started"} == {PHASE2.run_id}
    assert runs_at(url) == sorted([*BOTH, PHASE2.run_id])
    for run in BOTH:
        assert (second.open(run).folder / "manifest.json").read_bytes() == (
            first.open(run).folder / "manifest.json"
        ).read_bytes()


def test_what_was_finished_without_it_is_sent_with_all_ancestors(tmp_path):
    store = RunStore(tmp_path / "ours")
    execute(PHASE1, store)
    execute(child(), store)
    grandchild = dataclasses.replace(
        child(), seed=9, parents=(dataclasses.replace(child().parents[0], run=child().run_id),)
    )
    assert compute_with(Serial(), str(tmp_path / "there"), store, grandchild) == {}
    assert runs_at(tmp_path / "there") == sorted([*BOTH, grandchild.run_id])


def test_a_damaged_run_there_is_computed_again_and_replaced(tmp_path, there):
    url, events = tmp_path / "there", []
    RemoteCopy(str(url)).push(_fetched(there, tmp_path / "whole"))
    history = url / "runs" / PHASE1.run_id / "history.parquet"
    history.write_bytes(history.read_bytes()[:-1] + b"?")
    store = RunStore(tmp_path / "ours")
    assert compute_with(Serial(), str(url), store, PHASE1, child(), events=events) == {}
    (note,) = [event for event in events if event.kind == "note"]
    assert note.run == PHASE1.run_id
    assert "and is computed again" in str(note.problem)
    assert [event.run for event in events if event.kind == "started"] == [PHASE1.run_id]
    fetched = _fetched(url, tmp_path / "again")
    assert sorted(fetched.query()["run"]) == sorted(BOTH)


def _fetched(url: Path, folder: Path) -> RunStore:
    store = RunStore(folder)
    assert RemoteCopy(str(url)).pull(store).problems == []
    return store


@dataclasses.dataclass
class OnCluster(Engine):
    """An engine of a cluster that is this process."""

    url: str | None = None

    @property
    def at_once(self) -> int:
        return 1

    def execute(self, configs, store, **told):
        return execute_remotely(configs, store, Here(), url=self.url, **told)


@pytest.mark.parametrize("at", ["here", "on nodes"])
def test_a_run_that_cannot_be_sent_is_sent_next_time(tmp_path, monkeypatch, at):
    url, store = tmp_path / "there", RunStore(tmp_path / "ours")

    def broken(self, run):
        raise OSError("the network is down")

    engine = Serial() if at == "here" else OnCluster(str(url))
    with monkeypatch.context() as patched:
        patched.setattr(RemoteCopy, "send", broken)
        if at == "here":
            with pytest.raises(OSError, match="is finished, and could not be sent: the network is down; the same comm"):
                compute_with(engine, str(url), store, PHASE1, PHASE2)
        else:
            problems = compute_with(engine, str(url), store, PHASE1, PHASE2)
            assert set(problems.values()) == {"the network is down"}
    assert runs_at(url) == []
    events: list[Event] = []
    assert compute_with(engine, str(url), store, PHASE1, PHASE2, events=events) == {}
    assert runs_at(url) == sorted([PHASE1.run_id, PHASE2.run_id])
    assert [event for event in events if event.kind == "progress" and event.step] == []  # nothing was trained again


def test_a_fault_while_a_run_is_sent_is_not_lost_in_its_thread(tmp_path, monkeypatch):
    def faulty(self, run):
        raise ZeroDivisionError("a fault of the code")

    monkeypatch.setattr(RemoteCopy, "send", faulty)
    store = RunStore(tmp_path / "ours")
    with pytest.raises(ZeroDivisionError, match="a fault of the code"):
        compute_with(Serial(), str(tmp_path / "there"), store, PHASE1, PHASE2)
    assert sorted(store.query(status="finished")["run"]) == sorted([PHASE1.run_id, PHASE2.run_id])


def test_nodes_share_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "SEEN_SECONDS", 0.0)
    url, store = tmp_path / "there", RunStore(tmp_path / "driver")
    engine = OnCluster(str(url))
    assert compute_with(engine, str(url), store, PHASE1) == {}  # which is then no run of the next sweep
    assert compute_with(engine, str(url), store, child(), PHASE2) == {}
    assert runs_at(url) == sorted([*BOTH, PHASE2.run_id])
    kept = (node_folder(RemoteCopy(str(url)).full_url) / "runs").iterdir()
    assert [path.name for path in kept] == [PHASE1.run_id]  # the parent; what was sent is gone
    here = RunStore(tmp_path / "here")
    assert Serial().execute(by_id(PHASE1, child(), PHASE2), here) == {}
    same_runs(here, store)


def test_a_node_repeats_no_run_that_is_there(tmp_path, there):
    events: list[Event] = []
    task = task_of(child().run_id, child(), RunStore(tmp_path), str(there))
    assert compute(task, events.append) == Event(child().run_id, "finished")
    assert events == []


def test_parents_in_a_circle_are_fetched_once(tmp_path, there, monkeypatch):
    fetched: list[str] = []
    fetch = RemoteCopy.fetch

    def noted(self, run, *arguments, **options):
        fetched.append(run)
        return fetch(self, run, *arguments, **options)

    monkeypatch.setattr(RemoteCopy, "fetch", noted)
    monkeypatch.setattr(remote, "parents_of", lambda run: [{"run": each} for each in BOTH])  # as in a tampered bucket
    asked = dataclasses.replace(child(), seed=9)
    outcome = compute(task_of(asked.run_id, asked, RunStore(tmp_path), str(there)), lambda event: None)
    assert outcome == Event(asked.run_id, "finished")
    assert sorted(fetched) == sorted(BOTH)


def test_a_parent_that_is_not_there_fails_the_run(tmp_path):
    outcome = compute(task_of(child().run_id, child(), RunStore(tmp_path), str(tmp_path / "there")), lambda event: None)
    assert outcome is not None
    assert outcome.kind == "failed"
    assert PHASE1.run_id in str(outcome.problem)


def test_tables_go_there_when_they_are_written_and_come_where_they_are_missing(tmp_path):
    url, store, table = tmp_path / "there", RunStore(tmp_path / "ours"), pd.DataFrame({"run": ["a"]})
    for name in ("old", "mine"):
        store.write_table(name, table, {})
    for n in (1, 2):  # a table of the same name takes the place of the former one
        with mirrored(Serial(), str(url), store):
            store.write_table("mine", pd.DataFrame({"run": ["a"] * n}), {})
    other = RunStore(tmp_path / "other")
    with mirrored(Serial(), str(url), other):
        assert other.tables() == ["mine"]
    assert len(other.read_table("mine").frame) == 2


def test_without_a_url_it_is_the_engine(tmp_path):
    with mirrored(Processes(2), None, RunStore(tmp_path)) as engine:
        assert engine == Processes(2)
    with mirrored(Processes(2), str(tmp_path / "there"), RunStore(tmp_path)) as engine:
        assert engine.at_once == 2
    options = EngineOptions(workers=3, engine="ray", mirror="s3://bucket/runs")
    assert chosen_engine(options) == Ray(None, 3, "s3://bucket/runs")
    assert chosen_engine(dataclasses.replace(options, engine="slurm")) == Slurm(3, url="s3://bucket/runs")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_s3(tmp_path, bucket):  # noqa: F811
    first, second = RunStore(tmp_path / "first"), RunStore(tmp_path / "second")
    assert compute_with(Processes(2), bucket, first, PHASE1, child(), PHASE2) == {}
    events: list[Event] = []
    assert compute_with(OnCluster(bucket), bucket, second, PHASE1, child(), PHASE2, events=events) == {}
    assert "started" not in {event.kind for event in events}
    same_runs(first, second)
    (first.path / "runs").rename(tmp_path / "gone")
    RemoteCopy(bucket).discard(PHASE1.run_id)
    events.clear()
    assert compute_with(OnCluster(bucket), bucket, first, PHASE1, child(), events=events) == {}
    assert {event.run for event in events if event.kind == "started"} == {PHASE1.run_id}


def test_the_command(tmp_path, capsys):
    path, url = tmp_path / "tiny.yaml", tmp_path / "there"
    path.write_text(to_yaml(tiny()))
    command = ["sweep", str(path), "--engine", "serial", "--mirror", str(url), "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    one, two = RunStore(tmp_path / "one"), RunStore(tmp_path / "two")
    assert runs_at(url) == sorted(one.query()["run"])
    assert main([*command, str(two.path)]) == 0
    created = [store.query().sort_values("run")[["run", "created"]].to_dict("list") for store in (one, two)]
    assert created[0] == created[1]  # they are the same ones
    assert one.tables() == two.tables() != []
    capsys.readouterr()
    assert main([*command[:-2], "nonsense://there", "--out", str(tmp_path / "three")]) == 2
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]
