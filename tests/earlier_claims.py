"""What the earlier versions of claims planned, whose verdicts are stored: their runs must keep their ids."""

import dataclasses

from procpre_interp.study.experiment import Experiment
from procpre_interp.study.protocols import ENTROPY_PENALTY, TIMELINE, dyck, haystack_sweep
from procpre_interp.sweep.config import Condition, Sweep


def first_six(*conditions):
    return tuple(dataclasses.replace(each, replicates=6) for each in conditions)


EARLIER: dict[tuple[str, int], Sweep] = {
    ("shuffled_sequences_teach_nothing", 1): haystack_sweep(
        "shuffled_sequences_teach_nothing",
        (
            dyck("shuffled attn+ln", "attn+ln", phase1="shuffled"),
            *first_six(dyck("shuffled full", phase1="shuffled"), dyck("attn+ln", "attn+ln"), dyck("full")),
        ),
        replicates=10,
    ),
    ("retrieval_head_forms", 1): haystack_sweep(
        "retrieval_head_forms", (dyck("full"), dyck("attn+ln", "attn+ln")), protocol=TIMELINE, replicates=10
    ),
}
"""Claim and version -> sweep, of claims whose conditions changed."""
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
    return EARLIER.get((name, version)) or haystack_sweep(name, conditions, replicates=10)
