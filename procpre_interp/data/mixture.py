"""A weighted mixture of tasks."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import words
from procpre_interp.data.task import TASKS, Batch, Split, Task

Draw = Callable[[Task, int], Batch]


@TASKS.register("mixture")
@dataclass(frozen=True, kw_only=True, slots=True)
class Mixture(Task):
    """Sequences of several tasks, each behind a token that names its task.

    Ids: those of the components, as they are, and without names, as two components may use one id differently; then
    one prefix per component; then a padding of the mixture's own. What a component scores stays scored; the prefix
    predicts the first token where the component scores its sequence from the first token on, as Dyck does. Source: P1,
    data mixtures.
    """

    in_words: ClassVar[str] = "Sequences of several tasks in turn, each behind a token that names its task."

    tasks: tuple[Task, ...]
    """The components."""
    weights: tuple[float, ...] | None = None
    """Relative share of each component's sequences; equal shares where left out."""

    why_no_causes: ClassVar[str] = "none of its components has one"

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("a mixture of no tasks; give at least one")
        if self.weights is None:
            return
        if len(self.weights) != len(self.tasks):
            raise ValueError(f"{len(self.weights)} weights for {len(self.tasks)} tasks; give one per task")
        if not all(math.isfinite(w) and w > 0 for w in self.weights):
            raise ValueError(f"weights={self.weights}; each must be finite and above 0")

    @property
    def first_prefix(self) -> int:
        """The id that stands before sequences of the first component."""
        return max(task.d_vocab for task in self.tasks)

    @property
    def pad(self) -> int:
        return self.first_prefix + len(self.tasks)

    @property
    def d_vocab(self) -> int:
        return self.pad + 1

    @property
    def n_ctx(self) -> int:
        return 1 + max(task.n_ctx for task in self.tasks)

    @property
    def model_n_ctx(self) -> int:
        return 1 + max(task.model_n_ctx for task in self.tasks)

    @property
    def valid_lengths(self) -> range:
        """Smallest length at which every component has one; each is clipped to its own valid lengths."""
        ranges = [task.valid_lengths for task in self.tasks]
        if not all(ranges):
            return range(0)
        start, stop = max(r.start for r in ranges), max(r.stop for r in ranges)
        return range(min(start, stop - 1), stop, math.gcd(*(r.step for r in ranges)))

    def at_length(self, length: int) -> "Task":
        return dataclasses.replace(self, tasks=tuple(task.at_length(length) for task in self.tasks))

    @property
    def clean(self) -> "Task":
        return dataclasses.replace(self, tasks=tuple(task.clean for task in self.tasks))

    def resolve(self) -> "Task":
        return dataclasses.replace(self, tasks=tuple(task.independent().resolve() for task in self.tasks))

    def from_cache(self) -> "Task":
        return dataclasses.replace(self, tasks=tuple(task.from_cache() for task in self.tasks))

    def prepare(self) -> None:
        for task in self.tasks:
            task.prepare()

    def epochs(self, tokens: int) -> float | None:
        """Those of the component that goes through its data most often: expected, where all fill their contexts."""
        weights = self.weights or (1.0,) * len(self.tasks)
        sequences = tokens / sum(w * (1 + task.n_ctx) for w, task in zip(weights, self.tasks))
        own = [task.epochs(round(sequences * w * task.n_ctx)) for w, task in zip(weights, self.tasks)]
        return max((each for each in own if each is not None), default=None)

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.mix(n, lambda task, rows: task.batch(rows, generator=generator), generator=generator)

    def probe_batch(self, n: int, *, generator: Generator) -> Batch:
        return self.mix(n, lambda task, rows: task.probe_batch(rows, generator=generator), generator=generator)

    def candidates(self, n: int, split: Split, *, generator: Generator) -> Batch:
        return self.mix(n, lambda task, rows: task.candidates(rows, split, generator=generator), generator=generator)

    def mix(self, n: int, draw: Draw, *, generator: Generator) -> Batch:
        """`n` sequences, each from a component that the weights choose."""
        weights = torch.tensor(self.weights or [1.0] * len(self.tasks), dtype=torch.float64)
        uniform = words(n, generator=generator).double() / 2**31
        component = torch.bucketize(uniform, (weights / weights.sum()).cumsum(0)[:-1], right=True)
        tokens = torch.full((n, self.n_ctx), self.pad)
        scored = torch.zeros(n, self.n_ctx, dtype=torch.bool)
        lengths = torch.empty(n, dtype=torch.int64)
        for i, task in enumerate(self.tasks):
            rows = (component == i).nonzero()[:, 0]
            part = draw(task, len(rows))
            real = torch.arange(task.n_ctx) < part.lengths[:, None]
            tokens[rows, 0] = self.first_prefix + i
            tokens[rows, 1 : task.n_ctx + 1] = torch.where(real, part.tokens, self.pad)
            scored[rows, 0] = part.loss_mask[:, 0]
            scored[rows, 1 : task.n_ctx + 1] = part.loss_mask
            lengths[rows] = part.lengths + 1
        shifted = Batch.from_sequences(tokens, lengths, 0, self.pad)
        return dataclasses.replace(shifted, loss_mask=scored)

    @property
    def causes(self) -> Mapping[str, str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the components, behind their names: "dyck.type", or "dyck.2.type" of the second of two."""
        return {name: self.tasks[i].causes[cause] for name, (i, cause) in self._components_by_cause().items()}

    def _components_by_cause(self) -> dict[str, tuple[int, str]]:
        names = [task.name for task in self.tasks]
        found: dict[str, tuple[int, str]] = {}
        for i, task in enumerate(self.tasks):
            number = f".{names[: i + 1].count(task.name)}" if names.count(task.name) > 1 else ""
            found |= {f"{task.name}{number}.{cause}": (i, cause) for cause in task.causes}
        return found

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        """Pairs of the component, behind its prefix and padded behind the token that is predicted."""
        i, cause = self._components_by_cause()[cause]
        pairs = self.tasks[i].counterfactual(cause, n, generator=generator)
        positions = pairs.positions + 1
        t = torch.arange(self.n_ctx)
        clean, corrupted = torch.full((2, n, self.n_ctx), self.pad)
        for tokens, part in ((clean, pairs.clean), (corrupted, pairs.corrupted)):
            tokens[:, 1 : part.shape[1] + 1] = part
            tokens[:, 0] = self.first_prefix + i
            tokens.masked_fill_(t > positions[:, None] + 1, self.pad)
        return Pairs(clean, corrupted, positions, pairs.answers, pairs.wrong)

    def check_pair(self, cause: str, clean: list[int], corrupted: list[int]) -> None:
        """Each begins with the prefix of its component, whose own check sees the rest."""
        i, cause = self._components_by_cause()[cause]
        assert clean[0] == corrupted[0] == self.first_prefix + i
        self.tasks[i].check_pair(cause, clean[1:], corrupted[1:])

    def example(self, tokens: list[int]) -> str:
        prefix, *rest = tokens
        place = prefix - self.first_prefix
        if not 0 <= place < len(self.tasks):  # noise has hit it
            return f"<{prefix}> {' '.join(map(str, rest))}"
        task = self.tasks[place]
        return f"<{task.name}> {task.example(rest)}"
