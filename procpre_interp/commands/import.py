"""`procpre-interp import`: a GPT-2 from a folder of Hugging Face's becomes a run of the store."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from procpre_interp.commands._models import named_task
from procpre_interp.commands._options import parse
from procpre_interp.core.terminal import default_store
from procpre_interp.pipeline.imported import import_model
from procpre_interp.store.store import RunStore


@dataclass(frozen=True, kw_only=True)
class Import:
    """Make a run of a GPT-2 in a folder with config.json and safetensors, as save_pretrained writes it.

    The run can be probed and patched, opened in the explorer, exported, and be a parent of `transfer`; it cannot be
    trained again. The same files and task give the same run. Pickles (.bin) are never read, and no code of the folder
    runs.
    """

    folder: Annotated[Positional[Path], tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
    """The folder, on this computer."""
    task: str | None = None
    """What the model is measured on, a task in its own token ids: a name, or YAML such as '{name: dyck, k: 4}'.
    Default: unknown, so that whatever needs data must be given a task."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""


def main(arguments: list[str]) -> int:
    """Make the run and print its id."""
    command = parse(Import, "import", arguments)
    task = None if command.task is None else named_task(command.task)
    run = import_model(command.folder, RunStore(command.store), task)
    shape = run.summary
    print(f"run {run.id} ({run.folder})")
    print(
        f"  {shape['n_layers']} layers of {shape['n_heads']} heads, width {shape['d_model']}, "
        f"{shape['n_parameters']:,} parameters; task {shape['task']}"
    )
    return 0
