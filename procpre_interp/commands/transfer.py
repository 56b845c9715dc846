"""`procpre-interp transfer`: components of finished runs into a fresh model, then training on another task."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from procpre_interp.commands._options import parse, several
from procpre_interp.commands._run_one import HELP_FLAGS, Training, as_default, defaults, run_one, trained_on
from procpre_interp.commands._text_defaults import (
    given_options,
    say,
    with_training_defaults,
    with_transfer_defaults,
)
from procpre_interp.core.config import from_dict
from procpre_interp.pipeline.config import Parent, RunConfig, with_own_draw
from procpre_interp.pipeline.lineage import ancestors_of, parse_run
from procpre_interp.store.store import RunStore
from procpre_interp.transfer import TransferConfig


@dataclass(frozen=True, kw_only=True)
class Transfer(Training):
    """Phase 2: the components that --components selects come from --parent RUN; the rest of the model is fresh.

    RUN is an id, the beginning of one, "latest", or RUN@STEP for a kept checkpoint. A selector is a term such as attn,
    mlp, ln, blocks.0.attn.head.2 or all, or a union and difference of terms: attn+ln, all-blocks.1. With several
    parents (an assembly) give a selector each, in the same order: --parent A B --components attn mlp. Weights that
    two of them share are refused, unless --transfer.overlap later_wins lets the later parent's win.

    --task NAME chooses the task (haystack where neither it nor --config is given), whose own options then appear as
    --task.OPTION. --config FILE takes defaults from YAML with the same names, parents as {parents: [{run, selector}]}:
    the config.yaml of a stored run is such a file.

    A third phase takes over a whole model: --components all --transfer.token-embedding retain --transfer.unembedding
    retain. A training that was stopped (--train.stop-after 500) goes on with --train.start-at 500, everything else as
    before, and, where it kept its optimiser's state, with --optimiser carried, as if it had never stopped.
    """

    parent: Annotated[tuple[str, ...], several("RUN")] = ()
    """Finished runs to take components from."""
    components: Annotated[tuple[str, ...], several("SELECTOR")] = ("all",)
    """Components to take from each parent, one selector per parent; embeddings and positions follow the transfer
    options."""
    transfer: TransferConfig = field(default_factory=TransferConfig)
    """What happens to embeddings and positions."""
    optimiser: Literal["fresh", "carried"] = "fresh"
    """State of the optimiser at the start: fresh, or carried from the parents along with the weights. They must have
    kept it (--train.keep-optimiser)."""


def main(arguments: list[str]) -> int:
    """Transplant, train, and print what came out."""
    asks_help = any(flag in arguments for flag in HELP_FLAGS)
    fields, arguments = defaults(["--task=haystack", *arguments] if _needs_task(arguments) else arguments, "transfer")
    whole = from_dict(RunConfig, {key: fields[key] for key in fields if key != "store"})
    default, parents = as_default(Transfer, dict(fields)), whole.parents
    options = fields.get("transfer")  # which the line above has checked
    default = dataclasses.replace(
        default,
        parent=tuple(parent.run if parent.step is None else f"{parent.run}@{parent.step}" for parent in parents),
        components=tuple(parent.selector for parent in parents) or ("all",),
        transfer=from_dict(TransferConfig, options if isinstance(options, dict) else {}),
        optimiser=whole.optimiser,
    )
    command = parse(Transfer, "transfer", arguments, default)
    if not command.parent and not asks_help:
        raise ValueError("procpre-interp transfer wants --parent RUN; `procpre-interp runs` lists the runs")
    train = with_training_defaults(
        trained_on(command), command.task, command.model, given=given_options(arguments, fields, "train")
    )
    transfer = with_transfer_defaults(
        command.transfer, command.task, given=given_options(arguments, fields, "transfer")
    )
    say(train, command.train, is_transfer=transfer != command.transfer)
    ablations = [parent.ablation for parent in parents] if len(parents) == len(command.parent) else []
    if command.parent != default.parent and (note := ablations_note(parents, command.parent)):
        print(note, file=sys.stderr)
    store = RunStore(command.store)
    config = RunConfig(
        task=command.task,
        seed=command.seed,
        model=command.model,
        train=train,
        parents=resolve_parents(command, store, ablations),
        transfer=transfer,
        optimiser=command.optimiser,
    )
    run_one(with_own_draw(config, ancestors_of(config, store)), command.store)
    return 0


def _needs_task(arguments: list[str]) -> bool:
    named = any(argument.startswith(("--task=", "--config=")) for argument in arguments)
    return not named and "--task" not in arguments and "--config" not in arguments


def ablations_note(parents: Sequence[Parent], names: Sequence[str]) -> str:
    """What becomes of the file's ablations where the command line names other parents; empty if it has none."""
    damage = ["none" if parent.ablation is None else parent.ablation.name for parent in parents]
    if all(parent.ablation is None for parent in parents):
        return ""
    if len(parents) == len(names):
        pairs = ", ".join(f"{what} of {name}" for what, name in zip(damage, names))
        return f"the file's ablations are kept, for the parents given in their place: {pairs}"
    counts = f"parents: {len(parents)} in the file, {len(names)} given"
    return f"the file's ablations ({', '.join(damage)}) are left out, since the numbers differ ({counts})"


def resolve_parents(command: Transfer, store: RunStore, ablations: list) -> tuple[Parent, ...]:
    """The parents with their full ids, so that an abbreviation is no part of the identity."""
    if len(command.components) != len(command.parent):
        selectors = "selector" if len(command.components) == 1 else "selectors"
        raise ValueError(
            f"{len(command.parent)} parents but {len(command.components)} {selectors} "
            f"({' '.join(command.components)}); give one per parent, such as --components attn mlp"
        )
    parents = []
    for i, (name, selector) in enumerate(zip(command.parent, command.components)):
        run, step = parse_run(name, store)
        parents.append(Parent(run=run.id, selector=selector, step=step, ablation=ablations[i] if ablations else None))
    return tuple(parents)
