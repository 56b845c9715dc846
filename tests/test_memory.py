"""Numbers that are too large: refused in one line, before anything is computed or allocated."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from procpre_interp.cli import main
from procpre_interp.core.config import LARGEST_INTEGER
from procpre_interp.data import TASKS
from procpre_interp.model.flops import parameter_count
from procpre_interp.pipeline import memory
from procpre_interp.pipeline.config import Architecture, RunConfig, model_config
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.run import weights_name
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from tests.test_cli import complaint
from tests.test_task import EVERY_TASK, REQUIRED, build

TRAIN = TrainConfig(steps=1, batch_size=2, evaluate_examples=2, kernel="torch")


def integers(config: object) -> Iterator[str]:
    """Names of the fields that may hold an integer."""
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        if int in (hints[field.name], *typing.get_args(hints[field.name])):
            yield field.name


FIELDS = [
    *((name, field) for name in EVERY_TASK for field in integers(build(name))),
    *(("model", field) for field in integers(Architecture())),
    *(("train", field) for field in integers(TRAIN)),
]


def with_field(place: str, field: str, value: int) -> RunConfig:
    if place == "model":
        return RunConfig(task=TASKS.build("identity"), model=Architecture(**{field: value}), train=TRAIN)
    if place == "train":
        return RunConfig(task=TASKS.build("identity"), train=dataclasses.replace(TRAIN, **{field: value}))
    return RunConfig(task=TASKS.build(place, **REQUIRED.get(place, {}), **{field: value}), train=TRAIN)


@pytest.mark.parametrize(("place", "field"), FIELDS)
def test_an_integer_of_more_than_64_bits_is_refused(place: str, field: str):
    with pytest.raises(ValueError, match=field):
        with_field(place, field, LARGEST_INTEGER + 1)


SIZES = [
    *(("model", field) for field in ("n_layers", "d_model", "d_mlp", "n_ctx")),
    *(("train", field) for field in ("batch_size", "evaluate_examples", "checkpoints")),
    *((name, "length") for name in EVERY_TASK if hasattr(build(name), "length")),
    ("dyck", "k"),
    ("haystack", "max_pairs"),
    ("neural_ca", "hidden"),
]


@pytest.mark.parametrize("value", [2 * 10**9, 2**62])
@pytest.mark.parametrize(("place", "field"), SIZES)
def test_what_no_memory_holds_is_refused_before_anything_is_made(place: str, field: str, value: int, tmp_path: Path):
    store = RunStore(tmp_path)
    with pytest.raises(ValueError):  # noqa: PT011 (of the field, or of memory, as it is)
        execute(with_field(place, field, value), store)
    assert store.query().empty


def test_the_line_says_how_much_is_wanted_and_how_much_there_is(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "memory_of", lambda device: 10**9)
    command = ["train", "--task", "identity", "--model.n-layers", "1000000", "--store", str(tmp_path)]
    assert main(command) == 2
    line = complaint(capsys)
    assert "more than 152.5 GB of memory, for a model of 1,000,000 layers with 3,280,003,952 parameters" in line
    assert "cpu has 1.0 GB" in line


def test_very_many_layers_are_refused_however_small(tmp_path: Path):
    model = Architecture(n_layers=1_000_000, n_heads=1, d_model=8)
    with pytest.raises(ValueError, match=r"more than 1\d\d\.\d GB of memory, for a model of 1,000,000 layers"):
        execute(RunConfig(task=TASKS.build("identity"), model=model, train=TRAIN), RunStore(tmp_path))


def test_the_line_says_what_kept_weights_take_and_what_the_disk_has(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "free_disk", lambda folder: 10**9)
    options = ["--train.steps", "1000000", "--train.checkpoints", "1000000", "--train.kernel", "torch"]
    assert main(["train", "--task", "identity", *options, "--store", str(tmp_path)]) == 2
    line = complaint(capsys)
    assert re.search(r"keeps [\d,.]+ GB of weights, at [\d,]+ steps [\d,]+ parameters each", line)
    assert "(checkpoints=1000000)" in line
    assert f"the disk of {tmp_path} has 1.0 GB" in line
    assert not (tmp_path / "partial").exists()


def test_a_run_goes_on_with_the_room_that_its_own_weights_take(tmp_path: Path, monkeypatch):
    config, store = RunConfig(task=TASKS.build("identity"), train=TRAIN), RunStore(tmp_path)
    monkeypatch.setattr(memory, "free_disk", lambda folder: 0)
    memory.check_disk(config, store)  # too little to be asked for beforehand
    monkeypatch.setattr(memory, "FEWEST_BYTES", 1)
    with pytest.raises(ValueError, match="of weights"):
        memory.check_disk(config, store)
    kept = tmp_path / "partial" / config.run_id / weights_name(0)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(bytes(10 * 4 * parameter_count(model_config(config))))
    memory.check_disk(config, store)


def test_the_free_disk_is_that_of_the_folder_that_will_be(tmp_path: Path):
    assert memory.free_disk(tmp_path / "not" / "yet" / "there") > 0


def test_what_fits_is_not_refused(monkeypatch):
    config = RunConfig(task=TASKS.build("identity"), train=TRAIN)
    memory.check_memory(config)
    assert (memory.memory_of("cpu") or 0) > 2**30
    monkeypatch.setattr(memory, "memory_of", lambda device: None)
    memory.check_memory(with_field("model", "d_model", 2**40))
