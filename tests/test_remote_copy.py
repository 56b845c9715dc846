"""Stores that are sent to an object store and fetched again: a folder in the fast suite, S3 (moto's server) in the slow
one."""

import json
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
