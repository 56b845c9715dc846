"""Runs of one shape executed as one computation, each with a folder, a lock and an end of its own."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from procpre_interp.core.config import to_dict
from procpre_interp.model import torch_defaults
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import DamagedWeights, Start, begin, execute, finish, prepare
from procpre_interp.pipeline.tracking import check_tracker, tracked
from procpre_interp.store.store import PartialRun, RunStore
from procpre_interp.train import StackedTrainer, TrainConfig, Trainer, TrainState


@dataclass(frozen=True, kw_only=True, slots=True)
class Listener:
    """Who is told what happens to the runs, each by its id."""

    on_step: Callable[[str, TrainState, TrainConfig], None] = lambda run, state, train: None
    on_note: Callable[[str, str], None] = lambda run, text: None
    on_finished: Callable[[str], None] = lambda run: None
    on_failed: Callable[[str, Exception], None] = lambda run, error: None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Claimed:
    """A run in the stack."""

    run: str
    start: Start
    partial: PartialRun
    trainer: Trainer
    held: ExitStack
    """Its lock, and its tracker if there is one."""


@torch_defaults()
def execute_stacked(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    *,
    listener: Listener | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Execute runs of equal `stacking_key`, given by id, as one computation; each is the run that it would be alone.

    A run that fails is told to the listener, and the others go on. What cannot be in the stack (another process is at
    it, or its kept weights were damaged meanwhile) is executed alone afterwards. Raises `Interrupted` after Ctrl-C, or
    when `should_stop()` turned true, with all states saved.
    """
    check_tracker(at_once=len(configs))
    listener = listener or Listener()
    claimed: dict[Trainer, _Claimed] = {}
    alone: list[str] = []

    def end(trainer: Trainer) -> None:
        own = claimed[trainer]
        try:
            finish(own.start, own.partial, trainer)
        except DamagedWeights:
            if own.partial.removed() is not None:
                raise
            alone.append(own.run)
        else:
            listener.on_finished(own.run)
        own.held.close()

    def fail(trainer: Trainer, error: Exception) -> None:
        own = claimed[trainer]
        error = own.partial.removed() or error  # as long as the lock is held
        own.held.close()
        listener.on_failed(own.run, error)

    try:
        for run, config in configs.items():
            with ExitStack() as held:
                try:
                    own = _claim(run, config, store, held, listener)
                except TimeoutError:
                    alone.append(run)
                except Exception as error:
                    listener.on_failed(run, error)
                else:
                    if own is None:
                        listener.on_finished(run)
                    else:
                        claimed[own.trainer] = own
        if claimed:
            StackedTrainer(list(claimed), should_stop=should_stop, on_end=end, on_failure=fail).run()
    finally:
        for own in claimed.values():
            own.held.close()
    execute_alone({run: configs[run] for run in alone}, store, listener=listener, should_stop=should_stop)


def _claim(run: str, config: RunConfig, store: RunStore, held: ExitStack, listener: Listener) -> _Claimed | None:
    """The run, its lock held; None where it is finished, with its weights.

    Raises `TimeoutError` where another process has it.
    """
    if store.is_finished(run, whole=True):
        return None
    start = prepare(config.resolve(), store, kernel_note=config.kernel_note)
    partial = held.enter_context(store.claim(run, whole=True, timeout_seconds=0))
    if partial is None:
        return None
    told = tracked(lambda state, train: listener.on_step(run, state, train), run, to_dict(start.config), store.path)
    trainer = begin(
        start,
        partial,
        on_step=held.enter_context(told),
        on_note=lambda text: listener.on_note(run, text),
    )
    return _Claimed(run=run, start=start, partial=partial, trainer=trainer, held=held.pop_all())


def execute_alone(
    configs: Mapping[str, RunConfig],
    store: RunStore,
    *,
    listener: Listener,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Execute runs, given by id, one after the other. A run that fails is told to the listener, as in a stack."""
    for run, config in configs.items():
        try:
            execute(
                config,
                store,
                whole=True,
                on_step=lambda state, train, run=run: listener.on_step(run, state, train),
                on_note=lambda text, run=run: listener.on_note(run, text),
                should_stop=should_stop,
            )
        except Exception as error:
            listener.on_failed(run, error)
        else:
            listener.on_finished(run)
