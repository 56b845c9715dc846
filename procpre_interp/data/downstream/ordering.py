"""Sorting integers: `42 7 99 7 | 7 7 42 99`."""

from dataclasses import dataclass
from typing import ClassVar

from procpre_interp.data.procedural.sorting import Sort
from procpre_interp.data.task import TASKS


@TASKS.register("sorting")
@dataclass(frozen=True, kw_only=True, slots=True)
class Sorting(Sort):
    """Ten integers from 0 to 99, a separator, and the integers in ascending order, which are scored.

    Like the procedural `sort`, but 0 is a symbol here. Source: P1, table of downstream tasks; the ids of
    separator (100) and padding (101) are our choice.
    """

    in_words: ClassVar[str] = "Ten integers, and the same integers in ascending order."

    length: int = 10
    """Integers to sort, exactly; with `min_length`, at most."""

    first_symbol: ClassVar[int] = 0
