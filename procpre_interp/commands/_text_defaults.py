"""What new runs on real text are given where nothing else is asked for; everything else has the paper's defaults.

The configs themselves keep one default for all tasks, so that stored runs keep their ids: what differs is written out.
A config whose text has its hashes is that of a stored run, and is left as it is.
"""

import dataclasses
import itertools
import sys
from collections.abc import Collection, Mapping, Sequence

from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.semantic.text import text_of
from procpre_interp.data.task import Task
from procpre_interp.pipeline.config import Architecture
from procpre_interp.sweep.config import Condition, Grid, Pretraining, Sweep
from procpre_interp.sweep.maps import FRESH_EMBEDDINGS
from procpre_interp.sweep.phases import Phase
from procpre_interp.train import TrainConfig
from procpre_interp.transfer import TransferConfig

WEIGHT_DECAY = {"language": 0.1, "code": 0.01, "mathematics": 0.01, "any": 0.1}
"""Default weight decay for each domain of corpora."""
BFLOAT16_FROM = 256
"""Smallest d_model for which bfloat16 is faster."""
EMBEDDINGS = ("token_embedding", "unembedding")


def with_training_defaults(
    train: TrainConfig, task: Task, model: Architecture, *, given: Collection[str]
) -> TrainConfig:
    """The training with the weight decay of the corpus's domain and, for wide models, in bfloat16, unless `given`."""
    text = text_of(task)
    if text is None or text.corpus_hash:
        return train
    fields: dict[str, object] = {"weight_decay": WEIGHT_DECAY[build_corpus(text.corpus).about.domain]}
    if model.d_model >= BFLOAT16_FROM and train.kernel in ("auto", "torch"):
        fields["precision"] = "bfloat16"
    return dataclasses.replace(train, **{name: value for name, value in fields.items() if name not in given})


def with_transfer_defaults(transfer: TransferConfig, task: Task, *, given: Collection[str]) -> TransferConfig:
    """The transfer with fresh token embeddings, unless any are `given`: the parent's mean row, the default elsewhere,
    would make all tokens of a text alike."""
    text = text_of(task)
    if text is None or text.corpus_hash or not set(EMBEDDINGS).isdisjoint(given):
        return transfer
    return dataclasses.replace(transfer, token_embedding="fresh", unembedding="fresh")


def given_options(arguments: Sequence[str], fields: Mapping[str, object], group: str) -> set[str]:
    """Fields of a group of options, such as train, that the command line or a config file names."""
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith(f"--{group}.")]
    named = fields.get(group)
    return {option.removeprefix(f"--{group}.").replace("-", "_") for option in options} | _names(named)


def with_sweep_defaults(sweep: Sweep, fields: Mapping[str, object]) -> Sweep:
    """The sweep with these defaults in each phase on text; `fields` are those of its file."""

    def trained(train: TrainConfig, task: Task, raw: object, model: Architecture = sweep.model) -> TrainConfig:
        return with_training_defaults(train, task, model, given=_names(_part(raw, "train")))

    def pretraining(each: Pretraining, raw: object) -> Pretraining:
        return dataclasses.replace(each, train=trained(each.train, each.task, raw, each.model))

    def phase(each: Phase, raw: object) -> Phase:
        return dataclasses.replace(each, train=trained(each.train, each.task, raw))

    def condition(each: Condition, raw: object) -> Condition:
        task, train, transfer = each.task or sweep.task, each.train, each.transfer
        if train is not None:
            train = trained(train, task, raw)
        elif each.task is not None:  # another text than the sweep's, which may be of another domain
            train = trained(sweep.train, task, fields)
            train = None if train in (sweep.train, own) else train
        if each.sources and each.insert is None:  # which says itself what happens to embeddings
            transfer = with_transfer_defaults(transfer, task, given=_names(_part(raw, "transfer")))
        then = each.then if each.then is None else tuple(map(phase, each.then, _list(raw, "then")))
        return dataclasses.replace(each, train=train, transfer=transfer, then=then)

    def grid(each: Grid, raw: object) -> list[Grid]:
        if fresh is None or "transfer" in _names(raw):
            return [each]
        inserted = tuple(insert for insert in each.insert if insert is not None)
        plain = [dataclasses.replace(each, insert=(None,), transfer=(fresh,))] if None in each.insert else []
        return plain + ([dataclasses.replace(each, insert=inserted)] if inserted else [])

    is_new = (text := text_of(sweep.task)) is not None and not text.corpus_hash
    fresh = FRESH_EMBEDDINGS if is_new else None
    own = trained(sweep.train, sweep.task, fields)
    filled = dataclasses.replace(
        sweep,
        phase1=tuple(map(pretraining, sweep.phase1, _list(fields, "phase1"))),
        train=own,
        then=tuple(map(phase, sweep.then, _list(fields, "then"))),
        conditions=tuple(map(condition, sweep.conditions, _list(fields, "conditions"))),
        grids=tuple(itertools.chain(*map(grid, sweep.grids, _list(fields, "grids")))),
        maps=tuple(dataclasses.replace(each, transfer=each.transfer or fresh) for each in sweep.maps),
    )
    if filled != sweep:
        say(filled.train, sweep.train, is_transfer=True)
    return filled


def say(train: TrainConfig, before: TrainConfig, *, is_transfer: bool) -> None:
    """One line on stderr: what text was given."""
    names = [name for name in ("weight_decay", "precision") if getattr(train, name) != getattr(before, name)]
    said = [f"{name} {getattr(train, name)}" for name in names]
    said += ["fresh token embeddings where nothing else is asked for"] if is_transfer else []
    if said:
        print(f"text: {', '.join(said)}", file=sys.stderr)


def _part(raw: object, name: str) -> object:
    return raw.get(name) if isinstance(raw, Mapping) else None


def _names(raw: object) -> set[str]:
    return set(raw) if isinstance(raw, Mapping) else set()


def _list(fields: object, name: str) -> Sequence[object]:
    found = _part(fields, name)
    return found if isinstance(found, Sequence) else ()
