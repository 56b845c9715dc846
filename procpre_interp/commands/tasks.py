"""`procpre-interp tasks`: every task, with an example."""

import dataclasses
import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from procpre_interp.commands._options import parse
from procpre_interp.core.config import to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """List the tasks, each with a printed example. Everything that can be trained on, for both phases, is a task."""

    name: str | None = None
    """Show this task only, with all its fields and what may differ in a counterfactual pair (for `patch --cause`)."""
    examples: int = 1
    """Examples of each task."""
    seed: int = 0
    """Seed of the examples."""


def main(arguments: list[str]) -> int:
    """Print the list."""
    command = parse(Tasks, "tasks", arguments)
    if command.examples < 0:
        raise ValueError(f"examples={command.examples}; examples must not be negative")
    console = Console(highlight=False, soft_wrap=True)
    for name in [command.name] if command.name is not None else list(TASKS):
        kind = TASKS[name]
        console.print(f"[bold]{escape(name)}[/bold]  {escape(first_line(kind))}")
        if command.name is not None:
            print_fields(console, kind)
            print_causes(console, kind)
        print_examples(console, kind, command)
    return 0


def first_line(kind: type) -> str:
    """What the task is, in a line."""
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def print_fields(console: Console, kind: type) -> None:
    """The task's fields and their defaults."""
    for field in dataclasses.fields(kind):
        default = "required" if field.default is dataclasses.MISSING else to_dict(field.default)
        console.print(f"    --task.{field.name.replace('_', '-')}  {escape(str(default))}")


def print_causes(console: Console, kind: type[Task]) -> None:
    """The causes that a task states for its class; those of a mixture are its parts'."""
    if isinstance(kind.causes, Mapping):
        for cause, text in kind.causes.items():
            console.print(f"    cause {escape(cause)}: {escape(text)}")


def print_examples(console: Console, kind: type[Task], command: Tasks) -> None:
    """Examples of the task at its defaults, where these say all that it needs."""
    required = [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.init]
    if required:
        console.print(f"    (needs {escape(', '.join(required))})")
        return
    task = kind()
    batch = task.batch(command.examples, generator=stream(command.seed, "examples", task.name))
    for tokens, length in zip(batch.tokens.tolist(), batch.lengths.tolist()):
        console.print(f"    {escape(task.example(tokens[:length]))}")
