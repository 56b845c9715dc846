"""Probes by name: one declaration gives `procpre-interp probe` its measurement, help, columns and figure."""

import abc
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import pandas as pd
from pandas.api.types import is_numeric_dtype

from procpre_interp.core.registry import Registry
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.samples import SEQUENCES, pairs_of, sample
from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer

Reference = Literal["untrained", "start"]
"""An earlier model: the same one before any training or transfer, or what its training began with."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """A model that is probed, and what it is measured on."""

    model: HookedTransformer
    task: Task
    reference: HookedTransformer | None = None
    """The earlier model that the probe asks for, if it does and there is one."""
    sequences: int = SEQUENCES
    """Sequences, or pairs, to measure on."""
    seed: int = 0
    """Seed of these, and of everything else that is drawn."""

    @property
    def start(self) -> HookedTransformer:
        """The earlier model, for a probe that compares with it. Raises `ValueError` where there is none."""
        if self.reference is None:
            raise ValueError("there is nothing to compare with; give `reference`, the model that training began with")
        return self.reference

    @cached_property
    def batch(self) -> Batch:
        """Generated sequences of the task."""
        return sample(self.task, self.seed, self.sequences)

    @cached_property
    def pairs(self) -> Pairs:
        """Counterfactual pairs of every cause of the task. Raises `ValueError` for a task without any."""
        return pairs_of(self.task, None, self.seed, self.sequences)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What every probe declares. The first line of its docstring is its help.

    A field is an option of the command line, where that has one of the same name and type, such as `score`.
    """

    name: ClassVar[str]
    plugin: ClassVar[str | None]

    keys: ClassVar[tuple[str, ...]]
    """Columns of its table that name a row, such as a layer and a head."""
    values: ClassVar[tuple[str, ...]]
    """Columns with the numbers that people are shown; the table may have more."""
    spread: ClassVar[str | None] = None
    """Key whose values become columns, each with the first of `values`; a last row has the second. Default: none."""
    figure: ClassVar[str | Callable[[pd.DataFrame], Any]] = "measure_dots"
    """What draws its table: the name of a function of `views.probe_figures`, or a function of one's own from the table
    of all runs to a figure. Default: one marker per value and row, means over runs."""
    dots: ClassVar[tuple[str, ...]] = ()
    """Values that have markers in the default figure. Default: the first five."""

    @classmethod
    def summary(cls) -> str:
        """The first line of its docstring, as the end of a sentence; empty without one."""
        line = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0].rstrip(".")
        return line if line[:2].isupper() else line[:1].lower() + line[1:]

    def check(self, table: pd.DataFrame) -> None:
        """Raise `ValueError` where the table is not what is declared."""
        keys, values = (getattr(self, part, ()) for part in ("keys", "values"))
        if not keys or not values or isinstance(keys, str) or isinstance(values, str):
            raise ValueError(f'probe {self.name}: give keys and values, columns of its table: keys = ("layer", "head")')
        if missing := [column for column in (*keys, *values) if column not in table]:
            raise ValueError(f"probe {self.name}: its table has no column {missing[0]!r}; it has {', '.join(table)}")
        if words := [column for column in values if not is_numeric_dtype(table[column])]:
            raise ValueError(f"probe {self.name}: {words[0]} is one of its values, and the column holds no numbers")


class Probe(Declared, abc.ABC):
    """A measurement of one model. `PROBES.register(NAME)` enters it as `procpre-interp probe --what NAME`."""

    reference: ClassVar[Reference | None] = None
    """An earlier model that it needs. Models from elsewhere have no "untrained" one, and cannot be compared with their
    "start". Default: none."""
    reads_data: ClassVar[bool] = True
    """Whether it runs the model on sequences. One that reads weights alone needs no task."""

    @abc.abstractmethod
    def measure(self, probed: Probed) -> pd.DataFrame:
        """The table: one row per place, such as a head, with the columns `keys` and `values`."""


PROBES: Registry[Declared] = Registry("probe", base=Declared)
"""Everything registered: of one model here and in `analysis.inherited_directions`, of whole runs in
`analysis.run_probe`."""
