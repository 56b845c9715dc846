"""Checks that several test files make of a batch."""

import torch

from procpre_interp.data.task import Batch, Task
from tests.oracles import ORACLES


def rows_of(batch: Batch) -> list[list[int]]:
    """The sequences without their padding."""
    return [row[:length] for row, length in zip(batch.tokens.tolist(), batch.lengths.tolist())]


def check_layout(batch: Batch, task: Task, n: int) -> None:
    """What every batch of every task keeps to."""
    shape = (n, task.n_ctx)
    assert batch.tokens.shape == batch.targets.shape == batch.loss_mask.shape == shape
    assert batch.tokens.dtype == batch.targets.dtype == batch.lengths.dtype == torch.int64
    assert batch.tokens.device.type == "cpu"
    assert batch.tokens.is_contiguous()
    assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:])
    assert batch.tokens.min() >= 0
    assert batch.tokens.max() < task.d_vocab
    assert (batch.targets < task.d_vocab).all()
    assert (batch.lengths >= 1).all()
    assert (batch.lengths <= task.n_ctx).all()
    t = torch.arange(task.n_ctx)
    assert not (batch.loss_mask & (t >= batch.lengths[:, None] - 1)).any(), "padding is scored"
    assert batch.loss_mask.any(1).all(), "a sequence has nothing to score"
    padding = batch.tokens[t >= batch.lengths[:, None]]
    assert len(padding.unique()) <= 1, "more than one padding id"


def check_against_oracle(batch: Batch, task: Task, **config: object) -> None:
    """Tokens and scored positions are those that the task's oracle works out."""
    scored = batch.loss_mask.tolist()
    for i, tokens in enumerate(rows_of(batch)):
        expected, first_scored = ORACLES[task.name](tokens, **config)
        assert tokens == expected
        assert scored[i] == [first_scored <= t < len(tokens) - 1 for t in range(task.n_ctx)]
