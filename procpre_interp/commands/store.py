"""`procpre-interp store`: runs sent to an object store or fetched from one, or kept in one small file. Needs no
torch."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from procpre_interp.commands._options import parse
from procpre_interp.core.environment import default_store
from procpre_interp.store.archive import pack, unpack
from procpre_interp.store.remote_copy import Copied, RemoteCopy
from procpre_interp.store.store import RunStore


@dataclass(frozen=True, kw_only=True)
class Store:
    """Send the finished runs and tables of a store to a URL (push), or fetch those that are there (pull); or add them
    to one file without their weights (pack), from which a sweep or a claim goes on elsewhere (unpack).

    For example: procpre-interp store push s3://bucket/runs

    What the other side has already is not sent again, so the same command goes on after an interruption. Runs are
    checked when they are fetched, and listed once they are whole. A table that differs stays as it is on both sides.
    """

    action: Annotated[Positional[Literal["push", "pull", "pack", "unpack"]], tyro.conf.arg(help_behavior_hint="")]
    """push: from the store to the URL. pull: from the URL to the store. pack: from the store to a file, one or two
    kilobytes a run; weights and examples are left out. unpack: from the file to the store, where sweeps and claims
    compute again what new runs need the weights of."""
    place: Annotated[Positional[str], tyro.conf.arg(metavar="PLACE", help_behavior_hint="")]
    """Anything that fsspec opens: s3://bucket/folder, or a folder. With pack and unpack a file, such as runs.tar.xz."""
    store: Path = field(default_factory=default_store)
    """Folder of the runs."""


def main(arguments: list[str]) -> int:
    """Copy, and say what was copied. Exit code 1 where something was left."""
    command = parse(Store, "store", arguments)
    if command.action in ("push", "pack") and not command.store.is_dir():
        raise FileNotFoundError(f"no store {command.store}")
    done = _copy(command, RunStore(command.store), lambda run: print(f"run {run}", flush=True))
    for problem in done.problems:
        print(problem, file=sys.stderr)
    print(f"{len(done.runs)} runs and {len(done.tables)} tables copied, {len(done.problems)} skipped")
    return int(bool(done.problems))


def _copy(command: Store, store: RunStore, told: Callable[[str], None]) -> Copied:
    match command.action:
        case "push":
            return RemoteCopy(command.place).push(store, told)
        case "pull":
            there = RemoteCopy(command.place)
            done = there.pull(store, told)
            if done == Copied() and there.is_empty:
                raise FileNotFoundError(f"no runs and no tables at {command.place}")
            return done
        case "pack":
            return pack(store, Path(command.place), told)
        case "unpack":
            return unpack(Path(command.place), store, told)
