"""The arms of a fair sweep: each transfer, and the controls without which a gain says little.

What a transfer gains over a fresh model may come from the sizes of its weights, from any pretraining of that budget, or
from the tokens of its sequences whatever their order. So beside it stand a fresh model of its scales, a phase 1 of as
much natural text, and a phase 1 on its own sequences, shuffled.
"""

import dataclasses
import math
from dataclasses import dataclass
from enum import StrEnum

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Task
from procpre_interp.data.semantic.text import Text
from procpre_interp.sweep.config import BASELINE, Condition, Pretraining, Source, Sweep, grid_conditions
from procpre_interp.sweep.fair_config import Fair
from procpre_interp.train.interventions import Rescaled

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
    used = dict.fromkeys(source.phase1 for each in transfers for source in each.sources)
    controls = [
        control
        for name in used
        for control in (_natural_text(sweep, fair, recipes[name]), _shuffled_sequences(recipes[name]))
    ]
    fresh = [Arm(condition=each, kind=Kind.FRESH) for each in listed if not each.sources]
    transferred = [arm for each in transfers for arm in (Arm(condition=each, kind=Kind.TRANSFER), *_controls(each))]
    return Arms(arms=(*fresh, *transferred), phase1=(*sweep.phase1, *controls))


def _controls(transfer: Condition) -> tuple[Arm, ...]:
    """The controls of a transfer: trained as it is, from other weights."""
    label = transfer.label or transfer.name
    # It comes first, since it makes weights of the two models alone, whatever was done to them before.
    scales = (Rescaled(selector="all", relative_step="transferred"), *transfer.interventions)
    made = (
        (Kind.SCALES, "fresh, with the scales of", {"interventions": scales}),
        (Kind.NATURAL_TEXT, "natural text in place of", {"sources": _renamed(transfer, NATURAL)}),
        (Kind.SHUFFLED, "shuffled sequences in place of", {"sources": _renamed(transfer, SHUFFLED)}),
    )
    return tuple(
        Arm(
            condition=dataclasses.replace(transfer, name=f"{transfer.name} {kind}", label=f"{said} {label}", **changed),
            kind=kind,
            control_of=transfer.name,
        )
        for kind, said, changed in made
    )


def _renamed(transfer: Condition, ending: str) -> tuple[Source, ...]:
    return tuple(dataclasses.replace(each, phase1=f"{each.phase1} {ending}") for each in transfer.sources)


def _shuffled_sequences(recipe: Pretraining) -> Pretraining:
    task = TASKS.build("shuffled", task=recipe.task)
    return dataclasses.replace(recipe, name=f"{recipe.name} {SHUFFLED}", task=task)


def _natural_text(sweep: Sweep, fair: Fair, recipe: Pretraining) -> Pretraining:
    """Natural text for as many steps and, a step, about as many tokens as the recipe."""
    text = fair.natural_text or _in_another_order(sweep.task)
    if not isinstance(text, Text):
        raise ValueError(f"fair: natural_text is the task {text.name!r}; give a task text, such as {{name: text}}")
    per_step = recipe.train.batch_size * mean_length(recipe.task)
    batch_size = math.ceil(per_step / text.length)
    # A little shorter, where whole windows would be more tokens than the recipe's.
    text = dataclasses.replace(text, length=max(2, round(per_step / batch_size)))
    n_ctx = None if recipe.model.n_ctx is None else max(recipe.model.n_ctx, text.n_ctx)
    return Pretraining(
        name=f"{recipe.name} {NATURAL}",
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
    for each in listed:
        if each.task is not None and each.task != sweep.task:
            raise ValueError(f"fair: condition {each.name!r} has a task of its own; make it a sweep of its own")
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
        if train.patience is not None or train.target_accuracy is not None or train.curriculum:
            raise ValueError(
                f"fair: phase 1 {name!r} may end early or begin with shorter sequences, so that no budget of natural "
                "text is the same; leave out patience, target_accuracy and curriculum"
            )
