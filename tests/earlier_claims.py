"""What the earlier versions of claims planned, whose verdicts are stored: their runs must keep their ids."""

import dataclasses

from procpre_interp.study.protocols import TIMELINE, dyck, haystack_sweep
from procpre_interp.sweep.config import Sweep


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
"""Claim and version -> sweep."""
