"""Claims that are confirmed: the paper's phase 2, on seeds that nobody had seen when the prediction was written."""

import dataclasses
from collections.abc import Sequence

from procpre_interp.claims.claim import Claim
from procpre_interp.study.claim_figures import Figure
from procpre_interp.study.claim_tables import Extra, no_tables
from procpre_interp.study.experiment import Experiment
from procpre_interp.study.observation import Observation
from procpre_interp.study.protocols import BREAKTHROUGH, FRESH_SEED, Protocol, haystack_sweep
from procpre_interp.sweep.config import Condition

REPLICATES = 14
"""Replicates to begin with: with fewer, no equivalence is claimed."""


def confirmation(
    claim: Claim,
    conditions: Sequence[Condition],
    figure: Figure,
    *,
    seen: str,
    few: int | None = 6,
    protocol: Protocol = BREAKTHROUGH,
    observation: Observation | None = None,
    extra: Extra = no_tables,
) -> Experiment:
    """A claim on haystack, on seeds from 3000. `seen`: what had been seen when the prediction was written.

    Conditions that the primary contrast does not need have the first `few` replicates (all, if None).
    """
    primary = claim.primary.weights
    chosen = [each if each.name in primary else dataclasses.replace(each, replicates=few) for each in conditions]
    sweep = haystack_sweep(claim.name, tuple(chosen), protocol=protocol, replicates=REPLICATES, first_seed=FRESH_SEED)
    fresh = f"Seeds from {FRESH_SEED}, of which no run had been seen when the prediction was written."
    text = f"{protocol.text} {fresh} {seen}"
    return Experiment(claim=claim, sweep=sweep, figure=figure, protocol=text, observation=observation, extra=extra)
