"""What a sweep is: pretrainings, conditions, grids and transfer maps over replicates."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from procpre_interp.ablate import Ablation
from procpre_interp.core.config import ORIGIN, to_dict
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.selectors import NOTHING, orders_of, union
from procpre_interp.data import Task
from procpre_interp.pipeline.config import Architecture
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.stats.transfer_map import Coalition, coalitions, condition_name
from procpre_interp.store.about import About
from procpre_interp.store.names import check_new_name
from procpre_interp.sweep.fair_config import Fair
from procpre_interp.sweep.maps import Map, selector_config
from procpre_interp.sweep.phases import Insertion, Phase, inserted_shape
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import Intervention
from procpre_interp.transfer import TransferConfig, components, refuse_overlaps

MOST_REPLICATES = 10_000
"""More than any sweep has, and few enough to be listed."""
FIRST_CONFIRMATION_SEED = 1000
"""Seeds from here on confirm; 0-99 were used for tuning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pretraining:
    """A phase 1 that conditions take weights from; each replicate has its own, trained with the replicate's seed."""

    name: str
    """What conditions call it."""
    task: Task
    """What it is trained on."""
    model: Architecture = field(default_factory=lambda: Architecture(tied=True))
    """Shape of the model; the paper ties W_U to W_E in phase 1."""
    train: TrainConfig
    """How it is trained."""

    def refuse_step(self, step: int | None) -> None:
        """Raise `ValueError` for a step whose weights it does not keep."""
        if step is not None and step not in (kept := self.train.kept_steps):
            raise ValueError(f"{self.name!r} keeps weights of {sorted(kept)} (train.checkpoints), none of step {step}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a condition takes from a pretraining."""

    phase1: str
    """Name of the pretraining."""
    selector: str = "all"
    """Which components. `sharpest.K` and `bluntest.K` are the K heads of the lowest and the highest attention entropy
    of this very parent, `circuit.K` and `weakest.K` the K strongest and the K weakest of its circuit, `random.K` K by
    lot, `random_like.circuit.K` K by lot with the layers of `circuit.K`; `none` takes embeddings and positions
    alone."""
    step: int | None = None
    """Step of a checkpoint. Default: the final weights."""
    ablation: Ablation | None = None
    """Damage done to the weights before the transfer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One way to start phase 2."""

    name: str
    """Unique in the sweep."""
    label: str = ""
    """What people read. Default: the name."""
    sources: tuple[Source, ...] = ()
    """Where weights come from; several make an assembly, to which each gives others (see `transfer.overlap`)."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """What happens to embeddings and positions."""
    insert: Insertion | None = None
    """Where in phase 2 the sources' phase 1 comes, and what then happens to embeddings. Default: before phase 2, as
    `transfer` says."""
    interventions: tuple[Intervention, ...] = ()
    """What is done to its training beside what the sweep's own says: `procpre_interp.train.interventions`."""
    task: Task | None = None
    """What it is trained on. Default: the sweep's task."""
    train: TrainConfig | None = None
    """How it is trained. Default: as the sweep says."""
    then: tuple[Phase, ...] | None = None
    """Phases after its phase 2. Default: as the sweep says."""
    replicates: int | None = None
    """Number of replicates that have it, counted from the first. Default: all."""

    def __post_init__(self) -> None:
        if self.replicates is not None and self.replicates < 0:
            raise ValueError(f"condition {self.name!r}: replicates={self.replicates}; it must not be negative")
        if self.insert is None:
            return
        if dataclasses.replace(self.transfer, overlap="refuse") != TransferConfig():
            raise ValueError(
                f"condition {self.name!r}: its insert says what happens to embeddings and positions; leave transfer out"
            )
        if self.insert.optimiser == "carried" and any(
            each.ablation is not None or each.step is not None for each in self.sources
        ):
            raise ValueError(
                f"condition {self.name!r}: an optimiser's state belongs to final weights without damage; "
                "give its insert optimiser fresh, or its sources no ablation and no step"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Every combination of these becomes a condition."""

    phase1: tuple[str, ...]
    """Names of pretrainings."""
    selector: tuple[str, ...] = ("all",)
    """Which components."""
    step: tuple[int | None, ...] = (None,)
    """Steps of checkpoints, which is a sweep over phase 1's tokens; null: the final weights."""
    ablation: tuple[Ablation | None, ...] = (None,)
    """Which damage; null: none."""
    transfer: tuple[TransferConfig, ...] = (TransferConfig(),)
    """Which treatment of embeddings and positions."""
    insert: tuple[Insertion | None, ...] = (None,)
    """Where in phase 2 phase 1 comes, such as [{at: 0}, {at: 0.5}]; null: before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A grid of transfers over replicates: a fresh seed of both phases, carried through all conditions."""

    name: str
    """Name of the stored table."""
    title: str = ""
    """Title of the report. Default: the name."""
    phase1: tuple[Pretraining, ...] = ()
    """Pretrainings."""
    task: Task
    """Phase 2: what the models are trained on."""
    model: Architecture = field(default_factory=Architecture)
    """Phase 2: their shape."""
    train: TrainConfig
    """Phase 2: how they are trained."""
    then: tuple[Phase, ...] = ()
    """Phases after phase 2, one after the other, for all conditions that do not have their own."""
    conditions: tuple[Condition, ...] = ()
    """Conditions one by one; `none`, without phase 1, is always added."""
    grids: tuple[Grid, ...] = ()
    """Grids of conditions."""
    maps: tuple[Map, ...] = ()
    """Transfer maps."""
    replicates: int = 6
    """Number of replicates."""
    first_seed: int = FIRST_CONFIRMATION_SEED
    """Seed of the first; 0-99 for tuning, from 1000 for confirmation."""
    fair: Fair | None = None
    """Control arms of every transfer, and the same tuning for all of them (`sweep.fair`). Default: neither."""

    def __post_init__(self) -> None:
        check_new_name(self.name)
        if not 1 <= self.replicates <= MOST_REPLICATES:
            raise ValueError(f"replicates={self.replicates}; there must be at least 1, and at most {MOST_REPLICATES:,}")
        names = [each.name for each in self.phase1]
        used = [source.phase1 for condition in self.conditions for source in condition.sources]
        used += [name for grid in self.grids for name in grid.phase1] + [each.phase1 for each in self.maps]
        if unknown := [name for name in used if name not in names]:
            raise unknown_name("pretraining of the sweep", unknown[0], names)
        recipes = {each.name: each for each in self.phase1}
        for each in self.filled_maps:
            each.refuse_overlaps(recipes[each.phase1].model)
        for condition in self.conditions:
            # Which heads a ranked term names is known when its parent is finished: `plan` looks at these.
            if not any(orders_of(source.selector) for source in condition.sources):
                refuse_shared(condition, [source.selector for source in condition.sources], self.model)
        planned = self.of_replicate(self.first_seed)
        for condition in planned:
            self.refuse_insertion(condition)
            for source in condition.sources:
                recipes[source.phase1].refuse_step(source.step)
        for what, twice in (("pretraining", names), ("condition", [each.name for each in planned])):
            if repeated := {name for name in twice if twice.count(name) > 1}:
                of_maps = any("{" in name for name in repeated)  # which have none of their own
                advice = "name its pretraining twice, once for each map" if of_maps else "give each a name of its own"
                raise ValueError(f"two {what}s are named {min(repeated)!r}; {advice}")

    def refuse_insertion(self, condition: Condition) -> None:
        """Raise `ValueError` where phase 1 cannot be inserted as a condition says."""
        if condition.insert is None:
            return
        try:
            train = condition.train or self.train
            condition.insert.step(train)
            for each in train.interventions + condition.interventions:
                if each.is_divided and condition.insert.at:
                    raise ValueError(f"{each.name} changes initial weights and acts in training, which insert parts")
            for each in self.phase1:
                if each.name in {source.phase1 for source in condition.sources}:
                    inserted_shape(each.name, each.task, each.model, self.model, condition.task or self.task)
        except ValueError as problem:
            raise ValueError(f"condition {condition.name!r}: {problem}") from None

    @property
    def filled_maps(self) -> list[Map]:
        """The maps with the players of their grains."""
        shapes = {each.name: each.model for each in self.phase1}
        return [each.filled(shapes[each.phase1]) for each in self.maps]

    @property
    def about(self) -> About:
        """What a reader of its table must know of it: title, and of the last phase task, step limit and threshold of
        breakthrough (share)."""
        last = self.then[-1] if self.then else self
        return About(
            title=self.title or self.name,
            task=last.task.name,
            limit=last.train.last_step,
            threshold=last.task.breakthrough_accuracy,
        )

    @property
    def seeds(self) -> range:
        """One a replicate."""
        return range(self.first_seed, self.first_seed + self.replicates)

    def of_replicate(self, seed: int) -> list[Condition]:
        """All conditions; those of sampled Shapley values are different ones in each replicate."""
        listed = list(self.conditions)
        for grid in self.grids:
            listed += grid_conditions(grid)
        for each in self.filled_maps:
            listed += map_conditions(each, seed).values()
        if all(each.name != BASELINE for each in self.conditions):
            listed.insert(0, Condition(name=BASELINE, label="no pretraining"))
        # The same coalition in two maps, or a grid that holds it, is one condition.
        index = seed - self.first_seed
        return [each for each in dict.fromkeys(listed) if each.replicates is None or index < each.replicates]


def refuse_shared(condition: Condition, selectors: Sequence[str], shape: Architecture) -> None:
    """Raise `ValueError` where sources of a condition give the same weights and it does not ask for an order."""
    if len(selectors) < 2 or condition.transfer.overlap == "later_wins":
        return
    config = selector_config(shape)
    sources = enumerate(zip(condition.sources, selectors))
    names = {f"source {i} ({source.phase1}, {part})": components(config, part) for i, (source, part) in sources}
    try:
        refuse_overlaps(config, names)
    except ValueError as problem:
        raise ValueError(f"condition {condition.name!r}: {problem}") from None


def grid_conditions(grid: Grid) -> list[Condition]:
    """The combinations, named by what they are made of."""
    conditions = []
    for phase1, selector, step, ablation, transfer, insert in itertools.product(
        grid.phase1, grid.selector, grid.step, grid.ablation, grid.transfer, grid.insert
    ):
        at_step = [] if step is None else [f"step {step}"]
        parts = [phase1, selector, *at_step, *described(ablation), *described(transfer), *described(insert)]
        source = Source(phase1=phase1, selector=selector, step=step, ablation=ablation)
        conditions.append(Condition(name=" ".join(parts), sources=(source,), transfer=transfer, insert=insert))
    return conditions


def described(part: Ablation | TransferConfig | Insertion | None) -> list[str]:
    """An ablation, a transfer or an insertion in a few words; none where it is the default."""
    fields = {key: value for key, value in to_dict(part or {}).items() if key not in ORIGIN}
    name = fields.pop("name", None)
    inside = ", ".join(f"{key}={value}" for key, value in fields.items())
    words = f"{name}({inside})" if name and inside else name or inside
    return [words] if words else []


def map_conditions(each: Map, seed: int) -> dict[Coalition, Condition]:
    """Coalition -> condition, for one replicate."""
    wanted = coalitions(each.players, each.methods, replicate=seed, sampling=each.sampling)
    return {coalition: coalition_condition(each, coalition) for coalition in wanted}


def coalition_condition(each: Map, chosen: Coalition) -> Condition:
    """The transfer of these players, of what is `given`, and of nothing else."""
    transfer = each.treatment
    if "pos" in each.players:
        transfer = dataclasses.replace(transfer, positions="carry" if "pos" in chosen else "fresh")
    if "embed" in each.players:
        strategy = "average" if "embed" in chosen else "fresh"
        transfer = dataclasses.replace(transfer, token_embedding=strategy, unembedding=strategy)
    parts = [part for part in (each.given, *chosen) if part not in ("", "pos", "embed")]
    # Everything has one name, so that it is one run with the full transfer of other experiments.
    selector = "all" if {"attn", "mlp", "ln"} <= set(parts) else union(parts)
    name = condition_name(each.phase1, chosen, each.given)
    nothing = selector == NOTHING and transfer == dataclasses.replace(
        transfer, token_embedding="fresh", unembedding="fresh", positions="fresh"
    )
    if nothing:  # so it is no transfer at all, and shares the baseline's runs
        return Condition(name=name, transfer=TransferConfig())
    return Condition(name=name, sources=(Source(phase1=each.phase1, selector=selector),), transfer=transfer)
