"""Scripts of claims: run a sweep, judge the claim, keep table and verdict, draw the figure."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import tyro

from procpre_interp.claims.claim import Claim
from procpre_interp.claims.files import table_name, write_claim
from procpre_interp.claims.judge import judge
from procpre_interp.claims.judged import JudgedClaim
from procpre_interp.claims.measures import measure_of
from procpre_interp.claims.text import claim_title, contrasts_table, describe_claim, describe_cost
from procpre_interp.core.terminal import (
    check_workers,
    default_store,
    run_script,
    stdout_console,
    time_limit,
    usable_cores,
)
from procpre_interp.stats.summary import paired_gains, replicate_bootstrap, replicate_matrix
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.claim_tables import Extra, no_tables
from procpre_interp.study.observation import Observation, observe
from procpre_interp.study.protocols import PROTOCOLS, SEEN_NOTE, Protocol, haystack_sweep
from procpre_interp.sweep.config import Condition, Sweep
from procpre_interp.sweep.live_table import live_table
from procpre_interp.sweep.plan import Show, results, run_sweep, say_nothing
from procpre_interp.train import TrainConfig
from procpre_interp.views.html_page import Section, write_report
from procpre_interp.views.plots.ladder import ladder

Figure = Callable[[pd.DataFrame, JudgedClaim], go.Figure]
"""Draws a figure from the sweep's table and the judged claim."""


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


def run(
    experiment: Experiment,
    store: RunStore,
    *,
    workers: int,
    quick: bool = False,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> tuple[pd.DataFrame, JudgedClaim]:
    """Compute what is missing and judge the claim: its cells, and the claim with its verdict.

    Raises `ValueError` while no cell is finished.
    """
    sweep = shortened(experiment.sweep) if quick else experiment.sweep
    planned, problems = run_sweep(sweep, store, workers=workers, show=show, may_start=may_start)
    table = results(planned, store, problems)
    if table.empty or "finished" not in set(table["status"]):
        raise ValueError(f"{experiment.claim.name}: no run is finished; the same command goes on from here")
    cells = planned.cells
    if experiment.observation is not None:
        table, cells = observe(experiment.observation, table, cells, store)
    judged = judge(experiment.claim, table, planned=cells, quick=quick)
    complete = _conditions(sweep) <= _finished(table)
    return table, dataclasses.replace(
        judged,
        version=experiment.claim.version,
        task=sweep.about.task,
        limit=sweep.about.limit,
        threshold=sweep.about.threshold,
        protocol=experiment.protocol,
        cost=cost_of(planned.configs, store),
        tables=experiment.extra(table, store) if complete else {},
    )


def shortened(sweep: Sweep) -> Sweep:
    """One replicate of a few steps, with a tuning seed: to see that everything works."""
    phase1 = tuple(dataclasses.replace(each, train=few_steps(each.train)) for each in sweep.phase1)
    own = [
        each if each.train is None else dataclasses.replace(each, train=few_steps(each.train))
        for each in sweep.conditions
    ]
    train = few_steps(sweep.train)
    return dataclasses.replace(sweep, phase1=phase1, conditions=tuple(own), train=train, replicates=1, first_seed=0)


def few_steps(train: TrainConfig) -> TrainConfig:
    """The training of a smoke test."""
    return dataclasses.replace(
        train, steps=20, batch_size=32, warmup_steps=5, evaluate_every=10, evaluate_examples=100, patience=None
    )


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run what is missing, judge the claim, and write its table and figure."""

    out: Path = field(default_factory=default_store)
    """Folder of the runs, and of the report claim-NAME.html."""
    workers: int = field(default_factory=usable_cores)
    """Processes of one thread each. Does not change the numbers."""
    minutes: float | None = None
    """Stop starting runs after this many minutes; those under way are finished. Default: no limit."""
    quick: bool = False
    """One replicate of a few steps, to see that everything works: the verdict is always undecided."""
    results: Path | None = None
    """Folder for the cells as CSV and the judged claim as JSON, like those of experiments/results/claims. Default: no
    such files. The store has both in any case."""


def main(*experiments: Experiment, arguments: Sequence[str] | None = None) -> int:
    """The command line of a claim's script, or of several. Exit code 1 where a run failed or nothing is finished."""
    name = experiments[0].claim.name if len(experiments) == 1 else "claims"

    def work() -> int:
        return run_all(experiments, tyro.cli(Options, prog=name, args=arguments, description=_purpose(experiments)))

    return run_script(name, work)


def haystack_experiment(
    claim: Claim,
    conditions: Sequence[Condition],
    figure: Figure,
    *,
    few: int | None = 6,
    protocol: Protocol = PROTOCOLS["cheap"],
    seen: str = SEEN_NOTE,
    observation: Observation | None = None,
    extra: Extra = no_tables,
) -> Experiment:
    """A claim on haystack after Dyck, in the cheap protocol unless told. `seen`: what had been seen of the seeds when
    the prediction was written.

    The primary contrast has ten replicates, other conditions the first `few` (all, if None).
    """
    primary = claim.primary.weights
    chosen = [each if each.name in primary else dataclasses.replace(each, replicates=few) for each in conditions]
    sweep = haystack_sweep(claim.name, tuple(chosen), protocol=protocol, replicates=10)
    text = f"{protocol.text} {seen}"
    return Experiment(claim=claim, sweep=sweep, figure=figure, protocol=text, observation=observation, extra=extra)


def load_experiment(path: Path) -> Experiment:
    """The `EXPERIMENT` of a claim's script."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.EXPERIMENT


def scripts(folder: Path) -> dict[str, Path]:
    """The claims' scripts in a folder, by name."""
    found = [path for path in sorted(folder.glob("*.py")) if "\nEXPERIMENT = " in path.read_text(encoding="utf-8")]
    return {path.stem: path for path in found}


def _purpose(experiments: Sequence[Experiment]) -> str:
    return "\n\n".join(f"{each.claim.claim} Prediction: {each.claim.prediction}" for each in experiments)


def run_all(experiments: Sequence[Experiment], options: Options) -> int:
    """Run and judge one after another; what they share is computed once. Exit code 1 where a run failed."""
    check_workers(options.workers)
    may_start, store = time_limit(options.minutes), RunStore(options.out)
    console, code = stdout_console(), 0
    for each in experiments:
        try:
            table, judged = run(
                each,
                store,
                workers=options.workers,
                quick=options.quick,
                show=live_table(store, options.workers),
                may_start=may_start,
            )
        except ValueError as problem:  # one that cannot be judged yet leaves the others as they are
            print(f"{each.claim.name}: {' '.join(str(problem).split())}", file=sys.stderr)
            code = 1
            continue
        write_claim(store, judged, table, options.results)
        report = claim_report(each, table, judged, options.out / f"{table_name(judged)}.html")
        console.print(describe_claim(judged))
        console.print(f"Cost: {describe_cost(judged.cost)}. Report: {report}\n")
        code = max(code, int("failed" in set(table["status"])))
    return code


def claim_report(experiment: Experiment, table: pd.DataFrame, judged: JudgedClaim, path: Path) -> Path:
    """One HTML file: the claim, its verdict, the contrasts, the figure, every cell."""
    claim = experiment.claim
    sections = [
        Section(title="Claim", blocks=[claim.claim, f"Predicted: {claim.prediction}", f"Margin: {claim.margin}"]),
        Section(title="Verdict", blocks=[describe_claim(judged), contrasts_table(judged)]),
        Section(title="Conditions", blocks=[_drawn(experiment, table, judged)]),
        Section(title="Protocol", blocks=[experiment.protocol]),
        Section(title="Every run", blocks=[table]),
    ]
    return write_report(path, claim_title(judged), sections)


def _drawn(experiment: Experiment, table: pd.DataFrame, judged: JudgedClaim) -> go.Figure | str:
    """The figure; words while the table lacks the conditions that it compares."""
    lacking = sorted(_conditions(experiment.sweep) - _finished(table))
    return f"No figure yet: no finished run of {', '.join(lacking)}." if lacking else experiment.figure(table, judged)


def _conditions(sweep: Sweep) -> set[str]:
    return {condition.name for condition in sweep.of_replicate(sweep.first_seed)}


def _finished(table: pd.DataFrame) -> set[str]:
    return set(table.loc[table["status"] == "finished", "condition"])


def gains(table: pd.DataFrame, baseline: str = "none") -> pd.DataFrame:
    """Gain in accuracy over the baseline, paired by replicate, one row per condition: label, estimate, low, high, n."""
    paired = paired_gains(table, baseline)
    bounds = replicate_bootstrap(paired)
    return bounds.assign(label=_labels(table, bounds.index)).rename_axis("condition").reset_index()


def gains_figure(table: pd.DataFrame, judged: JudgedClaim, **references: float) -> go.Figure:
    """Every condition's gain over no pretraining, replicates as dots, with the margin of the primary contrast."""
    effects = gains(table).drop(columns="condition")  # whose colours would say nothing here
    effects[["estimate", "low", "high"]] *= 100
    dots = 100 * paired_gains(table)
    dots = dots.melt(value_name="value", ignore_index=False)
    dots = dots.assign(label=_labels(table, dots["condition"]))
    lines = {"no pretraining": 0.0, "margin": judged.primary.margin, **references}
    shown = {name: 100 * value for name, value in lines.items()}
    axis = "Gain over no pretraining (percentage points)"
    return ladder(effects, dots=dots, references=shown, x=axis, title=claim_title(judged))


def gains_beside_intact(table: pd.DataFrame, judged: JudgedClaim) -> go.Figure:
    """The same, with the gain of the condition `intact` as a line."""
    effects = gains(table).set_index("condition")
    return gains_figure(table, judged, intact=float(effects.loc["intact", "estimate"]))


def measure_figure(measure: str, axis: str) -> Figure:
    """A figure of one measure: every condition that has it, as a mean with its interval, replicates as dots, in
    the unit in which the claim is read."""

    def figure(table: pd.DataFrame, judged: JudgedClaim) -> go.Figure:
        rows = table.loc[(table["status"] == "finished") & table[measure].notna()]
        of_claim = (row.about for row in judged.contrasts if row.measure == measure)
        scale = next(of_claim, measure_of(measure)).scale
        means = replicate_bootstrap(replicate_matrix(rows, measure))
        means[["estimate", "low", "high"]] *= scale
        effects = means.assign(label=_labels(rows, means.index)).rename_axis("condition").reset_index()
        dots = rows[["label"]].assign(value=scale * rows[measure])
        return ladder(effects.drop(columns="condition"), dots=dots, x=axis, title=claim_title(judged))

    return figure


def _labels(table: pd.DataFrame, conditions: Iterable[str]) -> list[str]:
    labels = dict(zip(table["condition"], table["label"]))
    return [labels[name] for name in conditions]
