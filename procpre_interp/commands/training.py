"""What `train` and `transfer` share: a task chosen by name, defaults from YAML, one run with progress."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from procpre_interp.commands.options import take
from procpre_interp.config import from_dict, yaml_fields
from procpre_interp.data import TASKS, Task
from procpre_interp.engine import Event, progress_event
from procpre_interp.pipeline import Architecture, RunConfig, execute
from procpre_interp.progress import RunProgress
from procpre_interp.runs import Run, RunStore
from procpre_interp.terminal import default_store
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import INTERVENTIONS

HELP_FLAGS = ("-h", "--help")


@dataclass(frozen=True, kw_only=True)
class Training:
    """One run: --task NAME chooses the task, whose own options then appear as --task.OPTION (see `-h` with a --task).

    --config FILE takes defaults from YAML with the same names, such as {task: {name: dyck}, train: {steps: 500}}.
    --intervene 'NAME field=value ...' does something to the run, and may be given several times: entropy_penalty,
    matched_entropy, rewind or rate, such as --intervene 'rewind selector=mlp steps=[0,500]', or a closed-form
    initialisation: tensor_scale, spectrum_law, mimetic, low_rank_identity, mean_embedding, position_code.
    """

    task: Task
    """What the model is trained on."""
    seed: int = 0
    """Seed of the fresh weights and of the data. 0-99 for tuning, from 1000 for confirmation."""
    model: Architecture = field(default_factory=Architecture)
    """Shape of the model; n_ctx and d_vocab follow from the task."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it is trained."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""


def defaults(arguments: list[str], command: str) -> tuple[dict[str, Any], list[str]]:
    """Fields from --config and --task, and the arguments that are left. Raises `ValueError` without any task."""
    path, arguments = take(arguments, "--config")
    name, arguments = take(arguments, "--task")
    interventions, arguments = take_interventions(arguments)
    fields: dict[str, Any] = {}
    if path is not None:
        fields = read_yaml(Path(path))
    if interventions:
        train = fields.get("train") or {}
        fields["train"] = {**train, "interventions": [*(train.get("interventions") or []), *interventions]}
    if name is not None:
        given = fields.get("task")
        keep = given if isinstance(given, dict) and given.get("name") in (None, name) else {}
        fields["task"] = {**keep, "name": name}
    if "task" not in fields:
        if not any(flag in arguments for flag in HELP_FLAGS):
            raise ValueError(f"procpre-interp {command} wants --task NAME. There are: {', '.join(TASKS)}")
        fields["task"] = {"name": "dyck"}
    return fields, arguments


def take_interventions(arguments: list[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Fields of what `--intervene` asks for, and the other arguments. Raises `ValueError` for a mistake."""
    found: list[dict[str, Any]] = []
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, equals, text = argument.partition("=")
        if flag != "--intervene":
            rest.append(argument)
            continue
        name, *pairs = shlex.split(text if equals else next(remaining, "")) or [""]
        if bad := [pair for pair in pairs if "=" not in pair]:
            raise ValueError(f"--intervene: {bad[0]!r} is no field=value")
        values = {field: yaml.safe_load(value) for field, _, value in (pair.partition("=") for pair in pairs)}
        INTERVENTIONS.build(name, **values)  # so that a mistake is said at once
        found.append({"name": name, **values})
    return found, rest


def read_yaml(path: Path) -> dict[str, Any]:
    """Fields from a YAML file. Raises `ValueError` when it holds none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise ValueError(f"{path}: not YAML: {problem}") from None
    return yaml_fields(text, str(path))


def as_default(command: type, fields: dict[str, Any]) -> Any:
    """An instance of the command's dataclass with these fields, to be tyro's default."""
    store = fields.pop("store", None)
    config = from_dict(RunConfig, fields)
    values: dict[str, Any] = {
        "task": config.task,
        "seed": config.seed,
        "model": config.model,
        "train": config.train,
    }
    if store is not None:
        values["store"] = Path(store)
    return command(**values)


def run_one(config: RunConfig, store_path: Path) -> Run:
    """Execute a run with progress on stderr, and print its outcome."""
    store = RunStore(store_path)
    run_id = config.run_id
    console = Console(stderr=True)
    label = f"{config.task.name} {run_id}"
    if store.is_finished(run_id):
        console.print(f"{label}: finished before, nothing to do", markup=False, highlight=False)

    def waiting(seconds: float) -> None:
        if seconds == 0:
            console.print(f"{label}: another process is at it; waiting", markup=False, highlight=False)

    # Said at the first step: a run that is refused is one line, and one that finished before has its kernel already.
    unsaid = [note] if (note := config.kernel_note) is not None else []

    with RunProgress({run_id: label}, console) as progress:

        def show(state: Any, train: TrainConfig) -> None:
            while unsaid:
                progress.say(unsaid.pop())
            if state.step % 10 == 0 or state.step == 1:
                progress(progress_event(run_id, state, train))

        def tell(text: str) -> None:
            progress(Event(run_id, "note", problem=text))

        run = execute(config, store, on_step=show, waiting=waiting, on_note=tell)
        progress(Event(run_id, "finished"))
    print_outcome(run)
    return run


def print_outcome(run: Run) -> None:
    """The run's id, what came out, and where it is, on stdout."""
    summary = run.summary
    print(f"run {run.id} ({run.folder})")
    print(f"  {summary['status']} after {summary['steps']} steps, {summary['seconds']:.1f} s: {summary['stop_reason']}")
    if summary["status"] == "finished":
        print(
            f"  test: accuracy {summary['accuracy']:.1%}, exact match {summary['exact_match']:.1%}, "
            f"loss {summary['loss_nats']:.4f} nats a token"
        )
        for name in ("perplexity", "bits_per_byte"):
            if name in summary:
                print(f"        {name.replace('_', ' ')} {summary[name]:.4f}")
    if summary["prompt_overlap"]:
        print(
            f"  note: the space of prompts is too small to hold any out; {summary['prompt_overlap']:.0%} of the "
            "validation prompts occur in training"
        )
