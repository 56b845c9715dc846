"""`procpre-interp probe`: what heads attend to, what weights and representations are like, and how they developed."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import pandas as pd
import tyro

import procpre_interp.analysis.inherited_directions  # noqa: F401  (enters a probe)
from procpre_interp.analysis.run_probe import RunProbe
from procpre_interp.commands._models import (
    Columns,
    Look,
    check_named,
    check_one_task,
    of_stored_runs,
    options_given,
    show,
    stage_title,
    subjects,
)
from procpre_interp.commands._options import Runs, parse
from procpre_interp.pipeline.execute import load_task
from procpre_interp.pipeline.lineage import Subject, starting_model, table_of
from procpre_interp.probe import PROBES, Probe, Probed
from procpre_interp.store.store import RunStore
from procpre_interp.train.process import run_threads
from procpre_interp.views.probe_figures import figures_of


@dataclass(frozen=True, kw_only=True)
class Options(Look):
    """What do heads attend to, and what are weights and representations like?

    RUN is an id, the beginning of one, "latest", RUN@STEP for kept weights, or a folder with a GPT-2 of Hugging Face's.
    With several runs the table has means over them. --import FILE.py registers probes of your own.
    """

    runs: Runs = ()
    """Models to look at."""
    what: str = "attention"
    """Name of a probe."""
    score: str = "entropy_relative"
    """timeline: the score that is followed, such as entropy_relative, or a target such as value."""
    seed: int = 0
    """Seed of the sequences and of everything else that is drawn at random."""


def main(arguments: list[str]) -> int:
    """Print the table, and write the figures if asked."""
    command = parse(_options(), "probe", arguments)
    kind = PROBES[command.what]
    given = {
        field.name: getattr(command, field.name) for field in dataclasses.fields(kind) if hasattr(command, field.name)
    }
    probe = PROBES.build(command.what, **given)
    if isinstance(probe, RunProbe) or (isinstance(probe, Probe) and probe.reference == "start"):
        of_stored_runs(command.runs, command.what)
    with run_threads(1):
        if isinstance(probe, Probe):
            found = subjects(command.runs, command, "probe", with_data=probe.reads_data)
            table = table_of(found, lambda subject: _measured(probe, subject, command))
            title = stage_title(found, command.what)
        else:
            assert isinstance(probe, RunProbe)
            check_named(command.runs, "probe")
            if unread := options_given(command, ("stage", "task", "seed")):
                raise ValueError(
                    f"--what {command.what} follows each run over its phases, on their own tasks and seed; leave "
                    f"out {', '.join(unread)}"
                )
            store = RunStore(command.store)
            runs = [store.open(name) for name in command.runs]
            check_one_task([load_task(run) for run in runs], command)
            table = probe.measure_runs(runs, store, sequences=command.sequences)
            probe.check(table)
            title = probe.summary()
    figures = figures_of(kind, _by_run(table)) if command.html is not None else []
    show(table, Columns(kind.keys, kind.values, kind.spread), command, figures, title)
    return 0


def _by_run(table: pd.DataFrame) -> pd.DataFrame:
    """The table for figures of means over the runs, as in the printed one, where a replicate has several of them."""
    if "replicate" not in table or table.groupby("replicate")["run"].nunique().to_numpy().max() == 1:
        return table
    return table.drop(columns="replicate")


def _options() -> type[Options]:
    """The options, with every probe that is registered now in the help of --what."""
    lines = [f"{name}: {text}" if (text := PROBES[name].summary()) else name for name in PROBES]
    what = Annotated[str, tyro.conf.arg(metavar="PROBE", help=f"{'; '.join(lines)}.")]
    fields: list[Any] = [("what", what, "attention")]
    return dataclasses.make_dataclass(
        "Options", fields, bases=(Options,), frozen=True, kw_only=True, namespace={"__doc__": Options.__doc__}
    )


def _measured(probe: Probe, subject: Subject, command: Options) -> pd.DataFrame:
    moment, store, reference = subject.moment, RunStore(command.store), None
    if probe.reference == "start" and command.stage not in ("finished", "phase1"):
        raise ValueError(f"--what {command.what} compares before and after; --stage is finished, or phase1 for phase 1")
    if moment is not None and probe.reference == "start":
        reference = starting_model(moment.source, store)
    elif moment is not None and probe.reference == "untrained" and "imported" not in moment.source.config:
        reference = moment.untrained.model(store)
    table = probe.measure(
        Probed(
            model=subject.model,
            task=subject.task,
            reference=reference,
            sequences=command.sequences,
            seed=command.seed,
        )
    )
    probe.check(table)
    return table
