"""Sweeps: one config describes a grid of transfers; its replicates are runs that share their phase-1 parents."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from procpre_interp.ablate import Ablation
from procpre_interp.core.config import ORIGIN, to_dict, unknown_name
from procpre_interp.data import Task
from procpre_interp.engine.processes import Event, execute_all
from procpre_interp.sweep.ranked_heads import NEEDS_ORDER, name_heads, ordered_heads, orders_of
from procpre_interp.model import ModelConfig, WeightSlice, canonical_selector, overlap, select
from procpre_interp.store.outcomes import cell_results, is_whole
from procpre_interp.pipeline.execute import Architecture, Parent, RunConfig
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions.base import Intervention
from procpre_interp.transfer import NOTHING, TransferConfig, components, refuse_overlaps
from procpre_interp.stats.transfer_map import Method, coalitions, condition_name, selector_grid

FIRST_CONFIRMATION_SEED = 1000
"""Seeds from here on confirm; 0-99 were used for tuning."""
HeadOrders = dict[tuple[str, int | None, str], list[str]]
"""Heads of a run and step in one of the orders of `heads.ordered_heads`."""
GOVERNED = ("pos_embed", "unembed", "embed.W_E", "pos_embed.W_pos", "unembed.W_U")
"""Selectors of what the transfer options govern, under other names than the players `pos` and `embed`."""
GOVERNED_PLAYERS = {"pos": "pos", "embed": "embed + unembed"}
"""Players that stand for what the transfer options govern, and the selectors of their weights."""
BASELINE = "none"
"""Name of the condition without phase 1, which every sweep has."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """What a condition takes from a pretraining."""

    phase1: str
    """Name of the pretraining."""
    selector: str = "all"
    """Which components. `sharpest.K` and `bluntest.K` are the K heads of the lowest and the highest attention entropy
    of this very parent, `circuit.K` the K strongest of its circuit, `random.K` K by lot; `none` takes embeddings and
    positions alone."""
    step: int | None = None
    """A checkpoint's step; none: the final weights."""
    ablation: Ablation | None = None
    """Damage done to the weights before the transfer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """One way to start phase 2."""

    name: str
    """Unique in the sweep."""
    label: str = ""
    """What people read; empty: the name."""
    sources: tuple[Source, ...] = ()
    """Where weights come from; several make an assembly, to which each gives others (see `transfer.overlap`)."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """What happens to embeddings and positions."""
    interventions: tuple[Intervention, ...] = ()
    """What is done to its training beside what the sweep's own says: `procpre_interp.train.interventions.base`."""
    task: Task | None = None
    """What it is trained on; none: the sweep's task."""
    train: TrainConfig | None = None
    """How it is trained; none: as the sweep says."""
    replicates: int | None = None
    """Only the first so many replicates have it; none: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Every combination of these becomes a condition."""

    phase1: tuple[str, ...]
    """Names of pretrainings."""
    selector: tuple[str, ...] = ("all",)
    """Which components."""
    ablation: tuple[Ablation | None, ...] = (None,)
    """Which damage; null: none."""
    transfer: tuple[TransferConfig, ...] = (TransferConfig(),)
    """Which treatment of embeddings and positions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """A transfer map: conditions for all coalitions of players that its methods need."""

    phase1: str
    """Name of the pretraining."""
    players: tuple[str, ...] = ()
    """Selectors such as attn, blocks.1 or blocks.0.attn.head.2, and `pos` and `embed` for what `transfer` governs."""
    grain: str | None = None
    """In place of players: all of a grain (component, layer, layer_component, head, matrix, head_matrix)."""
    methods: tuple[Method, ...] = ("add_one_in", "leave_one_out", "shapley")
    """What is computed from them."""
    given: str = ""
    """Selector of components that every coalition has, the empty one as well; empty: none."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """Embeddings and positions, as far as they are no players."""
    n_orders: int = 4
    """Sampled orders a replicate, where there are too many players for exact Shapley values."""

    def __post_init__(self) -> None:
        if bool(self.players) == (self.grain is not None):
            raise ValueError(f"players={list(self.players)}, grain={self.grain}; give a map the one or the other")
        for player in self.players:
            terms = re.split(r"[+,]", canonical_selector(player))
            if "-" in player or set(terms) & {*GOVERNED, *(GOVERNED_PLAYERS if len(terms) > 1 else ())}:
                raise ValueError(
                    f"player {player!r}: a player is a union of components, or pos or embed alone; differences would "
                    "take away other players' weights too, and embeddings follow the transfer options"
                )

    def filled(self, shape: Architecture) -> "Map":
        """The map with the players of its grain, for models of this shape."""
        if self.grain is None:
            return self
        players = selector_grid(self.grain, shape.n_layers, shape.n_heads)
        return dataclasses.replace(self, players=tuple(players), grain=None)

    def refuse_overlaps(self, shape: Architecture) -> None:
        """Raise `ValueError` where players share weights, or have some that are given to every coalition anyway.

        Such a player changes nothing beside its twin: left out alone it has no effect, and Shapley values are halved.
        """
        config = selector_config(shape)
        named = [(f"player {player!r}", player) for player in self.players]
        named += [(f"given {self.given!r}", self.given)] if self.given else []
        weights = {same: {part: _player_weights(config, part, same) for _, part in named} for same in (True, False)}
        for (first, one), (second, two) in itertools.combinations(named, 2):
            pieces = weights[orders_of(one) == orders_of(two)]
            if shared := overlap(config, pieces[one], pieces[two]):
                raise ValueError(f"players overlap: {first} and {second} both have {shared}; give it to one of them")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A grid of transfers over replicates: a fresh seed of both phases, carried through all conditions."""

    name: str
    """Of the stored table."""
    title: str = ""
    """Of the report; empty: the name."""
    phase1: tuple[Pretraining, ...] = ()
    """Pretrainings."""
    task: Task
    """Phase 2: what the models are trained on."""
    model: Architecture = field(default_factory=Architecture)
    """Phase 2: their shape."""
    train: TrainConfig
    """Phase 2: how they are trained."""
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

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"name={self.name!r}; it names a table and a file: letters, digits, '.', '_' and '-'")
        if self.replicates < 1:
            raise ValueError(f"replicates={self.replicates}; there must be at least 1")
        names = [each.name for each in self.phase1]
        used = [source.phase1 for condition in self.conditions for source in condition.sources]
        used += [name for grid in self.grids for name in grid.phase1] + [each.phase1 for each in self.maps]
        for name in used:
            if name not in names:
                raise unknown_name("pretraining of the sweep", name, names)
        shapes = {each.name: each.model for each in self.phase1}
        for each in self.filled_maps:
            each.refuse_overlaps(shapes[each.phase1])
        for condition in self.conditions:
            # Which heads a ranked term names is known when its parent is finished: `plan` looks at these.
            if not any(orders_of(source.selector) for source in condition.sources):
                refuse_shared(condition, [source.selector for source in condition.sources], self.model)
        for what, twice in (
            ("pretraining", names),
            ("condition", [each.name for each in self.of_replicate(self.first_seed)]),
        ):
            if repeated := {name for name in twice if twice.count(name) > 1}:
                raise ValueError(f"two {what}s are named {min(repeated)!r}; give each a name of its own")

    @property
    def filled_maps(self) -> list[Map]:
        """The maps with the players of their grains."""
        shapes = {each.name: each.model for each in self.phase1}
        return [each.filled(shapes[each.phase1]) for each in self.maps]

    @property
    def about(self) -> dict[str, Any]:
        """What a reader of its table must know of phase 2: task, step limit and threshold of breakthrough (share)."""
        threshold = self.task.breakthrough_accuracy
        return {"task": self.task.name, "limit": self.train.last_step, "threshold": threshold}

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


def selector_config(shape: Architecture) -> ModelConfig:
    """The part of a model's config that selectors depend on; context and vocabulary are the task's."""
    return ModelConfig(
        n_layers=shape.n_layers, n_heads=shape.n_heads, d_model=shape.d_model, n_ctx=1, d_vocab=1, tied=shape.tied
    )


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


def _player_weights(config: ModelConfig, player: str, one_order: bool) -> list[WeightSlice]:
    """The weights of a player. Its ranked heads are those of any one order, or, beside others, may be all."""
    if player in GOVERNED_PLAYERS:
        return select(config, GOVERNED_PLAYERS[player])
    heads = selector_grid("head", config.n_layers, config.n_heads)
    return components(config, name_heads(player, lambda order: heads) if one_order else NEEDS_ORDER.sub("attn", player))


def grid_conditions(grid: Grid) -> list[Condition]:
    """The combinations, named by what they are made of."""
    conditions = []
    for phase1, selector, ablation, transfer in itertools.product(
        grid.phase1, grid.selector, grid.ablation, grid.transfer
    ):
        parts = [phase1, selector, *described(ablation), *described(transfer)]
        source = Source(phase1=phase1, selector=selector, ablation=ablation)
        conditions.append(Condition(name=" ".join(parts), sources=(source,), transfer=transfer))
    return conditions


def described(part: Ablation | TransferConfig | None) -> list[str]:
    """An ablation or a transfer in a few words; none where it is the default."""
    fields = {key: value for key, value in to_dict(part or {}).items() if key not in ORIGIN}
    name = fields.pop("name", None)
    inside = ", ".join(f"{key}={value}" for key, value in fields.items())
    if name is None:
        return [inside] if inside else []
    return [f"{name}({inside})" if inside else name]


def map_conditions(each: Map, seed: int) -> dict[str, Condition]:
    """Coalition -> condition, for one replicate."""
    wanted = coalitions(each.players, each.methods, replicate=seed, n_orders=each.n_orders)
    return {coalition: coalition_condition(each, coalition) for coalition in wanted}


def coalition_condition(each: Map, coalition: str) -> Condition:
    """The transfer of these players, of what is `given`, and of nothing else."""
    chosen = coalition.split("|") if coalition else []
    transfer = each.transfer
    if "pos" in each.players:
        transfer = dataclasses.replace(transfer, positions="carry" if "pos" in chosen else "fresh")
    if "embed" in each.players:
        strategy = "average" if "embed" in chosen else "fresh"
        transfer = dataclasses.replace(transfer, token_embedding=strategy, unembedding=strategy)
    parts = [part for part in (each.given, *chosen) if part not in ("", "pos", "embed")]
    # Everything has one name, so that it is one run with the full transfer of other experiments.
    selector = "all" if {"attn", "mlp", "ln"} <= set(parts) else "+".join(parts) or NOTHING
    name = condition_name(each.phase1, chosen, each.given)
    nothing = selector == NOTHING and transfer == dataclasses.replace(
        transfer, token_embedding="fresh", unembedding="fresh", positions="fresh"
    )
    if nothing:  # so it is no transfer at all, and shares the baseline's runs
        return Condition(name=name, transfer=TransferConfig())
    return Condition(name=name, sources=(Source(phase1=each.phase1, selector=selector),), transfer=transfer)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All runs of a sweep, and which run is which condition of which replicate."""

    sweep: Sweep
    configs: dict[str, RunConfig]
    """By run id: parents before children, the first replicate first."""
    cells: pd.DataFrame
    """One row a cell: condition, label, replicate, phase1_run (ids with a blank between; may be empty), run, problem.

    A cell that cannot be a run, such as one with more heads than there are, has a problem and no run.
    """
    deferred: int
    """Cells that are not planned yet, since they name heads by the entropy of a parent that is not finished."""

    @property
    def table_name(self) -> str:
        """Name of the stored result: the same for the same runs."""
        runs = json.dumps(sorted(self.cells["run"]))
        return f"{self.sweep.name}-{hashlib.sha256(runs.encode()).hexdigest()[:8]}"

    @property
    def labels(self) -> dict[str, str]:
        """What to call each run while it works."""
        names = {run: f"seed {config.seed} phase 1: {config.task.name}" for run, config in self.configs.items()}
        for cell in self.cells.loc[self.cells["run"] != ""].to_dict("records"):
            names[cell["run"]] = f"seed {cell['replicate']} phase 2: {cell['label']}"
        return names


Show = Callable[[Plan], AbstractContextManager[Callable[[Event], None]]]
"""What shows the events of a plan's runs."""


def plan(sweep: Sweep, store: RunStore | None = None, orders: HeadOrders | None = None) -> Plan:
    """The runs of all replicates. Heads by entropy are measured on the store's finished parents, once in `orders`."""
    orders = {} if orders is None else orders
    configs: dict[str, RunConfig] = {}
    rows: list[dict[str, Any]] = []
    deferred = 0
    for seed in sweep.seeds:
        parents = {each.name: pretraining_run(each, seed) for each in sweep.phase1}
        ids = {name: config.run_id for name, config in parents.items()}
        for condition in sweep.of_replicate(seed):
            configs |= {ids[source.phase1]: parents[source.phase1] for source in condition.sources}
            cell = {"condition": condition.name, "label": condition.label or condition.name, "replicate": seed}
            cell["phase1_run"] = " ".join(ids[source.phase1] for source in condition.sources)
            try:
                taken = [_parent(source, ids[source.phase1], store, orders) for source in condition.sources]
                if None not in taken:
                    refuse_shared(condition, [parent.selector for parent in taken if parent is not None], sweep.model)
            except ValueError as problem:
                rows.append({**cell, "run": "", "problem": str(problem)})
                continue
            if None in taken:
                deferred += 1
                continue
            train = condition.train or sweep.train
            child = RunConfig(
                task=condition.task or sweep.task,
                seed=seed,
                model=sweep.model,
                train=dataclasses.replace(train, interventions=train.interventions + condition.interventions),
                parents=tuple(parent for parent in taken if parent is not None),
                transfer=condition.transfer,
            )
            run_id = child.run_id
            configs[run_id] = child
            rows.append({**cell, "run": run_id, "problem": ""})
    return Plan(sweep=sweep, configs=configs, cells=pd.DataFrame(rows), deferred=deferred)


def say_nothing(planned: Plan) -> AbstractContextManager[Callable[[Event], None]]:
    """Shows nothing of a plan's runs."""
    return nullcontext(lambda event: None)


def pretraining_run(each: Pretraining, seed: int) -> RunConfig:
    """The phase-1 run of a replicate."""
    return RunConfig(task=each.task, seed=seed, model=each.model, train=each.train)


def _parent(source: Source, run_id: str, store: RunStore | None, orders: HeadOrders) -> Parent | None:
    """The parent of a run; none where its heads are to be ordered and it is not finished."""
    missing = {(run_id, source.step, order) for order in orders_of(source.selector)} - set(orders)
    if missing:
        if store is None or not is_whole(store, run_id):
            return None
        run = store.open(run_id)
        orders |= {key: ordered_heads(run, key[2], source.step) for key in missing}
    selector = name_heads(source.selector, lambda order: orders[run_id, source.step, order])
    return Parent(run=run_id, selector=selector, step=source.step, ablation=source.ablation)


def run_sweep(
    sweep: Sweep,
    store: RunStore,
    *,
    workers: int,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> tuple[Plan, dict[str, str]]:
    """Compute what is missing; the plan, and the problems of runs that failed, by id.

    `show(plan)` gives what is told the events. Cells that name heads by entropy are planned once their parents are
    finished, so that it may be called twice.
    """
    problems: dict[str, str] = {}
    orders: HeadOrders = {}
    planned = plan(sweep, store, orders)
    while True:
        todo = {run: config for run, config in planned.configs.items() if run not in problems}
        with show(planned) as on_event:
            problems |= execute_all(todo, store, workers=workers, on_event=on_event, may_start=may_start)
        before = planned.deferred
        if before:
            planned = plan(sweep, store, orders)
        # Deferred cells whose parents failed, or were not started, stay deferred.
        if planned.deferred == before:
            return planned, problems


def results(planned: Plan, store: RunStore, problems: Mapping[str, str] | None = None) -> pd.DataFrame:
    """One row a cell that is finished, diverged or failed: condition, replicate, runs, and what came out (`scores`)."""
    return cell_results(planned.cells, store, problems or {})


def map_table(planned: Plan, table: pd.DataFrame, each: Map) -> pd.DataFrame:
    """The rows of a table of `results` that a transfer map is made of, with their `coalition`."""
    parts = []
    for seed in planned.sweep.seeds:
        named = {condition.name: coalition for coalition, condition in map_conditions(each, seed).items()}
        rows = table.loc[(table["replicate"] == seed) & table["condition"].isin(list(named))]
        parts.append(rows.assign(coalition=rows["condition"].map(named)))
    return pd.concat(parts, ignore_index=True)
