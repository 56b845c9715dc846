"""Does the gain of procedural pretraining grow or shrink with the size of the model? Measured at four small sizes.

    python experiments/scale.py [--sizes 2x32 4x32 ...] [--out runs] [--workers 2] [--minutes 90] [--quick] [--record]

The papers leave open what happens beyond 1.3B parameters. Two cores cannot tell; they can tell how the gain changes
over a factor of ten in parameters, with an interval, and nothing about larger models. A larger machine can be given
larger `--sizes`, such as 4x256 12x768 (layers x d_model, with heads of d_model / 4). Phase 1 is sort, phase 2
English, as in the claims on text, with the same text for all sizes. Every arm is tuned over the same trials at each
size: the best learning rate falls as models grow, so one rate for all would favour a size. Next to the gain over a
fresh model stands that over fresh weights of the transferred scales, which alone may explain it.

`--record` writes cells and trends into experiments/results/scale_cells.csv and scale_trend.csv.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import tyro

from procpre_interp.core.terminal import beside_package, default_store, run_script, time_limit
from procpre_interp.core.text_table import stdout_console
from procpre_interp.data import TASKS
from procpre_interp.engine.engines import Engine, chosen_engine
from procpre_interp.engine.mirror import mirrored
from procpre_interp.engine.options import EngineOptions
from procpre_interp.model.flops import parameter_count
from procpre_interp.pipeline.config import Architecture, RunConfig, model_config
from procpre_interp.stats.baselines import BASELINE
from procpre_interp.stats.resampling import replicate_matrix
from procpre_interp.stats.scaling import FEWEST_SIZES, describe_trend, gain_trend
from procpre_interp.store.store import RunStore
from procpre_interp.study.protocols import FRESH_SEED
from procpre_interp.study.smoke_test import shortened
from procpre_interp.study.text_protocol import PHASE1, PHASE2, TEXTS, full_name, full_on, tuned_alike
from procpre_interp.sweep.config import Pretraining, Sweep
from procpre_interp.sweep.fair import run_fair
from procpre_interp.sweep.live_table import live_table
from procpre_interp.sweep.plan import Show, say_nothing
from procpre_interp.views.html_page import Section, write_report
from procpre_interp.views.plots.scale import gain_by_size

SIZES = ("2x32", "4x32", "2x64", "2x128")
"""Layers and d_model: 46 to 479 thousand parameters, and a trend needs four. The third is that of the claims on text,
whose runs it shares. At d_model 16 sort is not learnt in phase 1 (65 % on seed 7, against 97 % at 32), so that there
would be nothing to transfer."""
TRANSFER = full_name("sort", "language")
MEASURES = {BASELINE: "over a fresh model", f"{TRANSFER} scales": "over fresh weights of the same scales"}
"""What the loss of the transfer is compared with."""
UNIT = "nats per byte"
NO_VERDICT = "A smoke test: these numbers mean nothing."


@dataclass(frozen=True, kw_only=True)
class Scale(EngineOptions):
    """Gain of phase 1 on English by the size of the model, with a trend within the measured sizes."""

    out: Path = field(default_factory=default_store)
    """Folder of the runs, and of the report scale.html."""
    sizes: tuple[str, ...] = SIZES
    """Layers x d_model of each size."""
    replicates: int = 8
    """Replicates at each size."""
    minutes: float | None = None
    """Stop starting runs after this many minutes; those under way are finished. Default: no limit."""
    quick: bool = False
    """One replicate of a few steps, to see that everything works."""
    record: bool = False
    """Write cells and trends into experiments/results."""


def architecture(size: str) -> Architecture:
    """4x128: 4 layers, d_model 128, 4 heads. Raises `ValueError` for anything else than two whole numbers."""
    n_layers, _, d_model = size.partition("x")
    if not (n_layers.isdecimal() and d_model.isdecimal()):
        raise ValueError(f"size {size!r}; give layers x d_model, such as 4x128")
    return Architecture(n_layers=int(n_layers), n_heads=4, d_model=int(d_model))


def sweep_of(size: Architecture, *, replicates: int) -> Sweep:
    """Phase 1 on sort, all blocks transferred, at one size; with fresh weights of its scales beside it."""
    return Sweep(
        name=f"scale-{size.n_layers}x{size.d_model}",
        phase1=(Pretraining(name="sort", task=TASKS.build("sort", length=16), model=size, train=PHASE1),),
        task=TEXTS["language"],
        model=size,
        train=PHASE2,
        conditions=(full_on("sort", "language"),),
        replicates=replicates,
        first_seed=FRESH_SEED,
        fair=tuned_alike({"sort": 0.9}, controls=("scales",)),
    )


def parameters_of(sweep: Sweep) -> int:
    """Parameters of the models of phase 2."""
    return parameter_count(model_config(RunConfig(task=sweep.task, model=sweep.model)))


def measure(
    sweeps: list[Sweep],
    store: RunStore,
    *,
    engine: Engine,
    show: Show = say_nothing,
    may_start: Callable[[], bool] = lambda: True,
) -> pd.DataFrame:
    """The cells of all sizes, with `n_parameters`; those of a size that is not tuned yet are missing."""
    tables = []
    for sweep in sweeps:
        found = run_fair(sweep, store, engine=engine, show=show, may_start=may_start)
        for run, problem in found.problems.items():
            print(f"{sweep.name}: run {run} failed: {problem}", file=sys.stderr)
        if not found.table.empty:
            tables.append(found.table.assign(n_parameters=parameters_of(sweep)))
    if len(tables) < FEWEST_SIZES:
        raise ValueError(
            f"{len(tables)} of {len(sweeps)} sizes have replicates so far, and a trend wants {FEWEST_SIZES}; the same "
            "command goes on from here"
        )
    return pd.concat(tables, ignore_index=True)


def trends_of(cells: pd.DataFrame) -> pd.DataFrame:
    """`gain_trend` of each of `MEASURES`, in column `measure`: losses of what is compared less that of the transfer."""
    finished, found = cells.loc[cells["status"] == "finished"], []
    for other, said in MEASURES.items():
        gains = {}
        for size, rows in finished.groupby("n_parameters"):
            losses = replicate_matrix(rows, "loss_nats")
            if {other, TRANSFER} <= set(losses):
                gains[size] = losses[other] - losses[TRANSFER]
        found.append(gain_trend(pd.DataFrame(gains)).assign(measure=said))
    return pd.concat(found, ignore_index=True)


def main(asked: Scale) -> int:
    """Compute what is missing, and write the report."""
    sweeps = [sweep_of(size, replicates=asked.replicates) for size in map(architecture, asked.sizes)]
    if len(set(map(parameters_of, sweeps))) < max(FEWEST_SIZES, len(sweeps)):
        raise ValueError(f"sizes {' '.join(asked.sizes)}; a trend wants {FEWEST_SIZES} or more, all different")
    if asked.quick and asked.record:
        raise ValueError("a smoke test is not recorded; leave out --quick or --record")
    if asked.quick:
        sweeps = [dataclasses.replace(shortened(sweep), name=f"{sweep.name}-quick") for sweep in sweeps]
    store, console = RunStore(asked.out), stdout_console()
    with mirrored(chosen_engine(asked), asked.mirror, store) as engine:
        show = live_table(store, engine.at_once)
        cells = measure(sweeps, store, engine=engine, show=show, may_start=time_limit(asked.minutes))
        trends = trends_of(cells)
        said = [
            f"Gain {measure}: {describe_trend(rows, unit=UNIT)}"
            for measure, rows in trends.groupby("measure", sort=False)
        ]
        if asked.quick:
            said.append(NO_VERDICT)
        learnt = cells.loc[cells["condition"] == TRANSFER].groupby("n_parameters")["phase1_learnt"].mean()
        said.append(
            "Phase 1 learnt: " + ", ".join(f"{share:.0%} at {size:,} parameters" for size, share in learnt.items())
        )
        name = "scale-quick" if asked.quick else "scale"
        store.write_table(name, trends, {"title": "Gain by size", "quick": asked.quick})
        figure = gain_by_size(trends, unit=UNIT, title="What sort gains on English, by the size of the model")
        report = write_report(
            asked.out / f"{name}.html",
            "Gain by size",
            [Section(title="Trend", blocks=[*said, figure]), Section(title="Numbers", blocks=[trends])],
        )
        if asked.record:
            folder = beside_package("experiments") / "results"
            cells.to_csv(folder / "scale_cells.csv", index=False)
            trends.to_csv(folder / "scale_trend.csv", index=False)
        for line in said:
            console.print(line)
        console.print(f"Report: {report}")
        return int("failed" in set(cells["status"]))


if __name__ == "__main__":
    sys.exit(run_script("scale", lambda: main(tyro.cli(Scale, description=__doc__))))
