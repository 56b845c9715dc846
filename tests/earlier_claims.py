"""What the earlier versions of claims planned, whose verdicts are stored: their runs must keep their ids."""

import dataclasses

from procpre_interp.data import TASKS
from procpre_interp.stats.confidence_sequence import Limits
from procpre_interp.study.experiment import Experiment
from procpre_interp.study.protocols import (
    ALGORITHMIC,
    ENTROPY_PENALTY,
    FRESH_SEED,
    PROCEDURAL,
    TIMELINE,
    dyck,
    haystack_sweep,
)
from procpre_interp.sweep.config import Condition, Source, Sweep


def first_six(*conditions):
    return tuple(dataclasses.replace(each, replicates=6) for each in conditions)


def on_both_skills():
    """Dyck and Dyck shuffle in full on haystack and on reversed addition, and no pretraining on the latter."""
    skills = (("haystack", None, None), ("reversed_addition", TASKS.build("reversed_addition"), ALGORITHMIC))
    for skill, task, train in skills:
        if task is not None:
            yield Condition(name=f"none, {skill}", task=task, train=train)
        for name in ("dyck", "dyck_shuffle"):
            yield Condition(name=f"{name}, {skill}", sources=(Source(phase1=name),), task=task, train=train)


EARLIER: dict[tuple[str, int], Sweep] = {
    ("shuffled_sequences_teach_nothing", 1): haystack_sweep(
        "shuffled_sequences_teach_nothing",
        (
            dyck("shuffled attn+ln", "attn+ln", phase1="shuffled"),
            *first_six(dyck("shuffled full", phase1="shuffled"), dyck("attn+ln", "attn+ln"), dyck("full")),
        ),
        replicates=10,
    ),
    ("no_single_best_task", 1): haystack_sweep(
        "no_single_best_task",
        tuple(on_both_skills()),
        phase1=(PROCEDURAL["dyck_shuffle"],),
        replicates=10,
        first_seed=1003,
    ),
    ("retrieval_head_forms", 1): haystack_sweep(
        "retrieval_head_forms", (dyck("full"), dyck("attn+ln", "attn+ln")), protocol=TIMELINE, replicates=10
    ),
}
"""Claim and version -> sweep, of claims whose conditions changed."""
SAME_SWEEP = {("circuit_heads_carry_it", 1)}
"""Claims and versions that planned what today's plan, but for the heads that are drawn and the seeds."""
LIMITS = {("no_single_best_task", 1): {"lead": Limits(low=-1, high=1)}}
"""Limits of measures that a version had and today's does not."""
DROPPED = {
    "sharpness_is_not_enough": (
        Condition(name="entropy", label="no pretraining, entropy penalty", interventions=(ENTROPY_PENALTY,)),
    )
}
"""Conditions that version 1 had too."""


def earlier_sweep(experiment: Experiment, version: int) -> Sweep:
    """What a version of a claim planned: unless it is among those above, today's conditions in the cheap protocol."""
    name = experiment.claim.name
    conditions = (*experiment.sweep.conditions, *DROPPED.get(name, ()))
    if (name, version) in SAME_SWEEP:
        return dataclasses.replace(experiment.sweep, first_seed=FRESH_SEED)
    return EARLIER.get((name, version)) or haystack_sweep(name, conditions, replicates=10)
