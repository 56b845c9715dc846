"""What a probe may ask of a position: labels from token ids and task, never from the model."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from procpre_interp.core.registry import Registry
from procpre_interp.data.downstream.recall import Haystack
from procpre_interp.data.procedural.dyck import BracketTask, Dyck
from procpre_interp.data.task import Batch, Task
from procpre_interp.data.vocab import HaystackVocab

NO_LABEL = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Label(abc.ABC):
    """A class for some positions of a sequence. Subclasses set `tasks`; `LABELS.register(name)` enters them."""

    registry: ClassVar["Registry[Label]"]
    name: ClassVar[str]
    tasks: ClassVar[tuple[type[Task], ...]]
    """The tasks for whose sequences it is defined."""

    @abc.abstractmethod
    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        """Classes from 0 on, and -1 where there is no label. `batch` is of `task`, one of `tasks`."""


LABELS: Registry[Label] = Registry("probe label")
Label.registry = LABELS


def labels_for(task: Task) -> list[str]:
    """Names of the labels that are defined for a task."""
    return [name for name in LABELS if isinstance(task, LABELS[name].tasks)]


def position_labels(batch: Batch, task: Task, name: str, **params: Any) -> Int[Tensor, "batch pos"]:
    """The label called `name` of every position: classes from 0 on, -1 where there is none. `params` are its fields.

    Raises:
        ValueError: no label has this name, or it is not defined for the task.
    """
    label = LABELS.build(name, **params)
    if not isinstance(task, label.tasks):
        raise ValueError(
            f"{name} is not defined for the task {task.name}; the labels defined for it are "
            f"{', '.join(labels_for(task))}"
        )
    return label.of(batch, task)


@LABELS.register("next_token")
@dataclass(frozen=True, kw_only=True, slots=True)
class NextToken(Label):
    """The token to come, where the task scores it: what the last layers must tell the unembedding."""

    tasks: ClassVar = (Task,)

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        return _only(batch.targets, batch.loss_mask)


@LABELS.register("previous_token")
@dataclass(frozen=True, kw_only=True, slots=True)
class PreviousToken(Label):
    """The token before, at every real token but the first: what a previous-token head writes."""

    tasks: ClassVar = (Task,)

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        t = _positions(batch)
        return _only(batch.tokens.roll(1, dims=1), (t > 0) & (t < batch.lengths[:, None]))


@LABELS.register("stack_depth")
@dataclass(frozen=True, kw_only=True, slots=True)
class StackDepth(Label):
    """Brackets that are open after a token, all types together; deeper than `deepest` counts as `deepest`."""

    tasks: ClassVar = (BracketTask,)

    deepest: int = 8
    """The last class, at least 1."""

    def __post_init__(self) -> None:
        if self.deepest < 1:
            raise ValueError(f"deepest={self.deepest}; deepest must be at least 1, or all depths are one class")

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        assert isinstance(task, BracketTask)
        return _only(_depth(batch, task.k).clamp(max=self.deepest), _positions(batch) < batch.lengths[:, None])


@LABELS.register("top_type")
@dataclass(frozen=True, kw_only=True, slots=True)
class TopType(Label):
    """Type of the innermost bracket that is open after a token: the one that may close next. None at depth 0."""

    tasks: ClassVar = (Dyck,)

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        assert isinstance(task, Dyck)
        depth = _depth(batch, task.k)
        # The type of the bracket last opened at each depth; those above the current depth are closed.
        stack = torch.zeros_like(batch.tokens)
        top = torch.empty_like(batch.tokens)
        for t in range(batch.tokens.shape[1]):
            level = (depth[:, t] - 1).clamp(min=0)[:, None]
            token = batch.tokens[:, t, None]
            stack.scatter_(1, level, torch.where(token < task.k, token, stack.gather(1, level)))
            top[:, t] = stack.gather(1, level)[:, 0]
        return _only(top, (depth > 0) & (_positions(batch) < batch.lengths[:, None]))


@LABELS.register("key")
@dataclass(frozen=True, kw_only=True, slots=True)
class Key(Label):
    """Labels each value of a haystack with the key that it belongs to: what a previous-token head must write there."""

    tasks: ClassVar = (Haystack,)

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        t = _positions(batch)
        is_value = (t % 2 == 1) & (t < batch.lengths[:, None] - 2)
        return _only(batch.tokens.roll(1, dims=1) - HaystackVocab.FIRST_KEY, is_value)


@LABELS.register("matched_key")
@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedKey(Label):
    """Labels the query of a haystack with the key that it is the twin of: what the attention to that key must look
    for."""

    tasks: ClassVar = (Haystack,)

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        return _only(batch.tokens - HaystackVocab.FIRST_KEY - HaystackVocab.TWIN_OFFSET, _is_query(batch))


@LABELS.register("matched_value")
@dataclass(frozen=True, kw_only=True, slots=True)
class MatchedValue(Label):
    """Labels the query of a haystack with the value of its key: the answer, as values count from 0."""

    tasks: ClassVar = (Haystack,)

    def of(self, batch: Batch, task: Task) -> Int[Tensor, "batch pos"]:
        return _only(batch.targets - HaystackVocab.FIRST_VALUE, _is_query(batch))


def _depth(batch: Batch, k: int) -> Int[Tensor, "batch pos"]:
    """Open brackets after each token; padding counts as closing."""
    return torch.where(batch.tokens < k, 1, -1).cumsum(1)


def _is_query(batch: Batch) -> Bool[Tensor, "batch pos"]:
    return _positions(batch) == batch.lengths[:, None] - 2


def _positions(batch: Batch) -> Int[Tensor, " pos"]:
    return torch.arange(batch.tokens.shape[1], device=batch.tokens.device)


def _only(labels: Int[Tensor, "batch pos"], kept: Bool[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    return torch.where(kept, labels, NO_LABEL)
