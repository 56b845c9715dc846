"""Stores that are sent to an object store and fetched again: a folder in the fast suite, S3 (moto's server) in the slow
one."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("fsspec", reason="pip install 'procpre-interp[s3]'")

from procpre_interp.cli import main
from procpre_interp.core import locks
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.remote_copy import RemoteCopy
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted
from tests.object_store import bucket  # noqa: F401  (the fixture)
from tests.test_pipeline import PHASE1, child


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RunStore:
    store = RunStore(tmp_path_factory.mktemp("store"))
    execute(PHASE1, store)
    execute(child(), store)
    store.write_table("results", pd.DataFrame({"run": [PHASE1.run_id]}), {"title": "mine"})
    return store


@pytest.fixture
def there(tmp_path, store) -> Path:
    folder = tmp_path / "there"
    RemoteCopy(str(folder)).push(store)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_there_and_back(tmp_path, store, there):
    fetched = RunStore(tmp_path / "fetched")
    copy = RemoteCopy(str(there))
    done = copy.pull(fetched)
    assert sorted(done.runs) == sorted([PHASE1.run_id, child().run_id])
    assert done.tables == ["results"]
    assert done.problems == []
    for part in ("runs", "tables"):
        assert files(fetched.path / part) == files(store.path / part)
    assert list((fetched.path / "partial").iterdir()) == []
    for again in (copy.pull(fetched), copy.push(fetched)):
        assert (again.runs, again.tables, again.problems) == ([], [], [])
    assert execute(child(), fetched).id == child().run_id


@pytest.mark.parametrize(
    "url",
    ["reference://x", "github://x", "generic://x", "jlab://x", "blockcache::reference://x", "dir://x", "nonsense://x"],
)
def test_what_is_no_address_of_a_store_is_one_line(url, tmp_path, capsys):
    assert main(["store", "pull", url, "--store", str(tmp_path)]) == 2
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert f"{url}: no store (" in text


def test_a_run_that_is_half_there_is_not_listed_and_is_sent_again(tmp_path, store, there):
    (there / "runs" / PHASE1.run_id / "manifest.json").unlink()
    copy, fetched = RemoteCopy(str(there)), RunStore(tmp_path / "fetched")
    assert copy.pull(fetched).runs == [child().run_id]
    assert copy.push(store).runs == [PHASE1.run_id]
    assert copy.pull(fetched).runs == [PHASE1.run_id]


@pytest.mark.parametrize("harm", ["changed", "missing", "no manifest", "leads out"])
def test_what_is_damaged_is_not_fetched(tmp_path, there, harm):
    folder = there / "runs" / PHASE1.run_id
    history, manifest = folder / "history.parquet", folder / "manifest.json"
    if harm == "changed":
        history.write_bytes(history.read_bytes()[:-1] + b"?")
    elif harm == "missing":
        history.unlink()
    elif harm == "no manifest":
        manifest.write_text("nonsense")
    else:
        (folder.parent / "stolen").write_text("there")
        entries = json.loads(manifest.read_text()) | {"../stolen": {"bytes": 5, "sha256": "0"}}
        del entries["manifest.json"]  # as older versions wrote it, which is not checked
        manifest.write_text(json.dumps(entries))
    fetched = RunStore(tmp_path / "fetched")
    done = RemoteCopy(str(there)).pull(fetched)
    assert done.runs == [child().run_id]
    (problem,) = done.problems
    assert PHASE1.run_id in problem
    assert "it was not fetched" in problem
    assert fetched.query()["run"].tolist() == [child().run_id]
    assert not list(fetched.path.rglob("stolen"))
    assert list((fetched.path / "partial").iterdir()) == []


def test_a_damaged_run_is_not_sent(tmp_path):
    ours = RunStore(tmp_path / "ours")
    execute(PHASE1, ours).weights_path().write_bytes(b"damaged")
    elsewhere = RemoteCopy(str(tmp_path / "elsewhere"))
    done = elsewhere.push(ours)
    assert (done.runs, len(done.problems)) == ([], 1)


def test_a_run_at_work_is_left_and_what_was_saved_of_one_gives_way(tmp_path, there):
    ours = RunStore(tmp_path / "ours")
    with pytest.raises(Interrupted):
        execute(PHASE1, ours, should_stop=lambda: True)
    with locks.locked(ours.path / "partial" / f"{PHASE1.run_id}.lock"):
        (left,) = RemoteCopy(str(there)).pull(ours).problems
    assert left == f"run {PHASE1.run_id} is being computed here"
    assert RemoteCopy(str(there)).pull(ours).runs == [PHASE1.run_id]
    assert list((ours.path / "partial").iterdir()) == []


def test_a_table_that_differs_stays_on_both_sides(tmp_path, there):
    ours = RunStore(tmp_path / "ours")
    ours.write_table("results", pd.DataFrame({"run": ["other"]}), {})
    copy, before = RemoteCopy(str(there)), files(there)
    for done in (copy.push(ours), copy.pull(ours)):
        assert [problem for problem in done.problems if "table results differs" in problem]
    assert ours.read_table("results").frame["run"].tolist() == ["other"]
    assert files(there) == before


def test_the_command(tmp_path, store, there, capsys):
    out = tmp_path / "out"
    assert main(["store", "pull", str(there), "--store", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs and 1 tables copied, 0 skipped"
    assert main(["store", "push", str(there), "--store", str(out)]) == 0
    assert main(["store", "push", str(there), "--store", str(tmp_path / "nowhere")]) == 1
    assert main(["store", "pull", str(tmp_path / "nowhere"), "--store", str(tmp_path / "own")]) == 1
    assert f"no runs and no tables at {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()
    assert main(["store", "push", "nonsense://there", "--store", str(out)]) == 2
    assert "nonsense" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_s3(tmp_path, store, bucket):  # noqa: F811
    copy, fetched = RemoteCopy(bucket), RunStore(tmp_path / "fetched")
    assert copy.pull(fetched).runs == []
    assert len(copy.push(store).runs) == 2
    assert RemoteCopy(bucket).push(store).runs == []
    done = RemoteCopy(bucket).pull(fetched)
    assert (len(done.runs), done.tables, done.problems) == (2, ["results"], [])
    assert files(fetched.path / "runs") == files(store.path / "runs")


@pytest.mark.parametrize("name", ["a[1]b", "what?", "all*", "with blank#%20"])
def test_a_folder_may_have_any_name(name, tmp_path, store):
    copy = RemoteCopy(str(tmp_path / name))
    assert len(copy.push(store).runs) == 2
    assert copy.runs() == {PHASE1.run_id, child().run_id}
    assert (copy.push(store).runs, len(copy.pull(RunStore(tmp_path / "got")).runs)) == ([], 2)


def test_what_cannot_be_written_is_absent_and_sent_again(tmp_path, store, monkeypatch):
    """As on a disk that is full: a manifest that is there in part would count as a run."""
    copy, fails = RemoteCopy(str(tmp_path / "there")), True
    put = type(copy.files).put_file

    def put_file(self, path, place, **options):
        if fails and path.endswith("manifest.json"):
            Path(place).touch()
            raise OSError(28, "No space left on device")
        return put(self, path, place, **options)

    monkeypatch.setattr(type(copy.files), "put_file", put_file)
    with pytest.raises(OSError, match="No space left"):
        copy.push(store)
    assert copy.runs() == set()
    fails = False
    assert len(copy.push(store).runs) == 2
    assert len(copy.pull(RunStore(tmp_path / "got")).runs) == 2


def test_a_table_of_two_files_is_sent_as_one(tmp_path):
    """As versions wrote it that kept the metadata beside the table."""
    old = RunStore(tmp_path / "old")
    old.write_table("results", pd.DataFrame({"condition": ["none"]}), {"title": "mine", "created": "2026-01-02"})
    path = old.path / "tables" / "results.parquet"
    metadata = old.read_table("results").metadata
    pd.DataFrame({"condition": ["none"]}).to_parquet(path)
    path.with_suffix(".json").write_text(json.dumps(metadata))
    copy, got = RemoteCopy(str(tmp_path / "there")), RunStore(tmp_path / "got")
    assert copy.push(old).tables == ["results"]
    assert copy.push(old).problems == []
    assert copy.pull(got).tables == ["results"]
    assert got.read_table("results").metadata == metadata


def test_tables_keep_their_order(tmp_path):
    """The newest result of a name is the one that is reported."""
    store, copy, got = RunStore(tmp_path / "store"), RemoteCopy(str(tmp_path / "there")), RunStore(tmp_path / "got")
    for name, day in {"results-b": 2, "results-a": 3, "results-c": 1}.items():
        about = {"title": name, "created": f"2026-01-0{day}T00:00:00+00:00"}
        store.write_table(name, pd.DataFrame({"condition": ["none"]}), about)
    copy.push(store)
    copy.pull(got)
    assert got.tables() == ["results-a", "results-b", "results-c"]


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_no_link_pipe_or_folder_is_sent_as_a_table(kind, tmp_path, store):
    ours = RunStore(tmp_path / "ours")
    place = ours.path / "tables" / "odd.parquet"
    place.parent.mkdir(parents=True)
    if kind == "link":
        (tmp_path / "secret").write_text("secret")
        place.symlink_to(tmp_path / "secret")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    copy = RemoteCopy(str(tmp_path / "there"))
    (problem,) = copy.push(ours).problems
    assert problem.startswith("table odd was not sent: ")
    assert not (tmp_path / "there" / "tables" / "odd.parquet").exists()
    there = tmp_path / "there" / "tables"
    there.mkdir(parents=True, exist_ok=True)
    (there / "odd.parquet").write_bytes((store.path / "tables" / "results.parquet").read_bytes())
    assert len(copy.push(ours).problems) == len(copy.pull(ours).problems) == 1
