"""Files and other libraries' models: the same weights come back, and nothing runs code."""

import argparse
import dataclasses
import json
import os
import pickle
import re
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from procpre_interp.model import (
    ModelConfig,
    from_huggingface,
    load_weights,
    read_metadata,
    read_weights,
    save_huggingface,
    save_weights,
    to_bridge,
    to_huggingface,
)
from tests.models import TINY, random_model, random_tokens


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def model(request):
    return random_model(dataclasses.replace(TINY, tied=request.param, d_mlp=20, ln_eps=1e-4))


def same(a, b) -> bool:
    return a.config == b.config and torch.equal(a.flat, b.flat)


def test_weights_come_back(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(model, path, {"step": "7"})
    loaded = load_weights(path)
    assert same(loaded, model)
    assert not loaded.training
    assert loaded.W_E.requires_grad
    assert read_metadata(path)["step"] == "7"
    assert list(read_weights(path)) == sorted(name for name, _ in model.named_parameters())
    assert os.listdir(tmp_path) == [path.name]


def test_a_failed_save_leaves_the_old_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    with pytest.raises(TypeError, match="object"):
        save_weights(model, path, {"step": object()})  # type: ignore[dict-item]
    assert same(load_weights(path), model)
    assert os.listdir(tmp_path) == [path.name]


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


@pytest.mark.parametrize("content", ["cut", "garbage", "foreign", "config", "missing", "pickle"])
def test_a_bad_file_is_one_clear_line(content, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.safetensors"
    save_weights(model, path)
    weights = read_weights(path)
    if content == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif content == "garbage":
        path.write_bytes(b"no weights here")
    elif content == "foreign":
        save_file(weights, path)
    elif content == "config":
        save_file(weights, path, {"model_config": '{"n_layers": "two"}'})
    elif content == "missing":
        del weights["ln_final.w"]
        save_file(weights, path, read_metadata_of(model))
    else:
        path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ValueError, match=r"model\.safetensors") as error:
        load_weights(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"model\.(safetensors|pt)") as error:
        from_huggingface(path.rename(tmp_path / "model.pt"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ("[1]", "holds no fields"),
        ("5", "holds no fields"),
        ("[" * 100_000, "levels deep"),
        ('{"n_layers": 1', "is damaged"),
        ({"n_ctx": 2**31}, r"parameters, but it holds [\d,]+ numbers"),
        ({"n_layers": 2**40}, r"parameters, but it holds [\d,]+ numbers"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_header_of_another_shape_is_refused_before_a_model_is_made(model, tmp_path, described, says):
    path = tmp_path / "model.safetensors"
    if isinstance(described, dict):
        described = json.dumps(dataclasses.asdict(model.config) | described)
    save_file({name: p.detach().clone() for name, p in model.named_parameters()}, path, {"model_config": described})
    with pytest.raises(ValueError, match=says) as error:
        load_weights(path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def read_metadata_of(model) -> dict[str, str]:
    return {"model_config": json.dumps(dataclasses.asdict(model.config))}


def test_hugging_face_computes_the_same_and_comes_back(model):
    before = torch.get_rng_state()
    theirs = to_huggingface(model)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = random_tokens()
    torch.testing.assert_close(theirs(tokens).logits, model(tokens), atol=1e-5, rtol=0)
    assert dataclasses.replace(from_huggingface(theirs).config, init_std=0.02) == model.config
    assert same(from_huggingface(theirs), model)


def test_a_folder_of_save_pretrained(model, tmp_path, capfd):
    to_huggingface(model).save_pretrained(tmp_path)
    assert same(from_huggingface(tmp_path), model)


def test_a_folder_of_ours_is_read_back(model, tmp_path):
    save_huggingface(model, tmp_path, end=None, pad=3)
    assert same(from_huggingface(tmp_path), model)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "generation_config.json", "model.safetensors"]
    assert ("lm_head.weight" in load_file(tmp_path / "model.safetensors")) is not model.config.tied


def as_bin(folder):
    """The folder's safetensors files as torch files, with the names that `save_pretrained` gave these."""
    for path in list(folder.glob("*.safetensors")):
        name = path.name.replace("model", "pytorch_model", 1).replace(".safetensors", ".bin")
        torch.save(load_file(path), folder / name)
        path.unlink()
    for path in list(folder.glob("*.index.json")):
        text = path.read_text().replace('"model-', '"pytorch_model-').replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(text)
        path.unlink()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("layout", ["whole", "shards"])
def test_other_files_of_a_folder_are_not_read(kind, layout, model, tmp_path):
    shards = {"max_shard_size": "5KB"} if layout == "shards" else {}
    to_huggingface(model).save_pretrained(tmp_path, **shards)
    if kind == "bin":
        as_bin(tmp_path)
    assert (len(list(tmp_path.glob(f"*.{kind}"))) > 1) == (layout == "shards")
    old = {name: tensor + 1 for name, tensor in to_huggingface(model).state_dict().items() if "wte" in name}
    others = {"exp_avg": torch.ones(3)}
    for prefix in ("", "z_", "pytorch_model_", "model_"):
        save_file(old, tmp_path / f"{prefix}old.safetensors")
        torch.save(old, tmp_path / f"{prefix}old.bin")
    save_file(others, tmp_path / "optimizer.safetensors")
    torch.save(others, tmp_path / "optimizer.bin")
    assert same(from_huggingface(tmp_path), model)


def sharded(model, folder) -> dict[str, str]:
    to_huggingface(model).save_pretrained(folder, max_shard_size="5KB")
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def test_a_tensor_in_two_shards_is_refused(model, tmp_path):
    where = sharded(model, tmp_path)
    name = "transformer.wpe.weight"
    other = next(file for file in where.values() if file != where[name])
    save_file(load_file(tmp_path / other) | {name: torch.zeros(8, 12)}, tmp_path / other)
    with pytest.raises(ValueError, match=f"{re.escape(name)} occurs in another shard"):
        from_huggingface(tmp_path)


def test_a_missing_shard_and_a_missing_tensor_are_named(model, tmp_path):
    where = sharded(model, tmp_path)
    name = "transformer.wpe.weight"
    shard = tmp_path / where[name]
    left = load_file(shard)
    del left[name]
    save_file(left, shard)
    with pytest.raises(ValueError, match=f"promises {re.escape(name)}"):
        from_huggingface(tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name}, which is missing"):
        from_huggingface(tmp_path)


def test_two_sets_of_weights_are_refused_and_an_index_without_shards_is_not(model, tmp_path):
    shards = set(sharded(model, tmp_path).values())
    to_huggingface(model).save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="out of date"):
        from_huggingface(tmp_path)
    for name in shards:
        (tmp_path / name).unlink()
    assert same(from_huggingface(tmp_path), model)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("only other files", "no model.safetensors"),
        ("foreign", "left over are exp_avg"),
        ("path", "no file of the same folder"),
        ("index", "no weight_map"),
        ("no config", "no config.json"),
        ("heads in words", "n_head='2' is no whole number"),
        ("epsilon", "layer_norm_epsilon='None' is no number"),
        ("a list", "holds no fields"),
        ("no JSON", "not JSON"),
        ("a list of tensors", "no tensors by name"),
    ],
)
def test_a_bad_folder_is_one_clear_line(change, says, tmp_path):
    to_huggingface(random_model()).save_pretrained(tmp_path)
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    described = json.loads(config.read_text())
    if change == "only other files":
        weights.rename(tmp_path / "final.safetensors")
    elif change == "foreign":
        save_file(load_file(weights) | {"exp_avg": torch.ones(2)}, weights)
    elif change in ("path", "index"):
        weights.rename(tmp_path / "elsewhere")
        index = {"weight_map": {"a": "../elsewhere"}} if change == "path" else {"weight_map": [1]}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    elif change == "no config":
        config.unlink()
    elif change == "heads in words":
        config.write_text(json.dumps(described | {"n_head": "2"}))
    elif change == "epsilon":
        config.write_text(json.dumps(described | {"layer_norm_epsilon": None}))
    elif change == "a list of tensors":
        weights.unlink()
        torch.save([torch.ones(2)], tmp_path / "pytorch_model.bin")
    else:
        config.write_text("[]" if change == "a list" else "{")
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        from_huggingface(tmp_path)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


NUMBERS = (np.float64(0.5), np.float32(0.5), np.mean([0.25, 0.75]), np.int64(-3), np.uint8(7), np.bool_(True))


@pytest.mark.parametrize("numpy_name", ["numpy._core.", "numpy.core."])
def test_numpy_numbers_in_a_checkpoint(numpy_name, model, tmp_path):
    """As the authors' training script writes: {"model", "optimizer", "scheduler", "val_acc"}, with numpy's means."""
    state = to_huggingface(model).state_dict()
    content = {"model": state, "optimizer": {"lr": NUMBERS[0]}, "scheduler": {}, "val_acc": list(NUMBERS)}
    torch.save(content, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as new, zipfile.ZipFile(tmp_path / "model.pt", "w") as old:
        for entry in new.infolist():  # numpy 1 called the same module by another name
            old.writestr(entry, new.read(entry).replace(b"numpy._core.", numpy_name.encode()))
    assert torch.equal(from_huggingface(tmp_path / "model.pt", n_heads=TINY.n_heads).flat, model.flat)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Path("x"), "pathlib"),
        (argparse.Namespace(a=1), "argparse.Namespace"),
        (defaultdict(list), "collections.defaultdict"),
        (Malicious(), "mkdir"),
    ],
    ids=["path", "namespace", "defaultdict", "malicious"],
)
def test_what_a_checkpoint_holds_besides_is_named(value, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {}, "args": value}, "model.pt")
    with pytest.raises(ValueError, match=named) as error:
        from_huggingface("model.pt")
    assert "\n" not in str(error.value)
    assert not Path("owned").exists()


@pytest.mark.parametrize("wrapping", ["plain", "nested", "parallel", "without prefix", "buffers", "half"])
def test_raw_state_dicts_as_training_scripts_write_them(wrapping, model, tmp_path):
    theirs = to_huggingface(model)
    state = dict(theirs.state_dict())
    mask = torch.ones(1, 1, 10, 10)
    contents = {
        "plain": state,
        "nested": {"step": 3, "model_state_dict": state, "optimizer": {"lr": 0.1}},
        "parallel": {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        "without prefix": {name.removeprefix("transformer."): tensor for name, tensor in state.items()},
        "buffers": state | {"transformer.h.0.attn.bias": mask, "transformer.h.0.attn.masked_bias": mask},
        "half": {name: tensor.bfloat16() for name, tensor in state.items()},
    }  # fmt: skip
    path = tmp_path / "model.pth"
    torch.save(contents[wrapping], path)
    loaded = from_huggingface(path, n_heads=TINY.n_heads)
    assert dataclasses.replace(loaded.config, ln_eps=1e-4) == model.config
    atol = 0.02 if wrapping == "half" else 0.0
    torch.testing.assert_close(loaded.flat, model.flat, atol=atol, rtol=0)


def test_without_a_head_the_unembedding_is_tied(model):
    loaded = from_huggingface(to_huggingface(model).transformer.state_dict(), n_heads=TINY.n_heads)
    assert loaded.config.tied
    assert torch.equal(loaded.W_E, model.W_E)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("no heads", "give n_heads"),
        ("heads", "no multiple of n_heads"),
        ("missing", "h.1.mlp.c_fc.bias is missing"),
        ("left over", "left over are h.0.adapter.weight"),
        ("shape", "ln_final.w has shape (3,), not (12,)"),
        ("no gpt", "wte.weight"),
        ("activation", "activation_function='relu'"),
    ],
)
def test_what_is_no_plain_gpt2_is_refused(change, says):
    theirs = to_huggingface(random_model())
    state, n_heads = dict(theirs.state_dict()), 3
    source = state
    if change == "no heads":
        n_heads = None
    elif change == "heads":
        n_heads = 5
    elif change == "missing":
        del state["transformer.h.1.mlp.c_fc.bias"]
    elif change == "left over":
        state["transformer.h.0.adapter.weight"] = torch.ones(2)
    elif change == "shape":
        state["transformer.ln_f.weight"] = torch.ones(3)
    elif change == "no gpt":
        source = {"layer.weight": torch.ones(2)}
    else:
        theirs.config.activation_function = "relu"
        source = theirs
    with pytest.raises(ValueError, match=re.escape(says)):
        from_huggingface(source, n_heads=n_heads)


def test_the_bridge_computes_the_same(model):
    before = torch.get_rng_state()
    bridge = to_bridge(model)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = random_tokens()
    torch.testing.assert_close(bridge(tokens), model(tokens), atol=1e-5, rtol=0)
    assert not bridge.training


def test_activations_agree_with_the_bridge_where_names_are_shared(model):
    tokens = random_tokens()
    _, ours = model.run_with_cache(tokens)
    _, theirs = to_bridge(model).run_with_cache(tokens)
    shared = set(ours.cache_dict) & set(theirs.cache_dict)
    assert set(ours.cache_dict) - shared == {f"blocks.{layer}.hook_mlp_in" for layer in (0, 1)}
    for name in shared:
        # The bridge's scores are the pattern, and its position embedding has no batch axis.
        mine = ours[name].softmax(-1) if name.endswith("hook_attn_scores") else ours[name]
        torch.testing.assert_close(mine, theirs[name].expand_as(mine), atol=1e-5, rtol=1e-5, msg=name)


def test_config_of_a_file_is_whole(tmp_path):
    config = ModelConfig(n_layers=1, n_heads=1, d_model=4, n_ctx=3, d_vocab=5, init_std=0.1)
    save_weights(random_model(config), tmp_path / "w")
    assert load_weights(tmp_path / "w").config == config
