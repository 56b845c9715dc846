"""Arithmetic on two numbers, digit by digit: `12345+67890=80235.`"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Int, Int64
from torch import Generator, Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, other_than
from procpre_interp.data.ragged import Ragged, constant, join
from procpre_interp.data.task import TASKS, Batch, Task
from procpre_interp.data.vocab import PADDING, Token
from procpre_interp.data.vocab import ArithmeticVocab as Ids


def to_digits(numbers: Int64[Tensor, " batch"], width: int) -> Int[Tensor, "batch width"]:
    """Decimal digits, the last one first, filled up with zeros."""
    digits = torch.empty(len(numbers), width, dtype=torch.int16)
    for place in range(width):
        rest = numbers // 10
        digits[:, place] = numbers - 10 * rest
        numbers = rest
    return digits


@dataclass(frozen=True, kw_only=True, slots=True)
class ArithmeticTask(Task):
    """Two operands of exactly `digits` digits, none leading zero, and the result followed by a stop token.

    The result has no leading zeros either, so its length varies by one and the stop token carries
    information: it is trained and scored like a digit. Source: P1, table of downstream tasks and released
    code.
    """

    digits: int = 5
    """Digits of each operand."""
    mask: Literal["answer", "paper"] = "answer"
    """Which targets are scored: the whole answer, stop included, or, as in the paper, all of it but its first
    digit. (The released code also scores the padding that follows the stop of a shorter answer; we never
    score padding.)"""

    causes: ClassVar[Mapping[str, str]] = {
        "digit": "one operand digit; read where the answer's digit of its place follows",
        "carry": "one operand digit, and with it the carry into the answer's digit that is read, whose own operand "
        "digits stay",
    }
    backwards: ClassVar[bool] = False
    """Operands and answer are written with the last digit first."""
    operator_id: ClassVar[int] = Ids.PLUS
    operator_sign: ClassVar[str] = "+"
    most_digits: ClassVar[int] = 18
    """Beyond this the result does not fit into 64 bits."""

    def __post_init__(self) -> None:
        if not 1 <= self.digits <= self.most_digits:
            raise ValueError(f"digits={self.digits}; digits of {self.name} must lie between 1 and {self.most_digits}")

    @abc.abstractmethod
    def result(self, a: Int64[Tensor, " batch"], b: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        """What the operands give."""

    @property
    def longest_answer(self) -> int:
        """Digits of the greatest result."""
        return self.digits + 1

    @property
    def d_vocab(self) -> int:
        return Ids.SIZE

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        digits = {digit: Token(str(digit), "digit") for digit in range(10)}
        answers = {Ids.FIRST_ANSWER_DIGIT + digit: Token(f"{digit}'", "answer digit") for digit in range(10)}
        signs = {self.operator_id: Token(self.operator_sign, "sign"), Ids.EQUALS: Token("=", "sign")}
        return {**digits, **answers, **signs, Ids.STOP: Token(".", "stop"), Ids.PAD: PADDING}

    @property
    def n_ctx(self) -> int:
        return 2 * self.digits + 2 + self.longest_answer + 1

    @property
    def model_n_ctx(self) -> int:
        """Context of the paper's model, 40, or more where the numbers are longer."""
        return max(40, self.n_ctx)

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.lay_out(*self.operands(n, generator=generator))

    def operands(self, n: int, *, generator: Generator) -> Int64[Tensor, "2 batch"]:
        """Uniform numbers."""
        return torch.randint(10 ** (self.digits - 1), 10**self.digits, (2, n), generator=generator)

    def lay_out(self, a: Int64[Tensor, " batch"], b: Int64[Tensor, " batch"]) -> Batch:
        """The whole sequences."""
        n = len(a)
        answer = to_digits(self.result(a, b), self.longest_answer)
        # Both sums and products have the greatest number of digits or one less.
        n_digits = self.longest_answer - (answer[:, -1] == 0).long()
        exact = torch.full((n,), self.digits)
        numbers = [
            Ragged(to_digits(a, self.digits), exact),
            Ragged(to_digits(b, self.digits), exact),
            Ragged(answer + Ids.FIRST_ANSWER_DIGIT, n_digits),
        ]
        first, second, last = numbers if self.backwards else [number.reversed() for number in numbers]
        operator, equals, stop = (constant(i, n, torch.int16) for i in (self.operator_id, Ids.EQUALS, Ids.STOP))
        whole = join([first, operator, second, equals, last, stop], width=self.n_ctx, pad=Ids.PAD)
        first_scored = 2 * self.digits + 1 + (self.mask == "paper")
        return Batch.from_sequences(whole.tokens, whole.lengths, first_scored, Ids.PAD)

    @property
    def highest_partner(self) -> int:
        """The most places above its own to which a digit contributes directly, not by a carry."""
        return 0

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        """Pairs whose answers are equally long.

        Where the first digit comes first, the first digit that differs is read, so that up to there only the operand
        digit differs. Where the last comes first, the answer's digit of the changed place is written before a carry
        shows, and differs too.
        """
        if cause == "carry":
            self.check_cause(cause, "a digit that a carry reaches", digits=2)
        clean_operands = self.operands(n, generator=generator)
        which = below(torch.full((n,), 2), generator=generator)[None]
        place = below(torch.full((n,), self.digits), generator=generator)
        old, unit = clean_operands.gather(0, which)[0], torch.tensor(10) ** place
        old_digit = old // unit % 10
        digit = other_than(old_digit, 10, generator=generator)
        changed = clean_operands.scatter(0, which, (old + (digit - old_digit) * unit)[None])
        clean, corrupted = self.lay_out(*clean_operands), self.lay_out(*changed)
        equals = 2 * self.digits + 1
        first = (clean.targets != corrupted.targets)[:, equals:].int().argmax(1)
        n_digits = clean.lengths - equals - 2
        read = place + (cause == "carry") if self.backwards else first
        place_read = read if self.backwards else n_digits - 1 - read
        right = (place_read > place + self.highest_partner) == (cause == "carry")
        valid = (digit > 0) | (place < self.digits - 1)
        scored = clean.loss_mask.gather(1, (equals + read)[:, None])[:, 0]
        kept = right & valid & scored & (clean.lengths == corrupted.lengths)
        return Pairs.from_sequences(clean.tokens, corrupted.tokens, equals + read, kept)

    def example(self, tokens: list[int]) -> str:
        signs = {self.operator_id: self.operator_sign, Ids.EQUALS: "=", Ids.STOP: "."}
        return "".join(signs.get(token, str(token % Ids.FIRST_ANSWER_DIGIT)) for token in tokens)


@TASKS.register("addition")
@dataclass(frozen=True, kw_only=True, slots=True)
class Addition(ArithmeticTask):
    """The sum of two numbers of 5 digits, first digit first."""

    in_words: ClassVar[str] = "Sums of two numbers, first digit first."

    def result(self, a: Int64[Tensor, " batch"], b: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        return a + b


@TASKS.register("reversed_addition")
@dataclass(frozen=True, kw_only=True, slots=True)
class ReversedAddition(ArithmeticTask):
    """The sum of two numbers of 10 digits, operands and answer with the last digit first."""

    in_words: ClassVar[str] = "Sums of two numbers, last digit first."

    digits: int = 10
    """Digits of each operand."""

    backwards: ClassVar[bool] = True

    def result(self, a: Int64[Tensor, " batch"], b: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        return a + b


@TASKS.register("multiplication")
@dataclass(frozen=True, kw_only=True, slots=True)
class Multiplication(ArithmeticTask):
    """The product of two numbers of 5 digits, first digit first."""

    in_words: ClassVar[str] = "Products of two numbers, first digit first."

    causes: ClassVar[Mapping[str, str]] = {
        "digit": "one operand digit; read at the first digit of the answer that differs, to which it contributes "
        "directly",
        "carry": "one operand digit; read at the first digit of the answer that differs, to which it contributes by "
        "carries alone",
    }
    operator_id: ClassVar[int] = Ids.TIMES
    operator_sign: ClassVar[str] = "*"
    most_digits: ClassVar[int] = 9

    @property
    def longest_answer(self) -> int:
        return 2 * self.digits

    @property
    def highest_partner(self) -> int:
        return self.digits - 1

    def result(self, a: Int64[Tensor, " batch"], b: Int64[Tensor, " batch"]) -> Int64[Tensor, " batch"]:
        return a * b
