"""The arms of a fair sweep: each transfer, and the controls without which a gain says little.

What a transfer gains over a fresh model may come from the sizes of its weights, from any pretraining of that budget, or
from the tokens of its sequences whatever their order. So beside it stand a fresh model of its scales, a phase 1 of as
much natural text, and a phase 1 on its own sequences, shuffled. With phase 1 in the middle of phase 2 the fresh model
is interrupted alike, and that of its scales goes on with its own weights, each tensor as large as phase 1 left it.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.data.semantic.text import Text
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.sweep.chains import training
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep, grid_conditions
from procpre_interp.sweep.fair_config import Fair
from procpre_interp.sweep.phases import Insertion, context_of
from procpre_interp.train.interventions import Rescaled

Training = tuple[Task, Insertion | None, int]
"""What is alike in an arm and its fresh model: the text, and how and at which step phase 2 is interrupted."""
NATURAL, SHUFFLED = "natural text", "shuffled"
"""What the names of the pretrainings of control arms end with."""
SEQUENCES = 512
"""Sequences whose mean length is taken for a task's."""


class Kind(StrEnum):
    """What an arm is."""

    FRESH = "fresh"
    TRANSFER = "transfer"
    SCALES = "scales"
    NATURAL_TEXT = "natural text"
    SHUFFLED = "shuffled sequences"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A condition of a fair sweep, and what it is there for."""

    condition: Condition
    kind: Kind
    fresh: str
    """Name of the fresh arm that is trained on the same text, interrupted alike if at all: the first of several."""
    control_of: str = ""
    """Name of the transfer that it belongs to; empty for transfers and fresh models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arms:
    """All arms, fresh ones first, and the pretrainings that they take weights from."""

    arms: tuple[Arm, ...]
    phase1: tuple[Pretraining, ...]


def arms_of(sweep: Sweep) -> Arms:
    """The arms of a sweep with a `fair` block. Raises `ValueError` for one that cannot be made fair, and says why."""
    fair = sweep.fair
    assert fair is not None
    listed = [*sweep.conditions, *(each for grid in sweep.grids for each in grid_conditions(grid))]
    if all(each.name != BASELINE for each in listed):
        listed.insert(0, Condition(name=BASELINE, label="no pretraining"))
    transfers = [each for each in listed if each.sources]
    recipes = {each.name: each for each in sweep.phase1}
    _check(sweep, fair, listed, transfers, recipes)
    fresh: dict[Training, str] = {}
    for each in listed:
        if not each.sources:
            fresh.setdefault(_training(sweep, each), each.name)
    used = dict.fromkeys((source.phase1, each.task or sweep.task) for each in transfers for source in each.sources)
    controls = dict.fromkeys(
        control for name, task in used for control in _pretrained_controls(sweep, recipes[name], task)
    )
    arms = [
        arm
        for each in sorted(listed, key=lambda each: bool(each.sources))
        for arm in _with_controls(sweep, each, fresh[_training(sweep, each)])
    ]
    return Arms(arms=tuple(arms), phase1=(*sweep.phase1, *controls))


def _training(sweep: Sweep, condition: Condition) -> Training:
    task, insert = condition.task or sweep.task, condition.insert
    return (
        (task, None, 0) if insert is None or not insert.at else (task, insert, insert.step(training(sweep, condition)))
    )


def _with_controls(sweep: Sweep, condition: Condition, fresh: str) -> tuple[Arm, ...]:
    """A condition as an arm, and where it is a transfer its controls: trained as it is, from other weights."""
    if not condition.sources:
        return (Arm(condition=condition, kind=Kind.FRESH, fresh=fresh),)
    assert sweep.fair is not None
    label = condition.label or condition.name
    # It comes first, since it makes weights of the two models alone, whatever was done to them before.
    scales = (Rescaled(selector="all", relative_step="transferred"), *condition.interventions)
    natural = _renamed(condition, _natural_ending(sweep, condition.task or sweep.task))
    alike = {} if _has_positions(sweep, condition) else {"positions": "fresh"}
    transfer = dataclasses.replace(condition.transfer, **alike)
    made = (
        (Kind.SCALES, "fresh, with the scales of", {"interventions": scales}),
        (Kind.NATURAL_TEXT, f"{_natural_label(sweep)} in place of", {"sources": natural, "transfer": transfer}),
        (Kind.SHUFFLED, "shuffled sequences in place of", {"sources": _renamed(condition, SHUFFLED)}),
    )
    controls = (
        (dataclasses.replace(condition, name=f"{condition.name} {kind}", label=f"{said} {label}", **changed), kind)
        for kind, said, changed in made
        if kind in sweep.fair.controls
    )
    return (
        Arm(condition=condition, kind=Kind.TRANSFER, fresh=fresh),
        *(Arm(condition=each, kind=kind, fresh=fresh, control_of=condition.name) for each, kind in controls),
    )


def _has_positions(sweep: Sweep, transfer: Condition) -> bool:
    """Whether the context of the recipe that would give a transfer its positions is long enough, so that those of
    natural text, whose windows are of another length, are carried just where the recipe's are."""
    giver = transfer.sources[transfer.transfer.giver_of_positions :][:1]
    if transfer.insert is not None or not giver:  # all phases have the context of phase 2; a giver too many is refused
        return True
    recipe = next(each for each in sweep.phase1 if each.name == giver[0].phase1)
    return _covers(recipe, sweep, transfer.task or sweep.task)


def _covers(recipe: Pretraining, sweep: Sweep, task: Task) -> bool:
    return context_of(recipe.task, recipe.model) >= context_of(task, sweep.model)


def _renamed(transfer: Condition, ending: str) -> tuple[Source, ...]:
    return tuple(dataclasses.replace(each, phase1=f"{each.phase1} {ending}") for each in transfer.sources)


def _natural_label(sweep: Sweep) -> str:
    """What stands in for phase 1, as people read it: with its corpus where that is not phase 2's."""
    assert sweep.fair is not None
    corpus = other_corpus(sweep.fair.natural_text, sweep.task)
    return f"{NATURAL} ({corpus})" if corpus else NATURAL


def other_corpus(natural_text: Task | None, task: Task) -> str:
    """The corpus of a fair sweep's natural text, where the text of phase 2 has another one; "" otherwise."""
    if isinstance(natural_text, Text) and isinstance(task, Text) and natural_text.corpus != task.corpus:
        return natural_text.corpus
    return ""


def _natural_ending(sweep: Sweep, task: Task) -> str:
    """What a pretraining on natural text is named by, for a condition with this task."""
    assert sweep.fair is not None
    if sweep.fair.natural_text is not None or not isinstance(task, Text) or task == sweep.task:
        return NATURAL
    return f"{NATURAL}, {task.corpus}"


def _pretrained_controls(sweep: Sweep, recipe: Pretraining, task: Task) -> Iterator[Pretraining]:
    """What the control arms of a recipe are pretrained on, before this task."""
    assert sweep.fair is not None
    if Kind.NATURAL_TEXT in sweep.fair.controls:
        yield _natural_text(sweep, recipe, task)
    if Kind.SHUFFLED in sweep.fair.controls:
        yield _shuffled_sequences(recipe)


def _shuffled_sequences(recipe: Pretraining) -> Pretraining:
    task = TASKS.build("shuffled", task=recipe.task)
    return dataclasses.replace(recipe, name=f"{recipe.name} {SHUFFLED}", task=task)


def _natural_text(sweep: Sweep, recipe: Pretraining, task: Task) -> Pretraining:
    """Natural text for as many steps and, a step, about as many tokens as the recipe, before this task."""
    assert sweep.fair is not None
    text = sweep.fair.natural_text or _in_another_order(task)
    if not isinstance(text, Text):
        raise ValueError(f"fair: natural_text is the task {text.name!r}; give a task text, such as {{name: text}}")
    per_step = recipe.train.batch_size * mean_length(recipe.task)
    batch_size = math.ceil(per_step / text.length)
    # A little shorter, where whole windows would be more tokens than the recipe's.
    text = dataclasses.replace(text, length=max(2, round(per_step / batch_size)))
    n_ctx = None if recipe.model.n_ctx is None else max(recipe.model.n_ctx, text.n_ctx)
    if text.n_ctx < context_of(task, sweep.model) and _covers(recipe, sweep, task):
        n_ctx = context_of(recipe.task, recipe.model)
    return Pretraining(
        name=f"{recipe.name} {_natural_ending(sweep, task)}",
        task=text,
        model=dataclasses.replace(recipe.model, n_ctx=n_ctx),
        train=dataclasses.replace(recipe.train, batch_size=batch_size),
    )


def _in_another_order(task: Task) -> Task:
    if not isinstance(task, Text):
        raise ValueError(
            f"fair: phase 2 is {task.name!r}, no text of its own; say which text stands in for phase 1, such as "
            "natural_text: {name: text, corpus: python-stdlib}"
        )
    return dataclasses.replace(task, order="uniform" if task.walks else "single_pass")


def mean_length(task: Task) -> float:
    """Mean number of tokens of a task's sequences."""
    drawn = task.split_batch(SEQUENCES, "train", generator=stream(0, "mean length", task.name))
    return float(drawn.lengths.double().mean())


def _check(
    sweep: Sweep, fair: Fair, listed: list[Condition], transfers: list[Condition], recipes: dict[str, Pretraining]
) -> None:
    if both := sorted(set(fair.tuning_seeds) & set(sweep.seeds)):
        raise ValueError(
            f"fair: seed {both[0]} is to tune (first_tuning_seed) and to confirm too (first_seed); choose seeds below "
            "100 for tuning, and from 1000 on for the rest"
        )
    if not transfers:
        raise ValueError("fair: no condition takes weights from a phase 1, so there is nothing to control for")
    if sweep.maps:
        raise ValueError("fair: transfer maps are not tuned arm by arm; leave out maps, or list their conditions")
    of_fresh = [_training(sweep, each) for each in listed if not each.sources]
    for each in transfers:
        if each.insert is not None and each.insert.optimiser == "carried":
            raise ValueError(
                f"fair: condition {each.name!r} inserts phase 1 with its optimiser carried, whose moments are not "
                "those of its controls; give its insert optimiser fresh"
            )
        trained = _training(sweep, each)
        if trained not in of_fresh and trained[1] is not None:
            raise ValueError(
                f"fair: condition {each.name!r} inserts phase 1, and no fresh model is interrupted alike; add a "
                "condition with the same insert and task, and without sources"
            )
        if trained not in of_fresh:
            raise ValueError(
                f"fair: condition {each.name!r} has a task of its own, and no fresh model is trained on that; add a "
                "condition with that task and without sources"
            )
    gated = [gate.phase1 for gate in fair.gates]
    for name in gated:
        if name not in recipes:
            raise unknown_name("pretraining of a gate", name, list(recipes))
    for name in dict.fromkeys(source.phase1 for each in transfers for source in each.sources):
        if name not in gated:
            raise ValueError(
                f"fair: phase 1 {name!r} has no gate; say from which accuracy on it is learnt, such as "
                f"gates: [{{phase1: {name}, accuracy: 0.9}}]"
            )
        train = recipes[name].train
        varies = train.patience is not None or train.target_accuracy is not None or train.curriculum
        if varies and set(fair.controls) - {Kind.SCALES}:
            raise ValueError(
                f"fair: phase 1 {name!r} may end early or begin with shorter sequences, so that no budget of natural "
                "text is the same; leave out patience, target_accuracy and curriculum"
            )
