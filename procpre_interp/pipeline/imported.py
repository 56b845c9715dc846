"""A GPT-2 from elsewhere as a run: its weights at step 0, named by the content of its files."""

import dataclasses
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pandas as pd
from tokenizers import Tokenizer as Model

from procpre_interp.core import checksums
from procpre_interp.core.config import content_hash, to_yaml
from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import load_json
from procpre_interp.core.regular_files import read_regular
from procpre_interp.data import Task
from procpre_interp.data.imported import ImportedTask
from procpre_interp.data.tokenizer_files import NoTokenizer, tokenizer_files
from procpre_interp.model import HookedTransformer, from_huggingface, save_weights
from procpre_interp.pipeline.config import Architecture, Imported, RunConfig
from procpre_interp.store.run import TOKENIZER, Run
from procpre_interp.store.store import RunStore, environment

CONFIG, WHOLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST = {CONFIG: 2**20, INDEX: 2**24, TOKENIZER: 2**26}
"""Bytes of the JSON files; GPT-2's own tokenizer has 1.4 million."""
SAMPLE = "don't  we'll\n\t12345 na\u00efve \u6f22\U0001f389"
"""Text that tells tokenizers apart which have the same vocabulary."""


def import_model(folder: str | Path, store: RunStore, task: Task | None = None) -> Run:
    """The run of a folder with config.json, safetensors, and perhaps tokenizer.json: made now, or the one there is.

    Its task is `task`, whose token ids must be the model's, and by default a placeholder that has no data. The same
    files and task give the same run, wherever the folder is. Nothing is unpickled, and links are not followed. Raises
    `ValueError`, in one line, for a folder that is no plain GPT-2.
    """
    folder = Path(os.path.abspath(folder))
    names = _names(folder)
    before = {name: _identity(folder / name) for name in names}
    files = tuple((name, checksums.sha256(folder / name)) for name in names)
    model = from_huggingface(folder)
    _check_finite(model, folder)
    tokenizer = _read_tokenizer(folder, model) if TOKENIZER in names else None
    if before != {name: _identity(folder / name) for name in names}:
        raise ValueError(f"{folder}: its files changed while they were read; try again")
    resolved = run_config_of(model, Imported(files=files, folder=folder.name), task).resolve()
    if task is not None and tokenizer is not None:
        _check_same_ids(tokenizer, resolved.task, model, folder)
    run_id = content_hash(resolved)
    with store.claim(run_id) as partial:
        if partial is None:
            return store.open(run_id)
        partial.write_config(to_yaml(resolved))
        partial.write_json("environment.json", environment())
        partial.write_table("history", pd.DataFrame({"step": pd.Series(dtype="int64"), "split": pd.Series(dtype=str)}))
        if tokenizer is not None:
            partial.write_tokenizer(tokenizer)
        save_weights(model, partial.weights_path(0))
        return partial.finish(_summary(resolved, model))


def run_config_of(model: HookedTransformer, imported: Imported, task: Task | None) -> RunConfig:
    """The config of an imported model. Raises `ValueError` where the task's token ids cannot be the model's."""
    config = model.config
    task = ImportedTask(vocab=config.d_vocab, length=config.n_ctx) if task is None else task
    if task.d_vocab != config.d_vocab:
        raise ValueError(
            f"{task.name} has {task.d_vocab} token ids, and the model in {imported.folder} {config.d_vocab}"
        )
    shape = Architecture(
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        d_model=config.d_model,
        d_mlp=config.d_mlp,
        n_ctx=config.n_ctx,
        tied=config.tied,
    )
    return RunConfig(task=task, model=shape, imported=dataclasses.replace(imported, ln_eps=config.ln_eps))


def _summary(config: RunConfig, model: HookedTransformer) -> dict[str, Any]:
    """The run's row in the list of runs. There are no scores: nobody asked for them on any data."""
    return {
        "status": "finished",
        "stop_reason": "imported",
        "task": config.task.name,
        "seed": config.seed,
        "parents": [],
        "components": None,
        "n_layers": config.model.n_layers,
        "n_heads": config.model.n_heads,
        "d_model": config.model.d_model,
        "n_parameters": model.flat.numel(),
        "steps": 0,
        **dict.fromkeys(("loss_nats", "accuracy", "exact_match", "breakthrough_step", "prompt_overlap")),
        "breakthrough_limit": 0,
        "positions_carried": False,
        "tokens": 0,
        "seconds": 0.0,
        **dict.fromkeys(("kernel", "threads", "device")),
    }


def _names(folder: Path) -> list[str]:
    """The files of the folder that will be read, each a regular one. Raises `ValueError` where there is no model."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: {'a file' if folder.exists() else 'no such folder'}; give a folder with {CONFIG}")
    there = {path.name for path in folder.iterdir()}
    if CONFIG not in there:
        raise ValueError(f"{folder}: no {CONFIG}; give a folder as save_pretrained writes it")
    _identity(folder / CONFIG)
    if WHOLE in there:
        weights = [WHOLE]
    elif INDEX in there:
        _identity(folder / INDEX)
        weights = [INDEX, *_shards(folder)]
    elif pickled := sorted(name for name in there if name.endswith((".bin", ".pt", ".pth", ".ckpt"))):
        raise ValueError(
            f"{folder}: {pickled[0]} is a pickle, which is not read, as it may run code; convert it where you "
            "trust it: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW, safe_serialization=True)"
        )
    else:
        raise ValueError(f"{folder}: no {WHOLE}; give a folder as save_pretrained writes it")
    return [CONFIG, *weights, *({TOKENIZER} & there)]


def _shards(folder: Path) -> list[str]:
    """Names of the files that the index promises; `from_huggingface` checks them, and what is in them."""
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        promised = load_json(read_regular(folder / INDEX))["weight_map"].values()
        return sorted({str(name) for name in promised if Path(str(name)).name == name and (folder / name).exists()})
    return []


def _identity(path: Path) -> tuple[int, int, int]:
    """What changes with a file's content. Raises `ValueError` for links and devices, and for JSON that is too large."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ValueError(f"{path}: a link, which is not followed; copy the folder with its files: cp -rL")
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path}: not a regular file")
    if found.st_size > (most := LARGEST.get(path.name, found.st_size)):
        raise ValueError(f"{path}: {found.st_size:,} bytes; such a file has at most {most:,}")
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_finite(model: HookedTransformer, folder: Path) -> None:
    for name, parameter in model.named_parameters():
        if not parameter.detach().isfinite().all():
            raise ValueError(f"{folder}: {name} holds numbers that are not finite (NaN or infinity)")


def _read_tokenizer(folder: Path, model: HookedTransformer) -> str:
    path = folder / TOKENIZER
    try:
        text = read_regular(path).decode()
        vocabulary = _parsed(text).get_vocab()
    except Exception as problem:  # the library raises no other
        raise ValueError(f"{path}: damaged, or no tokenizer ({one_line(problem)[:100]})") from None
    if (highest := max(vocabulary.values(), default=0)) >= model.config.d_vocab:
        raise ValueError(
            f"{path}: it has the token id {highest}, but the model's ids end at {model.config.d_vocab - 1}"
        )
    return text


def _check_same_ids(tokenizer: str, task: Task, model: HookedTransformer, folder: Path) -> None:
    """Raise `ValueError` where the folder's tokenizer is another than the task's."""
    try:
        ours = _parsed(tokenizer_files(task, model.config.n_ctx).texts[TOKENIZER])
    except NoTokenizer:
        return
    theirs = _parsed(tokenizer)
    if ours.get_vocab() != theirs.get_vocab() or _ids(ours) != _ids(theirs):
        raise ValueError(
            f"{folder / TOKENIZER}: its token ids are not those of {task.name}; give the task of the model"
        )


def _parsed(text: str) -> Any:
    return cast(Any, Model).from_str(text)


def _ids(tokenizer: Any) -> list[int] | None:
    """Ids of the sample; None for a tokenizer of words that has none of its words."""
    try:
        return tokenizer.encode(SAMPLE, add_special_tokens=False).ids
    except Exception:  # the library raises no other
        return None
