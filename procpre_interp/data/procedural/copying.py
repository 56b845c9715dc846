"""Copying: identity `7 3 3 | 7 3 3`, reverse `7 3 3 | 3 3 7`, and ww `7 3 3 7 3 3`."""

from dataclasses import dataclass
from typing import ClassVar

from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.ragged import Ragged
from procpre_interp.data.task import TASKS


@TASKS.register("identity")
@dataclass(frozen=True, kw_only=True, slots=True)
class Identity(SequenceTask):
    """The input again: x | x.

    Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = "A sequence, and the same sequence again."

    def answer(self, *inputs: Ragged) -> Ragged:
        return inputs[0]


@TASKS.register("reverse")
@dataclass(frozen=True, kw_only=True, slots=True)
class Reverse(SequenceTask):
    """The input backwards: x | reversed x.

    Source: P1, table of tasks and released code.
    """

    in_words: ClassVar[str] = "A sequence, and the same sequence backwards."

    def answer(self, *inputs: Ragged) -> Ragged:
        return inputs[0].reversed()


@TASKS.register("ww")
@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatedString(SequenceTask):
    """A string and its copy, with nothing between them: x x, the copy scored.

    Source: the ViT sequel, which gives no more than that. The copy's first token is predicted at the last
    token of the string, as there is no separator; its id stays reserved, so that identity and ww differ in
    the separator alone.
    """

    in_words: ClassVar[str] = "A string, and the same string again with nothing between."

    n_separators: ClassVar[int] = 0

    def answer(self, *inputs: Ragged) -> Ragged:
        return inputs[0]
