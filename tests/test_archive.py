"""Light copies of runs in one file: from there a sweep goes on in another store."""

import dataclasses
import io
import json
import lzma
import os
import shutil
import tarfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from procpre_interp.cli import main
from procpre_interp.core.config import content_hash
from procpre_interp.core.terminal import beside_package
from procpre_interp.engine.engines import Serial
from procpre_interp.engine.events import Event
from procpre_interp.engine.known_runs import light_parents
from procpre_interp.engine.stacks import execute_in_stacks
from procpre_interp.pipeline.config import Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.store import archive
from procpre_interp.store.archive import pack, unpack
from procpre_interp.store.export import export_run
from procpre_interp.store.leftovers import remove_all_leftovers
from procpre_interp.store.remote_copy import RemoteCopy
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.chains import pretraining_run
from procpre_interp.sweep.config import Condition, Source, Sweep
from procpre_interp.sweep.plan import plan, results, run_sweep
from procpre_interp.train import Interrupted
from tests.test_pipeline import PHASE1, child
from tests.test_sweep import DYCK, tiny

ATTN = Condition(name="attn", sources=(Source(phase1="dyck", selector="attn"),))
MLP = Condition(name="mlp", sources=(Source(phase1="dyck", selector="mlp"),))


def compute(sweep: Sweep, store: RunStore, fails: bool = False, **told) -> tuple[pd.DataFrame, list[str]]:
    """What comes out of a sweep, and the runs that were computed for it."""
    events: list[Event] = []

    @contextmanager
    def show(planned):
        yield events.append

    planned, problems = run_sweep(sweep, store, engine=Serial(), show=show, **told)
    assert bool(problems) == fails
    return results(planned, store, problems), [event.run for event in events if event.kind == "started"]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("archive") / "store")
    table, _ = compute(tiny(conditions=(ATTN,)), store)
    store.write_table("tiny", table.drop(columns="phase1_run"), {"title": "mine"})
    return store


@pytest.fixture
def packed(tmp_path, store) -> Path:
    path = tmp_path / "light" / "runs.tar.xz"
    done = pack(store, path)
    assert (len(done.runs), done.tables, done.problems) == (6, ["tiny"], [])
    return path


def test_a_sweep_goes_on_from_a_small_file(tmp_path, store, packed):
    assert packed.stat().st_size < 6 * 5_000
    elsewhere = RunStore(tmp_path / "elsewhere")
    done = unpack(packed, elsewhere)
    assert (len(done.runs), done.tables, done.problems) == (6, ["tiny"], [])
    assert unpack(packed, elsewhere).runs == []
    assert elsewhere.read_table("tiny").frame.equals(store.read_table("tiny").frame)
    first, second = (pretraining_run(DYCK, seed).run_id for seed in tiny().seeds)

    # What is there is not repeated, though nothing has weights.
    table, computed = compute(tiny(conditions=(ATTN,)), elsewhere)
    assert computed == []
    pd.testing.assert_frame_equal(table, compute(tiny(conditions=(ATTN,)), store)[0])

    # Of a condition that is new the parents are computed again, and nothing else is.
    more = tiny(conditions=(ATTN, MLP), replicates=1)
    assert light_parents(plan(more).configs, elsewhere) == [first]
    table, computed = compute(more, elsewhere)
    assert sorted(computed) == sorted([first, *table.loc[table["condition"] == "mlp", "run"]])
    assert [elsewhere.open(run).is_light for run in (first, second)] == [False, True]
    (tmp_path / "copied").mkdir()
    whole, _ = compute(more, RunStore(shutil.copytree(store.path, tmp_path / "copied" / "store")))
    seconds = ["seconds", "phase1_seconds"]
    pd.testing.assert_frame_equal(table.drop(columns=seconds), whole.drop(columns=seconds))


@pytest.fixture
def light(tmp_path, packed) -> RunStore:
    """A store with light copies alone."""
    light = RunStore(tmp_path / "light store")
    unpack(packed, light)
    return light


def attn_cells(table: pd.DataFrame) -> list[str]:
    return table.loc[table["condition"] == "attn", "status"].tolist()


def test_results_stay_while_nothing_takes_their_place(light, monkeypatch):
    """Out of time, or where a parent cannot be computed again."""
    more = tiny(conditions=(ATTN, MLP))
    table, computed = compute(more, light, may_start=lambda: False)
    assert (attn_cells(table), computed) == (["finished"] * 2, [])

    def broken(config, *args, **kwargs):
        raise ValueError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("procpre_interp.pipeline.stacked.execute", broken)
        table, _ = compute(more, light, fails=True)
    assert attn_cells(table) == ["finished"] * 2
    assert table.loc[table["condition"] == "mlp", "status"].tolist() == ["failed"] * 2
    assert attn_cells(compute(more, light)[0]) == ["finished"] * 2


def test_a_copy_stays_until_the_run_is_whole_and_one_process_at_a_time_computes_it(light, store):
    run = pretraining_run(DYCK, tiny().first_seed)
    with pytest.raises(Interrupted):
        execute(run, light, whole=True, should_stop=lambda: True)
    assert light.is_begun(run.run_id)
    assert light.is_finished(run.run_id)
    assert not light.is_finished(run.run_id, whole=True)
    history = light.open(run.run_id).history()
    with light.claim(run.run_id, whole=True):
        with pytest.raises(TimeoutError), light.claim(run.run_id, whole=True, timeout_seconds=0):
            pass
        assert light.query(run=run.run_id)["status"].tolist() == ["finished"]
    assert execute(run, light).is_light
    whole = execute(run, light, whole=True)
    assert not whole.is_light
    assert whole.weights_path().read_bytes() == store.open(run.run_id).weights_path().read_bytes()
    pd.testing.assert_frame_equal(whole.history().drop(columns="seconds"), history.drop(columns="seconds"))
    assert list((light.path / "partial").iterdir()) == []

    def never(state, train):
        raise AssertionError("computed again")

    assert not execute(run, light, whole=True, on_step=never).is_light


def test_a_run_that_was_begun_goes_on_and_is_not_unpacked(tmp_path, packed):
    ours, run = RunStore(tmp_path / "ours"), pretraining_run(DYCK, tiny().first_seed)
    with pytest.raises(Interrupted):
        execute(run, ours, should_stop=lambda: True)
    done = unpack(packed, ours)
    assert done.problems == [f"run {run.run_id} is being computed here, or was begun"]
    assert len(done.runs) == 5
    assert ours.is_begun(run.run_id)
    assert not execute(run, ours).is_light


@pytest.mark.parametrize("again", [True, False])
def test_what_a_killed_unpacking_leaves_is_no_run_that_was_begun(again, tmp_path, packed, monkeypatch):
    ours, run = RunStore(tmp_path / "ours"), pretraining_run(DYCK, tiny().first_seed).run_id
    partial = ours.path / "partial"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("procpre_interp.store.remote_copy.atomic_files.remove", lambda path: None)
        patched.setattr("procpre_interp.store.remote_copy.read_run", killed)
        patched.setattr(Path, "rmdir", lambda path: None)
        with pytest.raises(KeyboardInterrupt):
            unpack(packed, ours)
    (hidden,) = partial.glob(".*.fetched")
    assert list(hidden.iterdir())
    assert len(list(partial.iterdir())) > 1  # its empty folder
    assert not ours.is_begun(run)
    if again:
        done = unpack(packed, ours)
        assert (len(done.runs), done.problems) == (6, [])
    else:
        remove_all_leftovers(ours.path)
    assert list(partial.iterdir()) == []


def test_what_is_no_whole_run_is_named_and_the_others_are_packed(tmp_path, store):
    ours = RunStore(shutil.copytree(store.path, tmp_path / "ours"))
    (odd, *others) = [path.name for path in (ours.path / "runs").iterdir()]
    folder = ours.path / "runs" / odd
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["history.parquet"]
    (folder / "history.parquet").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    done = pack(ours, tmp_path / "runs.tar.xz")
    assert sorted(done.runs) == sorted(others)
    assert odd in done.problems[0]


def test_whole_runs_are_sent_and_take_the_place_of_light_ones(tmp_path, light, store):
    url = str(tmp_path / "there")
    (problem,) = RemoteCopy(url).push(light).problems
    assert problem.startswith("6 runs are here without their weights")
    assert len(RemoteCopy(url).push(store).runs) == 6
    assert len(RemoteCopy(url).pull(light).runs) == 6
    assert not light.open(pretraining_run(DYCK, tiny().first_seed).run_id).is_light
    again = RemoteCopy(url).pull(light)
    assert (again.runs, again.problems) == ([], [])


def test_heads_are_ranked_once_their_parent_has_weights_again(light):
    ranked = Condition(name="ranked", sources=(Source(phase1="dyck", selector="ln+sharpest.1"),))
    table, computed = compute(tiny(conditions=(ATTN, ranked), replicates=1), light)
    assert dict(zip(table["condition"], table["status"])) == dict.fromkeys(("none", "attn", "ranked"), "finished")
    own = table.set_index("condition")["run"]["ranked"]
    assert computed == [pretraining_run(DYCK, tiny().first_seed).run_id, own]


def test_what_is_to_be_looked_into_has_its_weights(light):
    table, computed = compute(tiny(conditions=(ATTN,), replicates=1), light, whole=("attn",))
    attn = table.loc[table["condition"] == "attn"].iloc[0]
    assert computed == [*attn["phase1_run"], attn["run"]]
    assert load_model(light.open(attn["run"])).config.d_model == 8


def test_what_a_light_parent_comes_of_is_computed_again_too(tmp_path, store):
    ours = RunStore(tmp_path / "ours")
    configs = chain_of_three()
    execute_in_stacks(dict(list(configs.items())[:2]), ours)
    pack(ours, tmp_path / "runs.tar.xz")
    light = RunStore(tmp_path / "light")
    unpack(tmp_path / "runs.tar.xz", light)
    first, second, _ = configs
    assert light_parents({first: configs[first], second: configs[second]}, light) == []
    assert light_parents(configs, light) == [first, second]
    told: list[Event] = []
    assert execute_in_stacks(configs, light, on_event=told.append) == {}
    assert [event.run for event in told if event.kind == "note"] == [first, second]
    assert not any(light.open(run).is_light for run in configs)


def chain_of_three() -> dict[str, RunConfig]:
    phase2 = child()
    phase3 = dataclasses.replace(phase2, seed=9, parents=(Parent(run=phase2.run_id, selector="attn"),))
    return {each.run_id: each for each in (PHASE1, phase2, phase3)}


def test_the_optimiser_of_a_light_parent_is_missed_where_it_is_carried(tmp_path):
    ours, light = RunStore(tmp_path / "ours"), RunStore(tmp_path / "light")
    parent = dataclasses.replace(PHASE1, train=dataclasses.replace(PHASE1.train, keep_optimiser=True))
    run = execute(parent, ours)
    export_run(run, light, steps=run.steps)
    fresh, carried = (dataclasses.replace(child(), optimiser=how) for how in ("fresh", "carried"))
    assert light_parents({run.id: parent, fresh.run_id: fresh}, light) == []
    assert light_parents({run.id: parent, carried.run_id: carried}, light) == [run.id]


def test_weights_that_were_left_out_are_told_from_those_that_were_never_kept(tmp_path, store, packed):
    light = RunStore(tmp_path / "light")
    unpack(packed, light)
    run = pretraining_run(DYCK, tiny().first_seed).run_id
    with pytest.raises(ValueError, match=rf"keeps no weights; .* a copy without them; --config .*{run}/config.yaml"):
        load_model(light.open(run))
    with pytest.raises(ValueError, match=r"keeps no weights of step 3; there are: \[0, 1, 4\]$"):
        load_model(store.open(run), step=3)


def test_files_are_added_to_and_the_same_for_the_same_runs(tmp_path, store):
    runs = sorted(path.name for path in (store.path / "runs").iterdir())
    paths = [tmp_path / "a.tar.xz", tmp_path / "b.tar.xz"]
    for path, halves in zip(paths, [(runs[:3], runs), (runs[3:], runs)]):
        for part in halves:
            some = RunStore(tmp_path / f"{path.stem}-{len(part)}")
            for run in part:
                shutil.copytree(store.path / "runs" / run, some.path / "runs" / run)
            pack(some, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_damaged_run_and_a_table_that_differs_are_left(tmp_path, store, packed):
    ours = RunStore(shutil.copytree(store.path, tmp_path / "ours"))
    ours.write_table("tiny", pd.DataFrame({"run": ["other"]}), {})
    execute(PHASE1, ours).weights_path().write_bytes(b"damaged")
    done = pack(ours, packed)
    assert (done.runs, done.tables) == ([], [])
    assert [PHASE1.run_id in done.problems[0], "table tiny differs" in done.problems[1]] == [True, True]


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


def sparse(name: str, size: int) -> tarfile.TarInfo:
    """One hole of this size."""
    member = tarfile.TarInfo(name)
    member.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.size": str(size)}
    member.pax_headers |= {"GNU.sparse.map": f"0,0,{size},0", "GNU.sparse.name": name}
    return member


def long_header(size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo("runs/a/config.yaml")
    member.pax_headers = {"comment": "x" * size}
    return member


HOSTILE = {
    "no archive": b"nonsense",
    "empty": b"",
    **{f"cut off {n}": tar_of((tarfile.TarInfo("runs/a/config.yaml"), bytes(range(256))))[:-n] for n in (1, 40, 200)},
    **{
        f"holds {name}": tar_of((tarfile.TarInfo(name), b"x"))
        for name in (
            *("../stolen", "/tmp/stolen", "runs/../stolen", "runs/a/../../../stolen", "runs/a/plugins/ab/.."),
            *("stolen", "tables/../stolen", "tables/a/b", "runs/.a/config.yaml", "runs/a/code.py", "runs"),
        )
    },
    "holds a link": tar_of((link("runs/a/config.yaml", "/etc/passwd"), b"")),
    "holds a sparse file": tar_of((sparse("runs/a/config.yaml", 2**50), b"")),
    "holds too many files": tar_of(*((tarfile.TarInfo(f"runs/a{i}/config.yaml"), b"") for i in range(60))),
    "holds too long a name": tar_of((tarfile.TarInfo(f"runs/{'a' * 300}/config.yaml"), b"x")),
    "holds too much": tar_of((tarfile.TarInfo("runs/a/config.yaml"), b"\0" * 200_000)),
    "has too long a header": tar_of((long_header(200_000), b"")),
    "goes on after its end": lzma.compress(lzma.decompress(tar_of()) + b"\0" * 200_000),
}


@pytest.mark.parametrize("harm", HOSTILE)
def test_whatever_else_a_file_holds_is_refused_in_one_line(tmp_path, monkeypatch, capsys, harm):
    monkeypatch.setattr(archive, "LARGEST_ARCHIVE", 100_000)
    monkeypatch.setattr(archive, "MOST_FILES", 50)
    path = tmp_path / "runs.tar.xz"
    path.write_bytes(HOSTILE[harm])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["store", "unpack", str(path), "--store", str(tmp_path / "store")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_that_was_changed_in_the_file_is_not_listed(tmp_path, store, packed):
    content = {}
    with tarfile.open(packed) as tar:
        for member in tar:
            content[member.name] = tar.extractfile(member).read()
    name = next(name for name in content if name.endswith("history.parquet"))
    content[name] = content[name][:-1] + b"?"
    packed.write_bytes(tar_of(*((tarfile.TarInfo(name), data) for name, data in content.items())))
    done = unpack(packed, RunStore(tmp_path / "light"))
    assert len(done.runs) == 5
    assert name.split("/")[1] in done.problems[0]


def test_the_runs_that_come_with_the_package_are_whole_and_named_by_their_configs(tmp_path):
    light = RunStore(tmp_path / "light")
    done = unpack(beside_package("experiments") / "results" / "runs.tar.xz", light)
    assert (len(done.runs) > 0, done.problems) == (True, [])
    for run in done.runs:  # whose files were checked when they were unpacked
        opened = light.open(run, verify=False)
        assert content_hash(opened.config) == run
        assert opened.steps == []
        assert opened.is_light


def test_the_command(tmp_path, store, capsys):
    path, out = str(tmp_path / "runs.tar.xz"), str(tmp_path / "out")
    assert main(["store", "pack", path, "--store", str(store.path)]) == 0
    assert main(["store", "unpack", path, "--store", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "6 runs and 1 tables copied, 0 skipped"
    assert main(["store", "pack", path, "--store", out]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "0 runs and 0 tables copied, 0 skipped"
    assert main(["store", "unpack", str(tmp_path / "none"), "--store", out]) != 0
    assert main(["store", "pack", path, "--store", str(tmp_path / "nowhere")]) != 0
    capsys.readouterr()
    assert main(["store", "pack", str(tmp_path / "runs.zip"), "--store", out]) != 0
    assert "give it a name such as runs.tar.xz" in capsys.readouterr().err
    assert not (tmp_path / "runs.zip").exists()


@pytest.mark.parametrize("action", ["pack", "unpack"])
def test_an_archive_is_a_file(action, tmp_path, capsys):
    """A pipe that nobody writes to, and a device without end, would have been read for ever."""
    (tmp_path / "runs" / "runs").mkdir(parents=True)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        assert main(["store", action, str(path), "--store", str(tmp_path / "runs")]) != 0
        assert "not a regular file" in capsys.readouterr().err
        assert not path.is_file()


def test_a_url_is_no_folder_of_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--task", "dyck", "--train.steps", "1", "--store", "s3://bucket/runs"]) == 2
    assert "is a URL" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("limit", "value"), [("MOST_FILES", 3), ("LARGEST_ARCHIVE", 20_000)])
def test_no_archive_is_written_that_is_not_read_again(limit, value, tmp_path, store, monkeypatch):
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(ValueError, match="pack into several files"):
        pack(store, tmp_path / "runs.tar.xz")
    assert not (tmp_path / "runs.tar.xz").exists()


def test_a_link_to_an_archive_stays_one(tmp_path, store):
    (tmp_path / "linked.tar.xz").symlink_to("runs.tar.xz")
    pack(store, tmp_path / "linked.tar.xz")
    assert (tmp_path / "linked.tar.xz").is_symlink()
    assert (tmp_path / "runs.tar.xz").is_file()
