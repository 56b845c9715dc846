"""Where a head would look if it did a given job: the keys that each query would have, from token ids alone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.data.downstream.recall import Haystack
from procpre_interp.data.procedural.copying import Identity, RepeatedString, Reverse
from procpre_interp.data.procedural.dyck import Dyck
from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.procedural.stack import StoredSymbols
from procpre_interp.data.task import Batch, Task
from procpre_interp.data.vocab import HaystackVocab

Mask = Bool[Tensor, "batch query key"]
"""True where the key is meant for the query."""
Rule = Callable[[Batch, Any], Tensor]
"""`rule(batch, task)` is a `Mask`; it may hold more than causality and padding allow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A job of attention, as the keys that each query should look at."""

    name: str
    """Key in `TARGETS`, and name of the score in tables."""
    description: str
    """Which keys, and of which queries."""
    rule: Rule
    """The keys."""
    defined_for: Callable[[Task], bool] | None = None
    """Whether a task has such a job; None if every task has, and the rule needs no task."""
    finds_answer: bool = False
    """Whether these keys hold what the next token must be: a head that looks there does the job of the task."""

    def mask(self, batch: Batch, task: Task | None = None) -> Mask:
        """The keys of each query, among the real tokens up to the query. A row that is all False is no query.

        Raises `ValueError` for a task that has no such job.
        """
        if not self.is_defined(task):
            raise _undefined(self.name, task)
        t = _positions(batch)
        real = t < batch.lengths[:, None]
        return self.rule(batch, task) & (t <= t[:, None]) & real[:, :, None]

    def is_defined(self, task: Task | None) -> bool:
        """Whether the task has such a job."""
        return self.defined_for is None or (task is not None and self.defined_for(task))


TARGETS: dict[str, Target] = {}
"""Everything registered, by name."""


def targets_of(task: Task | None) -> dict[str, Target]:
    """The targets that are defined for a task, by name; without a task those of every sequence of tokens."""
    return {name: target for name, target in TARGETS.items() if target.is_defined(task)}


def targets_named(names: Iterable[str] | None, task: Task | None) -> list[Target]:
    """The targets of these names, or all of the task's for None. Raises `ValueError` for one that it does not have."""
    known = targets_of(task)
    chosen = list(known) if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in known:
            raise _undefined(name, task)
    return [known[name] for name in chosen]


def register(
    name: str, description: str, defined_for: Callable[[Task], bool] | None = None, *, finds_answer: bool = False
) -> Callable[[Rule], Rule]:
    """Function decorator: enter a rule in `TARGETS`. Raises `ValueError` for a name that is taken."""

    def enter(rule: Rule) -> Rule:
        if name in TARGETS:
            raise ValueError(f"target {name!r} is registered already; give another name")
        TARGETS[name] = Target(
            name=name, description=description, rule=rule, defined_for=defined_for, finds_answer=finds_answer
        )
        return rule

    return enter


def _undefined(name: str, task: Task | None) -> ValueError:
    return unknown_name(
        "target without a task" if task is None else f"target of {task.name}", name, [*targets_of(task)]
    )


def _is_haystack(task: Task) -> bool:
    return isinstance(task, Haystack)


def _is_dyck(task: Task) -> bool:
    return isinstance(task, Dyck)


def _has_separator(task: Task) -> bool:
    return isinstance(task, SequenceTask) and task.n_separators > 0


def _copies(task: Task) -> bool:
    return isinstance(task, Identity | Reverse | RepeatedString | StoredSymbols)


@register("previous_token", "The token before the query.")
def _previous_token(batch: Batch, task: Task | None) -> Mask:
    t = _positions(batch)
    return (t == t[:, None] - 1).expand(len(batch), -1, -1)


@register("duplicate_token", "Earlier positions of the query's token.")
def _duplicate_token(batch: Batch, task: Task | None) -> Mask:
    t = _positions(batch)
    return _equal(batch.tokens, batch.tokens) & (t < t[:, None])


@register("induction", "Positions after an earlier occurrence of the query's token.")
def _induction(batch: Batch, task: Task | None) -> Mask:
    # The query itself in `A A`: what follows the first A, and what a head that matches previous tokens would find.
    return _one_later(_duplicate_token(batch, task))


@register("first_token", "The first position, for all later queries.")
def _first_token(batch: Batch, task: Task | None) -> Mask:
    t = _positions(batch)
    return ((t == 0) & (t[:, None] > 0)).expand(len(batch), -1, -1)


@register("key", "At the twin that asks: its key.", _is_haystack)
def _key(batch: Batch, task: Haystack) -> Mask:
    return _equal(batch.tokens - HaystackVocab.TWIN_OFFSET, batch.tokens) & _is_key(batch)[:, None]


@register("value", "At the twin that asks: the value of its key.", _is_haystack, finds_answer=True)
def _value(batch: Batch, task: Haystack) -> Mask:
    return _one_later(_key(batch, task))


@register("own_key", "At each value of a pair: its key.", _is_haystack)
def _own_key(batch: Batch, task: Haystack) -> Mask:
    # The answer at the end is no query: a twin stands before it.
    return _previous_token(batch, task) & _is_key(batch)[:, None]


@register(
    "stack_top",
    "Where a close comes next: the innermost bracket that is open, which it must match.",
    _is_dyck,
    finds_answer=True,
)
def _stack_top(batch: Batch, task: Dyck) -> Mask:
    # The last bracket that opened to the present depth is still open: after its close, another would have opened.
    opens, closes, depth = _nesting(batch, task)
    before_close = torch.cat([closes[:, 1:], torch.zeros_like(closes[:, :1])], dim=1)
    return _last(_equal(depth, depth) & opens[:, None]) & before_close[:, :, None]


@register("matching_bracket", "At each close: the bracket that it closes.", _is_dyck)
def _matching_bracket(batch: Batch, task: Dyck) -> Mask:
    opens, closes, depth = _nesting(batch, task)
    return _last(_equal(depth + 1, depth) & opens[:, None]) & closes[:, :, None]


@register("separator", "Where the answer is predicted: the last separator, which may be the query.", _has_separator)
def _separator(batch: Batch, task: SequenceTask) -> Mask:
    is_separator = batch.tokens == task.ids.separator
    return _last(is_separator[:, None].expand(-1, batch.tokens.shape[1], -1)) & batch.loss_mask[:, :, None]


@register(
    "copy_source",
    "Where the answer is predicted: the input position that the next token copies.",
    _copies,
    finds_answer=True,
)
def _copy_source(batch: Batch, task: SequenceTask) -> Mask:
    t = _positions(batch)
    # Where the answer's first token is predicted: the separator, or the last token of the input if there is none.
    first = batch.loss_mask.int().argmax(1, keepdim=True)
    if isinstance(task, StoredSymbols):
        # The last push of the next token's symbol: earlier ones were popped, as no symbol is stored twice.
        source = _last(_equal(batch.tokens.roll(-1, 1), batch.tokens) & (t < first)[:, None])
    else:
        place = t - first
        source = (first - 1 - place if isinstance(task, Reverse) else place)[:, :, None] == t
    return source & batch.loss_mask[:, :, None]


def _positions(batch: Batch) -> Int[Tensor, " pos"]:
    return torch.arange(batch.tokens.shape[1], device=batch.tokens.device)


def _is_key(batch: Batch) -> Bool[Tensor, "batch pos"]:
    """Which tokens are keys of a haystack."""
    return (batch.tokens >= HaystackVocab.FIRST_KEY) & (batch.tokens < HaystackVocab.FIRST_KEY + HaystackVocab.N_KEYS)


def _nesting(
    batch: Batch, task: Dyck
) -> tuple[Bool[Tensor, "batch pos"], Bool[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """Which tokens open, which close, and how many brackets are open after each."""
    opens = batch.tokens < task.k
    closes = (batch.tokens >= task.k) & (batch.tokens < 2 * task.k)
    return opens, closes, (opens.long() - closes.long()).cumsum(1)


def _equal(of_query: Int[Tensor, "batch query"], of_key: Int[Tensor, "batch key"]) -> Mask:
    return of_query[:, :, None] == of_key[:, None]


def _one_later(keys: Mask) -> Mask:
    """The positions after these keys."""
    return torch.cat([torch.zeros_like(keys[:, :, :1]), keys[:, :, :-1]], dim=2)


def _last(keys: Mask) -> Mask:
    """The last of each query's keys, up to the query."""
    t = torch.arange(keys.shape[2], device=keys.device)
    last = torch.where(keys.tril(), t, -1).amax(2, keepdim=True)
    return t == last
