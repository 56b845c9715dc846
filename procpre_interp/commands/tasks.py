"""`procpre-interp tasks`: every task, with an example and how complex it measures."""

import dataclasses
import inspect
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape

from procpre_interp.commands._options import parse
from procpre_interp.core.config import to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.data import TASKS, Task
from procpre_interp.data.complexity import measure_complexity, stored_complexity
from procpre_interp.data.samples import MOST_SEQUENCES

MEASURES = """\
gzip: compressed bytes per byte, at one byte per token (two beyond 256 ids). Shuffled: the same with
the tokens in random order, which keeps their counts alone. Bits per token: entropy rate, estimated
from above by k-grams and repeats. Loss area: mean training loss of a small model from its first
step on, in % of the loss of a uniform guess; mean and standard deviation over seeds. All at the
default fields."""


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """List the tasks, each with a printed example, and their measured complexity.

    Everything that can be trained on, for both phases, is a task.
    """

    name: str | None = None
    """Show this task only, with all its fields and what may differ in a counterfactual pair (for `patch --cause`)."""
    examples: int = 1
    """Examples of each task."""
    seed: int = 0
    """Seed of the examples."""


def main(arguments: list[str]) -> int:
    """Print the list."""
    command = parse(Tasks, "tasks", arguments)
    if not 0 <= command.examples <= MOST_SEQUENCES:
        raise ValueError(f"examples={command.examples}; there must be none or more, and at most {MOST_SEQUENCES:,}")
    console = Console(highlight=False, soft_wrap=True)
    for name in [command.name] if command.name is not None else list(TASKS):
        kind = TASKS[name]
        console.print(f"[bold]{escape(name)}[/bold]  {escape(first_line(kind))}")
        if command.name is not None:
            print_fields(console, kind)
            print_causes(console, kind)
        print_examples(console, kind, command)
        if command.name is not None:
            print_complexity(console, kind)
    if command.name is None:
        print_complexities()
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


def required_fields(kind: type) -> list[str]:
    """Fields without a default."""
    return [f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING and f.init]


def print_examples(console: Console, kind: type[Task], command: Tasks) -> None:
    """Examples of the task at its defaults, where these say all that it needs."""
    if required := required_fields(kind):
        console.print(f"    (needs {escape(', '.join(required))})")
        return
    task = kind()
    if command.name is None and (awaited := task.to_be_made()):
        console.print(f"    ({escape(awaited)}: procpre-interp tasks --name {task.name})")
        return
    batch = task.batch(command.examples, generator=stream(command.seed, "examples", task.name))
    for tokens, length in zip(batch.tokens.tolist(), batch.lengths.tolist()):
        console.print(f"    {escape(task.example(tokens[:length]))}")


def print_complexity(console: Console, kind: type[Task]) -> None:
    """The measures of one task at its defaults: the stored ones, or those of a sample drawn now."""
    if required_fields(kind):
        return
    task = kind()
    stored = stored_complexity(task)
    sample = stored.sample if stored else measure_complexity(task)
    console.print(
        f"    gzip: {sample.gzip_ratio:.1%} of the bytes; {sample.shuffled_gzip_ratio:.1%} of shuffled tokens"
    )
    console.print(
        f"    entropy: at most {sample.entropy_bits:.2f} bits per token; a guess has {math.log2(task.d_vocab):.2f}"
    )
    if stored:
        n, nats = len(stored.loss_areas_nats), statistics.fmean(stored.loss_areas_nats)
        share = f"{stored.mean_loss_area:.1%} ± {stored.loss_area_std:.1%} of a guess's ({n} seeds)"
        console.print(f"    loss area: {nats:.2f} nats per scored token and step, {share}")


def print_complexities() -> None:
    """A table of the measures that are stored with the package, and what its columns mean."""
    defaults = [TASKS.build(name) for name in TASKS if not required_fields(TASKS[name])]
    known = [(task, found) for task in defaults if (found := stored_complexity(task))]
    columns = {
        "Task": [task.name for task, _ in known],
        "Ids": [f"{task.d_vocab:,}" for task, _ in known],
        "Longest": [f"{task.n_ctx:,}" for task, _ in known],
        "gzip": [f"{found.sample.gzip_ratio:.1%}" for _, found in known],
        "Shuffled": [f"{found.sample.shuffled_gzip_ratio:.1%}" for _, found in known],
        "Bits per token": [f"{found.sample.entropy_bits:.2f}" for _, found in known],
        "Loss area": [f"{found.mean_loss_area:.1%} ± {found.loss_area_std:.1%}" for _, found in known],
    }
    print()
    print_table(stdout_console(), columns, "", left=["Task"])
    print(f"\n{MEASURES}")
