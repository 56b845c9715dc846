"""Replicates until a claim is decided: seeds are added in their order, and looked at one by one.

The verdict may be looked at after every seed, since its intervals hold at all n together (`claims.sequential_rule`). A
round computes as many seeds as there are workers, so that none of them waits; the looks are taken one by one all the
same, in the order of seeds, and seeds of a round that come after the deciding one are not looked at.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from procpre_interp.claims.claim import Claim, Contrast, Page, Verdict
from procpre_interp.claims.contrast_text import contrast_estimate
from procpre_interp.claims.fairness import unfair
from procpre_interp.claims.judge import judge_contrasts
from procpre_interp.claims.judged import ContrastResult
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.stats.confidence_sequence import FEWEST
from procpre_interp.store.cells import CELLS
from procpre_interp.study.observation import Observation
from procpre_interp.study.run_options import MOST_REPLICATES
from procpre_interp.sweep.config import Condition, Sweep
from procpre_interp.sweep.fair_arms import Arm, Kind, arms_of
from procpre_interp.sweep.plan import Plan

SHOW_GAINS: tuple[Page, ...] = ("what_survives_damage", "can_anything_cheaper")
"""Pages whose figures are gains over no pretraining."""
LARGEST_ROUND = 4
"""Most seeds of a round: what comes after the deciding one was computed in vain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Computed:
    """A sweep whose runs were computed: its plan, the cells that there should be, and what came out of those there
    are."""

    planned: Plan
    cells: pd.DataFrame
    table: pd.DataFrame

    def first(self, n: int) -> "Computed":
        """Its first n replicates."""
        end = self.planned.sweep.first_seed + n
        cells, table = (frame.loc[frame["replicate"] < end] for frame in (self.cells, self.table))
        return dataclasses.replace(self, cells=cells, table=table)


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was seen of the first n replicates, the primary contrast first."""

    n: int
    computed: Computed
    contrasts: tuple[ContrastResult, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Needs:
    """Which conditions of a sweep are trained for which contrasts."""

    sweep: Sweep
    observation: Observation | None = None
    arms: tuple[Arm, ...] = ()
    """Those of a fair sweep: of a transfer all its controls are needed, and the fresh arm of its text."""

    def of(self, contrast: Contrast) -> set[str]:
        """The conditions that a contrast needs runs of."""
        trained = {condition.name for condition in self.sweep.of_replicate(self.sweep.first_seed)}
        names = set(contrast.weights)
        of_runs = contrast.measure in CELLS or contrast.measure == "restricted_time_steps"
        if self.observation is not None and not (of_runs and names <= trained):
            names |= self.observation.needed_for(names)
        named = {arm.control_of or arm.condition.name for arm in self.arms if arm.condition.name in names}
        for arm in self.arms:
            if arm.kind != Kind.FRESH and (arm.control_of or arm.condition.name) in named:
                names |= {arm.condition.name, arm.fresh}
        return names & trained

    def of_verdict(self, claim: Claim) -> set[str]:
        """The conditions that a claim's verdict needs runs of: those of its primary contrast, and of its premise,
        without which that cannot be decided."""
        return set().union(
            *(self.of(row) for row in claim.contrasts if row.name in (claim.primary.name, claim.premise))
        )


def of_primary(claim: Claim, sweep: Sweep, observation: Observation | None = None) -> Sweep:
    """The sweep with those conditions alone that the primary contrast and its premise need, so that no other one is
    tuned or trained; whole where it has grids or maps, which say of no condition alone whether it is needed."""
    if sweep.grids or sweep.maps:
        return sweep
    needs = Needs(sweep=sweep, observation=observation)
    if sweep.fair is not None:
        arms = arms_of(sweep)
        whole = dataclasses.replace(sweep, conditions=tuple(arm.condition for arm in arms.arms), phase1=arms.phase1)
        needs = Needs(sweep=whole, observation=observation, arms=arms.arms)
    needed = needs.of_verdict(claim)
    return dataclasses.replace(sweep, conditions=tuple(each for each in sweep.conditions if each.name in needed))


def looks_at(
    claim: Claim,
    sweep: Sweep,
    compute: Callable[[Sweep], Computed],
    *,
    needs: Needs | None = None,
    most_replicates: int = MOST_REPLICATES,
    workers: int = 1,
    primary_only: bool = False,
) -> Iterator[Look]:
    """A look after each seed, until the primary contrast is decided or there are `most_replicates`.

    `compute` gives what is finished of a sweep when its runs were computed, or the time was up. Conditions that the
    primary contrast or its premise `needs` (default: those that it names) are in all seeds, and so are those of
    predicted secondary ones until these are decided, or cannot be; with `primary_only`, or where nothing is predicted,
    a condition has no more replicates than the sweep says. With `primary_only` the condition without pretraining, which
    every sweep has, is trained just where one of the two needs it, or the claim's page shows gains over it.

    The looks end early where a seed is not complete, or a run that these contrasts need failed or diverged or has no
    number to compare (as one has not that never broke through, where it is compared at its breakthrough), where its
    phase 1 or its premise's was not learnt (on text), or the premise is refuted, since nothing can be decided then.
    """
    if most_replicates < 1:
        raise ValueError(f"most_replicates={most_replicates}; there must be at least 1")
    needs, task = needs or Needs(sweep=sweep), sweep.about.task
    always, undecided = needs.of_verdict(claim), {row.name: row for row in claim.secondary if row.predicted}
    without_baseline = primary_only and claim.page not in SHOW_GAINS
    counts: dict[str, int] = {}
    goal = looked = 0
    while goal < most_replicates:
        # Nothing is decided before `FEWEST`, so the first round has as many.
        goal = min(most_replicates, max(FEWEST, goal + min(workers, LARGEST_ROUND)))
        with_all = always.union(*([] if primary_only else map(needs.of, undecided.values())))
        decided = {name for row in claim.secondary if row.predicted for name in needs.of(row)} - with_all
        counts = {
            condition.name: goal
            if condition.name in with_all
            else counts.get(condition.name, 0)
            if condition.name in decided and not primary_only
            else max(counts.get(condition.name, 0), min(goal, condition.replicates or sweep.replicates))
            for condition in sweep.of_replicate(sweep.first_seed)
        }
        if without_baseline and BASELINE not in with_all:
            counts[BASELINE] = 0
        computed = compute(with_counts(sweep, counts))
        if primary_only:
            computed = dataclasses.replace(computed, cells=with_left_out(computed.cells, claim))
        if computed.table.empty:
            return
        while looked < goal:
            part = computed.first(looked + 1)
            seed = part.table.loc[part.table["replicate"] == sweep.first_seed + looked]
            statuses = seed.loc[seed["condition"].isin(always), "status"]
            if len(statuses) < len(always):
                return
            looked += 1
            contrasts = judge_contrasts(claim, part.table, planned=part.cells, task=task)
            yield Look(n=looked, computed=part, contrasts=contrasts)
            held_back = {row.contrast for row in contrasts if unfair(row, part.table, task)}
            refuted = {row.contrast for row in contrasts if row.verdict == Verdict.REFUTED}
            is_moot = claim.premise in refuted or not held_back.isdisjoint({claim.primary.name, claim.premise})
            lacks = any(row.missing for row in contrasts if row.contrast in (claim.primary.name, claim.premise))
            if contrasts[0].is_decided or lacks or is_moot or set(statuses) != {"finished"}:
                return
            for row in contrasts[1:]:
                if row.is_decided or row.contrast in held_back:
                    undecided.pop(row.contrast, None)


def with_counts(sweep: Sweep, counts: Mapping[str, int]) -> Sweep:
    """The sweep with this number of replicates of each condition, by default none; those of grids and maps have as many
    as any."""
    listed = _with_baseline(sweep)
    own = [dataclasses.replace(each, replicates=counts.get(each.name, 0)) for each in listed]
    return dataclasses.replace(sweep, conditions=tuple(own), replicates=max(counts.values()))


def at_least(sweep: Sweep, counts: Mapping[str, int]) -> Sweep:
    """The sweep with no fewer replicates of a condition than this: what a sequence has shown of so many holds, and less
    of it may show nothing."""
    most = sweep.replicates
    own = {each.name: min(most, most if each.replicates is None else each.replicates) for each in _with_baseline(sweep)}
    wanted = {name: max(n, counts.get(name, 0)) for name, n in own.items()}
    return sweep if wanted == own else with_counts(sweep, wanted)


def _with_baseline(sweep: Sweep) -> list[Condition]:
    """The conditions that are named, and the one without pretraining, which every sweep has."""
    listed = list(sweep.conditions)
    if all(each.name != BASELINE for each in listed):
        listed.insert(0, Condition(name=BASELINE, label="no pretraining"))
    return listed


def with_left_out(cells: pd.DataFrame, claim: Claim) -> pd.DataFrame:
    """The cells that there should be, with those of secondary contrasts that `of_primary` left out, in every replicate:
    these contrasts lack them, and are no mistakes."""
    wanted = {name: None for row in claim.secondary for name in row.weights if name not in claim.primary.weights}
    left_out = pd.DataFrame({"condition": [name for name in wanted if name not in set(cells["condition"])]})
    added = left_out.assign(label=left_out["condition"], run="", problem="").merge(
        cells[["replicate"]].drop_duplicates(), how="cross"
    )
    return pd.concat([cells, added.assign(phase1_run=[()] * len(added))], ignore_index=True)


def tell_look(primary: ContrastResult) -> None:
    """Print one line on a look."""
    print(f"n = {primary.n}: {contrast_estimate(primary)}, {primary.verdict}", flush=True)
