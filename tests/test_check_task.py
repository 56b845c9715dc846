"""`check_task` finds what is wrong with a task: one that is right, and the same with one thing broken."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Generator, Tensor

from procpre_interp.data import TASKS, Batch, Task, check_task
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.mixture import Mixture
from procpre_interp.data.vocab import Token


@dataclass(frozen=True, kw_only=True, slots=True)
class Flips(Task):
    """Bits, a separator, and the last bit flipped: 0 1 1 | 0."""

    length: int = 16

    causes: ClassVar[Mapping[str, str]] = {"last": "the last bit; read at the separator"}

    @property
    def d_vocab(self) -> int:
        return 4

    @property
    def n_ctx(self) -> int:
        return self.length + 2

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        return {2: Token("|", "separator")}

    def batch(self, n: int, *, generator: Generator) -> Batch:
        bits = torch.randint(2, (n, self.length), generator=generator)
        tokens = torch.cat([bits, torch.full((n, 1), 2), 1 - bits[:, -1:]], 1)
        return Batch.from_sequences(tokens, torch.full((n,), self.n_ctx), self.length, pad=3)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        clean = self.batch(n, generator=generator).tokens
        corrupted = clean.clone()
        corrupted[:, [self.length - 1, self.length + 1]] ^= 1
        every = torch.ones(n, dtype=torch.bool)
        return Pairs.from_sequences(clean, corrupted, torch.full((n,), self.length), every)

    def check_pair(self, cause: str, clean: list[int], corrupted: list[int]) -> None:
        assert clean[-3] == 1 - corrupted[-3], "the last bit stays"
        assert clean[-1] == 1 - clean[-3]


def registered(**members: Any) -> Task:
    """The task with some members replaced, as a class of its own, which is registered until the test ends."""
    return TASKS.register("flips")(type("Flips", (Flips,), {"__doc__": Flips.__doc__, **members}))()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    if "flips" in TASKS:
        del TASKS._classes["flips"]


def changed(**make: Callable[[Batch], Tensor]) -> Callable:
    """Batches with some tensors replaced by what a function makes of the batch."""

    def batch(self: Flips, n: int, *, generator: Generator) -> Batch:
        found = Flips.batch(self, n, generator=generator)
        return dataclasses.replace(found, **{name: of(found) for name, of in make.items()})

    return batch


def changed_pairs(**make: Callable[[Pairs], Tensor]) -> Callable:
    """The same for pairs."""

    def draw_pairs(self: Flips, cause: str, n: int, *, generator: Generator) -> Pairs:
        found = Flips.draw_pairs(self, cause, n, generator=generator)
        return dataclasses.replace(found, **{name: of(found) for name, of in make.items()})

    return draw_pairs


def of_one_seed(self: Flips, n: int, *, generator: Generator) -> Batch:
    return Flips.batch(self, n, generator=torch.Generator().manual_seed(1))


def of_any_seed(self: Flips, n: int, *, generator: Generator) -> Batch:
    fresh = torch.Generator()
    fresh.seed()
    return Flips.batch(self, n, generator=fresh)


def of_the_global_generator(self: Flips, n: int, *, generator: Generator) -> Batch:
    torch.rand(1)
    return Flips.batch(self, n, generator=generator)


def first_bit(self: Flips, cause: str, n: int, *, generator: Generator) -> Pairs:
    found = Flips.draw_pairs(self, cause, n, generator=generator)
    corrupted = found.clean.clone()
    corrupted[:, 0] ^= 1
    corrupted[:, -1] = found.wrong
    return dataclasses.replace(found, corrupted=corrupted)


def first_scored(batch: Batch) -> Tensor:
    return torch.arange(18).expand(len(batch), -1) == 0


def without_difference(pairs: Pairs) -> Tensor:
    return torch.cat([pairs.clean[:, :-1], pairs.wrong[:, None]], 1)


def bits_beyond(batch: Batch) -> Tensor:
    return torch.where(batch.targets == 3, 4, batch.targets)


def constant(value: object) -> property:
    return property(lambda _: value)


BROKEN: dict[str, tuple[dict[str, object], str]] = {
    "name of no id": ({"named_tokens": constant({4: Token("x", "symbol")})}, r"id \[4\] has a name; d_vocab=4 allows"),
    "one name twice": ({"named_tokens": constant({2: Token("1", "symbol")})}, "two ids are called"),
    "name with a blank": ({"named_tokens": constant({2: Token("a b", "symbol")})}, "cannot be typed"),
    "no docstring": ({"__doc__": "Flips(*, length: int = 16)"}, "it has no docstring"),
    "short model": ({"model_n_ctx": constant(3)}, "model_n_ctx=3 is below n_ctx=18"),
    "width": (
        {
            "batch": changed(
                tokens=lambda batch: batch.tokens[:, 1:],
                targets=lambda batch: batch.targets[:, 1:],
                loss_mask=lambda batch: batch.loss_mask[:, 1:],
            )
        },
        r"tokens of shape \(300, 17\); a batch of 300 is \(300, 18\)",
    ),
    "type": ({"batch": changed(lengths=lambda batch: batch.lengths.int())}, "lengths of type torch.int32"),
    "layout": ({"batch": changed(tokens=lambda batch: batch.tokens.T.contiguous().T)}, "tokens are not contiguous"),
    "targets": ({"batch": changed(targets=lambda batch: batch.tokens)}, "targets are not the tokens one further on"),
    "id of a token": (
        {"batch": changed(tokens=lambda batch: batch.tokens + 2, targets=lambda batch: batch.targets + 2)},
        "among the tokens; d_vocab=4 allows 0 to 3",
    ),
    "id of a target": ({"batch": changed(targets=bits_beyond)}, "among the targets"),
    "lengths": ({"batch": changed(lengths=lambda batch: batch.lengths + 1)}, "lengths must lie between 1 and n_ctx=18"),
    "scored padding": ({"batch": changed(loss_mask=lambda batch: batch.targets >= 0)}, "padding is scored"),
    "nothing scored": ({"batch": changed(loss_mask=lambda batch: batch.targets < 0)}, "nothing that is scored"),
    "two paddings": (
        {"batch": changed(lengths=lambda batch: batch.lengths - 4, loss_mask=first_scored)},
        "more than one id pads",
    ),
    "one seed": ({"batch": of_one_seed}, "batches of different generators are equal"),
    "any seed": ({"batch": of_any_seed}, "batches of equal generators differ"),
    "global generator": ({"batch": of_the_global_generator}, "batches use torch's global generator"),
    "example": ({"example": lambda self, tokens: "a\nb"}, "it must be one line of text"),
    "no length": ({"at_length": lambda self, length: self}, "at_length gives a task, but valid_lengths is empty"),
    "other length": (
        {
            "valid_lengths": constant(range(2, 17)),
            "at_length": lambda self, length: TASKS.build("set", length=length),
        },
        r"at_length\(2\) changes d_vocab to 102",
    ),
    "one sequence": ({"draw_pairs": changed_pairs(corrupted=lambda pairs: pairs.clean)}, "wrong are not what follows"),
    "no difference": ({"draw_pairs": changed_pairs(corrupted=without_difference)}, "up to where it is read"),
    "answers": ({"draw_pairs": changed_pairs(answers=lambda pairs: pairs.wrong + 2)}, "answers are not what follows"),
    "position": ({"draw_pairs": changed_pairs(positions=lambda pairs: pairs.positions + 1)}, "at the last position"),
    "another cause": ({"draw_pairs": first_bit}, "the last bit stays"),
}


def test_a_task_that_is_right():
    task = registered()
    check_task(task)
    check_task(Mixture(tasks=(task, TASKS.build("set", length=4))))
    check_task(TASKS.build("shuffled", task=task))


@pytest.mark.parametrize(("members", "said"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_said(members, said):
    with pytest.raises(AssertionError, match=said):
        check_task(registered(**members))


def test_a_pair_of_another_cause_within_a_mixture():
    task = registered(draw_pairs=first_bit)
    with pytest.raises(AssertionError, match="the last bit stays") as caught:
        check_task(Mixture(tasks=(task,)))
    assert "mixture, pairs of cause 'flips.last'" in caught.value.__notes__[-1]


def test_a_task_that_can_be_no_config():
    with pytest.raises(AssertionError, match="Flips is not registered"):
        check_task(Flips())
    with pytest.raises(AssertionError, match="unhashable type: 'list'; fields are numbers"):
        check_task(registered(__hash__=lambda self: hash([])))


def test_splits_that_overlap(monkeypatch):
    everything = lambda batch, split: torch.ones(len(batch), dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr("procpre_interp.data.task.split_mask", everything)
    with pytest.raises(AssertionError, match="prompts of other splits among train"):
        check_task(registered())


def test_fields_that_make_a_cause_impossible_say_so():
    with pytest.raises(ValueError, match="k=1; cause 'type' of dyck needs a second type"):
        check_task(TASKS.build("dyck", k=1, length=64))
