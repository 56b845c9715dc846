"""What a job may be asked for: some options of some commands, so that a form can reach no file and no other command.

A form chooses the options and words their labels; type, default and choices are the command's own, as its source has
them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.source import read_field, registered
from procpre_interp.core.terminal import beside_package
from procpre_interp.jobs.option import Option, Value

MODELS = "models"
"""Folder of the store in which exported models are, and those to be imported are put: a form reaches no other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A command that can be started."""

    title: str
    about: str
    words: tuple[str, ...]
    """How its command line begins."""
    store_flag: str
    """The option that names the folder of the runs; empty for a command that has no store."""
    options: tuple[Option, ...]
    always: tuple[str, ...] = ()
    """Arguments that are always given."""


def _option(command: str, field: str, label: str, **form: Any) -> Option:
    """A field of a command under the form's own label; `form` says what the command's type leaves open."""
    found = read_field(command, field)
    as_declared = {name: getattr(found, name) for name in ("flag", "kind", "default", "choices", "is_required")}
    return Option(label=label, **{**as_declared, **form})


def _flag(command: str, field: str) -> str:
    """The flag of a field that the form gives itself."""
    return read_field(command, field).flag


_FIRST_TASKS = ("dyck", "haystack")
"""The tasks of the paper's headline, which a form lists before all others."""


def _tasks() -> tuple[str, ...]:
    """Every task that can be started by its name alone."""
    known = [found.name for found in registered("TASKS", "data") if not found.needs_field]
    return tuple(sorted(known, key=lambda name: (name not in _FIRST_TASKS, name)))


def _made_of_others() -> tuple[str, ...]:
    """Tasks that are made of others, which `--part` names."""
    return tuple(found.name for found in registered("TASKS", "data") if found.needs_field)


def _corpora() -> tuple[str, ...]:
    """Corpora that are known by their name alone: no path, and no data set that anybody could name."""
    return tuple(found.name for found in registered("CORPORA", "data") if not found.needs_field)


_RUN = "commands.train.Training"
_SAVE_OFTEN = (f"{_flag(_RUN, 'train.save_seconds')}=5",)
"""So that the explorer can show how far a run is; no part of a run's identity."""

_TASK = Option(
    flag="--task",
    label="Task",
    kind="choice",
    choices=(*_tasks(), *_made_of_others()),
    is_open=True,
    is_required=True,
)
_UNSAID = ""
"""The choice that leaves an option to the command."""
_TEXT = "data.semantic.text.Text"
_TOKENIZERS = ("byte", "characters", "bpe:1024", "bpe:4096", "bpe:8192", "gpt2")
_TRAINING = (
    Option(flag="", label="Fields of the task, such as k=8 length=64", kind="pairs"),
    Option(
        flag="--part",
        label=f"Parts, if the task is {', '.join(_made_of_others()[:-1])} or {_made_of_others()[-1]}",
        kind="parts",
        choices=_tasks(),
    ),
    Option(flag="--task.corpus", label="Corpus of text", kind="choice", choices=(_UNSAID, *_corpora())),
    Option(flag="--task.tokenizer", label="Tokenizer of text", kind="choice", choices=(_UNSAID, *_TOKENIZERS)),
    _option(_RUN, "train.steps", "Steps"),
    _option(_RUN, "epochs", "Epochs of text, in place of steps", least=1e-6),
    _option(_RUN, "train.batch_size", "Sequences per step"),
    _option(_RUN, "train.learning_rate", "Peak learning rate", least=1e-9),
    _option(_RUN, "model.n_layers", "Layers"),
    _option(_RUN, "model.n_heads", "Heads per layer"),
    _option(_RUN, "model.d_model", "Width"),
    _option(_RUN, "seed", "Seed (from 1000: confirmation)", least=0),
    _option(_RUN, "train.checkpoints", "Kept steps"),
    Option(
        flag="--task.order",
        label="Order of text",
        kind="choice",
        choices=(_UNSAID, *read_field(_TEXT, "order").choices),
        is_rare=True,
    ),
    _option(_RUN, "train.schedule", "Schedule", is_rare=True),
    _option(_RUN, "train.warmup_steps", "Steps of warm-up", least=0, is_rare=True),
    _option(_RUN, "train.weight_decay", "Weight decay", least=0, is_rare=True),
    _option(_RUN, "model.init_std", "Standard deviation of fresh weights", least=0, is_rare=True),
    _option(_RUN, "train.precision", "Precision", is_rare=True),
    _option(_RUN, "train.recompute", "Gradient checkpointing, for large models", is_rare=True),
)
_WORKERS = "Processes (default: one per core)"


def names(kind: str) -> list[str]:
    """Names of the bundled sweeps or claims. Nothing of them is run."""
    folder = beside_package("experiments")
    if kind == "sweep":
        return sorted(path.stem for path in (folder / "sweeps").glob("*.yaml"))
    return sorted(path.stem for path in (folder / "results" / "claims").glob("*.json"))


FORMS: Mapping[str, Form] = {
    "reproduce": Form(
        title="Reproduce",
        about="The paper's headline: Dyck pretraining, then needle in a haystack, in six conditions. About 25 minutes "
        "on two cores; quick: under four, a demonstration with one seed and no evidence.",
        words=("reproduce",),
        store_flag=_flag("commands.reproduce.Reproduce", "out"),
        options=(
            _option("commands.reproduce.Reproduce", "quick", "Quick: one replicate of four conditions"),
            _option("commands.reproduce.Reproduce", "replicates", "Replicates (default: as many as decide; quick: 1)"),
            _option("commands.reproduce.Reproduce", "workers", _WORKERS),
        ),
    ),
    "train": Form(
        title="Train",
        about="A fresh model on one task: phase 1, or phase 2 without pretraining.",
        words=("train",),
        store_flag=_flag(_RUN, "store"),
        options=(_TASK, *_TRAINING),
        always=_SAVE_OFTEN,
    ),
    "transfer": Form(
        title="Transfer",
        about="Components of finished runs into a fresh model, which is then trained: phase 2. Layers, heads and width "
        "must be the parents'.",
        words=("transfer",),
        store_flag=_flag(_RUN, "store"),
        options=(
            _option("commands.transfer.Transfer", "parent", "Parents", kind="runs", is_required=True),
            _option("commands.transfer.Transfer", "components", "What each gives: attn+ln, mlp, blocks.0, all ..."),
            replace(_TASK, default="haystack"),
            *_TRAINING,
        ),
        always=_SAVE_OFTEN,
    ),
    "sweep": Form(
        title="Sweep",
        about="A grid of transfers over replicates. What the store holds is not repeated.",
        words=("sweep",),
        store_flag=_flag("commands.sweep.SweepCommand", "out"),
        options=(
            _option("commands.sweep.SweepCommand", "config", "Sweep", kind="choice", choices=tuple(names("sweep"))),
            _option("commands.sweep.SweepCommand", "replicates", "Replicates (default: as in the file)"),
            _option("commands.sweep.SweepCommand", "workers", _WORKERS),
        ),
    ),
    "claim": Form(
        title="Claim",
        about="Computes the runs that a claim still needs, and judges it.",
        words=("claims", _flag("commands.claims.Claims", "run")),
        store_flag=_flag("commands.claims.Claims", "store"),
        options=(
            _option(
                "commands.claims.Claims",
                "names",
                "Claim",
                kind="choice",
                choices=tuple(names("claim")),
                is_required=True,
            ),
            _option("commands.claims.Claims", "quick", "Quick: a smoke test, never a verdict"),
            _option("commands.claims.Claims", "workers", _WORKERS),
        ),
    ),
    "corpora": Form(
        title="Corpora",
        about="Fetches a corpus of real text, or makes it, into the cache, once. The page What was generated? lists "
        "them with their licences and sizes.",
        words=("corpora",),
        store_flag="",
        options=(
            _option(
                "commands.corpora.Corpora",
                "names",
                "Corpus",
                kind="choice",
                choices=_corpora(),
                is_required=True,
            ),
        ),
        always=(_flag("commands.corpora.Corpora", "fetch"),),
    ),
    "export": Form(
        title="Export",
        about=f"A run's model as a folder for Hugging Face's transformers, in the folder `{MODELS}` of the store.",
        words=("export",),
        store_flag=_flag("commands.export.Export", "store"),
        options=(
            _option("commands.export.Export", "run", "Run", kind="runs"),
            _option("commands.export.Export", "to", "Name of the new folder", kind="folder"),
            _option("commands.export.Export", "stage", "Stage"),
        ),
    ),
    "import": Form(
        title="Import",
        about=f"A GPT-2 that was put into the folder `{MODELS}` of the store, as `save_pretrained` writes it, becomes "
        "a run. Nothing else is read, and nothing in it is executed.",
        words=("import",),
        store_flag=_flag("commands.import.Import", "store"),
        options=(
            _option("commands.import.Import", "folder", "Name of its folder", kind="folder"),
            _option(
                "commands.import.Import",
                "task",
                "Task that it is measured on",
                kind="choice",
                choices=(_UNSAID, *_tasks()),
                is_open=True,
            ),
        ),
    ),
}


def command_line(form: str, values: Mapping[str, Value], store: Path) -> list[str]:
    """The arguments of `procpre-interp` for a form's values, by label. Raises `ValueError` for a bad one."""
    if form not in FORMS:
        raise unknown_name("form", form[:40], list(FORMS))
    asked = FORMS[form]
    if extra := set(values) - {option.label for option in asked.options}:
        raise ValueError(f"{asked.title} has no {min(extra)[:40]!r}")
    given = []
    for option in asked.options:
        arguments = option.arguments(values.get(option.label, option.default))
        if option.kind == "folder" and arguments:
            arguments[-1] = str(store.resolve() / MODELS / arguments[-1])
        given += arguments
    if form == "sweep":
        given[0] = str(beside_package("experiments") / "sweeps" / f"{given[0]}.yaml")
    of_store = [asked.store_flag, str(store.resolve())] if asked.store_flag else []
    return [*asked.words, *of_parts(given), *asked.always, *of_store]


def of_parts(arguments: list[str]) -> list[str]:
    """The arguments with those on text given to the part that is text, where the task is made of parts."""
    parts = [argument.partition("=")[2] for argument in arguments if argument.startswith("--part=")]
    if "text" not in parts:
        return arguments
    place = "task." if len(parts) == 1 and "mixture" not in arguments else f"tasks.{parts.index('text')}."
    flags = {f"--task.{name}": f"--task.{place}{name}" for name in ("corpus", "tokenizer", "order")}
    return [flags.get(argument, argument) for argument in arguments]
