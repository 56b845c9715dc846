"""Claims that are confirmed: the paper's phase 2, on seeds that nobody had seen when the prediction was written."""

from collections.abc import Sequence

from procpre_interp.claims.claim import Claim
from procpre_interp.study.claim_figures import Figure
from procpre_interp.study.claim_tables import Extra, no_tables
from procpre_interp.study.experiment import Experiment, haystack_experiment
from procpre_interp.study.observation import Observation
from procpre_interp.study.protocols import BREAKTHROUGH, FRESH_SEED, Protocol
from procpre_interp.sweep.config import Condition

REPLICATES = 14
"""Replicates to begin with: with fewer, no equivalence is claimed."""


def in_the_cheap_protocol(found: str) -> str:
    """What had been seen of a claim whose version 1 was judged under the cheap protocol, for `confirmation`."""
    return (
        f"Prediction and margin are those of version 1, of which the cheap protocol, seeds 1000 to 1009, had shown: "
        f"{found} Of the paper's phase 2, seeds 2000 and 2001 of no pretraining, full transfer, attention + LN and "
        "weights shuffled within tensors had been seen."
    )


def confirmation(
    claim: Claim,
    conditions: Sequence[Condition],
    figure: Figure,
    *,
    seen: str,
    few: int | None = 6,
    first_seed: int = FRESH_SEED,
    protocol: Protocol = BREAKTHROUGH,
    observation: Observation | None = None,
    extra: Extra = no_tables,
) -> Experiment:
    """A claim on haystack, on seeds of which no run had been seen. `seen`: what else had been, when it was written.

    Conditions that the primary contrast does not need have the first `few` replicates (all, if None).
    """
    fresh = f"Seeds from {first_seed}, of which no run had been seen when the prediction was written."
    return haystack_experiment(
        claim,
        conditions,
        figure,
        few=few,
        protocol=protocol,
        seen=f"{fresh} {seen}",
        replicates=REPLICATES,
        first_seed=first_seed,
        observation=observation,
        extra=extra,
    )
