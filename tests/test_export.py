"""Copies of runs without their heavy files."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.store.export import export_run
from procpre_interp.store.store import DamagedRun, Run, RunStore
from procpre_interp.train.settings import TrainConfig
from tests.results import fill


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    train = TrainConfig(steps=4, batch_size=4, checkpoints=3, kernel="torch")
    config = RunConfig(task=TASKS.build("identity", length=4), train=train)
    return execute(config, RunStore(tmp_path_factory.mktemp("trained")))


def test_a_copy_has_the_numbers_and_the_weights_asked_for(trained: Run, tmp_path: Path):
    copy = export_run(trained, RunStore(tmp_path), steps=[trained.steps[-1]])
    assert (copy.id, copy.config, copy.environment) == (trained.id, trained.config, trained.environment)
    assert copy.summary == trained.summary | {"left_out": copy.summary["left_out"]}
    assert copy.summary["created"] == trained.summary["created"]
    pd.testing.assert_frame_equal(copy.history(), trained.history())
    assert copy.steps == trained.steps[-1:] != trained.steps
    assert torch.equal(load_model(copy).flat, load_model(trained).flat)
    with pytest.raises(ValueError, match=r"examples\.parquet"):
        copy.examples()
    assert RunStore(tmp_path).query()["status"].tolist() == ["finished"]


def test_without_weights_it_says_so(trained: Run, tmp_path: Path):
    copy = export_run(trained, RunStore(tmp_path), examples=True)
    pd.testing.assert_frame_equal(copy.examples(), trained.examples())
    with pytest.raises(ValueError, match="keeps no weights"):
        load_model(copy)


def test_twice_is_once(trained: Run, tmp_path: Path):
    first = export_run(trained, RunStore(tmp_path))
    assert export_run(trained, RunStore(tmp_path), examples=True) == first


def test_a_step_that_was_not_kept(trained: Run, tmp_path: Path):
    with pytest.raises(ValueError, match="kept step"):
        export_run(trained, RunStore(tmp_path), steps=[3000])
    assert RunStore(tmp_path).query().empty


def test_a_damaged_run_is_not_copied(tmp_path: Path):
    store = RunStore(tmp_path / "from")
    fill(store, replicates=1)
    run = store.open("latest", verify=False)
    history = run.folder / "history.parquet"
    history.write_bytes(bytes(history.stat().st_size))
    with pytest.raises(DamagedRun):
        export_run(run, RunStore(tmp_path / "to"))
    assert RunStore(tmp_path / "to").query().empty
