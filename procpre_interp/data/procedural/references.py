"""Chains of references: `7>3 9>7 3>9 | 9 +2 3`, multi-hop lookup."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.draws import below, random_orders
from procpre_interp.data.procedural.sequence import narrowest
from procpre_interp.data.ragged import Ragged, join
from procpre_interp.data.task import TASKS, Batch, Task
from procpre_interp.data.vocab import PADDING, Token


@TASKS.register("multi_hop")
@dataclass(frozen=True, kw_only=True, slots=True)
class MultiHop(Task):
    """References between names, then a name and a number of hops to follow from it; the name at their end is scored.

    The references form one ring through all names that occur, and stand in random order. So each name stands once at
    the head of a reference and once at its end, and nothing but the chain tells the answer: a model that copies a name
    at random gets 1 / pairs, 1 / (pairs - 1) if never the one that is asked about, and one that follows fewer hops than
    it should never gets it right. Going around the ring the other way takes at least as many hops, as there are at
    least twice as many names as hops. Our own.
    """

    in_words: ClassVar[str] = (
        "References from name to name in random order, then a name and a number of hops: the model must say where the "
        "references lead. A model that copies some name of the context gets about 6 % (1 of 16 names)."
    )

    vocab: int = 64
    """Names, 0 .. vocab - 1; a sequence has as many of them as references."""
    pairs: int = 16
    """References in a sequence; with `min_pairs`, at most."""
    min_pairs: int | None = None
    """Fewest references: their number is then uniform in min_pairs .. pairs. Default: always `pairs`."""
    hops: int = 2
    """References to follow; with `min_hops`, at most."""
    min_hops: int | None = None
    """Fewest references to follow: their number is then uniform in min_hops .. hops. Default: always `hops`."""

    causes: ClassVar[Mapping[str, str]] = {
        "query": "another name of the same references is asked about; read at the number of hops",
        "link": "one reference of the chain that is followed leads elsewhere, and two others change with it, so that "
        "the references remain one ring; read at the number of hops",
    }

    def __post_init__(self) -> None:
        fewest = self.pairs if self.min_pairs is None else self.min_pairs
        if self.hops < 1:
            raise ValueError(f"hops={self.hops}; hops must be at least 1")
        if self.min_hops is not None and not 1 <= self.min_hops <= self.hops:
            raise ValueError(f"min_hops={self.min_hops}; min_hops must lie between 1 and hops={self.hops}")
        if fewest > self.pairs:
            raise ValueError(f"min_pairs={self.min_pairs} exceeds pairs={self.pairs}")
        if fewest < max(2, 2 * self.hops):
            field = "pairs" if self.min_pairs is None else "min_pairs"
            raise ValueError(
                f"{field}={fewest} references for hops={self.hops}; {field} must be at least {2 * self.hops}, or the "
                "way back around the ring would be shorter"
            )
        if self.vocab < self.pairs:
            raise ValueError(f"vocab={self.vocab} names for pairs={self.pairs} references; vocab must be at least that")

    @property
    def first_hops(self) -> int:
        """Id of one hop; the ids of more follow."""
        return self.vocab

    @property
    def pad(self) -> int:
        return self.vocab + self.hops

    @property
    def d_vocab(self) -> int:
        return self.pad + 1

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        named = {name: Token(str(name), "symbol") for name in range(self.vocab)}
        named |= {self.first_hops + hops - 1: Token(f"+{hops}", "hops") for hops in range(1, self.hops + 1)}
        return {**named, self.pad: PADDING}

    @property
    def n_ctx(self) -> int:
        return 2 * self.pairs + 3

    def batch(self, n: int, *, generator: Generator) -> Batch:
        ring, order, hops = self.draw_rings(n, generator=generator)
        return self.lay_out(ring, order, torch.zeros_like(hops), hops)

    def draw_rings(self, n: int, *, generator: Generator) -> tuple[Ragged, Int[Tensor, "batch pair"], Tensor]:
        """Names in the order of the ring, in which order their references are told, and how many hops are asked for."""
        lengths = torch.full((n,), self.pairs)
        if self.min_pairs is not None:
            lengths -= torch.randint(self.pairs - self.min_pairs + 1, (n,), generator=generator)
        names = random_orders(torch.full((n,), self.vocab), self.vocab, generator=generator)[:, : self.pairs]
        order = random_orders(lengths, self.pairs, generator=generator)
        hops = torch.full((n,), self.hops)
        if self.min_hops is not None:
            hops -= torch.randint(self.hops - self.min_hops + 1, (n,), generator=generator)
        return Ragged(names.to(narrowest(self.d_vocab)), lengths), order, hops

    def lay_out(
        self, ring: Ragged, order: Int[Tensor, "batch pair"], start: Int[Tensor, " batch"], hops: Int[Tensor, " batch"]
    ) -> Batch:
        """The sequences that tell the references of each ring in this order, and ask from the name at `start` on."""
        told = torch.stack([ring.tokens, self.referred(ring)], 2)
        told = told.gather(1, order[:, :, None].expand(-1, -1, 2)).flatten(1)
        ends = torch.stack([start, (start + hops) % ring.lengths], 1)
        asked, answer = ring.tokens.gather(1, ends).unbind(1)
        query = torch.stack([asked, (self.first_hops + hops - 1).to(asked.dtype), answer], 1)
        parts = [Ragged(told, 2 * ring.lengths), Ragged(query, torch.full_like(hops, 3))]
        whole = join(parts, width=self.n_ctx, pad=self.pad)
        return Batch.from_sequences(whole.tokens, whole.lengths, whole.lengths - 2, self.pad)

    def referred(self, ring: Ragged) -> Int[Tensor, "batch pair"]:
        """The name that each name of the ring refers to: the next, and the first for the last."""
        following = (torch.arange(self.pairs) + 1) % ring.lengths[:, None]
        return ring.tokens.gather(1, following)

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        ring, order, hops = self.draw_rings(n, generator=generator)
        start = torch.zeros_like(hops)
        clean = self.lay_out(ring, order, start, hops)
        if cause == "query":
            other = 1 + below(ring.lengths - 1, generator=generator)
            corrupted, kept = self.lay_out(ring, order, other, hops), torch.ones_like(hops, dtype=torch.bool)
        else:
            self.check_cause(cause, "three references", pairs=3)
            corrupted, kept = self.with_another_link(ring, order, hops, generator=generator)
        return Pairs.from_sequences(clean.tokens, corrupted.tokens, clean.lengths - 2, kept)

    def with_another_link(
        self, ring: Ragged, order: Int[Tensor, "batch pair"], hops: Int[Tensor, " batch"], *, generator: Generator
    ) -> tuple[Batch, Tensor]:
        """The sequences in which a stretch of the ring behind the chosen link has moved, and where there is one.

        The ring 0 .. a | a+1 .. b | b+1 .. c | c+1 .. becomes 0 .. a | b+1 .. c | a+1 .. b | c+1 ..: only the
        references of a, b and c change. What is asked stays, as it is the name at 0.
        """
        a = below(hops, generator=generator)
        b = a + 1 + below((ring.lengths - 2 - a).clamp(min=0), generator=generator)
        c = b + 1 + below((ring.lengths - 1 - b).clamp(min=0), generator=generator)
        place = torch.arange(self.pairs)
        a, b, c = (each[:, None] for each in (a, b, c))
        moved = torch.where(place <= a + c - b, place + b - a, place - (c - b))
        old = torch.where((place > a) & (place <= c), moved, place).clamp(max=self.pairs - 1)
        changed = Ragged(ring.tokens.gather(1, old), ring.lengths)
        # Each reference stands where that of the same name stood.
        new_place = torch.zeros_like(old).scatter_(1, old, place.expand_as(old))
        batch = self.lay_out(changed, new_place.gather(1, order), torch.zeros_like(hops), hops)
        return batch, (c < ring.lengths[:, None])[:, 0]

    def example(self, tokens: list[int]) -> str:
        *told, asked, hops, answer = tokens
        references = [f"{head}>{end}" for head, end in zip(told[::2], told[1::2])]
        return " ".join([*references, "|", str(asked), f"+{hops - self.first_hops + 1}", str(answer)])
