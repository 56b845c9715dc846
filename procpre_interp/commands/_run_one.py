"""What `train` and `transfer` share: a task chosen by name, defaults from YAML, one run with progress."""

import dataclasses
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console

from procpre_interp.commands._options import Fields, take, take_all, task_fields
from procpre_interp.core.config import coerce, from_dict
from procpre_interp.core.launch import Launch, launched
from procpre_interp.core.messages import shown
from procpre_interp.core.plain_values import LARGEST_YAML, parse_yaml, yaml_fields
from procpre_interp.core.plugins import load_plugin, locate
from procpre_interp.core.terminal import default_store
from procpre_interp.data import TASKS, Task
from procpre_interp.engine.progress import RunProgress
from procpre_interp.engine.watched import execute_shown
from procpre_interp.pipeline import execute as pipeline
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import Intervention

HELP_FLAGS = ("-h", "--help")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run: --task NAME chooses the task, whose own options then appear as --task.OPTION (see `-h` with a --task).

    --part NAME says what a mixture is made of, noisy or shuffled, and may be given several times; or YAML with fields,
    such as --task mixture --part '{name: dyck, k: 8}' --part text. The options of a part are --task.task.OPTION, those
    of a mixture's first --task.tasks.0.OPTION.
    --import FILE.py registers tasks, controls and interventions of your own, and may be given several times.
    --config FILE takes defaults from YAML with the same names, such as {task: {name: dyck}, train: {steps: 500}}.
    --intervene 'NAME field=value ...' does something to the run, and may be given several times: entropy_penalty,
    matched_entropy, rewind, rate or scaled, such as --intervene 'rewind selector=mlp steps=[0,500]', or a closed-form
    initialisation: tensor_scale, spectrum_law, mimetic, mimetic_paper, low_rank_identity, mean_embedding,
    position_code.
    """

    task: Task
    """What the model is trained on."""
    seed: int = 0
    """Seed of the initial weights and the data: 0-99 for tuning, 1000 and up for confirmation."""
    model: Architecture = field(default_factory=Architecture)
    """Shape of the model; n_ctx and d_vocab follow from the task."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""
    epochs: float | None = None
    """How often training goes through the text, in place of --train.steps, which then follow."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""


def defaults(arguments: list[str], command: str) -> tuple[Fields, list[str]]:
    """Fields from --config and --task, and the arguments that are left. Raises `ValueError` without any task."""
    path, arguments = take(arguments, "--config")
    name, arguments = take(arguments, "--task")
    parts, arguments = take_all(arguments, "--part")
    interventions, arguments = take_interventions(arguments)
    fields: Fields = {}
    if path is not None:
        fields = read_config(Path(path))
    if interventions:
        train = fields.get("train") or {}
        listed = train.get("interventions") or [] if isinstance(train, dict) else None
        if not isinstance(train, dict) or not isinstance(listed, list):
            raise ValueError(f"{path}: train: {shown(train)}; --intervene adds to a list of interventions there")
        fields["train"] = {**train, "interventions": [*listed, *interventions]}
    if name is not None:
        given = fields.get("task")
        keep = given if isinstance(given, dict) and given.get("name") in (None, name) else {}
        fields["task"] = {**keep, "name": name}
    if parts:
        task = fields.get("task")
        if not isinstance(task, dict):
            raise ValueError(f"--part {shown(parts[0])}: say with --task what is made of it, such as noisy or mixture")
        fields["task"] = {**task, **made_of(str(task.get("name")), parts)}
    if "task" not in fields:
        if not any(flag in arguments for flag in HELP_FLAGS):
            raise ValueError(f"procpre-interp {command} wants --task NAME. There are: {', '.join(TASKS)}")
        fields["task"] = {"name": "dyck"}
    return fields, arguments


def made_of(name: str, parts: Sequence[str]) -> Fields:
    """The fields of a task that say what it is made of: names, or YAML. Raises `ValueError` for a mistake."""
    made = [task_fields(part, "--part") for part in parts]
    declared = {field.name for field in dataclasses.fields(TASKS[name])}
    if "tasks" in declared:
        return {"tasks": made}
    if "task" not in declared:
        raise ValueError(f"--part {shown(parts[0])}: {name} is not made of other tasks")
    if len(made) > 1:
        raise ValueError(f"{len(made)} parts of {name}, which is made of one task")
    return {"task": made[0]}


def trained_on(command: Training) -> TrainConfig:
    """How the command's run is trained: with as many steps as its epochs take, where it names these.

    Raises `ValueError` for epochs of sequences that are generated, of which there is no end.
    """
    train = command.train
    if command.epochs is None:
        return train
    if not (command.epochs > 0 and math.isfinite(command.epochs)):
        raise ValueError(f"epochs={command.epochs}; it must be a positive number")
    task = command.task.resolve()
    tokens = 1000 * train.batch_size * task.n_ctx
    if (epochs := task.epochs(tokens)) is None:
        raise ValueError(f"--epochs {command.epochs:g}: {task.name} has no end; give --train.steps")
    return dataclasses.replace(train, steps=max(1, round(1000 * command.epochs / epochs)))


def take_interventions(arguments: list[str]) -> tuple[list[Fields], list[str]]:
    """Fields of what `--intervene` asks for, and the other arguments. Raises `ValueError` for a mistake."""
    found: list[Fields] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, text = argument.partition("=")
        if flag != "--intervene":
            rest.append(argument)
            continue
        text = text if equals else next(remaining, "")
        try:
            found.append(parse_intervention(text))
        except ValueError as problem:
            raise ValueError(f"--intervene {shown(text, 60)}: {problem}") from None
    return found, rest


def parse_intervention(text: str) -> Fields:
    """Fields of "NAME field=value ...", values in YAML. Raises `ValueError` for what is no intervention."""
    name, *pairs = shlex.split(text) or [""]
    fields: Fields = {"name": name}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{shown(pair)} is no field=value")
        if field in fields:
            raise ValueError(f"{shown(field)} is given twice")
        try:
            fields[field] = parse_yaml(value)
        except ValueError as problem:
            raise ValueError(f"{shown(field)}: {problem}") from None
    from_dict(Intervention, fields)  # so that a mistake is said at once
    return fields


def read_config(path: Path) -> Fields:
    """Fields from a YAML file that the user passed, its `plugins` loaded: files relative to its folder, or modules.

    Raises `ValueError` for a mistake in it or in a plugin.
    """
    fields = read_yaml(path)
    names = fields.pop("plugins", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: plugins: {str(names)[:100]!r} is no list of files and modules, such as [my.py]")
    for name in names:
        load_plugin(locate(name, path.parent))
    return fields


def read_yaml(path: Path) -> Fields:
    """Fields from a YAML file. Raises `ValueError` when it holds none."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a YAML file")
    # A pipe that nobody writes to would be waited for; one that a shell makes of a command is read to its end.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "rb") as file:
        return yaml_fields(file.read(LARGEST_YAML + 1), str(path))


def as_default(command: type, fields: Fields) -> Any:
    """An instance of the command's dataclass with these fields, to be tyro's default."""
    store = fields.pop("store", None)
    config = from_dict(RunConfig, fields)
    values: Fields = {
        "task": config.task,
        "seed": config.seed,
        "model": config.model,
        "train": config.train,
    }
    if store is not None:
        values["store"] = Path(coerce(store, str, "store"))
    return command(**values)


def run_one(config: RunConfig, store_path: Path) -> None:
    """Execute a run with progress on stderr, and print its outcome: alone, or as one of the processes that `torchrun`
    or `accelerate launch` started together, the first of which speaks."""
    store, launch = RunStore(store_path), launched()
    if launch is not None and launch.rank:
        take_part(config, store, launch)
        return
    console = Console(stderr=True)
    if (note := config.compile_note) is not None:
        console.print(note, markup=False, highlight=False)
    run_id = config.run_id
    label = f"{config.task.name} {run_id}"
    if store.is_finished(run_id, whole=True):
        console.print(f"{label}: finished before, nothing to do", markup=False, highlight=False)

    def waiting(seconds: float) -> None:
        if seconds == 0:
            console.print(f"{label}: another process is at it; waiting", markup=False, highlight=False)

    execute = (
        partial(pipeline.execute, whole=True)
        if launch is None
        else partial(distributed().execute_distributed, launch=launch)
    )
    with RunProgress(label, console) as progress:
        run = execute_shown(config, store, progress, waiting=waiting, execute=execute)
    print_outcome(run)


def take_part(config: RunConfig, store: RunStore, launch: Launch) -> None:
    """Compute this process's share of a run, in silence. Leaves with an exit code where the run stops or fails."""
    try:
        distributed().execute_distributed(config, store, launch)
    except distributed().FailedElsewhere:
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def distributed() -> ModuleType:
    """What several processes need, and loads torch's compiler: a second that one process does not wait for."""
    from procpre_interp.pipeline import distributed

    return distributed


def print_outcome(run: Run) -> None:
    """The run's id, what came out, and where it is, on stdout."""
    summary = run.summary
    print(f"run {run.id} ({run.folder})")
    taken = summary["steps"] - run.first_step
    part = f" from step {run.first_step} on" if run.first_step else ""
    print(f"  {summary['status']} after {taken} steps{part}, {summary['seconds']:.1f} s: {summary['stop_reason']}")
    if summary["status"] == "finished":
        print(
            f"  test: accuracy {summary['accuracy']:.1%}, exact match {summary['exact_match']:.1%}, "
            f"loss {summary['loss_nats']:.4f} nats per token"
        )
        for name in ("perplexity", "bits_per_byte"):
            if (value := summary.get(name)) is not None:
                print(f"        {name.replace('_', ' ')} {value:.4f}")
        if (right := summary.get("answers_right")) is not None:
            print(f"        questions answered right, exact match by greedy decoding {right:.1%}")
    if (epochs := summary.get("epochs")) is not None:
        print(f"  data: {epochs:.3g} epochs of the training split")
    if summary["prompt_overlap"]:
        print(
            f"  note: the space of prompts is too small to hold any out; {summary['prompt_overlap']:.0%} of the "
            "validation prompts occur in training"
        )
