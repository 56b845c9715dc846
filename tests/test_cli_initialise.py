"""`procpre-interp initialise`: what it prints is a config that trains."""

import pytest
import yaml

from procpre_interp.cli import main
from procpre_interp.core.config import from_dict
from procpre_interp.data import TASKS
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore
from procpre_interp.study.initialisation_lab import read_lab
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import Intervention
from tests.test_cli import complaint

TRAIN = TrainConfig(
    steps=4, batch_size=8, warmup_steps=1, evaluate_every=2, evaluate_examples=8, kernel="torch", threads=1
)


@pytest.fixture
def store(tmp_path, monkeypatch) -> RunStore:
    monkeypatch.chdir(tmp_path)
    return RunStore("runs")


def phase1(store: RunStore, seed: int, d_model: int = 16):
    model = Architecture(n_layers=2, n_heads=2, d_model=d_model, tied=True)
    return execute(RunConfig(task=TASKS.build("dyck", k=3, length=64), seed=seed, train=TRAIN, model=model), store)


def test_the_packages_own_recipe(store, capsys):
    assert main(["initialise"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)["interventions"]
    lab = read_lab()
    assert tuple(from_dict(Intervention, fields) for fields in printed) == lab.interventions(lab.best)


def test_fitted_on_runs_of_ones_own_it_trains(store, tmp_path, capsys):
    runs = [phase1(store, seed).id for seed in (0, 1)]
    capsys.readouterr()
    options = ["--recipe", "low rank + identity", "previous-position head", "LayerNorm scale"]
    assert main(["initialise", *runs, *options]) == 0
    block = yaml.safe_load(capsys.readouterr().out)
    names = [fields["name"] for fields in block["interventions"]]
    assert names == ["low_rank_identity", "tensor_scale", "position_code"]  # in the order in which they are done
    short = {"steps": 4, "batch_size": 8, "warmup_steps": 1, "evaluate_every": 2, "evaluate_examples": 8}
    short["kernel"] = "torch"
    config = {"task": {"name": "haystack"}, "model": {"n_layers": 2, "n_heads": 2}, "train": {**short, **block}}
    (tmp_path / "phase2.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", "phase2.yaml"]) == 0
    table = store.query(task="haystack")
    assert table["status"].tolist() == ["finished"]


def test_mistakes_are_one_line(store, capsys):
    runs = [phase1(store, 0).id, phase1(store, 0, d_model=8).id]
    capsys.readouterr()
    for arguments, words in (
        (runs, "models of several shapes"),
        (["--recipe", "mimetc"], "Did you mean 'mimetic'?"),
        (["--recipe", "mimetic", "spectrum law"], "are both options of attention"),
        (["nonsense"], "no run 'nonsense'"),
    ):
        assert main(["initialise", *arguments]) == 2
        assert words in complaint(capsys)
