"""What a job may be asked for: some options of some commands, so that a form can reach no file and no other command.

A form chooses the options and words their labels; type, default and choices are the command's own, as its source has
them.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.source import read_field, registered
from procpre_interp.core.terminal import beside_package

Value = bool | int | float | str | None

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+,@-]*")
"""A run, a selector, a name: no blank, no path, nothing that begins like an option."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TYPES = {
    "switch": bool,
    "int": (int, float),
    "float": (int, float),
    "choice": str,
    "word": str,
    "runs": str,
    "pairs": str,
}
_TYPE_NAMES = {bool: "true or false", (int, float): "a number", str: "text"}
_PAIR = re.compile(r"(?P<name>[a-z][a-z_]*)=(?P<value>[A-Za-z0-9_.-]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """An option of a command."""

    flag: str
    """Such as --train.steps; empty for words without one (the name of a claim, a parent)."""
    label: str
    kind: Literal["int", "float", "switch", "choice", "word", "runs", "pairs"] = "int"
    """runs: ids of stored runs separated by blanks; pairs: fields of the task, such as `k=8 length=64`."""
    default: Value = None
    """Value in the form. Default: left to the command."""
    choices: tuple[str, ...] = ()
    is_open: bool = False
    """Whether a name may be typed that is not among the choices: a task of a plugin, which the command knows."""
    least: float | int = 1
    is_required: bool = False

    def arguments(self, value: Value) -> list[str]:
        """The arguments that give the option this value; none for its default. Raises `ValueError` for a bad one."""
        if value is None or value == "":
            if self.is_required:
                raise ValueError(f"{self.label}: give one")
            return []
        expected = _TYPES[self.kind]
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"{self.label} {str(value)[:40]!r}; it must be {_TYPE_NAMES[expected]}")
        if value == self.default and not self.is_required:
            return []
        if self.kind == "switch":
            return [self.flag]
        if self.kind == "pairs":
            return [self._pair(word) for word in str(value).split()]
        if self.kind in ("int", "float"):
            number = float(str(value))
            if not math.isfinite(number) or number < self.least or (self.kind == "int" and number % 1):
                whole = "a whole number" if self.kind == "int" else "a number"
                raise ValueError(f"{self.label} {str(value)[:40]}; it must be {whole} from {self.least:g} on")
            return [f"{self.flag}={int(number) if self.kind == 'int' else number!r}"]
        if self.kind == "choice" and value not in self.choices and not (self.is_open and _NAME.fullmatch(str(value))):
            raise unknown_name(self.label.lower(), str(value)[:40], list(self.choices))
        words = str(value).split() if self.kind in ("word", "runs") else [str(value)]
        for word in words:
            if not _WORD.fullmatch(word):
                raise ValueError(f"{self.label} {word[:40]!r}; use letters, digits and _ . + , @ -")
        return [self.flag, *words] if self.flag else words

    def _pair(self, word: str) -> str:
        found = _PAIR.fullmatch(word)
        if found is None or found["name"] in ("corpus", "name"):
            raise ValueError(f"{self.label} {word[:40]!r}; write fields of numbers or words, such as k=8 length=64")
        return f"--task.{found['name'].replace('_', '-')}={found['value']}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """A command that can be started."""

    title: str
    about: str
    words: tuple[str, ...]
    """How its command line begins."""
    store_flag: str
    """The option that names the folder of the runs."""
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


_RUN = "commands.train.Training"
_SAVE_OFTEN = (f"{_flag(_RUN, 'train.save_seconds')}=5",)
"""So that the explorer can show how far a run is; no part of a run's identity."""

_TASK = Option(flag="--task", label="Task", kind="choice", choices=_tasks(), is_open=True, is_required=True)
_TRAINING = (
    Option(flag="", label="Fields of the task, such as k=8 length=64", kind="pairs"),
    _option(_RUN, "train.steps", "Steps"),
    _option(_RUN, "train.batch_size", "Sequences per step"),
    _option(_RUN, "train.learning_rate", "Peak learning rate", least=1e-9),
    _option(_RUN, "train.schedule", "Schedule"),
    _option(_RUN, "train.checkpoints", "Kept steps"),
    _option(_RUN, "model.n_layers", "Layers"),
    _option(_RUN, "model.n_heads", "Heads per layer"),
    _option(_RUN, "model.d_model", "Width"),
    _option(_RUN, "seed", "Seed (from 1000: confirmation)", least=0),
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
}


def command_line(form: str, values: Mapping[str, Value], store: Path) -> list[str]:
    """The arguments of `procpre-interp` for a form's values, by label. Raises `ValueError` for a bad one."""
    if form not in FORMS:
        raise unknown_name("form", form[:40], list(FORMS))
    asked = FORMS[form]
    if extra := set(values) - {option.label for option in asked.options}:
        raise ValueError(f"{asked.title} has no {min(extra)[:40]!r}")
    given = [part for option in asked.options for part in option.arguments(values.get(option.label, option.default))]
    if form == "sweep":
        given[0] = str(beside_package("experiments") / "sweeps" / f"{given[0]}.yaml")
    return [*asked.words, *given, *asked.always, asked.store_flag, str(store.resolve())]
