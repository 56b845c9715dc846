"""How the options of commands are read, and how a mistake in them is told: in one line."""

import contextlib
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import tyro
from tyro.conf import Positional
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from procpre_interp.core.config import check_integers
from procpre_interp.core.messages import shown
from procpre_interp.core.plain_values import parse_yaml

T = TypeVar("T")

Fields = dict[str, object]
"""Fields of a config as they were typed: checked when a config is made of them."""

HELP_FLAGS = ("-h", "--help")
NARROWEST = 40
"""Columns that help is laid out for at least; tyro never ends where there are 5 or fewer."""
_UNLIMITED = 10_000
"""Columns for a message that is to be one line."""

Names = Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="")]
"""Any number of names, without a flag."""
Runs = Annotated[Positional[tuple[str, ...]], tyro.conf.arg(metavar="[RUN ...]", help_behavior_hint="")]
"""Any number of runs, without a flag."""


def several(metavar: str) -> Any:
    """What stands in the help for the values of an option that takes any number of them."""
    return tyro.conf.arg(
        metavar=f"{metavar} ...", help_behavior_hint=lambda default: f"(default: {default})" if default else ""
    )


def parse(command: type[T], name: str, arguments: list[str], default: Any = None) -> T:
    """The command that the arguments describe. Exits after `-h`; raises `ValueError` for a mistake, in one line."""
    return read_options(command, f"procpre-interp {name}", arguments, default=default)


def read_options(
    command: type[T], prog: str, arguments: list[str], *, default: Any = None, description: str | None = None
) -> T:
    """The same for any program."""
    kwargs = {} if default is None else {"default": default}
    asks_help = any(flag in arguments for flag in HELP_FLAGS)
    columns = max(NARROWEST, shutil.get_terminal_size().columns) if asks_help else _UNLIMITED
    page, mistake = _Page(sys.stdout.isatty()), io.StringIO()
    try:
        with (
            _laid_out(columns, colours=asks_help),
            contextlib.redirect_stdout(page),
            contextlib.redirect_stderr(mistake),
        ):
            found = tyro.cli(
                command, prog=prog, args=arguments, description=description, registry=_whole_numbers(), **kwargs
            )
    except SystemExit as leave:
        if leave.code:
            raise ValueError(f"{_one_line(mistake.getvalue())} `{prog} -h` shows all options.") from None
        print(_encodable(_wrapped(page.getvalue(), columns), sys.stdout.encoding), end="")
        raise
    check_integers(found)
    return found


class _Page(io.StringIO):
    """Keeps what is printed. tyro uses colours for a terminal, and draws boxes in UTF-8."""

    encoding = "utf-8"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@contextlib.contextmanager
def _laid_out(columns: int, *, colours: bool) -> Iterator[None]:
    """tyro lays text out for this many columns, without colours where none are wanted (https://no-color.org)."""
    options, before = tyro._experimental_options, os.environ.get("COLUMNS")
    coloured = options["ansi_codes"]
    os.environ["COLUMNS"] = str(columns)
    options["ansi_codes"] = coloured and colours and not os.environ.get("NO_COLOR")
    try:
        yield
    finally:
        options["ansi_codes"] = coloured
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _wrapped(text: str, columns: int) -> str:
    """Help with its prose wrapped, which tyro prints as one line per paragraph; its boxes are narrow enough."""
    fill = textwrap.TextWrapper(columns, break_long_words=False, break_on_hyphens=False).fill
    boxes = tuple("│╭╰\x1b")
    return "\n".join(
        fill(line) if len(line) > columns and not line.startswith(boxes) else line for line in text.split("\n")
    )


def _encodable(text: str, encoding: str | None) -> str:
    """Help with its boxes drawn in ASCII where the encoding of stdout knows no better."""
    try:
        text.encode(encoding or "utf-8")
        return text
    except UnicodeEncodeError:
        return text.translate(str.maketrans("│─╭╮╰╯", "|-++++")).encode("ascii", "replace").decode()


_NO_TYPE = re.compile(r"no type matching .*? Got errors: .* - <class '\w+'>: (.*)", re.DOTALL)
"""What tyro says of an option that may be left out: a line per type, None among them. The last is that of a value."""


def _one_line(box: str) -> str:
    """What tyro says of a mistake in a box, whose parts are divided by rules: the first part, and what it suggests."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        if (found := re.fullmatch(r"│ (.*?) *│", line)) is None:  # the box's own lines
            continue
        if re.fullmatch(r"─+", found[1]):
            parts.append([])
        else:
            parts[-1].append(found[1].strip())
    said = _NO_TYPE.sub(r"\1", " ".join(parts[0])).rstrip(".") + "."
    similar = [
        line.split()[0] for part in parts[1:] if part[0].startswith("Perhaps") for line in part if line[:2] == "--"
    ]
    return f"{said} Did you mean {' or '.join(similar)}?" if similar else said


def _whole_numbers() -> ConstructorRegistry:
    """How whole numbers are written: 10000, 10_000 or 1e4."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def whole_number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[int] | None:
        if info.type is not int:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="INT",
            instance_from_str=lambda texts: _whole(texts[0]),
            is_instance=lambda value: isinstance(value, int),
            str_from_instance=lambda value: [str(value)],
        )

    return registry


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
        if value == int(value) and abs(value) < 2**53:  # beyond which floats skip whole numbers
            return int(value)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{text!r} is not a whole number, such as 10000 or 1e4")


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


def task_fields(text: str, flag: str) -> Fields:
    """Fields of a task that an option gives as a name, or as YAML. Raises `ValueError` for anything else."""
    try:
        fields: object = parse_yaml(text)
    except ValueError as problem:
        raise ValueError(f"{flag} {shown(text)} is no YAML: {problem}") from None
    if isinstance(fields, str):
        fields = {"name": fields}
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise ValueError(f"{flag} {shown(text)}; give a name, or YAML such as '{{name: dyck, k: 4}}'")
    return {str(name): value for name, value in fields.items()}
