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
    rest: list[str] = []
    value = None
    remaining = iter(arguments)
    for argument in remaining:
        if argument == flag:
            value = next(remaining, None)
            if value is None or value.startswith("--"):
                raise ValueError(f"{flag} wants a value")
        elif argument.startswith(f"{flag}="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    return value, rest
