"""What a run's folder says of its making, written when it is begun and whenever it is gone on with."""

from collections.abc import Mapping, Sequence
from typing import Any

from procpre_interp.core.config import to_yaml
from procpre_interp.core.plain_values import load_json
from procpre_interp.core.plugins import loaded
from procpre_interp.core.regular_files import read_regular
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.pipeline.numerics import numerics
from procpre_interp.store.store import PartialRun, environment

ENVIRONMENT = "environment.json"
SITTING = frozenset({"started", "earlier", "processes", "parallel"})
"""What two sittings on one machine may differ in; numbers of processes have a list of their own."""


def write_identity(
    config: RunConfig, partial: PartialRun, kernel_note: str | None, *, processes: int = 1, parallel: str | None = None
) -> None:
    """Write the resolved config, the environment and the plugins' files into the folder of a run being written.

    The numbers of `processes` that it was computed with, one after the other, stand in the environment where any is
    not 1, since they change the last bits of sums, and `parallel`, how they share the work. So do machines and
    versions: what earlier sittings were computed with stands there as `earlier` where it was anything else.
    """
    partial.write_config(to_yaml(config))
    computed = {"kernel_note": kernel_note, **numerics(config.train, model_config(config))}
    plugins = loaded()
    if plugins:
        computed["plugins"] = [plugin.mark for plugin in plugins]
    before = _written(partial)
    counts = _processes_of(before)
    counts = [*counts, processes] if counts[-1:] != [processes] else counts
    if counts != [1]:
        computed |= {"processes": counts, "parallel": parallel}
    now = environment(threads=config.train.threads) | computed
    partial.write_json(ENVIRONMENT, now | _earlier(now, before))
    for plugin in plugins:
        if plugin.is_file:
            partial.write_plugin(plugin)


def _processes_of(before: Mapping[str, Any]) -> Sequence[int]:
    """The numbers of processes that a run being written was computed with so far; empty for one that is new."""
    try:
        return [int(count) for count in before.get("processes", [1])] if before else []
    except (ValueError, TypeError):
        return []


def _written(partial: PartialRun) -> Mapping[str, Any]:
    """The environment of the sitting before; empty for a run that is new, or where it cannot be read."""
    try:
        found = load_json(read_regular(partial.folder / ENVIRONMENT))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _earlier(now: Mapping[str, object], before: Mapping[str, Any]) -> dict[str, object]:
    """`earlier`: the environments of all sittings until now that differ from the one behind them in more than when."""
    sittings = before.get("earlier", [])
    past = list(sittings) if isinstance(sittings, Sequence) else []
    last = {name: value for name, value in before.items() if name not in SITTING}
    if last and last != {name: value for name, value in now.items() if name not in SITTING}:
        past.append(last)
    return {"earlier": past} if past else {}
