"""The place of a task in the run of an imported model whose text is not known here."""

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from torch import Generator

from procpre_interp.data.task import TASKS, Batch, Task


@TASKS.register("imported", listed=False)
@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedTask(Task):
    """The token ids of an imported model, without anything to say in them: whatever needs data is refused."""

    in_words: ClassVar[str] = "A model that was imported, with a tokenizer of its own."
    why_no_causes: ClassVar[str] = "there is no text of its tokenizer"

    vocab: int
    """Token ids of the model."""
    length: int
    """Its positions."""

    def __post_init__(self) -> None:
        for name in ("vocab", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be at least 1")

    @property
    def d_vocab(self) -> int:
        return self.vocab

    @property
    def n_ctx(self) -> int:
        return self.length

    def batch(self, n: int, *, generator: Generator) -> Batch:
        self._refuse()

    def prepare(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ValueError(
            f"this model was imported and has {self.vocab} token ids, of which no text is known here; give it with "
            "--task, as a task in the model's own token ids, to this command or when the model is imported"
        )
