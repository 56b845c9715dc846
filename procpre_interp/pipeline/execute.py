"""Two-phase experiments as runs: a config says everything, its hash names the run, parents are part of it."""

import dataclasses
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.config import content_hash, from_dict, to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.data import Split, Task
from procpre_interp.data.stream import TaskStream
from procpre_interp.data.task import is_separable, prompt_overlap
from procpre_interp.model import HookedTransformer, load_weights, save_weights, select, torch_defaults, with_weights
from procpre_interp.model.flops import training_flops
from procpre_interp.pipeline.config import Parent, RunConfig, model_config
from procpre_interp.pipeline.continuation import carried_moments, optimiser_file, refuse_gaps
from procpre_interp.pipeline.identity import write_identity
from procpre_interp.pipeline.memory import check_disk, check_memory
from procpre_interp.pipeline.tracking import check_tracker, tracked
from procpre_interp.stats.summary import time_to_breakthrough
from procpre_interp.store.store import PartialRun, Run, RunStore, load_run
from procpre_interp.train import TrainConfig, Trainer, TrainState, answered, evaluate, summarise
from procpre_interp.train.process import check_device, run_threads
from procpre_interp.transfer import Donor, Weights, positions_carried, transplant

TEST_EXAMPLES = 4000
"""Sequences of the final test."""
ATTEMPTS = 3
"""How often a run is computed before we give up on a disk that damages its kept weights."""
log = logging.getLogger(__name__)


@torch_defaults()
def execute(
    config: RunConfig,
    store: RunStore,
    *,
    whole: bool = False,
    on_step: Callable[[TrainState, TrainConfig], None] = lambda state, train: None,
    should_stop: Callable[[], bool] = lambda: False,
    waiting: Callable[[float], None] | None = None,
    on_note: Callable[[str], None] = log.warning,
) -> Run:
    """The finished run of `config`: computed now, resumed, awaited while another process is at it, or simply opened;
    a copy without weights (`store.archive`) is computed again where `whole` is asked for.

    Torch's default dtype, device and matmul precision, as the caller may have set them, have no effect. `on_note` is
    told when files of an unfinished run are damaged, and from where it goes on. Raises `ValueError` for a parent that
    is missing, damaged or does not fit, and `Interrupted` after Ctrl-C or when `should_stop()` turned true, with the
    state saved.
    """
    for _ in range(ATTEMPTS):
        try:
            return _execute(config, store, whole, on_step, should_stop, waiting, on_note)
        except DamagedWeights as damage:
            on_note(f"{damage}: the run goes back to an earlier state")
    raise OSError(
        f"run {config.run_id}: its kept weights were damaged {ATTEMPTS} times before it ended; check the disk"
    )


class DamagedWeights(Exception):
    """Kept weights no longer have the content that was written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """A run that can begin, or go on: nothing about it is to be refused."""

    config: RunConfig
    """The resolved config."""
    kernel_note: str | None
    """What the config had to say of its kernel before it was resolved."""
    model: HookedTransformer
    """The model after the transfer, on the device."""
    fresh: Float[Tensor, " n_parameters"]
    """Its parameters before the transfer, as `before_transfer` has them."""
    carried: bool
    """Whether the parents' positions are carried."""
    moments: dict[str, Tensor]
    """The optimiser's state; empty for a fresh one."""


def _execute(
    config: RunConfig,
    store: RunStore,
    whole: bool,
    on_step: Callable[[TrainState, TrainConfig], None],
    should_stop: Callable[[], bool],
    waiting: Callable[[float], None] | None,
    on_note: Callable[[str], None],
) -> Run:
    resolved = config.resolve()
    run_id = content_hash(resolved)
    if store.is_finished(run_id, whole=whole):
        return store.open(run_id)
    # What can be refused is refused before the store knows of the run.
    start = prepare(resolved, store, kernel_note=config.kernel_note)
    if (native := config.native_id) is not None and store.is_begun(native):
        on_note(f"run {native}, begun with the native kernel, is not gone on with: {config.kernel_note}")
    with store.claim(run_id, whole=whole, waiting=waiting) as partial:
        if partial is None:
            return store.open(run_id)
        with tracked(on_step, run_id, to_dict(resolved), store.path) as entered:
            trainer = begin(start, partial, on_step=entered, should_stop=should_stop, on_note=on_note)
            trainer.run()
        return finish(start, partial, trainer)


def prepare(config: RunConfig, store: RunStore, *, kernel_note: str | None = None, shares: int = 1) -> Start:
    """What the run of a resolved config starts from; `shares` processes share the weights.

    Raises `ValueError` for a parent that is missing, damaged or does not fit, and for whatever else cannot be done.
    """
    check_device(config.train.device)
    check_memory(config, shares=shares)
    check_disk(config, store)
    check_tracker()
    config.train.refuse(model_config(config))
    refuse_gaps(config, store)
    model = fresh_model(config)
    if config.train.freeze is not None:
        select(model.config, config.train.freeze)
    fresh = before_transfer(model, config, store)
    carried = transplant_into(model, config, store)
    moments = carried_moments(config, model, store)
    config.task.prepare()
    model = model.to(config.train.device)
    return Start(config=config, kernel_note=kernel_note, model=model, fresh=fresh, carried=carried, moments=moments)


def begin(
    start: Start,
    partial: PartialRun,
    *,
    on_step: Callable[[TrainState, TrainConfig], None],
    on_note: Callable[[str], None],
    should_stop: Callable[[], bool] = lambda: False,
) -> Trainer:
    """Write what identifies a run into its folder, and return its trainer, which stands where the run was left."""
    write_identity(config := start.config, partial, start.kernel_note)
    trainer = Trainer(
        start.model,
        config.task,
        config.train,
        seed=config.seed,
        fresh=start.fresh,
        moments=start.moments,
        state_path=partial.resume_path,
        on_step=lambda state: on_step(state, config.train),
        should_stop=should_stop,
        keep=lambda step: save_weights(start.model, partial.weights_path(step)),
        check_kept=partial.check_weights,
        on_note=on_note,
    )
    partial.remove_weights_after(trainer.state.step)
    return trainer


def load_donor(parent: Parent, store: RunStore, seed: int) -> Donor:
    """A parent's weights, damaged as asked; the damage is drawn from the child's seed, for each place anew."""
    run = store.open(parent.run)
    if run.summary["status"] == "diverged":
        raise ValueError(f"run {run.id} diverged; a parent must have finished")
    model = load_model(run, step=parent.step)
    weights = {name: tensor.detach() for name, tensor in model.named_parameters()}
    if parent.ablation is not None:
        place = (parent.place,) if parent.place else ()  # the first parent's stream is that of an only parent
        generator = stream(seed, "ablation", parent.ablation.name, *place)
        weights = parent.ablation.apply(weights, model.config, generator=generator)
    return Donor(weights, model.config, parent.selector)


def fresh_model(config: RunConfig) -> HookedTransformer:
    """The model before any training or transfer: drawn from the run's seed, the same in every condition of one `draw`.

    Raises `ValueError` for an imported model, whose initial weights nobody knows here.
    """
    if config.imported is not None:
        raise ValueError(
            f"{config.imported.folder or 'this model'} was imported: its initial weights are not known, and it cannot "
            "be trained again; take it as a parent instead"
        )
    return HookedTransformer.from_seed(model_config(config), config.seed, *config.fresh_labels)


def before_transfer(
    model: HookedTransformer, config: RunConfig, store: RunStore, *, stored: bool = False
) -> Float[Tensor, " n_parameters"]:
    """The weights that a run's transfer changes: those of a fresh `model`, or, for the rest of a training, those that
    its first part ended with, if any intervention asks for them. Raises `ValueError` as `transplant_into` does."""
    if config.train.start_at and any(each.of_transfer for each in config.train.interventions):
        own = dataclasses.replace(config.transfer, embedding_parent=0, positions_parent=None)
        config = dataclasses.replace(config, parents=config.parents[:1], transfer=own)
        transplant_into(model := fresh_model(config), config, store, stored=stored)
    return model.flat.detach().clone()


@torch_defaults()
def transplant_into(model: HookedTransformer, config: RunConfig, store: RunStore, *, stored: bool = False) -> bool:
    """Give a fresh model what the run's parents give it; whether their positions are carried.

    A `stored` run is made again as it was, be it one that no new run may be (`transplant`). Raises `ValueError` for a
    parent that is missing, damaged or does not fit.
    """
    with run_threads(config.train.threads):  # whose number changes the last bits of damage to the parents' spectra
        donors = [load_donor(parent, store, config.seed) for parent in config.parents]
        fresh: Weights = dict(model.named_parameters())
        with_weights(model, transplant(fresh, model.config, donors, config.transfer, stored=stored))
    return positions_carried(model.config, donors, config.transfer)


def run_config(run: Run) -> RunConfig:
    """The config that a run was made from."""
    return from_dict(RunConfig, run.config, "config")


def load_model(run: Run | str | Path, step: int | None = None) -> HookedTransformer:
    """The model of a run (or of its folder) in eval mode, with its final weights or those of a kept checkpoint."""
    opened = load_run(run)
    path = opened.weights_path(step)
    with opened.reading():
        return load_weights(path)


def load_task(run: Run | str | Path) -> Task:
    """The task that a run, given as a `Run` or as its folder, was trained on."""
    return from_dict(Task, load_run(run).task, "task")


@torch_defaults()
def held_out(task: Task, split: Split, *, seed: int, n: int) -> Any:
    """`n` fixed examples of a split, the same ones in every condition of a replicate."""
    return TaskStream(task, seed=seed, split=split, size=n).batch(0)


def finish(start: Start, partial: PartialRun, trainer: Trainer) -> Run:
    """Test the trained model, store the tables, and seal the run. Raises `DamagedWeights`."""
    state = trainer.state
    try:
        partial.check_weights(state.kept)
    except ValueError as damage:
        raise DamagedWeights(str(damage)) from None
    config, model, task, train = start.config, trainer.model, start.config.task, start.config.train
    history = state.table()
    diverged, of_whole_task = state.status == "diverged", history.loc[history["task_length"].isna()]
    broke_through = None if diverged else time_to_breakthrough(of_whole_task, task.breakthrough_accuracy)
    partial.write_table("history", history)
    if train.keep_optimiser:
        partial.write_optimiser(optimiser_file(model, trainer.optimiser))
    scores: dict[str, float] = dict.fromkeys(("loss_nats", "accuracy", "exact_match"), math.nan)
    if state.status == "finished":
        batch = held_out(task, "test", seed=config.seed, n=TEST_EXAMPLES).to(train.device)
        with run_threads(trainer.torch_threads):  # as in training, however many the caller has
            examples = evaluate(model, batch, autocast=train.precision == "bfloat16", native=trainer.native)
            answers = answered(model, task, "test", seed=config.seed)
        partial.write_table("examples", examples)
        scores = summarise(examples)
        scores |= task.extra_metrics(scores["loss_nats"], "test")
        if answers is not None:
            partial.write_table("answers", answers)
            scores["answers_right"] = float(answers.exact_match.mean())
    # A curriculum's short sequences have few prompts, even where the whole task has many.
    tasks = [task, *map(task.at_length, sorted(set(history["task_length"].dropna().astype(int))))]
    overlaps = [0.0 if is_separable(each) else prompt_overlap(each) for each in tasks]
    return partial.finish(
        {
            "status": state.status,
            "stop_reason": state.stop_reason,
            "task": task.name,
            "seed": config.seed,
            "parents": [parent.run for parent in config.parents],
            "components": ", ".join(parent.selector for parent in config.parents) or None,
            "n_layers": config.model.n_layers,
            "n_heads": config.model.n_heads,
            "d_model": config.model.d_model,
            "n_parameters": model.flat.numel(),
            "steps": state.step,
            **({"start_at": train.start_at} if train.start_at else {}),
            **scores,
            "breakthrough_step": broke_through,
            # A run that broke through was seen to the end, however soon it was ended then.
            "breakthrough_limit": train.last_step if diverged or broke_through is not None else state.step,
            "prompt_overlap": max(overlaps),
            "positions_carried": start.carried,
            "tokens": state.tokens,
            "teraflops": training_flops(model.config, task.n_ctx, state.tokens) / 1e12,
            **({} if (epochs := task.epochs(state.tokens)) is None else {"epochs": epochs}),
            "seconds": state.seconds,
            "kernel": train.kernel,
            "threads": train.threads,
            "device": train.device,
        }
    )
