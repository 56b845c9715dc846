"""Commands run by several processes together, as torchrun would start them, but from a server that has loaded torch."""

import itertools
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from procpre_interp.core.launch import launched
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.distributed import execute_distributed
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.store import RunStore
from procpre_interp.train import Interrupted

PRELOADED = ["tests.together", "procpre_interp.commands.train", "procpre_interp.commands.transfer"]
SECONDS = 120


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun says to a process."""
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def work(function: Callable[..., int], arguments: Sequence[Any], variables: Mapping[str, str], output: Path) -> None:
    """One process: what the function prints goes to a file, and what it returns is its exit code."""
    os.environ.update(variables)
    with output.open("w") as file:
        sys.stdout = sys.stderr = file
        try:
            code = function(*arguments)
        except BaseException:
            traceback.print_exc()
            code = 99
        file.flush()
    os._exit(code)


def run_together(function: Callable[..., int], *arguments: Any, size: int, folder: Path) -> list[tuple[int, str]]:
    """Exit code and output of each of `size` processes that call a function together."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folder.mkdir(exist_ok=True)
    outputs, port = [folder / f"{rank}.txt" for rank in range(size)], free_port()
    kept = {name: os.environ[name] for name in ("PROCPRE_CACHE",) if name in os.environ}
    processes = [
        context.Process(target=work, args=(function, arguments, {**kept, **environment(rank, size, port)}, output))
        for rank, output in enumerate(outputs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
    return [(process.exitcode or 0, output.read_text()) for process, output in zip(processes, outputs)]


def run_until(config: RunConfig, store: Path, step: int | None) -> int:
    """Take part in a run, and stop it after this many steps of this sitting. Exit code: 0, or 130 where it stopped."""
    launch, steps = launched(), itertools.count(1)
    run = execute if launch is None else partial(execute_distributed, launch=launch)
    try:
        run(config, RunStore(store), should_stop=lambda: next(steps) == step)
    except Interrupted:
        return 130
    return 0
