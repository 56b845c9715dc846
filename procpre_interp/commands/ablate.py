"""`procpre-interp ablate`: finished models with their weights damaged, scored without any further training."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pandas as pd

from procpre_interp.ablate import ABLATIONS, LADDER, Ablation, Noise
from procpre_interp.analysis.damaged_models import damage_scores, refusals
from procpre_interp.commands._models import Columns, Look, show, stage_title, subjects
from procpre_interp.commands._options import Runs, parse, several
from procpre_interp.core.config import from_dict
from procpre_interp.core.messages import shown
from procpre_interp.core.plain_values import parse_yaml
from procpre_interp.core.text_table import print_table, stdout_console
from procpre_interp.pipeline.lineage import Subject, table_of
from procpre_interp.sweep.config import described
from procpre_interp.train.process import run_threads
from procpre_interp.views.plots.measures import measure_dots

INTACT = "intact"
"""Name of the row without damage."""
DOSES: Sequence[Ablation] = [
    *(Noise(noise_std=dose) for dose in (0.1, 0.3, 1.0)),
    *(ABLATIONS.build("low_rank_mlp", rank=rank) for rank in (1, 4, 16)),
    *(ABLATIONS.build("without_strongest", share=share) for share in (0.05, 0.2)),
]
"""Doses that are tried beside the ladder where none is named."""
COLUMNS = Columns(("damage",), ("loss_nats", "rise_nats", "accuracy", "exact_match"))


@dataclass(frozen=True, kw_only=True)
class Ablate(Look):
    """Which properties of its weights does a finished model need?

    Weights are damaged in one property, and the model is scored on held-out examples as it then is; what damage does to
    a transfer is a sweep (`procpre-interp sweep`, ablation in a grid). RUN is as in `probe`. With several runs the
    table has means over them.
    """

    runs: Runs = ()
    """Models to damage."""
    ablation: Annotated[tuple[str, ...], several("ABLATION")] = ()
    """Names, or YAML such as '{name: noise, noise_std: 0.5}' or '{name: keys_only, selector: blocks.1.mlp}'. Default:
    every control from the least structure kept to the most, and some doses of noise and of rank. --list explains
    them."""
    selector: str | None = None
    """Damage only these components, such as attn or blocks.1.mlp, whatever the ablations themselves say."""
    draws: int = 5
    """Random draws of each damage."""
    seed: int | None = None
    """Seed of the damage and the examples. Default: that of each run."""
    list: bool = False
    """Print what each ablation keeps and destroys, and stop."""


def main(arguments: list[str]) -> int:
    """Print the scores, and write the figure if asked."""
    command = parse(Ablate, "ablate", arguments)
    if command.list:
        kinds = {name: ABLATIONS[name] for name in ABLATIONS}
        keeps, destroys = ([getattr(kind, what) for kind in kinds.values()] for what in ("keeps", "destroys"))
        rows = {"Ablation": list(kinds), "Keeps": keeps, "Destroys": destroys}
        print_table(stdout_console(), rows, "ablations of weights", left=list(rows))
        return 0
    if command.draws < 1:
        raise ValueError(f"draws={command.draws}; there must be at least 1")
    chosen = [named_ablation(text, command.selector) for text in command.ablation]
    found = subjects(command.runs, command, "ablate")
    with run_threads(1):
        table = table_of(
            found, lambda subject: _scores(subject, chosen or applicable(subject, command.selector), command)
        )
    figures = [measure_dots(table, COLUMNS.keys, ("loss_nats",), x="Loss (nats per token)", title="Damaged weights")]
    show(table, COLUMNS, command, figures, stage_title(found, "damage"))
    return 0


def named_ablation(text: str, selector: str | None) -> Ablation:
    """An ablation from its name, or from YAML with its fields; `selector` in place of its own, if there is one."""
    try:
        fields = parse_yaml(text)
    except ValueError as problem:
        raise ValueError(f"--ablation {shown(text)} is no YAML: {problem}") from None
    fields = {"name": fields} if isinstance(fields, str) else fields
    if not isinstance(fields, dict):
        raise ValueError(f"--ablation {shown(text)}; give a name, or YAML such as '{{name: noise, noise_std: 0.5}}'")
    return from_dict(Ablation, fields if selector is None else {**fields, "selector": selector})


def applicable(subject: Subject, selector: str | None) -> list[Ablation]:
    """The ladder and the doses, as far as they have something to damage; what is left out is said on stderr.

    Raises `ValueError` where that is none of them.
    """
    every = [*map(ABLATIONS.build, LADDER), *DOSES]
    if selector is not None:
        every = [dataclasses.replace(each, selector=selector) for each in every]
    refused = refusals(subject.model, every)
    kept = [each for each in every if each.name not in refused]
    if not kept:
        raise ValueError(next(iter(refused.values())))
    if refused:
        print(f"{subject.label}: {selector} has nothing to damage for {', '.join(refused)}", file=sys.stderr)
    return kept


def _scores(subject: Subject, ablations: Sequence[Ablation], command: Ablate) -> pd.DataFrame:
    """Scores of the intact model and of each damaged copy, and by how much the damage raised the loss.

    No ablations stand for those that are `applicable`.
    """
    ablations = ablations or applicable(subject, command.selector)
    seed = command.seed
    if seed is None:
        seed = 0 if subject.moment is None else subject.moment.run.seed
    options = {"n_examples": command.sequences, "seed": seed}
    intact = damage_scores(subject.model, subject.task, [Noise(noise_std=0.0)], n_draws=1, **options)
    damaged = damage_scores(subject.model, subject.task, ablations, n_draws=command.draws, **options)
    names = [name for each in ablations for name in [_name(each, command.selector)] * command.draws]
    table = pd.concat([intact.assign(damage=INTACT), damaged.assign(damage=names)], ignore_index=True)
    rise = table["loss_nats"] - table["loss_nats"].iloc[0]
    return table.loc[:, ["damage", "draw", "loss_nats", "accuracy", "exact_match"]].assign(rise_nats=rise)


def _name(ablation: Ablation, selector: str | None) -> str:
    """An ablation in a few words, without the selector that all have."""
    if selector is not None:
        default = {field.name: field.default for field in dataclasses.fields(ablation)}["selector"]
        ablation = dataclasses.replace(ablation, selector=default)
    (name,) = described(ablation)
    return name
