"""The demo of the explorer: a small part of a store, small enough to come with the package.

It holds the first replicates of the reproduction with their evaluations, the transfer maps of components and, where
the store has them, of layers, heads and matrices, and the weights of one replicate at a few steps of both phases, with
and without transfer. Everything is a copy of what `procpre-interp reproduce`, `sweep components` (`layer_components`,
`head_map`, `matrix_map`, `text_map`) and `claims retrieval_head_forms --run` computed.

    python experiments/make_demo.py --store runs
"""

import itertools
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from procpre_interp.core.terminal import beside_package, default_store
from procpre_interp.store.export import export_run
from procpre_interp.store.store import RunStore

MAX_BYTES = 1_000_000
"""Largest size of all files together, bytes."""

FINE_MAPS = ("layer_components", "head_map", "matrix_map", "text_map")
"""Sweeps whose maps come along where there are any: the tables alone, without their runs."""

PHASE1_STEPS = (0, 488, 4256, 20000)
PHASE2_STEPS = (0, 595, 1157, 5000)
"""Kept steps of the replicate whose weights come along: before, around and after what is learned."""


@dataclass(frozen=True, kw_only=True)
class MakeDemo:
    """Make the demo of the explorer from a store that holds the reproduction, the components sweep and the claims."""

    store: Path = field(default_factory=default_store)
    """Where the results are."""
    out: Path = field(default_factory=lambda: beside_package("app") / "demo")
    """The demo's folder; what was there is replaced."""
    replicates: int = 5
    """The reproduction's conditions that the demo has."""
    weights_seed: int = 1001
    """The replicate whose weights come along; its transfer broke through."""


def main(command: MakeDemo) -> int:
    """Write the demo, and say how large it is. Raises `ValueError` where something is missing, or it is too large."""
    store = RunStore(command.store)
    shutil.rmtree(command.out, ignore_errors=True)
    demo = RunStore(command.out)
    copy_table(store, demo, newest(store, "reproduce-"), command.replicates)
    copy_table(store, demo, newest(store, "components-"), None)
    for sweep in FINE_MAPS:
        if store.tables(f"{sweep}-"):
            copy_table(store, demo, newest(store, f"{sweep}-"), None)
        else:
            print(f"no map of {sweep} in {store.path}; the demo goes without")
    claim = store.read_table("claim-retrieval_head_forms").frame
    chosen = claim.loc[(claim["replicate"] == command.weights_seed) & claim["condition"].isin(["none", "attn+ln"])]
    for row in chosen.to_dict("records"):
        transferred = bool(row["phase1_run"])
        run = store.open(row["run"])
        export_run(run, demo, steps=PHASE2_STEPS if transferred else run.steps[-1:])
        if transferred:
            for parent in row["phase1_run"]:
                export_run(store.open(parent), demo, steps=PHASE1_STEPS)
    shutil.rmtree(command.out / "partial", ignore_errors=True)  # locks; nothing is being written
    size = sum(path.stat().st_size for path in command.out.rglob("*") if path.is_file())
    print(f"{command.out}: {len(demo.query())} runs, {size:,} bytes")
    if size > MAX_BYTES:
        raise ValueError(f"the demo has {size:,} bytes; {MAX_BYTES:,} are allowed: take fewer replicates or steps")
    return 0


def newest(store: RunStore, prefix: str) -> str:
    """Name of the newest table of a kind. Raises `ValueError` without one."""
    names = store.tables(prefix)
    if not names:
        raise ValueError(f"no table {prefix}* in {store.path}; the docstring of this script names the commands")
    return names[0]


def copy_table(store: RunStore, demo: RunStore, name: str, replicates: int | None) -> None:
    """A table with its first replicates and their runs, or the whole table without any run for `replicates` None."""
    stored = store.read_table(name)
    frame, about = stored.frame, dict(stored.metadata)
    if replicates is not None:
        frame = frame.loc[frame["replicate"].isin(sorted(frame["replicate"].unique())[:replicates])]
        about["demo"] = f"Demo: the first {replicates} of {stored.frame['replicate'].nunique()} replicates."
        for run in {*frame["run"], *itertools.chain(*frame["phase1_run"])} - {""}:
            export_run(store.open(run), demo)
    else:
        about["demo"] = "Demo: the table alone, without its runs."
    demo.write_table(name, frame.reset_index(drop=True), about)


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(MakeDemo)))
