"""Sorting symbols: `7 3 9 3 | 3 3 7 9`."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from procpre_interp.data.draws import sort_rows
from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.ragged import Ragged
from procpre_interp.data.task import TASKS


def ascending(x: Ragged) -> Ragged:
    """Each row in ascending order."""
    # What has no meaning sorts to the end, where it still has none.
    last = torch.iinfo(x.tokens.dtype).max
    return Ragged(sort_rows(x.tokens.masked_fill(~x.real, last)), x.lengths)


@TASKS.register("sort")
@dataclass(frozen=True, kw_only=True, slots=True)
class Sort(SequenceTask):
    """The input in ascending order, duplicates kept: x | sorted x.

    Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = "A sequence, and its symbols in ascending order."

    def answer(self, *inputs: Ragged) -> Ragged:
        return ascending(*inputs)
