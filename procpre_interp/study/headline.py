"""The paper's headline, reproduced: conditions, the contrast that ends the reproduction, and what it shows in words."""

from typing import Literal

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.contrast_text import contrast_estimate
from procpre_interp.claims.judged import ContrastResult
from procpre_interp.engine.engines import Engine
from procpre_interp.store.store import RunStore
from procpre_interp.study.protocols import (
    EFFECT_MARGIN,
    MARGIN_NOTE,
    PROTOCOLS,
    QUICK,
    Protocol,
    until_breakthrough,
)
from procpre_interp.study.until_decided import Computed, Look, looks_at, tell_look
from procpre_interp.sweep.config import Sweep
from procpre_interp.sweep.plan import Show, results, run_sweep

HEADLINE = Claim(
    name="headline",
    claim="Pretraining on Dyck, transferred in full, teaches recall.",
    prediction="Accuracy on haystack is higher than without pretraining by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean gain whose interval lies wholly below the margin.",
    primary=Contrast(
        name="full transfer over none",
        weights={"dyck_full": 1, "none": -1},
        predicted="above",
        margin=EFFECT_MARGIN,
    ),
)
"""What `reproduce` adds replicates for."""


def chosen_protocol(name: Literal["cheap", "paper"], *, quick: bool, to_the_end: bool) -> Protocol:
    """How the runs of a reproduction are trained."""
    if quick:
        return QUICK
    protocol = PROTOCOLS[name]
    return protocol if to_the_end or name == "cheap" else until_breakthrough(protocol)


def compute(sweep: Sweep, store: RunStore, *, engine: Engine, show: Show) -> Computed:
    """A sweep whose missing runs were computed; without any that is finished, its table is empty."""
    planned, problems = run_sweep(sweep, store, engine=engine, show=show)
    return Computed(planned=planned, cells=planned.all_cells, table=results(planned, store, problems))


def compute_until_decided(sweep: Sweep, store: RunStore, *, engine: Engine, show: Show) -> Look | None:
    """Add replicates, at most those of the sweep, until the headline is decided, and tell each look; the last one, if
    there was any."""
    last = None
    for last in looks_at(
        HEADLINE,
        sweep,
        lambda part: compute(part, store, engine=engine, show=show),
        most_replicates=sweep.replicates,
        workers=engine.at_once,
    ):
        tell_look(last.contrasts[0])
    return last


def headline_finding(primary: ContrastResult) -> str:
    """What the reproduction shows, in a sentence or two."""
    counts = {row.condition: row for row in primary.breakthroughs}
    full, none = counts["dyck_full"], counts["none"]
    return (
        f"Full transfer broke through in {full.broke} of {full.n} replicates, no pretraining in {none.broke} of "
        f"{none.n}. Full transfer over none: {contrast_estimate(primary)}, {primary.verdict} ({primary.reason})."
    )
