"""Checks that several test files make of a batch."""

from procpre_interp.data import Batch, Task
from tests.oracles import ORACLES


def rows_of(batch: Batch) -> list[list[int]]:
    """The sequences without their padding."""
    return [row[:length] for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist())]


def check_against_oracle(batch: Batch, task: Task, **config: object) -> None:
    """Tokens and scored positions are those that the task's oracle works out."""
    scored = batch.loss_mask.tolist()
    for i, tokens in enumerate(rows_of(batch)):
        expected, first_scored = ORACLES[task.name](tokens, **config)
        assert tokens == expected
        assert scored[i] == [first_scored <= t < len(tokens) - 1 for t in range(task.n_ctx)]
