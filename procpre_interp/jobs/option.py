"""An option of a command as a form asks for it, and the arguments that its value gives."""

import math
import re
from dataclasses import dataclass
from typing import Literal

from procpre_interp.core.messages import unknown_name

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
    "parts": str,
    "pairs": str,
    "folder": str,
}
_TYPE_NAMES = {bool: "true or false", (int, float): "a number", str: "text"}
_PAIR = re.compile(r"(?P<name>[a-z][a-z_]*)=(?P<value>[A-Za-z0-9_.-]+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """An option of a command."""

    flag: str
    """Such as --train.steps; empty for words without one (the name of a claim, a parent)."""
    label: str
    kind: Literal["int", "float", "switch", "choice", "word", "runs", "parts", "pairs", "folder"] = "int"
    """runs: ids of stored runs separated by blanks; parts: choices separated by blanks, each with the flag; pairs:
    fields of the task, such as `k=8 length=64`; folder: the name of one in the store's `MODELS`."""
    default: Value = None
    """Value in the form. Default: left to the command."""
    choices: tuple[str, ...] = ()
    is_open: bool = False
    """Whether a name may be typed that is not among the choices: a task of a plugin, which the command knows."""
    least: float | int = 1
    is_required: bool = False
    is_rare: bool = False
    """Whether most leave it alone, so that it stands apart."""

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
        if self.kind == "parts":
            parts = str(value).split()
            if unknown := set(parts) - set(self.choices):
                raise unknown_name(self.label.lower(), min(unknown)[:40], list(self.choices))
            return [f"{self.flag}={part}" for part in parts]
        words = str(value).split() if self.kind in ("word", "runs") else [str(value)]
        for word in words if self.kind != "choice" else ():  # a choice is one of the form's own
            if not _WORD.fullmatch(word):
                raise ValueError(f"{self.label} {word[:40]!r}; use letters, digits and _ . + , @ -")
        return [self.flag, *words] if self.flag else words

    def _pair(self, word: str) -> str:
        found = _PAIR.fullmatch(word)
        if found is None or found["name"] in ("corpus", "database", "name"):
            raise ValueError(f"{self.label} {word[:40]!r}; write fields of numbers or words, such as k=8 length=64")
        return f"--task.{found['name'].replace('_', '-')}={found['value']}"
