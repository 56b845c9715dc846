"""A GPT-2 from a folder as a run: found by its content, looked into like any other, never trained, never trusted."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from procpre_interp.cli import main
from procpre_interp.core.config import from_dict
from procpre_interp.data import TASKS
from procpre_interp.data.tokenizer_files import tokenizer_files
from procpre_interp.model import HookedTransformer, ModelConfig, save_huggingface, to_huggingface
from procpre_interp.pipeline.config import Architecture, Imported, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model, load_task, run_config
from procpre_interp.pipeline.imported import LARGEST, import_model
from procpre_interp.pipeline.lineage import stages, starting_model
from procpre_interp.store.export import export_run
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import TrainConfig
from tests.explorer import open_page, said
from tests.models import random_model
from tests.test_cli import complaint

DYCK = TASKS.build("dyck", k=3, length=16)
SHAPE = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=20, d_vocab=DYCK.d_vocab, d_mlp=20)
NAMED = "{name: dyck, k: 3, length: 16}"


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model(SHAPE)


@pytest.fixture(scope="module")
def original(model: HookedTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of somebody else's, with a tokenizer; never changed."""
    folder = tmp_path_factory.mktemp("elsewhere") / "tiny-gpt2"
    folder.mkdir()
    save_huggingface(model, folder, end=None, pad=None)
    for name, text in tokenizer_files(DYCK, SHAPE.n_ctx).texts.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(original, tmp_path / "tiny-gpt2"))


@pytest.fixture(scope="module")
def run(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return import_model(original, RunStore(tmp_path_factory.mktemp("imported")))


@pytest.fixture
def store(run: Run, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    store = RunStore(run.folder.parents[1])
    monkeypatch.setenv("PROCPRE_STORE", str(store.path))
    return store


def test_the_run_is_the_model_and_says_where_it_is_from(run, model, original, store, capsys):
    assert torch.equal(load_model(run).flat, model.flat)
    assert load_model(run).config == model.config
    assert run.read("tokenizer.json") == (original / "tokenizer.json").read_bytes()
    config = run_config(run)
    assert config.run_id == run.id
    assert config.imported is not None
    assert [name for name, _ in config.imported.files] == ["config.json", "model.safetensors", "tokenizer.json"]
    assert config.imported.folder == "tiny-gpt2"
    assert "imported from: tiny-gpt2, 3 files" in str(run)
    assert main(["runs"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(run.id)]
    assert row.split()[1:3] == ["finished", "imported"]


def test_the_content_names_it_wherever_it_is(run, store, folder, capsys):
    (folder / "README.md").write_text("whatever else lies there")
    elsewhere = folder.rename(folder.with_name("other-name"))
    assert main(["import", str(elsewhere)]) == 0
    printed = capsys.readouterr().out
    assert f"run {run.id} (" in printed
    assert "2 layers of 2 heads, width 8" in printed
    weights = load_file(elsewhere / "model.safetensors")
    weights["transformer.ln_f.bias"] += 1
    save_file(weights, elsewhere / "model.safetensors")
    assert import_model(elsewhere, store).id != run.id


@pytest.mark.parametrize("save", ["shards", "hub", "half", "tied"])
def test_what_other_programs_write(save, tmp_path, model):
    found = random_model(ModelConfig(**{**vars_of(SHAPE), "tied": True})) if save == "tied" else model
    theirs = to_huggingface(found)
    theirs = theirs.half() if save == "half" else theirs
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="2KB" if save == "shards" else "5GB")
    if save == "shards":
        assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    if save == "hub":  # the first GPT-2 on the hub names no `transformer`, and has masks
        weights = load_file(tmp_path / "theirs" / "model.safetensors")
        bare = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
        bare["h.0.attn.bias"] = torch.ones(1, 1, 20, 20, dtype=torch.uint8)
        save_file(bare, tmp_path / "theirs" / "model.safetensors")
    run = import_model(tmp_path / "theirs", RunStore(tmp_path / "store"))
    torch.testing.assert_close(load_model(run).flat, found.flat, atol=1e-3 if save == "half" else 0, rtol=0)
    assert run_config(run).model.tied is (save == "tied")


def vars_of(config: ModelConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ModelConfig.__dataclass_fields__}


def test_no_other_run_has_another_id():
    """The field is left out of every config but an imported one's."""
    assert RunConfig(task=DYCK, train=TrainConfig(kernel="torch", kernel_version=None)).imported is None
    config = RunConfig(task=DYCK, imported=Imported(files=(("config.json", "0" * 64),), folder="a"))
    same = RunConfig(
        task=DYCK, seed=5, train=TrainConfig(steps=7), imported=Imported(files=(("config.json", "0" * 64),), folder="b")
    )
    assert config.run_id == same.run_id, "what does not make the model is no part of its name"
    with pytest.raises(ValueError, match="has no parents"):
        RunConfig(task=DYCK, imported=config.imported, parents=(Parent(run="a"),))
    with pytest.raises(ValueError, match="no files"):
        Imported(files=())


def test_it_is_exported_as_it_came(run, store, original, tmp_path, capsys):
    assert main(["export", run.id, "--to", str(tmp_path / "out")]) == 0
    ours, theirs = (load_file(path / "model.safetensors") for path in (tmp_path / "out", original))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (original / "tokenizer.json").read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "imported; SHA-256 of its files: config.json " in card
    assert f"Whatever run {run.id} was trained on before it was imported: unknown here" in card
    assert "Generated sequences only" not in card
    assert export_run(run, RunStore(tmp_path / "copy")).read("tokenizer.json") == run.read("tokenizer.json")


def test_it_is_a_parent(run, store, capsys):
    shape = ["--model.d-model", "8", "--model.n-heads", "2", "--model.d-mlp", "20", "--train.steps", "2"]
    command = ["transfer", "--parent", run.id, "--task", "haystack", *shape, "--train.batch-size", "4"]
    assert main(command) == 0
    child = store.open("latest")
    assert child.summary["parents"] == (run.id,)
    start = dict(starting_model(child, store).named_parameters())
    parent = dict(load_model(run).named_parameters())
    assert torch.equal(start["blocks.1.attn.W_Q"], parent["blocks.1.attn.W_Q"])
    assert list(stages(child, store)) == ["phase1", "fresh", "transplanted", "finished"]
    capsys.readouterr()
    assert main(["probe", child.id, "--stage", "phase1", "--task", NAMED, "--sequences", "8"]) == 0
    capsys.readouterr()
    assert main(["probe", child.id, "--stage", "phase1_fresh"]) == 2
    assert "was imported: only its weights are known" in complaint(capsys)


def test_layer_norms_of_another_epsilon_are_no_parents(tmp_path):
    store = RunStore(tmp_path / "store")
    (tmp_path / "theirs").mkdir()
    save_huggingface(random_model(ModelConfig(**vars_of(SHAPE) | {"ln_eps": 1e-3})), tmp_path / "theirs", end=0, pad=0)
    found = import_model(tmp_path / "theirs", store)
    assert load_model(found).config.ln_eps == 1e-3
    shape = Architecture(n_layers=2, n_heads=2, d_model=8, d_mlp=20)
    child = RunConfig(task=DYCK, model=shape, parents=(Parent(run=found.id),), train=TrainConfig(steps=2))
    with pytest.raises(ValueError, match=r"ln_eps=0\.001 in the parent and 1e-05 in the model"):
        execute(child, store)


@pytest.mark.parametrize("command", [["probe"], ["patch"], ["probe", "--what", "lens"]], ids=["probe", "patch", "lens"])
def test_it_is_measured_on_a_task_that_is_given_and_on_no_other(command, run, store, capsys):
    name, *options = command
    assert main([name, run.id, *options, "--task", NAMED, "--sequences", "8"]) == 0
    assert "imported" not in capsys.readouterr().err
    assert main([name, run.id, *options]) == 2
    assert f"has {DYCK.d_vocab} token ids, of which no text is known here" in complaint(capsys)


def test_a_task_that_comes_with_it_is_its_own(original, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROCPRE_STORE", str(tmp_path))
    assert main(["import", str(original), "--task", NAMED]) == 0
    run = RunStore(tmp_path).open("latest")
    assert load_task(run) == DYCK
    assert load_model(run).config.n_ctx == 20
    capsys.readouterr()
    assert main(["probe", run.id, "--sequences", "8"]) == 0


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("haystack", "haystack has 256 token ids, and the model in tiny-gpt2 7"),
        ("{name: identity, vocab: 5, length: 4}", "its token ids are not those of identity"),
        ("{name: dyck, k: 3, length: 64}", "longer than the context"),
        ("nonsense", "unknown task 'nonsense'"),
    ],
)
def test_a_task_that_does_not_fit(task, said, original, tmp_path, capsys):
    assert main(["import", str(original), "--task", task, "--store", str(tmp_path / "store")]) == 2
    assert said in complaint(capsys)
    assert not (tmp_path / "store").exists()


def test_it_is_never_trained(run, store, tmp_path, capsys):
    with pytest.raises(ValueError, match="tiny-gpt2 was imported: its initial weights are not known"):
        execute(run_config(run), RunStore(tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    assert execute(run_config(run), store).id == run.id
    assert list(stages(run, store)) == ["finished"]
    for refused in (lambda: starting_model(run, store), lambda: stages(run, store)["finished"].untrained.model(store)):
        with pytest.raises(ValueError, match="was imported"):
            refused()
    assert main(["probe", run.id, "--stage", "fresh"]) == 2
    assert "was imported: only its weights are known, so no stage 'fresh'" in complaint(capsys)


def test_nobody_is_offered_its_task():
    assert "imported" in TASKS
    assert "imported" not in list(TASKS)
    assert from_dict(RunConfig, {"task": {"name": "imported", "vocab": 3, "length": 4}}).task.d_vocab == 3
    with pytest.raises(ValueError, match="vocab=0"):
        TASKS.build("imported", vocab=0, length=4)


@pytest.mark.parametrize(
    "page", ["runs", "where_does_attention_look", "which_circuit", "how_do_weights_move", "what_survives_damage"]
)
def test_the_explorer_opens_it(page, run, store, monkeypatch):
    open_page(monkeypatch, store.path, f"questions/{page}.py", run=run.id)


@pytest.mark.parametrize("tab", ["Curves", "Numbers", "Config", "Lineage", "Environment", "Diagnosis", "Files"])
def test_the_explorer_says_what_it_is(tab, run, store, monkeypatch):
    app = open_page(monkeypatch, store.path, "questions/runs.py", run=run.id, tab=tab)
    assert not app.error
    assert app.multiselect(key="run").value == [run.id]
    assert f"{run.id[:8]}, imported, imported weights" in said(app)
    if tab == "Config":
        assert "folder: tiny-gpt2" in app.code[0].value
    if tab == "Lineage":
        assert app.dataframe[1].value["parent"].tolist() == ["(imported)"]
    if tab == "Diagnosis":
        assert "Imported, and not trained here" in said(app)


def test_a_report_opens_it(run, store, tmp_path, capsys):
    assert main(["report", run.id, "--out", str(tmp_path / "report.html")]) == 0
    assert "imported weights" in (tmp_path / "report.html").read_text()
    assert main(["diagnose", run.id]) == 0


def spoil_config(**fields: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return spoil


def spoil_tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights[name] = change(weights[name]).contiguous()
        save_file(weights, folder / "model.safetensors")

    return spoil


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def linked(name: str, target: str | None = None) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        moved = (folder / name).rename(folder.parent / f"moved-{name}")
        (folder / name).symlink_to(target or moved)

    return spoil


def a_pipe(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


def written(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def huge(name: str) -> Callable[[Path], None]:
    return lambda folder: os.truncate(folder / name, LARGEST[name] + 1)


def an_index(weight_map: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


EMBEDDING, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, "no such folder"),
    "pickle": (as_pickle, "pytorch_model.bin is a pickle, which is not read"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config: no JSON": (written("config.json", "{'n_head': 2}"), "not JSON"),
    "config: deep": (written("config.json", "[" * 100_000), "not JSON"),
    "config: a list": (written("config.json", "[]"), "holds no fields"),
    "config: huge": (huge("config.json"), "at most 1,048,576"),
    "config: a link": (linked("config.json"), "a link, which is not followed"),
    "config: a device": (linked("config.json", "/dev/zero"), "a link, which is not followed"),
    "config: a pipe": (a_pipe, "not a regular file"),
    "heads: text": (spoil_config(n_head="2"), "n_head='2' is no whole number"),
    "heads: truth": (spoil_config(n_head=True), "n_head='True' is no whole number"),
    "heads: none": (spoil_config(n_head=0), "n_heads=0"),
    "heads: negative": (spoil_config(n_head=-2), "n_heads=-2"),
    "heads: no divisor": (spoil_config(n_head=3), "no multiple of n_heads=3"),
    "heads: huge": (spoil_config(n_head=10**300), "no number that a model can have"),
    "layers: others": (spoil_config(n_layer=12), "its config says n_layer=12, its weights 2"),
    "layers: huge": (spoil_config(n_layer=10**9), "n_layer=1000000000"),
    "width: other": (spoil_config(n_embd=768), "n_embd=768"),
    "vocabulary: list": (spoil_config(vocab_size=[7]), "vocab_size='[7]' is no whole number"),
    "epsilon: NaN": (spoil_config(layer_norm_epsilon=float("nan")), "no number that a model can have"),
    "epsilon: infinite": (spoil_config(layer_norm_epsilon=float("inf")), "no number that a model can have"),
    "epsilon: negative": (spoil_config(layer_norm_epsilon=-1e-5), "ln_eps=-1e-05"),
    "activation": (spoil_config(activation_function="relu"), "activation_function='relu'"),
    "activation: list": (spoil_config(activation_function=["relu"] * 10**4), "activation_function=['relu'"),
    "scaled by layer": (spoil_config(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx=True"),
    "another family": (spoil_config(model_type="llama"), "model_type='llama', but a plain GPT-2"),
    "weights: garbage": (written("model.safetensors", "no weights here"), "damaged, or no safetensors file"),
    "weights: a header of terabytes": (written("model.safetensors", "\xff\x7f" * 8), "damaged, or no safetensors file"),
    "weights: a link": (linked("model.safetensors"), "a link, which is not followed"),
    "weights: NaN": (spoil_tensor(POSITIONS, lambda x: x * float("nan")), "pos_embed.W_pos holds numbers that are not"),
    "weights: infinity": (spoil_tensor(EMBEDDING, lambda x: x / 0), "embed.W_E holds numbers that are not finite"),
    "weights: whole numbers": (spoil_tensor(EMBEDDING, lambda x: x.int()), "is of torch.int32, not of floating point"),
    "weights: no axes": (spoil_tensor(POSITIONS, lambda x: x[0, 0]), "not a plain GPT-2"),
    "weights: three axes": (spoil_tensor(EMBEDDING, lambda x: x[None]), "vocab_size=7, its weights 1"),
    "weights: another width": (spoil_tensor(EMBEDDING, lambda x: x[:, :5]), "embed.W_E has shape (7, 5)"),
    "weights: empty": (spoil_tensor(POSITIONS, lambda x: x[:0]), "n_ctx=0"),
    # A model of these sizes would take terabytes, and none of its tensors does.
    "weights: wide": (spoil_tensor(POSITIONS, lambda x: torch.ones(20, 2**20)), "n_embd"),
    "weights: wide, and so the config says": (
        lambda folder: (
            spoil_tensor(POSITIONS, lambda x: torch.ones(20, 2**20))(folder),
            spoil_config(n_embd=2**20)(folder),
        ),
        "embed.W_E has shape",
    ),
    "weights: many layers": (
        lambda folder: save_file(
            load_file(folder / "model.safetensors") | {"transformer.h.999999999.ln_1.bias": torch.ones(8)},
            folder / "model.safetensors",
        ),
        "n_layer=2, its weights 1000000000",
    ),
    "index: outside": (an_index({"a": "../../secret.safetensors"}), "no file of the same folder"),
    "index: missing": (an_index({"a": "other.safetensors"}), "which is missing"),
    "index: no map": (an_index([1, 2]), "no weight_map"),
    "index: a link": (
        lambda folder: (an_index({"a": "part.safetensors"})(folder), linked("part.safetensors")(folder)),
        "a link, which is not followed",
    ),
    "tokenizer: garbage": (written("tokenizer.json", "{}"), "damaged, or no tokenizer"),
    "tokenizer: a link": (linked("tokenizer.json"), "a link, which is not followed"),
    "tokenizer: huge": (huge("tokenizer.json"), "at most 67,108,864"),
    "tokenizer: too many ids": (
        lambda folder: (folder / "tokenizer.json").write_text(
            tokenizer_files(TASKS.build("dyck", k=4, length=16), 20).texts["tokenizer.json"]
        ),
        "it has the token id 8",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_folder_is_one_line_and_no_run(what, folder, tmp_path, capsys):
    spoil, said = HOSTILE[what]
    spoil(folder)
    assert main(["import", str(folder), "--store", str(tmp_path / "store")]) in (1, 2)
    message = complaint(capsys)
    assert said in message
    assert len(message) < 500
    assert not (tmp_path / "store").exists()


def test_files_that_change_while_they_are_read(folder, tmp_path, monkeypatch):
    def read(path: Path) -> HookedTransformer:
        (path / "config.json").write_text((path / "config.json").read_text() + " ")
        return random_model(SHAPE)

    monkeypatch.setattr("procpre_interp.pipeline.imported.from_huggingface", read)
    with pytest.raises(ValueError, match="changed while they were read"):
        import_model(folder, RunStore(tmp_path / "store"))
