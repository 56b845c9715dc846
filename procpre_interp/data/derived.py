"""Tasks made of one other task: the control whose sequences are shuffled, and training on corrupted tokens."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, coins, random_orders
from procpre_interp.data.task import TASKS, Batch, Split, Task
from procpre_interp.data.vocab import Token


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived(Task):
    """What a task shares with the one that it is made of."""

    task: Task
    """The task that it is made of."""

    @property
    def d_vocab(self) -> int:
        return self.task.d_vocab

    @property
    def n_ctx(self) -> int:
        return self.task.n_ctx

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        return self.task.named_tokens

    @property
    def model_n_ctx(self) -> int:
        return self.task.model_n_ctx

    @property
    def valid_lengths(self) -> range:
        return self.task.valid_lengths

    def at_length(self, length: int) -> "Task":
        return dataclasses.replace(self, task=self.task.at_length(length))

    @property
    def clean(self) -> "Task":
        return dataclasses.replace(self, task=self.task.clean)

    def resolve(self) -> "Task":
        return dataclasses.replace(self, task=self.task.resolve())

    def from_cache(self) -> "Task":
        return dataclasses.replace(self, task=self.task.from_cache())

    def prepare(self) -> None:
        self.task.prepare()

    @property
    def stream_label(self) -> str:
        return self.task.stream_label

    @property
    def walks(self) -> bool:
        return self.task.walks

    def independent(self) -> "Task":
        return dataclasses.replace(self, task=self.task.independent())

    def epochs(self, tokens: int) -> float | None:
        return self.task.epochs(tokens)


@TASKS.register("shuffled")
@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffled(Derived):
    """The sequences of a task, each in random order: the same tokens without their structure.

    A uniform permutation of all the real tokens of a sequence, separators included. Lengths, padding and the
    scored positions stay; the targets are the new next tokens. Source: P1, the control with shuffled
    sequences.
    """

    in_words: ClassVar[str] = "The same tokens as another task, in random order: the control without its structure."

    why_no_causes: ClassVar[str] = "its tokens are in random order, so none decides the next"

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.shuffle(self.task.batch(n, generator=generator), generator=generator)

    def probe_batch(self, n: int, *, generator: Generator) -> Batch:
        return self.shuffle(self.task.probe_batch(n, generator=generator), generator=generator)

    def candidates(self, n: int, split: Split, *, generator: Generator) -> Batch:
        return self.shuffle(self.task.candidates(n, split, generator=generator), generator=generator)

    def walk(self, first: int, n: int, *, seed: int, generator: Generator) -> Batch:
        return self.shuffle(self.task.walk(first, n, seed=seed, generator=generator), generator=generator)

    def shuffle(self, batch: Batch, *, generator: Generator) -> Batch:
        """The real tokens of each sequence in a random order of their own."""
        order = random_orders(batch.lengths, self.n_ctx, generator=generator)
        return with_tokens(batch, batch.tokens.gather(1, order))


@TASKS.register("noisy")
@dataclass(frozen=True, kw_only=True, slots=True)
class Noisy(Derived):
    """A task with a share of the tokens corrupted in training, and its own clean sequences to validate and test on.

    A corrupted token is replaced by a real token from anywhere in the same draw of sequences, so that noise changes how
    often tokens occur as little as can be. Targets are the next tokens of the corrupted sequence, so that answers may
    be wrong too.
    """

    in_words: ClassVar[str] = "Another task with some tokens of the training data replaced by others, at random."

    share: float = 0.1
    """Probability that a real token is corrupted."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"share={self.share}; it is a probability and must be in 0 to 1")

    @property
    def clean(self) -> "Task":
        return self.task.clean

    @property
    def causes(self) -> Mapping[str, str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Those of the task: pairs are clean."""
        return self.task.causes

    @property
    def breakthrough_accuracy(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.task.breakthrough_accuracy

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.corrupt(self.task.batch(n, generator=generator), generator=generator)

    def probe_batch(self, n: int, *, generator: Generator) -> Batch:
        """Clean ones."""
        return self.task.probe_batch(n, generator=generator)

    def candidates(self, n: int, split: Split, *, generator: Generator) -> Batch:
        """Sequences of the task's own split, so that none is made of another's; those to train on are corrupted."""
        batch = self.task.split_batch(n, split, generator=generator)
        return self.corrupt(batch, generator=generator) if split == "train" else batch

    def split_batch(self, n: int, split: Split, *, generator: Generator, separable: bool | None = None) -> Batch:
        if split != "train":
            return self.task.split_batch(n, split, generator=generator)
        # Of the corrupted ones too, those whose prompt falls in another split are drawn again.
        return Task.split_batch(self, n, split, generator=generator, separable=separable)

    def walk(self, first: int, n: int, *, seed: int, generator: Generator) -> Batch:
        return self.corrupt(self.task.walk(first, n, seed=seed, generator=generator), generator=generator)

    def corrupt(self, batch: Batch, *, generator: Generator) -> Batch:
        """The batch with each real token replaced with probability `share`."""
        real = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
        replaced = coins(self.share, *batch.tokens.shape, generator=generator) & real
        known = batch.tokens[real]
        drawn = known[below(torch.full((int(replaced.sum()),), len(known)), generator=generator)]
        tokens = batch.tokens.clone()
        tokens[replaced] = drawn
        return with_tokens(batch, tokens)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        return self.task.draw_pairs(cause, n, generator=generator)

    def check_pair(self, cause: str, clean: list[int], corrupted: list[int]) -> None:
        self.task.check_pair(cause, clean, corrupted)

    def extra_metrics(self, loss_nats: float, split: Split) -> dict[str, float]:
        return self.task.extra_metrics(loss_nats, split)

    def questions(self, n: int, split: Split, *, generator: Generator) -> Batch | None:
        """Clean ones, whatever the split."""
        return self.task.questions(n, split, generator=generator)

    def example(self, tokens: list[int]) -> str:
        return self.task.example(tokens)


def with_tokens(batch: Batch, tokens: torch.Tensor) -> Batch:
    """The batch with other tokens in its places; the last column of the targets is the task's padding, and stays."""
    targets = batch.targets.clone()
    targets[:, :-1] = tokens[:, 1:]
    return dataclasses.replace(batch, tokens=tokens, targets=targets)
