"""Tasks: what a model is trained on, as batches of token ids.

A task is a frozen dataclass, so it is its own config: its fields are the command line, the YAML and part of a
run's identity. Every batch has one layout, whatever the task (`batch.py`).
"""

import abc
import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.registry import Registry
from procpre_interp.core.seeding import stream
from procpre_interp.data.batch import Batch, concatenate
from procpre_interp.data.counterfactual import Pairs, collect_pairs, concatenate_pairs
from procpre_interp.data.vocab import Token

Split = Literal["train", "validation", "test"]

SPLIT_SIXTEENTHS: dict[Split, range] = {"train": range(14), "validation": range(14, 15), "test": range(15, 16)}
"""Which values of (prompt hash mod 16) belong to which split."""

MIN_DISTINCT_PROMPTS = 32
"""A split with fewer distinct prompts than this among `PROBE_SIZE` draws is too small to be held out."""
PROBE_SIZE = 4096
MAX_REDRAWS = 1000
PAIR_TOKENS = 2**20
"""Tokens of the sequences that are drawn at once for counterfactual pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task(abc.ABC):
    """A source of sequences. Subclasses add their fields and `batch`; `TASKS.register(name)` enters them.

    `version` is raised when the same fields and generator would give other numbers than before.
    """

    registry: ClassVar["Registry[Task]"]
    name: ClassVar[str]
    version: ClassVar[int] = 1
    breakthrough_accuracy: ClassVar[float] = 0.5
    """Token accuracy at or above which the task counts as broken through, fixed in advance. Share, 0 to 1."""
    in_words: ClassVar[str] = ""
    """What a reader of a report must know of the task; written out as text, as reports take it from the source."""
    causes: ClassVar[Mapping[str, str]] = {}
    """What can differ in a counterfactual pair: the name of each cause, and what differs and where it is read."""
    why_no_causes: ClassVar[str] = "its class states none"
    """What to say where there is no cause."""

    @property
    @abc.abstractmethod
    def d_vocab(self) -> int:
        """Number of token ids, specials included."""

    @property
    @abc.abstractmethod
    def n_ctx(self) -> int:
        """Tokens of the longest sequence: the width of every batch."""

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        """Name and role of the ids that have them, for figures and for people who type sequences.

        Every other id is called by its number. The role "symbol" is for ids that stand both in what is given and in
        what is asked: figures tell the two apart by whether the token is scored.
        """
        return {}

    @property
    def model_n_ctx(self) -> int:
        """Context of a model for this task, at least `n_ctx`: the paper's where it gives one."""
        return self.n_ctx

    @property
    def valid_lengths(self) -> range:
        """What `length` may be, from the shortest to this task's own; empty where a task has no length."""
        return range(0)

    def at_length(self, length: int) -> "Task":
        """The task at one fixed length, for a curriculum: the longest valid one that is at most `length`.

        Never beyond the task's own length, and the shortest valid one where `length` is below it. Its batches
        are as wide as its own `n_ctx`; the vocabulary stays. Raises `ValueError` where a task has no length.
        """
        raise ValueError(f"{self.name} has no length, so it can have no length curriculum")

    @abc.abstractmethod
    def batch(self, n: int, *, generator: Generator) -> Batch:
        """`n` sequences, drawn from `generator`, all splits together. Width is `n_ctx` in every batch."""

    def candidates(self, n: int, split: Split, *, generator: Generator) -> Batch:
        """`n` sequences among which `split_batch` finds those of `split`: any, unless the data come in splits."""
        return self.batch(n, generator=generator)

    def split_batch(self, n: int, split: Split, *, generator: Generator, separable: bool | None = None) -> Batch:
        """`n` sequences whose prompts belong to `split`.

        A prompt's 64-bit hash decides its split, and rows of other splits are redrawn, so no prompt of one split can
        occur in another. Where the space of prompts is too small for that (`is_separable` is False) all splits are
        drawn alike; `prompt_overlap` measures what that costs. Whoever draws often passes `separable`, found once.
        """
        if not (is_separable(self) if separable is None else separable):
            return self.candidates(n, split, generator=generator)
        share = len(SPLIT_SIXTEENTHS[split]) / 16
        kept: list[Batch] = []
        missing = n
        for _ in range(MAX_REDRAWS):
            draw = self.candidates(int(missing / share * 1.1) + 16, split, generator=generator)
            accepted = draw[split_mask(draw, split).nonzero().squeeze(1)[:missing]]
            kept.append(accepted)
            missing -= len(accepted)
            if missing == 0:
                return concatenate(kept)
        raise RuntimeError(
            f"{self.name}: only {n - missing} of {n} prompts of the {split} split in {MAX_REDRAWS} draws"
        )

    @property
    def walks(self) -> bool:
        """Whether training sequences come from `walk`, instead of draws."""
        return False

    def walk(self, first: int, n: int, *, seed: int, generator: Generator) -> Batch:
        """Training sequences number `first` to `first + n` of finite data in the order that the seed fixes.

        For a task that `walks`: the same ones however many are asked for at once. `generator` is for whatever else is
        random about them.
        """
        raise NotImplementedError(f"{self.name} has no order to walk in")

    def independent(self) -> "Task":
        """The task with its sequences drawn independently of one another, as a mixture needs them.

        Raises `ValueError` where its config asks for an order.
        """
        return self

    def questions(self, n: int, split: Split, *, generator: Generator) -> Batch | None:
        """`n` sequences that end in an answer which a model is to write by itself, as it reads what it wrote.

        None where there are none, and where whole answers are scored anyway: teacher forcing then says the same.
        """
        return None

    def epochs(self, tokens: int) -> float | None:
        """How often training on so many tokens goes through the training split; None where sequences are generated."""
        return None

    def counterfactual(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        """`n` pairs of sequences that differ in one of the `causes`, as wide as `n_ctx`.

        Both sequences are ones that `batch` can give (where one is not, the task says so), all splits together as
        there. Each pair is read at a scored position. What stands up to it decides the next token (the type of a
        close, where one follows) and differs in the cause alone, and in what the task's rule makes of it. Behind the
        next token stands the rest of each sequence, which may end sooner than the other's, or padding.

        Raises:
            ValueError: an unknown cause, a task without causes, or fields of the task that make the cause impossible
                or too rare.
        """
        if not self.causes:
            raise ValueError(f"{self.name} has no cause that a pair could differ in: {self.why_no_causes}")
        if cause not in self.causes:
            raise unknown_name(f"cause of {self.name}", cause, list(self.causes))
        return collect_pairs(
            lambda rows: self.draw_pairs(cause, rows, generator=generator),
            n,
            at_once=max(1, PAIR_TOKENS // self.n_ctx),
            what=f"cause {cause!r} of {self.name}",
        )

    def counterfactuals(self, n: int, *, generator: Generator) -> Pairs:
        """`n` pairs of every cause, one cause after the other. Errors are those of `counterfactual`."""
        causes = list(self.causes) or [""]  # a task without any is refused with its reason
        return concatenate_pairs([self.counterfactual(cause, n, generator=generator) for cause in causes])

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        """The pairs in which one of the `causes` shows, of `n` draws; a task that has any makes them here."""
        raise NotImplementedError(f"{self.name} states causes but makes no pairs")

    def check_pair(self, cause: str, clean: list[int], corrupted: list[int]) -> None:  # noqa: B027  (as `prepare`)
        """Whether a pair is what its cause says, as only the task knows: by `assert`, in plain loops over the ids.

        Both sequences end with the token that is predicted. `check_task` calls this for each pair, both ways around.
        Default: what holds for every pair is enough. Raises `AssertionError` for another pair.
        """

    def check_cause(self, cause: str, needed: str, **least: int) -> None:
        """Raises `ValueError` where a field is below the least value with which there is what the cause needs."""
        for field, bound in least.items():
            if getattr(self, field) < bound:
                raise ValueError(
                    f"{field}={getattr(self, field)}; cause {cause!r} of {self.name} needs {needed}, so {field} must "
                    f"be at least {bound}"
                )

    @property
    def stream_label(self) -> str:
        """Label of the task's random streams. A control has that of its task, so that both see the same draws."""
        return self.name

    def probe_batch(self, n: int, *, generator: Generator) -> Batch:
        """`n` sequences to measure a trained model on: of all splits together, or, where documents were split, which
        are few and may be known by heart, of those held out."""
        return self.batch(n, generator=generator)

    @property
    def clean(self) -> "Task":
        """The task without noise in its training data: what it validates and tests on."""
        return self

    def resolve(self) -> "Task":
        """The task with everything filled in that its numbers depend on (hashes of files, say)."""
        return self

    def from_cache(self) -> "Task":
        """The task as it may be opened where a stored config is not trusted: it reads only what `resolve` and
        `prepare` packed before, by its hash, and no path that the config names."""
        return self

    def prepare(self) -> None:  # noqa: B027  (a hook, which most tasks do not need)
        """Make what `batch` reads (a token file, say). Called once, before training."""

    def to_be_made(self) -> str:
        """What `prepare` would first fetch or make that takes a minute or so, in words; empty where there is none."""
        return ""

    def extra_metrics(self, loss_nats: float, split: Split) -> dict[str, float]:
        """What the mean loss a token on `split`, in nats, is in the task's own units (bits per byte, say)."""
        return {}

    def example(self, tokens: list[int]) -> str:
        """One sequence as a person would write it: by default the names of its tokens, separated by blanks."""
        named = self.named_tokens
        return " ".join(named[token].name if token in named else str(token) for token in tokens)


def clip_length(length: int, valid: range) -> int:
    """The largest of the `valid` lengths that is at most `length`, or else the smallest."""
    return valid[bisect.bisect_right(valid, max(length, valid[0])) - 1]


TASKS: Registry[Task] = Registry("task")
Task.registry = TASKS


def prompt_hash(batch: Batch) -> Int[Tensor, " batch"]:
    """64-bit hash of each row's prompt: the tokens up to and including the first scored position.

    Where everything is scored from the first token on, the whole sequence is the prompt.
    """
    t = torch.arange(batch.tokens.shape[1])
    first = batch.loss_mask.byte().argmax(1)
    end = torch.where(first > 0, first + 1, batch.lengths)
    # Sum of (token + 1) m over the prompt, m fixed and odd, modulo 2^64 (int64 wraps), then a xor-shift finaliser;
    # the sum of m alone, by which trailing zeros count, is taken from a table.
    m = torch.randint(-(2**62), 2**62, (len(t),), generator=stream(0, "prompt hash", "multipliers")) * 2 + 1
    hashed = torch.where(t < end[:, None], batch.tokens, 0) @ m + torch.nn.functional.pad(m.cumsum(0), (1, 0))[end]
    for shift, multiplier in ((33, -49064778989728563), (29, -4265267296055464877)):
        hashed = (hashed ^ ((hashed >> shift) & ((1 << (64 - shift)) - 1))) * multiplier
    return hashed ^ ((hashed >> 32) & 0xFFFFFFFF)


def split_mask(batch: Batch, split: Split) -> Bool[Tensor, " batch"]:
    """Which rows belong to `split`."""
    bucket = prompt_hash(batch) & 15
    members = SPLIT_SIXTEENTHS[split]
    return (bucket >= members.start) & (bucket < members.stop)


@lru_cache(maxsize=32)  # a run asks four times, a sweep for the same task in every run
def is_separable(task: Task) -> bool:
    """Whether every split has at least `MIN_DISTINCT_PROMPTS` prompts among `PROBE_SIZE` draws, without noise."""
    task = task.clean
    probe = task.batch(PROBE_SIZE, generator=stream(0, "split probe", task.name))
    hashes = prompt_hash(probe)
    counts = [len(hashes[split_mask(probe, split)].unique()) for split in SPLIT_SIXTEENTHS]
    return min(counts) >= MIN_DISTINCT_PROMPTS


def prompt_overlap(task: Task, n: int = PROBE_SIZE) -> float:
    """Share of `n` validation prompts that occur among `n` training prompts: 0 exactly where splits are separable.

    Whole sequences count where everything is scored. A lower bound on the overlap with a longer training
    stream.
    """
    train = task.split_batch(n, "train", generator=stream(0, "overlap", "train"))
    validation = task.split_batch(n, "validation", generator=stream(0, "overlap", "validation"))
    return torch.isin(prompt_hash(validation), prompt_hash(train)).float().mean().item()
