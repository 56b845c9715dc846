"""How the options of commands are read."""

from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(command: type[T], name: str, arguments: list[str], default: Any = None) -> T:
    """The command that the arguments describe. Exits after `-h`, and after a mistake, which is explained."""
    kwargs = {} if default is None else {"default": default}
    return tyro.cli(command, prog=f"procpre-interp {name}", args=arguments, **kwargs)


def take(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of `--flag value` or `--flag=value`, and the other arguments. Raises `ValueError` if it has none."""
    values, rest = take_all(arguments, flag)
    return (values[-1] if values else None), rest


def take_all(arguments: list[str], flag: str) -> tuple[list[str], list[str]]:
    """Every value of a flag that may be repeated, and the other arguments. Raises `ValueError` if one has no value."""
    rest: list[str] = []
    values: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == flag:
            value = next(remaining, None)
            if value is None or value.startswith("--"):
                raise ValueError(f"{flag} wants a value")
            values.append(value)
        elif argument.startswith(f"{flag}="):
            values.append(argument.partition("=")[2])
        else:
            rest.append(argument)
    return values, rest
