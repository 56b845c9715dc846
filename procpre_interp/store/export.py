"""Copies of runs without their heavy files, to be shared: history, config and summary stay, weights as asked."""

import shutil
from collections.abc import Sequence

import yaml

from procpre_interp.core.messages import unknown_name
from procpre_interp.store.run import TOKENIZER, Run
from procpre_interp.store.store import RunStore


def export_run(run: Run, store: RunStore, *, steps: Sequence[int] = (), examples: bool = False) -> Run:
    """The run in another store, with the weights of the kept `steps` only, and without its examples if not asked.

    Its id, numbers and times are the original's, and the summary says what was left out; a run that is in the store
    already is left as it is. Raises `ValueError` for a step whose weights were not kept, and `DamagedRun`.
    """
    for step in steps:
        if step not in run.steps:
            raise ValueError(str(unknown_name(f"kept step of run {run.id}", str(step), [str(s) for s in run.steps])))
    wanted = {name: run.file(name) for name in ("environment.json", "history.parquet")}
    wanted |= {name: run.file(name) for name in run.manifest if name.startswith("plugins/") or name == TOKENIZER}
    if examples:
        wanted["examples.parquet"] = run.file("examples.parquet")
    for step in steps:
        path = run.weights_path(step)
        wanted[path.relative_to(run.folder).as_posix()] = path
    kept = {*wanted, "config.yaml", "summary.json"}
    left_out = [name for name in run.manifest if name not in kept]
    with store.claim(run.id) as partial:
        if partial is not None:
            partial.write_config(yaml.safe_dump(run.config, sort_keys=False))
            for name, path in wanted.items():
                (partial.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, partial.folder / name)
            said = {"left_out": f"{len(left_out)} files"} if left_out else {}
            partial.finish({**run.summary, **said}, created=run.summary.get("created"))
    return store.open(run.id)
