"""Recall from context: `k7=12 k3=90 k7? 12`, needle in a haystack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, other_than, random_orders
from procpre_interp.data.task import TASKS, Batch, Task
from procpre_interp.data.vocab import PADDING, Token
from procpre_interp.data.vocab import HaystackVocab as Ids


@TASKS.register("haystack")
@dataclass(frozen=True, kw_only=True, slots=True)
class Haystack(Task):
    """Pairs of key and value, then a query for one of the keys; its value is scored.

    The number of pairs is uniform in min_pairs .. max_pairs, the keys are distinct, values are uniform and
    may repeat. The query is the *twin* of a uniformly chosen key, another symbol, so that it cannot be found
    by its own embedding. Source: P1, table of downstream tasks and released code. There, fewer pairs also
    mean fewer keys and other twins; here the symbols are always the same, those of 30 keys.
    """

    in_words: ClassVar[str] = (
        "Needle in a haystack: pairs of key and value, then one of the keys again. The model must give its "
        "value, which takes a look-up in the context. A model that copies some value of the context gets "
        "about 13 %."
    )

    max_pairs: int = Ids.N_KEYS
    """Most pairs in a sequence, which is padded to 2 max_pairs + 3 tokens, one more than the longest has."""
    min_pairs: int = 1
    """Fewest pairs in a sequence."""

    causes: ClassVar[Mapping[str, str]] = {
        "query": "another key of the same pairs is queried; read at the query",
        "value": "the queried key has another value; read at the query",
        "key": "the queried key and another change places, the values staying; read at the query",
    }

    def __post_init__(self) -> None:
        if not 1 <= self.max_pairs <= Ids.N_KEYS:
            raise ValueError(f"max_pairs={self.max_pairs}; max_pairs must lie between 1 and {Ids.N_KEYS}, all keys")
        if not 1 <= self.min_pairs <= self.max_pairs:
            raise ValueError(f"min_pairs={self.min_pairs}; min_pairs must lie between 1 and max_pairs={self.max_pairs}")

    @property
    def d_vocab(self) -> int:
        return Ids.SIZE

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        named = {value: Token(str(value), "value") for value in range(Ids.FIRST_VALUE, Ids.LAST_VALUE + 1)}
        for key in range(Ids.N_KEYS):
            named[Ids.FIRST_KEY + key] = Token(f"k{key}", "key")
            named[Ids.FIRST_KEY + key + Ids.TWIN_OFFSET] = Token(f"k{key}?", "query")
        return {**named, Ids.PAD: PADDING}

    @property
    def n_ctx(self) -> int:
        return 2 * self.max_pairs + 3

    @property
    def model_n_ctx(self) -> int:
        """Context of the paper's model, 100."""
        return 100

    def batch(self, n: int, *, generator: Generator) -> Batch:
        n_pairs = torch.randint(self.min_pairs, self.max_pairs + 1, (n,), generator=generator)
        order = random_orders(torch.full((n,), Ids.N_KEYS), Ids.N_KEYS, generator=generator)
        tokens = torch.full((n, self.n_ctx), Ids.PAD, dtype=torch.int16)
        keys, values = tokens[:, 0:-3:2], tokens[:, 1:-3:2]
        keys[:] = order[:, : self.max_pairs] + Ids.FIRST_KEY
        values[:] = torch.randint(
            Ids.FIRST_VALUE, Ids.LAST_VALUE + 1, values.shape, generator=generator, dtype=torch.int16
        )
        end = 2 * n_pairs
        # Padding is 0, so pairs beyond the last are multiplied away: twice as fast as to fill under a mask.
        kept = torch.arange(self.n_ctx) < 2 * torch.arange(self.max_pairs + 1)[:, None]
        tokens *= kept.to(tokens.dtype)[n_pairs]
        position = 2 * below(n_pairs, generator=generator)[:, None] + torch.arange(2)
        needle = tokens.gather(1, position) + torch.tensor([Ids.TWIN_OFFSET, 0], dtype=torch.int16)
        tokens.scatter_(1, end[:, None] + torch.arange(2), needle)
        return Batch.from_sequences(tokens, end + 2, end, Ids.PAD)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        if cause != "value":
            self.check_cause(cause, "a second pair", max_pairs=2)
        batch = self.batch(n, generator=generator)
        clean, end = batch.tokens, batch.lengths[:, None] - 2
        query = clean.gather(1, end)
        here = (clean == query - Ids.TWIN_OFFSET).int().argmax(1, keepdim=True)
        n_pairs = end[:, 0] // 2
        # A number among the other pairs, then its place: those from the queried pair on are one further.
        there = below(n_pairs - 1, generator=generator)[:, None]
        there = 2 * (there + (2 * there >= here))
        if cause == "value":
            n_values = Ids.LAST_VALUE + 1 - Ids.FIRST_VALUE
            old = clean.gather(1, here + 1)[:, 0] - Ids.FIRST_VALUE
            answer = other_than(old, n_values, generator=generator)[:, None] + Ids.FIRST_VALUE
            corrupted = clean.scatter(1, here + 1, answer)
        else:
            answer = clean.gather(1, there + 1)
            key, other = clean.gather(1, here), clean.gather(1, there)
            if cause == "query":
                corrupted = clean.scatter(1, end, other + Ids.TWIN_OFFSET)
            else:
                corrupted = clean.scatter(1, here, other).scatter_(1, there, key)
        corrupted.scatter_(1, end + 1, answer)
        return Pairs.from_sequences(clean, corrupted, end[:, 0], (n_pairs > 1) | (cause == "value"))

    def example(self, tokens: list[int]) -> str:
        *pairs, query, value = tokens
        shown = [f"k{key - Ids.FIRST_KEY}={found}" for key, found in zip(pairs[::2], pairs[1::2])]
        return " ".join([*shown, f"k{query - Ids.FIRST_KEY - Ids.TWIN_OFFSET}?", str(value)])
