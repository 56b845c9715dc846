"""Options of commands, and the tasks that there are, read from the package's source: to import either loads torch.

Options may be numbers, switches, words, `Literal`, lists of these, `| None` and aliases, in dataclasses that inherit
and contain one another. Any other type is a `ValueError`.
"""

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from procpre_interp.core.messages import unknown_name

PACKAGE = Path(__file__).resolve().parents[1]
_PRIMITIVES: dict[str, Literal["int", "float", "switch", "word"]] = {
    "int": "int",
    "float": "float",
    "bool": "switch",
    "str": "word",
    "Path": "word",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a command's dataclass."""

    flag: str
    """Such as --train.steps; empty for what is given without one."""
    kind: Literal["int", "float", "switch", "choice", "word"]
    default: bool | int | float | str | None
    """None as well where it depends on the machine; of a list, its words separated by blanks."""
    choices: tuple[str, ...]
    is_required: bool


def read_field(command: str, path: str) -> Field:
    """A field of a command, such as `train.steps` of `commands.train.Training`.

    Raises `ValueError` where the source has no such field, or one whose type no form can ask for.
    """
    module, _, name = command.rpartition(".")
    found = _Scope(module).find(name)
    *parents, last = path.split(".")
    for parent in parents:
        scope, declared = _field(found, parent, command)
        found = scope.resolve(declared.annotation)
    scope, declared = _field(found, last, command)
    kind, choices, is_positional = _type_of(scope, declared.annotation)
    flag = "" if is_positional else f"--{path.replace('_', '-')}"
    return Field(flag, kind, _default(declared.value), choices, is_required=declared.value is None)


@dataclass(frozen=True, slots=True)
class Registered:
    """A class that registers itself, as its source says."""

    name: str
    needs_field: bool
    """Whether it has a field without a default."""
    texts: Mapping[str, str]
    """Its own attributes that are text."""


def registered(registry: str, folder: str) -> tuple[Registered, ...]:
    """What the classes of a folder register as, in alphabetical order; those that are not listed are left out."""
    found: list[Registered] = []
    for file in sorted((PACKAGE / folder).rglob("*.py")):
        if f"@{registry}.register(" not in file.read_text(encoding="utf-8"):  # quicker than to parse them all
            continue
        scope = _Scope(".".join(file.relative_to(PACKAGE).with_suffix("").parts))
        for node in scope.tree.body:
            if isinstance(node, ast.ClassDef) and (name := _registered_name(node, registry)) is not None:
                needs_field = any(declared.value is None for _, declared in _fields(scope, node))
                found.append(Registered(name, needs_field, _texts(node)))
    return tuple(sorted(found, key=lambda each: each.name))


@dataclass(frozen=True, slots=True)
class _Scope:
    """A module of the package, in which names mean something."""

    module: str
    """Dotted, without the package's own name."""

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.module)

    def find(self, name: str) -> tuple["_Scope", ast.stmt | None]:
        """Where a name is defined, and the statement that does it: none where that is outside of the package."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return self, node
            if isinstance(node, ast.Assign) and name in [ast.unparse(target) for target in node.targets]:
                return self, node
            if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
                package, _, module = str(node.module).partition(".")
                return _Scope(module).find(name) if package == PACKAGE.name else (self, None)
        raise ValueError(f"{self.module}: no {name} is defined there")

    def resolve(self, annotation: ast.expr) -> tuple["_Scope", ast.stmt | None]:
        """Where the class that an annotation names is defined."""
        return self.find(ast.unparse(annotation))


@functools.cache
def _parsed(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))


def _fields(scope: _Scope, node: ast.ClassDef) -> Iterator[tuple[_Scope, ast.AnnAssign]]:
    """The fields of a dataclass, those of its bases first, each with the module whose names its annotation has."""
    for base in node.bases:
        if isinstance(base, ast.Name):
            home, definition = scope.find(base.id)
            if isinstance(definition, ast.ClassDef):
                yield from _fields(home, definition)
    for declared in node.body:
        if isinstance(declared, ast.AnnAssign) and not ast.unparse(declared.annotation).startswith("ClassVar"):
            yield scope, declared


def _field(found: tuple[_Scope, ast.stmt | None], name: str, command: str) -> tuple[_Scope, ast.AnnAssign]:
    """The last declaration of a field, as a class may give its base's another default."""
    scope, node = found
    if not isinstance(node, ast.ClassDef):
        raise ValueError(f"{command} has no field within {name!r}: {scope.module} defines no dataclass there")
    fields = {ast.unparse(declared.target): (home, declared) for home, declared in _fields(scope, node)}
    if name not in fields:
        raise unknown_name(f"field of {node.name}", name, list(fields))
    return fields[name]


def _type_of(
    scope: _Scope, annotation: ast.expr
) -> tuple[Literal["int", "float", "switch", "choice", "word"], tuple[str, ...], bool]:
    """Kind, choices, and whether the value is given without a flag."""
    match annotation:
        case ast.Name(id=name) if name in _PRIMITIVES:
            return _PRIMITIVES[name], (), False
        case ast.Name(id=name):
            home, definition = scope.find(name)
            if isinstance(definition, ast.Assign):
                return _type_of(home, definition.value)
        case ast.BinOp(left=one, op=ast.BitOr(), right=ast.Constant(value=None)):
            return _type_of(scope, one)
        case ast.Subscript(value=ast.Name(id="Literal")):
            written = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            return "choice", tuple(map(ast.literal_eval, written)), False
        case ast.Subscript(value=ast.Name(id="Positional"), slice=inner):
            kind, choices, _ = _type_of(scope, inner)
            return kind, choices, True
        case ast.Subscript(value=ast.Name(id="Annotated" | "tuple"), slice=ast.Tuple(elts=[inner, *_])):
            return _type_of(scope, inner)
        case _:
            pass
    raise ValueError(f"{scope.module}: no form can ask for a field of type {ast.unparse(annotation)}")


def _default(value: ast.expr | None) -> bool | int | float | str | None:
    """A default that is written out; None for no default, and for one that a function gives."""
    match value:
        case None:
            return None
        case ast.Call(func=ast.Name(id="field")):
            return None
        case ast.Call(func=ast.Name(id="unhashed"), args=[written, *_]):
            return ast.literal_eval(written)
        case _:
            found = ast.literal_eval(value)
            return " ".join(found) or None if isinstance(found, tuple) else found


def _texts(node: ast.ClassDef) -> dict[str, str]:
    texts = {}
    for declared in node.body:
        match declared:
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(text))):
                texts[name] = text
            case _:
                pass
    return texts


def _registered_name(node: ast.ClassDef, registry: str) -> str | None:
    for decorator in node.decorator_list:
        match decorator:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=found), attr="register"),
                args=[ast.Constant(value=name)],
                keywords=[],
            ):
                if found == registry:
                    return str(name)
            case _:
                pass
    return None
