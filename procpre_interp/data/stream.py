"""Endless batches of one split of a task, each a function of the seed and its number alone."""

from procpre_interp.core.seeding import stream
from procpre_interp.data.task import Batch, Split, Task, is_separable

BLOCK_TOKENS = 2**20
"""Tokens drawn at once: large enough that the vectorised generators run at full speed. Changing it changes the data."""


class TaskStream:
    """Batch `index` of `size` sequences, drawn in blocks of many batches.

    A block has a generator of its own, so a resumed run finds its place without any generator state, and batch i is the
    same whichever batches were read before it.
    """

    def __init__(self, task: Task, *, seed: int, split: Split, size: int) -> None:
        self.task, self.seed, self.size = task, seed, size
        self.split: Split = split
        self.separable = is_separable(task)
        self.batches_per_block = max(1, BLOCK_TOKENS // (task.n_ctx * size))
        self._block: tuple[int, Batch] | None = None

    def batch(self, index: int) -> Batch:
        block, place = divmod(index, self.batches_per_block)
        if self._block is None or self._block[0] != block:
            self.hold(block, self.draw(block))
        assert self._block is not None
        return self._block[1][place * self.size : (place + 1) * self.size]

    def draw(self, block: int) -> Batch:
        """All batches of a block, one after the other; the stream stays as it is."""
        generator = stream(self.seed, self.task.stream_label, self.split, block)
        rows = self.size * self.batches_per_block
        if self.split == "train" and self.task.walks:
            return self.task.walk(block * rows, rows, seed=self.seed, generator=generator)
        return self.task.split_batch(rows, self.split, generator=generator, separable=self.separable)

    def hold(self, block: int, drawn: Batch) -> None:
        """Read the batches of a block from what `draw` gave for it."""
        self._block = block, drawn
