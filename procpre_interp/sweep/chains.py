"""The runs of one condition in one replicate: phase 1, phase 2 in one part or two, and the phases that follow."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from procpre_interp.data import Task
from procpre_interp.data.tokens import same_vocabulary
from procpre_interp.pipeline.config import Parent, RunConfig, with_own_draw
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.sweep.config import Condition, Pretraining, Sweep
from procpre_interp.sweep.phases import Phase, context_of, inserted_shape
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import Intervention
from procpre_interp.transfer import TransferConfig

FRESH_TOKENS = TransferConfig(token_embedding="fresh", unembedding="fresh")
"""Fresh token embeddings and carried positions."""
WHOLE_MODEL = TransferConfig(token_embedding="retain", unembedding="retain")
"""Every weight of the parent."""


@dataclass(frozen=True, slots=True)
class Role:
    """What a run is in a sweep."""

    phase: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """What comes before the last part of phase 2: a part of phase 2 before an insertion, and phase 1."""

    first_part: RunConfig | None
    """Phase 2 up to where phase 1 is inserted; None where nothing comes before phase 1."""
    phase1: Mapping[str, RunConfig]
    """Runs of phase 1, by the names of the pretrainings."""
    ids: Mapping[str, str] = field(init=False)
    """Their ids, by the same names."""
    first_id: str = field(init=False)
    """Id of the first part; empty where there is none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {name: config.run_id for name, config in self.phase1.items()})
        object.__setattr__(self, "first_id", "" if self.first_part is None else self.first_part.run_id)

    @property
    def runs(self) -> dict[str, RunConfig]:
        """All of them by id, in the order in which they are trained."""
        first = {} if self.first_part is None else {self.first_id: self.first_part}
        return first | {self.ids[name]: config for name, config in self.phase1.items()}

    def role(self, run: str) -> Role:
        """What one of them is."""
        if self.first_part is None:
            return Role(1, self.runs[run].task.name)
        step = f"step {self.first_part.train.last_step:,}"
        if run == self.first_id:
            return Role(2, f"up to {step}")
        config = self.runs[run]
        return Role(1, f"{config.task.name} at {step}, optimiser {config.optimiser}")


def pretraining_run(each: Pretraining, seed: int) -> RunConfig:
    """The phase-1 run of a replicate, from fresh weights."""
    return RunConfig(task=each.task, seed=seed, model=each.model, train=each.train)


def training(sweep: Sweep, condition: Condition) -> TrainConfig:
    """How phase 2 of a condition is trained, as a whole."""
    train = condition.train or sweep.train
    return dataclasses.replace(train, interventions=train.interventions + condition.interventions)


def beginning(sweep: Sweep, condition: Condition, seed: int) -> Beginning:
    """What comes before the last part of a condition's phase 2."""
    wanted = {source.phase1 for source in condition.sources}
    runs = {each.name: pretraining_run(each, seed) for each in sweep.phase1 if each.name in wanted}
    insert = condition.insert
    if insert is None:
        return Beginning(first_part=None, phase1=runs)
    carries, task = insert.optimiser == "carried", condition.task or sweep.task
    first_part, step = None, insert.step(training(sweep, condition))
    if step:
        train = dataclasses.replace(
            _with(training(sweep, condition), lambda each: not each.of_transfer and each.begins_at < step),
            stop_after=step,
            target_accuracy=None,
            patience=None,
            keep_optimiser=carries,
        )
        first_part = RunConfig(task=task, seed=seed, model=sweep.model, train=train)
    for name, run in runs.items():
        run = dataclasses.replace(
            run,
            model=inserted_shape(name, run.task, run.model, sweep.model, task),
            train=dataclasses.replace(run.train, keep_optimiser=carries),
        )
        if first_part is not None:
            positions = "carry" if insert.positions == "carry" else "fresh"
            run = dataclasses.replace(
                run,
                parents=(Parent(run=first_part.run_id),),
                transfer=dataclasses.replace(FRESH_TOKENS, positions=positions),
                optimiser=insert.optimiser,
            )
            run = with_own_draw(run, [first_part])
        runs[name] = run
    return Beginning(first_part=first_part, phase1=runs)


def last_part(sweep: Sweep, condition: Condition, seed: int, before: Beginning, taken: Sequence[Parent]) -> RunConfig:
    """Phase 2 from where phase 1 ended, given the parents that a condition's sources stand for; the whole of it where
    phase 1 came before."""
    whole = RunConfig(
        task=condition.task or sweep.task,
        seed=seed,
        model=sweep.model,
        train=training(sweep, condition),
        parents=tuple(taken),
        transfer=condition.transfer,
    )
    insert = condition.insert
    if insert is None:
        return with_own_draw(whole, [*before.runs.values()])
    own = insert.embeddings == "own"
    if before.first_part is None:  # its own embeddings are fresh then
        positions = "carry" if insert.positions == "carry" else "fresh"
        transfer = dataclasses.replace(FRESH_TOKENS, positions=positions, overlap=condition.transfer.overlap)
        whole = dataclasses.replace(whole, transfer=transfer, optimiser=insert.optimiser)
        return with_own_draw(whole, [*before.runs.values()])
    rest = dataclasses.replace(
        whole,
        train=dataclasses.replace(
            _with(whole.train, lambda each: not each.is_initial), start_at=insert.step(whole.train)
        ),
        parents=(Parent(run=before.first_id), *taken),
        # What the sources give stands; everything else is as it was where phase 2 stopped.
        transfer=dataclasses.replace(
            WHOLE_MODEL if own else FRESH_TOKENS,
            positions_parent=1 if taken and insert.positions == "carry" else None,
            overlap="later_wins",
        ),
        optimiser=insert.optimiser,
    )
    return with_own_draw(rest, [*before.runs.values()])


def _with(train: TrainConfig, wanted: Callable[[Intervention], bool]) -> TrainConfig:
    """A part of phase 2: that of its interventions which are done to this part."""
    return dataclasses.replace(train, interventions=tuple(filter(wanted, train.interventions)))


def tasks_after(sweep: Sweep, condition: Condition) -> tuple[Task, ...]:
    """What the phases after phase 1 are trained on; it is measured by the last."""
    then = sweep.then if condition.then is None else condition.then
    return (condition.task or sweep.task, *(phase.task for phase in then))


def fresh_arms(sweep: Sweep) -> dict[str, str]:
    """Condition -> the one without phase 1 of the same later phases, or else that ends on the same task; empty where
    there is none.

    Of several it is the one without pretraining that every sweep has, or else the first whose weights are left alone.
    """
    listed = {each.name: each for seed in sweep.seeds for each in sweep.of_replicate(seed)}
    tasks_of = {name: tasks_after(sweep, each) for name, each in listed.items()}
    alike: dict[tuple[Task, ...], str] = {}
    ends_alike: dict[Task, str] = {}
    for name, each in sorted(listed.items(), key=lambda item: item[0] != BASELINE):
        if not each.sources and (name == BASELINE or not each.interventions):
            alike.setdefault(tasks_of[name], name)
            ends_alike.setdefault(tasks_of[name][-1], name)
    return {name: alike.get(tasks) or ends_alike.get(tasks[-1], "") for name, tasks in tasks_of.items()}


def later_runs(sweep: Sweep, condition: Condition, before: Beginning, phase2: RunConfig) -> dict[str, RunConfig]:
    """The last part of phase 2 and the phases that follow, by id, in the order in which they are trained.

    Each takes over the whole model of the one before. A run keeps its optimiser's state where the next one carries it.
    """
    runs = [phase2]
    for phase in sweep.then if condition.then is None else condition.then:
        last, carries = runs[-1], phase.optimiser == "carried"
        transfer = phase.transfer
        if transfer is None:
            transfer = WHOLE_MODEL if same_vocabulary(last.task, phase.task) else FRESH_TOKENS
        if carries:
            last = runs[-1] = dataclasses.replace(last, train=dataclasses.replace(last.train, keep_optimiser=True))
        run = RunConfig(
            task=phase.task,
            seed=last.seed,
            model=dataclasses.replace(last.model, n_ctx=context_of(last.task, last.model)),
            train=phase.train,
            parents=(Parent(run=last.run_id),),
            transfer=transfer,
            optimiser=phase.optimiser,
        )
        runs.append(with_own_draw(run, [*before.runs.values(), *runs]))
    return {run.run_id: run for run in runs}


def with_training(sweep: Sweep, change: Callable[[TrainConfig], TrainConfig]) -> Sweep:
    """The sweep with the training of every phase changed."""

    def phases(given: tuple[Phase, ...]) -> tuple[Phase, ...]:
        return tuple(dataclasses.replace(each, train=change(each.train)) for each in given)

    conditions = (
        dataclasses.replace(
            each,
            train=None if each.train is None else change(each.train),
            then=None if each.then is None else phases(each.then),
        )
        for each in sweep.conditions
    )
    return dataclasses.replace(
        sweep,
        phase1=tuple(dataclasses.replace(each, train=change(each.train)) for each in sweep.phase1),
        train=change(sweep.train),
        then=phases(sweep.then),
        conditions=tuple(conditions),
    )
