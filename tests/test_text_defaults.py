"""What commands give new runs on text, and what they leave alone: other tasks, stored configs, what is asked for."""

import json
from pathlib import Path

import pytest

from procpre_interp.cli import main
from procpre_interp.commands._text_defaults import (
    with_sweep_defaults,
    with_training_defaults,
    with_transfer_defaults,
)
from procpre_interp.core.config import from_dict
from procpre_interp.data import TASKS, Task
from procpre_interp.data.semantic.text import Text
from procpre_interp.pipeline.config import Architecture
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Sweep
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig

FRESH = TransferConfig(token_embedding="fresh", unembedding="fresh")
STORED = Text(corpus_hash="0" * 16, tokenizer_hash="0" * 16)


@pytest.mark.parametrize(
    ("task", "decay"),
    [
        (Text(corpus="docstrings"), 0.1),
        (Text(corpus="python-stdlib"), 0.01),
        (Text(corpus="deepmind-math"), 0.01),
        (Text(corpus="files:somewhere"), 0.1),
        (from_dict(Task, {"name": "shuffled", "task": {"name": "text", "corpus": "docstrings"}}), 0.1),
        (STORED, 1e-3),
        (TASKS.build("dyck"), 1e-3),
    ],
)
def test_weight_decay_by_domain(task: Task, decay: float):
    train = TrainConfig(steps=7)
    assert with_training_defaults(train, task, Architecture(), given=()) == TrainConfig(steps=7, weight_decay=decay)
    assert with_training_defaults(train, task, Architecture(), given={"weight_decay"}) == train
    expected = FRESH if decay != 1e-3 else TransferConfig()
    assert with_transfer_defaults(TransferConfig(), task, given=()) == expected
    assert with_transfer_defaults(TransferConfig(), task, given={"unembedding"}) == TransferConfig()


@pytest.mark.parametrize(
    ("d_model", "fields", "precision"),
    [
        (256, {}, "bfloat16"),
        (768, {"kernel": "torch"}, "bfloat16"),
        (252, {}, "float32"),
        (256, {"kernel": "native"}, "float32"),
    ],
)
def test_wide_models_of_text_compute_in_bfloat16(d_model: int, fields: dict, precision: str):
    model, train = Architecture(d_model=d_model), TrainConfig(**fields)
    assert with_training_defaults(train, Text(), model, given=()).precision == precision
    assert with_training_defaults(train, Text(), model, given={"precision"}).precision == "float32"
    assert with_training_defaults(train, TASKS.build("set"), model, given=()).precision == "float32"


def sweep_fields(task: dict) -> dict:
    return {
        "name": "lab",
        "phase1": [
            {"name": "dyck", "task": {"name": "dyck"}, "train": {"steps": 5}},
            {"name": "prose", "task": {"name": "text", "corpus": "docstrings"}, "train": {"steps": 5}},
            {"name": "bare", "task": {"name": "text"}, "train": {"steps": 5, "weight_decay": 0}},
        ],
        "task": task,
        "train": {"steps": 5},
        "conditions": [
            {"name": "full", "sources": [{"phase1": "dyck"}]},
            {"name": "average", "sources": [{"phase1": "dyck"}], "transfer": {"token_embedding": "average"}},
            {"name": "long", "train": {"steps": 9}},
        ],
        "grids": [{"phase1": ["dyck"]}, {"phase1": ["prose"], "transfer": [{"positions": "fresh"}]}],
        "maps": [{"phase1": "dyck", "players": ["mlp.keys", "mlp.values"]}],
    }


def test_a_sweep_on_text(capsys):
    fields = sweep_fields({"name": "text"})
    sweep = with_sweep_defaults(from_dict(Sweep, fields), fields)
    assert [each.train.weight_decay for each in sweep.phase1] == [1e-3, 0.1, 0]
    assert sweep.train.weight_decay == 0.01
    full, average, longer = sweep.conditions
    assert (full.transfer, average.transfer) == (FRESH, TransferConfig())
    assert longer.train == TrainConfig(steps=9, weight_decay=0.01)
    assert [each.transfer for each in sweep.grids] == [(FRESH,), (TransferConfig(positions="fresh"),)]
    assert [each.transfer for each in sweep.maps] == [FRESH]
    assert (
        capsys.readouterr().err == "text: weight_decay 0.01, fresh token embeddings where nothing else is asked for\n"
    )


def test_every_phase_and_every_text_of_a_sweep_has_its_own_decay():
    """A phase after phase 2, and a condition on a text of another domain, had that of the sweep or of no text."""
    code, prose = {"name": "text"}, {"name": "text", "corpus": "docstrings"}
    plain = {"train": {"steps": 5}}
    fields = sweep_fields(code) | {
        "then": [{"task": prose} | plain, {"task": prose, "train": {"steps": 5, "weight_decay": 0}}],
        "conditions": [
            {"name": "prose", "task": prose},
            {"name": "haystack", "task": {"name": "haystack"}},
            {"name": "other", "then": [{"task": code} | plain]},
        ],
    }
    sweep = with_sweep_defaults(from_dict(Sweep, fields), fields)
    assert [each.train.weight_decay for each in sweep.then] == [0.1, 0]
    on_prose, haystack, other = sweep.conditions
    assert on_prose.train == TrainConfig(steps=5, weight_decay=0.1)
    assert (haystack.train, haystack.then) == (None, None)
    assert other.then is not None
    assert [each.train.weight_decay for each in other.then] == [0.01]
    fields["train"] = {"steps": 5, "weight_decay": 0.3}
    assert with_sweep_defaults(from_dict(Sweep, fields), fields).conditions[0].train is None


def test_an_insertion_on_text_says_itself_what_happens_to_embeddings():
    fields = {
        "name": "when",
        "phase1": [{"name": "set", "task": {"name": "set", "length": 8}, "train": {"steps": 5}}],
        "task": {"name": "text", "length": 32},
        "train": {"steps": 6},
        "conditions": [{"name": "middle", "sources": [{"phase1": "set"}], "insert": {"at": 0.5}}],
        "grids": [{"phase1": ["set"], "insert": [None, {"at": 0}, {"at": 0.75}]}],
    }
    sweep = with_sweep_defaults(from_dict(Sweep, fields), fields)
    transfers = {each.insert.at if each.insert else None: each.transfer for each in sweep.of_replicate(0)[1:]}
    assert transfers == {0.5: TransferConfig(), None: FRESH, 0: TransferConfig(), 0.75: TransferConfig()}


def test_a_sweep_on_another_task_and_one_that_was_stored_stay(capsys):
    for task in ({"name": "haystack"}, {"name": "text", "corpus_hash": "0" * 16}):
        fields = sweep_fields(task)
        del fields["phase1"][1], fields["grids"][1]
        sweep = from_dict(Sweep, fields)
        assert with_sweep_defaults(sweep, fields) == sweep
        assert capsys.readouterr().err == ""


def test_train_and_transfer_from_the_command_line(tmp_path: Path, capsys):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = [json.dumps({"text": f"row {number} of some text"}) for number in range(200)]
    (corpus / "rows.jsonl").write_text("\n".join(rows))
    store = RunStore(tmp_path / "store")
    options = {
        "task": "text",
        "task.corpus": f"files:{corpus}",
        "task.length": 16,
        "train.steps": 2,
        "train.batch-size": 4,
        "train.evaluate-examples": 4,
        "train.kernel": "torch",
        "store": store.path,
    }
    common = [f"--{name}={value}" for name, value in options.items()]
    assert main(["train", *common]) == 0
    first = store.open("latest")
    assert first.config["train"]["weight_decay"] == 0.1
    assert main(["transfer", "--parent", first.id, *common, "--train.weight-decay", "0.2"]) == 0
    second = store.open("latest")
    assert second.config["train"]["weight_decay"] == 0.2
    assert second.config["transfer"] == {"token_embedding": "fresh", "unembedding": "fresh", "version": 1}
    # The config of a stored run is that run, whatever is given to new ones.
    for command, run in (("train", first), ("transfer", second)):
        capsys.readouterr()
        assert main([command, "--config", str(run.folder / "config.yaml"), "--store", str(store.path)]) == 0
        assert f"run {run.id} " in capsys.readouterr().out
