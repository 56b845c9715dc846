"""Scripts of claims: run a sweep, judge the claim, keep table and verdict, draw the figure."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import tyro

from procpre_interp.claims.claim import Claim
from procpre_interp.claims.files import find_claims, table_name, write_claim
from procpre_interp.claims.judge import judge
from procpre_interp.claims.judged import ContrastResult, JudgedClaim
from procpre_interp.claims.looks import Past, past, with_looks
from procpre_interp.claims.text import describe_claim, describe_cost
from procpre_interp.core.environment import now
from procpre_interp.core.places import check_folder
from procpre_interp.core.terminal import beside_package, default_store, run_script, time_limit
from procpre_interp.core.text_table import stdout_console
from procpre_interp.engine.engines import Engine, chosen_engine
from procpre_interp.engine.mirror import mirrored
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.claim_figures import Figure
from procpre_interp.study.claim_report import claim_report
from procpre_interp.study.claim_tables import Extra, no_tables, tuned_to
from procpre_interp.study.observation import Observation, observe, remembered
from procpre_interp.study.protocols import PROTOCOLS, SEEN_NOTE, Protocol, haystack_sweep
from procpre_interp.study.run_options import MOST_REPLICATES, RunOptions
from procpre_interp.study.smoke_test import shortened
from procpre_interp.study.until_decided import Computed, Needs, at_least, looks_at, of_primary, tell_look
from procpre_interp.sweep.config import FIRST_CONFIRMATION_SEED, Condition, Sweep
from procpre_interp.sweep.fair import Tuned, tune, with_arms
from procpre_interp.sweep.fair_arms import arms_of
from procpre_interp.sweep.live_table import live_table
from procpre_interp.sweep.plan import Show, results, run_sweep, say_nothing


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A claim, the sweep whose runs decide it, and its figures."""

    claim: Claim
    sweep: Sweep
    figure: Figure
    protocol: str
    """How the runs are trained, in words."""
    observation: Observation | None = None
    """What is measured on the models of its runs, if anything."""
    extra: Extra = no_tables
    tuned: Tuned | None = None
    """How the arms of a fair sweep were tuned. Default: it is no fair one, or not tuned yet (`tuned_experiment`)."""

    @property
    def needs(self) -> Needs:
        """Which conditions are trained for which contrasts."""
        arms = () if self.tuned is None else arms_of(self.tuned.sweep).arms
        return Needs(sweep=self.sweep, observation=self.observation, arms=arms)


def run(
    experiment: Experiment,
    store: RunStore,
    *,
    engine: Engine,
    quick: bool = False,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> tuple[pd.DataFrame, JudgedClaim]:
    """Compute what is missing and judge the claim: its cells, and the claim with its verdict.

    A condition has as many replicates as the sweep says, or as the claim was judged with before, if that were more.
    Raises `ValueError` while no cell is finished.
    """
    if quick:
        experiment = dataclasses.replace(experiment, sweep=shortened(experiment.sweep))
    experiment = tuned_experiment(experiment, store, engine=engine, show=show, may_start=may_start)
    past = Past() if quick else past_of(experiment, store)
    sweep = at_least(experiment.sweep, past.replicates)
    computed = compute(experiment, sweep, store, engine=engine, show=show, may_start=may_start)
    judged = judge_computed(experiment, computed, store, quick=quick)
    if quick:
        return computed.table, judged
    looks = with_looks(past.looks, judged.contrasts, judged.created)
    return computed.table, dataclasses.replace(judged, looks=looks, earlier=past.earlier)


def run_until_decided(
    experiment: Experiment,
    store: RunStore,
    *,
    engine: Engine,
    most_replicates: int = MOST_REPLICATES,
    primary_only: bool = False,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
    on_look: Callable[[ContrastResult], None] = lambda primary: None,
) -> tuple[pd.DataFrame, JudgedClaim]:
    """Add replicates until the claim is decided (`until_decided.looks_at`): its cells, and the claim with its verdict.

    What the store has been looked at with is looked at again, also where that is more than `most_replicates`.
    Every new look is kept in the store with the verdict that it gave, and told to `on_look`, so that the same call goes
    on after an interruption. Raises `ValueError` while no replicate is complete.
    """
    if experiment.observation is not None:
        experiment = dataclasses.replace(experiment, observation=remembered(experiment.observation))
    if primary_only:
        sweep = of_primary(experiment.claim, experiment.sweep, experiment.observation)
        experiment = dataclasses.replace(experiment, sweep=sweep)
    experiment = tuned_experiment(experiment, store, engine=engine, show=show, may_start=may_start)
    past, last = past_of(experiment, store), None
    looks = past.looks
    looked = [past.replicates.get(name, 0) for name in experiment.claim.primary.weights] if len(looks) else []
    for last in looks_at(
        experiment.claim,
        experiment.sweep,
        lambda sweep: compute(experiment, sweep, store, engine=engine, show=show, may_start=may_start),
        needs=experiment.needs,
        most_replicates=max([most_replicates, *looked]),
        workers=engine.at_once,
        primary_only=primary_only,
    ):
        before, looks = len(looks), with_looks(looks, last.contrasts, now())
        if len(looks) > before:
            judged = judge_computed(experiment, last.computed, store, with_tables=False)
            judged = dataclasses.replace(judged, looks=looks, earlier=past.earlier)
            write_claim(store, judged, last.computed.table)
            on_look(judged.primary)
    if last is None:
        raise ValueError("no replicate is complete; the same command goes on from here")
    judged = judge_computed(experiment, last.computed, store)
    return last.computed.table, dataclasses.replace(judged, looks=looks, earlier=past.earlier)


def tuned_experiment(
    experiment: Experiment, store: RunStore, *, engine: Engine, show: Show, may_start: Callable[[], bool]
) -> Experiment:
    """The experiment with the arms of its fair sweep as they were tuned; another one as it is.

    Raises `ValueError` while a trial is missing.
    """
    if experiment.sweep.fair is None:
        return experiment
    tuned = tune(experiment.sweep, store, engine=engine, show=show, may_start=may_start)
    if tuned.confirming is None:
        failed = tuned.failures
        said = f". Runs that failed: {len(failed)}, the first since {failed[0]}" if failed else ""
        raise ValueError(f"tuning: {tuned.progress}; the same command goes on from here{said}")
    return dataclasses.replace(experiment, sweep=tuned.confirming, tuned=tuned)


def compute(
    experiment: Experiment,
    sweep: Sweep,
    store: RunStore,
    *,
    engine: Engine,
    show: Show,
    may_start: Callable[[], bool],
) -> Computed:
    """Compute what is missing of a sweep of the experiment. Raises `ValueError` while no cell is finished."""
    whole = () if experiment.observation is None else experiment.observation.whole
    planned, problems = run_sweep(sweep, store, engine=engine, show=show, may_start=may_start, whole=whole)
    table, cells = results(planned, store, problems), planned.all_cells
    if experiment.tuned is not None:
        table = with_arms(table, experiment.tuned, store)
    if table.empty or "finished" not in set(table["status"]):
        raise ValueError("no run is finished; the same command goes on from here")
    if experiment.observation is not None:
        table, cells = observe(experiment.observation, table, cells, store)
    return Computed(planned=planned, cells=cells, table=table)


def judge_computed(
    experiment: Experiment, computed: Computed, store: RunStore, *, quick: bool = False, with_tables: bool = True
) -> JudgedClaim:
    """The claim as judged on what was computed, with its further tables unless told.

    These are made of what there is, once it holds no pretraining and whatever the primary contrast needs.
    """
    sweep, table, tuned = computed.planned.sweep, computed.table, experiment.tuned
    complete = experiment.needs.of(experiment.claim.primary) | {BASELINE} <= _finished(table)
    return dataclasses.replace(
        judge(experiment.claim, table, planned=computed.cells, quick=quick, task=sweep.about.task),
        version=experiment.claim.version,
        task=sweep.about.task,
        limit=sweep.about.limit,
        threshold=sweep.about.threshold,
        protocol=experiment.protocol,
        cost=cost_of({*computed.planned.configs, *(tuned.planned.configs if tuned is not None else ())}, store),
        tables={**tuned_to(tuned), **(experiment.extra(table, store) if complete and with_tables else {})},
    )


def past_of(experiment: Experiment, store: RunStore) -> Past:
    """What was seen of the claim before, in this store or among the results that come with the package."""
    known, _ = find_claims(store, beside_package("experiments") / "results" / "claims")
    return past(known.get(experiment.claim.name), experiment.protocol, experiment.claim.version)


@dataclass(frozen=True, kw_only=True)
class Options(RunOptions):
    """Run what is missing, judge the claim, and write its table and figure."""

    out: Path = field(default_factory=default_store)
    """Folder of the runs, and of the report claim-NAME.html."""


def main(*experiments: Experiment, arguments: Sequence[str] | None = None) -> int:
    """The command line of a claim's script, or of several. Exit code 1 where a run failed or nothing is finished."""
    name = experiments[0].claim.name if len(experiments) == 1 else "claims"
    options = {"prog": name, "args": arguments, "description": _purpose(experiments)}
    return run_script(name, lambda: run_all(experiments, tyro.cli(Options, **options)))


def haystack_experiment(
    claim: Claim,
    conditions: Sequence[Condition],
    figure: Figure,
    *,
    few: int | None = 6,
    protocol: Protocol = PROTOCOLS["cheap"],
    seen: str = SEEN_NOTE,
    replicates: int = 10,
    first_seed: int = FIRST_CONFIRMATION_SEED,
    observation: Observation | None = None,
    extra: Extra = no_tables,
) -> Experiment:
    """A claim on haystack after Dyck, in the cheap protocol unless told. `seen`: what had been seen of the seeds when
    the prediction was written.

    The primary contrast has all `replicates`, other conditions the first `few` (all, if None).
    """
    primary = claim.primary.weights
    chosen = [each if each.name in primary else dataclasses.replace(each, replicates=few) for each in conditions]
    sweep = haystack_sweep(claim.name, tuple(chosen), protocol=protocol, replicates=replicates, first_seed=first_seed)
    text = f"{protocol.text} {seen}"
    return Experiment(claim=claim, sweep=sweep, figure=figure, protocol=text, observation=observation, extra=extra)


def _purpose(experiments: Sequence[Experiment]) -> str:
    return "\n\n".join(f"{each.claim.claim} Prediction: {each.claim.prediction}" for each in experiments)


def run_all(experiments: Sequence[Experiment], options: Options) -> int:
    """Run and judge one after another; what they share is computed once. Exit code 1 where a run failed."""
    if options.results is not None:
        check_folder(options.results)
    may_start, store = time_limit(options.minutes), RunStore(options.out)
    console, code = stdout_console(), 0
    with mirrored(chosen_engine(options), options.mirror, store) as engine:
        for each in experiments:
            given = {"engine": engine, "show": live_table(store, engine.at_once), "may_start": may_start}
            try:
                if options.until_decided:
                    limits = {"most_replicates": options.most_replicates, "primary_only": options.primary_only}
                    table, judged = run_until_decided(each, store, on_look=tell_look, **limits, **given)
                else:
                    table, judged = run(each, store, quick=options.quick, **given)
            except ValueError as problem:  # one that cannot be judged yet leaves the others as they are
                print(f"{each.claim.name}: {' '.join(str(problem).split())}", file=sys.stderr)
                code = 1
                continue
            write_claim(store, judged, table, options.results)
            report = claim_report(
                table, judged, _drawn(each, table, judged), options.out / f"{table_name(judged)}.html"
            )
            console.print(describe_claim(judged))
            console.print(f"Cost: {describe_cost(judged.cost)}. Report: {report}\n")
            code = max(code, int("failed" in set(table["status"])))
    return code


def _drawn(experiment: Experiment, table: pd.DataFrame, judged: JudgedClaim) -> go.Figure | str:
    """The figure; words while the table lacks the conditions that it compares."""
    lacking = sorted(_conditions(experiment.sweep) - _finished(table))
    return f"No figure yet: no finished run of {', '.join(lacking)}." if lacking else experiment.figure(table, judged)


def _conditions(sweep: Sweep) -> set[str]:
    return {condition.name for condition in sweep.of_replicate(sweep.first_seed)}


def _finished(table: pd.DataFrame) -> set[str]:
    return set(table.loc[table["status"] == "finished", "condition"])
