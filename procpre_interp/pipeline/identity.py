"""What a run's folder says of its making, written when it is begun and whenever it is gone on with."""

from collections.abc import Mapping, Sequence

from procpre_interp.core.config import to_yaml
from procpre_interp.core.plain_values import load_json
from procpre_interp.core.plugins import loaded
from procpre_interp.core.regular_files import read_regular
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.pipeline.numerics import numerics
from procpre_interp.store.store import PartialRun, environment

ENVIRONMENT = "environment.json"


def write_identity(
    config: RunConfig, partial: PartialRun, kernel_note: str | None, *, processes: int = 1, parallel: str | None = None
) -> None:
    """Write the resolved config, the environment and the plugins' files into the folder of a run being written.

    The numbers of `processes` that it was computed with, one after the other, stand in the environment where any is
    not 1, since they change the last bits of sums, and `parallel`, how they share the work.
    """
    partial.write_config(to_yaml(config))
    computed = {"kernel_note": kernel_note, **numerics(config.train, model_config(config))}
    plugins = loaded()
    if plugins:
        computed["plugins"] = [plugin.mark for plugin in plugins]
    counts = processes_of(partial)
    counts = [*counts, processes] if counts[-1:] != [processes] else counts
    if counts != [1]:
        computed |= {"processes": counts, "parallel": parallel}
    partial.write_json(ENVIRONMENT, environment(threads=config.train.threads) | computed)
    for plugin in plugins:
        if plugin.is_file:
            partial.write_plugin(plugin)


def processes_of(partial: PartialRun) -> Sequence[int]:
    """The numbers of processes that a run being written was computed with so far; empty for one that is new."""
    try:
        before = load_json(read_regular(partial.folder / ENVIRONMENT))
        found = before.get("processes", [1]) if isinstance(before, Mapping) else []
        return [int(count) for count in found]
    except (OSError, ValueError, TypeError, AttributeError):
        return []
