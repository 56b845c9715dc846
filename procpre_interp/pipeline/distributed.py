"""One run executed by several processes, which `torchrun` or `accelerate launch` started together.

It is the run that one process would compute, of the same id, but for the last bits of sums: losses agree to 1e-5. The
processes share every batch, and need one folder of runs under one path. The first of them does everything else.
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from procpre_interp.core.config import content_hash, to_dict
from procpre_interp.core.launch import Launch
from procpre_interp.model import save_parameters, save_weights, torch_defaults
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.pipeline.execute import DamagedWeights, Start, finish, prepare
from procpre_interp.pipeline.identity import write_identity
from procpre_interp.pipeline.tracking import tracked
from procpre_interp.store.store import PartialRun, Run, RunStore
from procpre_interp.train import TrainConfig, TrainState
from procpre_interp.train.distributed import (
    DistributedTrainer,
    FailedElsewhere,
    Group,
    ShardedTrainer,
    joined,
    refuse_distributed,
)

__all__ = ["FailedElsewhere", "execute_distributed"]

LOCK_SECONDS = 60.0
"""How long the processes wait for another one that is at the run."""


@torch_defaults()
def execute_distributed(
    config: RunConfig,
    store: RunStore,
    launch: Launch,
    *,
    on_step: Callable[[TrainState, TrainConfig], None] = lambda state, train: None,
    should_stop: Callable[[], bool] = lambda: False,
    waiting: Callable[[float], None] | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Run:
    """The finished run of `config`, in each of the processes, all of which must call this; see `execute`.

    The first process calls the functions that are told something; any may stop the run. Raises `FailedElsewhere` in all
    processes but the one that failed, and `TimeoutError` where a process of another command is at the run.
    """
    with joined(launch, config.train.device) as group, ExitStack() as held:
        resolved = group.together(lambda: _checked(config, group))
        run_id = content_hash(resolved)
        partial: PartialRun | None = None

        def claim() -> bool:
            nonlocal partial
            partial = held.enter_context(store.claim(run_id, whole=True, timeout_seconds=LOCK_SECONDS, waiting=waiting))
            return partial is not None

        if not group.first(lambda: store.is_finished(run_id, whole=True)):
            shares = group.size if config.train.shard else 1
            start = group.together(lambda: prepare(resolved, store, kernel_note=config.kernel_note, shares=shares))
            if group.first(claim):
                if partial is not None:
                    on_step = held.enter_context(tracked(on_step, run_id, to_dict(resolved), store.path))
                trainer = _begin(start, partial, group, on_step=on_step, should_stop=should_stop, on_note=on_note)
                trainer.run()
                group.first(lambda: _finish(start, partial, trainer))
        return group.together(lambda: store.open(run_id))


def _checked(config: RunConfig, group: Group) -> RunConfig:
    refuse_distributed(config.train, model_config(config), group.size)
    return config.resolve()


def _begin(
    start: Start,
    partial: PartialRun | None,
    group: Group,
    *,
    on_step: Callable[[TrainState, TrainConfig], None],
    should_stop: Callable[[], bool],
    on_note: Callable[[str], None],
) -> DistributedTrainer:
    """This process's trainer. Only the first one's, which has the run's folder, writes there, and tells anything."""
    config, model = start.config, start.model

    def keep(step: int, path: Path) -> str:
        if isinstance(trainer, ShardedTrainer):
            return save_parameters(trainer.kept_weights, model.config, path)
        return save_weights(model, path)

    if partial is None:
        own: dict[str, Any] = {}
    else:
        own = {
            "state_path": partial.resume_path,
            "on_step": lambda state: on_step(state, config.train),
            "keep": lambda step: keep(step, partial.weights_path(step)),
            "check_kept": partial.check_weights,
            "on_note": on_note,
        }
    group.first(lambda: _identify(start, partial, group))
    trainer = (ShardedTrainer if config.train.shard else DistributedTrainer)(
        model,
        config.task,
        config.train,
        seed=config.seed,
        fresh=start.fresh,
        moments=start.moments,
        should_stop=should_stop,
        group=group,
        **own,
    )
    if partial is not None:
        partial.remove_weights_after(trainer.state.step)
    return trainer


def _identify(start: Start, partial: PartialRun | None, group: Group) -> None:
    assert partial is not None
    parallel = "FSDP2" if start.config.train.shard else "DDP"
    write_identity(start.config, partial, start.kernel_note, processes=group.size, parallel=parallel)


def _finish(start: Start, partial: PartialRun | None, trainer: DistributedTrainer) -> None:
    assert partial is not None
    try:
        finish(start, partial, trainer)
    except DamagedWeights as damage:
        raise OSError(f"{damage}; repeat the command: the run goes back to an earlier state") from None
