"""Frozen dataclasses as configs: to and from plain dictionaries and YAML, and a hash of their content.

What is hashed is what changes the numbers. Fields at their default are left out, so that a field added later
renames no old run; a field with `metadata={"hashed": False}` (an output folder, a progress bar) never counts. A class
may carry `version: ClassVar[int]`, raised when its numbers change, and, when it comes from a registry, its `name` and
the `plugin` that registered it.
"""

import dataclasses
import functools
import hashlib
import json
import numbers
import types
import typing
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from procpre_interp.core.messages import shown, unknown_name
from procpre_interp.core.plain_values import yaml_fields

T = TypeVar("T")

ID_LENGTH = 16
"""Hexadecimal digits of a content hash that name a run: 64 bits."""


LARGEST_INTEGER = 2**63 - 1
"""The largest size, step or symbol: these are numbers of 64 bits wherever they are computed with."""

ORIGIN = frozenset({"version", "plugin"})
"""Keys of a plain config that say where its class comes from, and are no fields of it."""


class MissingPlugin(ValueError):
    """What a config names comes from a plugin that is not loaded, or not as it was."""


def unhashed(default: Any, **kwargs: Any) -> Any:
    """A dataclass field that does not change the numbers, and so is no part of the identity."""
    return dataclasses.field(default=default, metadata={"hashed": False}, **kwargs)


def coerce(value: Any, declared: Any, where: str = "value") -> Any:
    """`value` as the declared type, so that 1 and 1.0 agree where a float is declared.

    Only lossless conversions are made. Raises `ValueError` naming the field, the value and the declared type.
    """
    origin = get_origin(declared)
    if declared is Any:
        return value
    if origin in (Union, types.UnionType):
        return _coerce_union(value, get_args(declared), where)
    if origin is Literal:
        if value not in get_args(declared):
            raise ValueError(f"{where}: {unknown_name('choice', str(value), [str(a) for a in get_args(declared)])}")
        return value
    if origin is tuple:
        return _coerce_tuple(value, get_args(declared), where)
    if declared is types.NoneType and value is None:
        return None
    if dataclasses.is_dataclass(declared) or hasattr(declared, "registry"):
        if isinstance(value, declared):
            return value
        if isinstance(value, Mapping):
            return from_dict(declared, value, where)
    elif declared is bool and isinstance(value, bool):
        return value
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        if declared is int and isinstance(value, numbers.Integral):
            return int(value)
        with suppress(OverflowError):  # an integer beyond the floats
            number = float(typing.cast(float, value))
            if declared is float:
                return number
            if declared is int and number.is_integer():
                return int(number)
    elif declared is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            pass
    elif declared is str and isinstance(value, str):
        return str(value)
    raise ValueError(
        f"{where}: {shown(value)} is not {'a' if declared in (str, bool) else 'of type'} {_type_name(declared)}"
    )


@functools.cache
def _declared(cls: type) -> Mapping[str, Any]:
    """Types of the fields of a class. A sweep names thousands of runs of the same few."""
    return get_type_hints(cls)


def check_integers(config: Any, where: str = "") -> None:
    """Raise `ValueError` naming a field of the config, or of one within it, that is beyond `LARGEST_INTEGER`."""
    if dataclasses.is_dataclass(config):
        for field in dataclasses.fields(config):
            check_integers(getattr(config, field.name), f"{where}.{field.name}".lstrip("."))
    elif isinstance(config, tuple):
        for index, value in enumerate(config):
            check_integers(value, f"{where}[{index}]")
    elif isinstance(config, int) and abs(config) > LARGEST_INTEGER:
        raise ValueError(f"{where}: {config} is too large; at most {LARGEST_INTEGER} (2^63 - 1)")


def _type_name(declared: Any) -> str:
    return {str: "string", bool: "boolean (true or false)"}.get(declared, getattr(declared, "__name__", str(declared)))


def _coerce_union(value: Any, choices: tuple[Any, ...], where: str) -> Any:
    if value is None and types.NoneType in choices:
        return None
    problems = []
    for choice in choices:
        if choice is types.NoneType:
            continue
        try:
            return coerce(value, choice, where)
        except ValueError as problem:
            problems.append(str(problem))
    raise ValueError(" or ".join(problems))


def _coerce_tuple(value: Any, declared: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}: {shown(value)} is not a list")
    if len(declared) == 2 and declared[1] is Ellipsis:
        return tuple(coerce(v, declared[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(declared) != len(value):
        raise ValueError(f"{where}: {shown(value)} has {len(value)} entries, not {len(declared)}")
    return tuple(coerce(v, d, f"{where}[{i}]") for i, (v, d) in enumerate(zip(value, declared)))


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """The config that a plain dictionary describes. A class of a registry is chosen by the key `name`.

    Raises `ValueError` for an unknown or missing field, or a value of the wrong type.
    """
    data = dict(data)
    if hasattr(cls, "registry") and "name" in data and not _has_field(cls, "name"):
        name = str(data.pop("name"))
        _check_plugin(cls.registry, name, data.pop("plugin", None))  # type: ignore[attr-defined]
        cls = cls.registry[name]  # type: ignore[attr-defined]
    elif hasattr(cls, "registry") and not hasattr(cls, "name"):
        raise ValueError(f"{where or cls.__name__}: give a name, one of: {', '.join(cls.registry)}")  # type: ignore[attr-defined]
    version = data.pop("version", None)
    if version is not None and version != getattr(cls, "version", None):
        raise ValueError(
            f"{where or cls.__name__}: version {shown(version)}, but this code has {getattr(cls, 'version', None)}"
        )
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    name = getattr(cls, "name", None)
    title = name if isinstance(name, str) else cls.__name__  # a field called name is no name of the class
    for key in data:
        if key not in fields:
            raise unknown_name(f"field of {title}", str(key), list(fields))
    missing = [
        name
        for name, f in fields.items()
        if name not in data and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where or title}: missing {', '.join(missing)}")
    hints = _declared(cls)
    prefix = f"{where}." if where else ""
    return cls(**{key: coerce(value, hints[key], f"{prefix}{key}") for key, value in data.items()})


def _check_plugin(registry: Any, name: str, mark: Any) -> None:
    """Raise `MissingPlugin` where a config was made with a plugin, `mark`, and it is not the one that is loaded."""
    if mark is None:
        return
    file = str(mark)[:100].partition("@")[0]
    if name not in registry:
        raise MissingPlugin(
            f"{registry.kind} {name[:100]!r} comes from the plugin {file}, which is not loaded: give --import {file}"
        )
    if mark != (found := getattr(registry[name], "plugin", None)):
        raise MissingPlugin(
            f"{registry.kind} {name!r} comes from the plugin {str(mark)[:100]}, which is not loaded; "
            f"{found or 'the package'} has one of that name. Give --import {file} as it was: a run keeps a copy "
            "in its folder plugins"
        )


def _has_field(cls: type, name: str) -> bool:
    return dataclasses.is_dataclass(cls) and any(f.name == name for f in dataclasses.fields(cls))


def to_dict(config: Any, *, hashed_only: bool = False, defaults: bool = False) -> Any:
    """The config as plain values (dicts, lists, numbers, strings); the inverse of `from_dict`.

    Fields at their default are left out unless `defaults`. `hashed_only` leaves out what does not change the numbers.
    """
    if isinstance(config, (list, tuple)):
        return [to_dict(item, hashed_only=hashed_only, defaults=defaults) for item in config]
    if isinstance(config, Mapping):
        return {str(k): to_dict(v, hashed_only=hashed_only, defaults=defaults) for k, v in config.items()}
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        return config
    plain: dict[str, object] = {}
    if hasattr(config, "registry"):
        plain["name"] = config.name  # type: ignore[attr-defined]
    if hasattr(config, "version"):
        plain["version"] = config.version  # type: ignore[attr-defined]
    if hasattr(config, "registry") and (plugin := getattr(config, "plugin", None)) is not None:
        plain["plugin"] = plugin
    hints = _declared(type(config))
    for f in dataclasses.fields(config):
        if hashed_only and not f.metadata.get("hashed", True):
            continue
        value = coerce(getattr(config, f.name), hints[f.name], f.name)
        if defaults or not _is_default(f, value, hints[f.name]):
            plain[f.name] = to_dict(value, hashed_only=hashed_only, defaults=defaults)
    return plain


def _is_default(f: dataclasses.Field, value: Any, declared: Any) -> bool:
    default = f.default
    if f.default_factory is not dataclasses.MISSING:
        default = f.default_factory()
    elif default is dataclasses.MISSING:
        return False
    return value == coerce(default, declared, f.name)


def canonical_json(config: Any) -> str:
    """The hashed content as JSON with sorted keys and no white space; NaN and infinity are refused."""
    plain = to_dict(config, hashed_only=True)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def content_hash(config: Any) -> str:
    """SHA-256 of `canonical_json`, its first 16 hexadecimal digits: the run id."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:ID_LENGTH]


def to_yaml(config: Any) -> str:
    """YAML of the config, fields at their default left out."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def from_yaml(cls: type[T], text: str, where: str = "config") -> T:
    """The config that a YAML text describes. Raises `ValueError` when it holds no fields, or they do not fit."""
    return from_dict(cls, yaml_fields(text, where))
