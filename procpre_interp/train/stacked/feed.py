"""The batches of R runs, cut for all of them together, and for a GPU made ahead of the step in threads."""

import copy
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.stream import TaskStream
from procpre_interp.data.task import Batch
from procpre_interp.model import ModelConfig
from procpre_interp.train.native.step import check_ids
from procpre_interp.train.settings import cached_tokens
from procpre_interp.train.stacked.loss import StackedMicroBatch, stacked_micro_batches

STEPS_AHEAD = 16
"""Steps whose batches are ready, or being made, before a GPU needs them."""
MOST_THREADS = 12
"""Threads that make them; each has a whole step to itself."""
MOST_ROWS = 65_535
"""Sequences of a micro-batch on a GPU, whose attention kernels take no more."""


class BadBatch(Exception):
    """A run's batch could not be made, or holds what is no token: `member` is its place in the stack."""

    def __init__(self, member: int, error: Exception) -> None:
        super().__init__(member, error)
        self.member, self.error = member, error


@dataclass(frozen=True, slots=True)
class StackedBatch:
    """The batches of one step."""

    micros: list[StackedMicroBatch]
    n_scored: Float[Tensor, " model"]
    """Scored tokens of each model's batch, at least 1."""
    n_tokens: list[int]
    """Real tokens of each model's batch."""


def largest_micro_batch(config: ModelConfig, device: torch.device) -> tuple[int, int]:
    """Tokens and rows of a micro-batch, all models together: what stays in the CPU's cache, or fits the device."""
    if device.type == "cpu":
        return cached_tokens(config.d_model), 2**31
    # What autograd keeps of a token, about: a dozen vectors of the residual stream's width and three of the MLP's.
    token_bytes = 4 * config.n_layers * (14 * config.d_model + 3 * config.d_hidden)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 2**33
    return max(1, memory // 4 // token_bytes), MOST_ROWS


class _AheadStream:
    """A stream for several threads, the block after the one that is read drawn in advance by `pool`."""

    def __init__(self, stream: TaskStream, pool: ThreadPoolExecutor, ahead: int) -> None:
        self.stream, self.pool = stream, pool
        self.kept_blocks = ahead // stream.batches_per_block + 1
        self.drawn: dict[int, Future[TaskStream]] = {}
        self.lock = threading.Lock()

    def batch(self, index: int) -> Batch:
        block = index // self.stream.batches_per_block
        with self.lock:
            for wanted in (block, block + 1):
                if wanted not in self.drawn:
                    self.drawn[wanted] = self.pool.submit(self._draw, wanted)
            for old in [number for number in self.drawn if number < block - self.kept_blocks]:
                del self.drawn[old]
            drawn = self.drawn[block]
        return drawn.result().batch(index)

    def _draw(self, block: int) -> TaskStream:
        """A copy of the stream that holds this block."""
        copied = copy.copy(self.stream)
        copied.batch(block * copied.batches_per_block)
        return copied


class Feed:
    """The batches of runs, step after step.

    `ahead` steps are made in advance in threads, for which the CPU's memory then holds up to three blocks of each
    stream; with 0 each is made when it is asked for. Close it after use.
    """

    def __init__(self, config: ModelConfig, device: torch.device, *, ahead: int) -> None:
        self.config, self.device, self.ahead = config, device, ahead
        self.limits = largest_micro_batch(config, device)
        self.followed: tuple[TaskStream, ...] = ()
        self.sources: Sequence[TaskStream | _AheadStream] = ()
        self.starts: Sequence[int] = ()
        self.asked = 0
        self.pools: tuple[ThreadPoolExecutor, ...] = ()
        self.ready: deque[Future[StackedBatch]] = deque()
        self._ahead_streams: dict[TaskStream, _AheadStream] = {}
        if ahead:
            threads = min(MOST_THREADS, os.cpu_count() or 1)
            # Two pools: a step waits for blocks, and must not keep a thread from those that draw them.
            self.pools = ThreadPoolExecutor(threads), ThreadPoolExecutor(threads)

    def follow(self, streams: Sequence[TaskStream], starts: Sequence[int]) -> None:
        """Go on with these runs: the next batch is number `starts[r]` of `streams[r]`."""
        self.followed, self.starts, self.asked = tuple(streams), tuple(starts), 0
        while self.ready:
            self.ready.pop().cancel()
        self.sources = self.followed
        if self.ahead:
            # What was drawn ahead for those that stay is not lost.
            known = self._ahead_streams
            fresh = (stream for stream in self.followed if stream not in known)
            known |= {stream: _AheadStream(stream, self.pools[1], self.ahead) for stream in fresh}
            self._ahead_streams = {stream: known[stream] for stream in self.followed}
            self.sources = [self._ahead_streams[stream] for stream in self.followed]

    def next(self) -> StackedBatch:
        """The batches of the next step, on the device. Raises `BadBatch`."""
        if not self.ahead:
            made = self._make(self.sources, self.starts, self.asked)
            self.asked += 1
        else:
            while len(self.ready) < self.ahead:
                self.ready.append(self.pools[0].submit(self._make, self.sources, self.starts, self.asked))
                self.asked += 1
            made = self.ready.popleft().result()
        micros = [micro.to(self.device) for micro in made.micros]
        return StackedBatch(micros, made.n_scored.to(self.device, non_blocking=True), made.n_tokens)

    def close(self) -> None:
        """End the threads, once what they are at is done."""
        for pool in self.pools:
            pool.shutdown(cancel_futures=True)

    def _make(self, sources: Sequence[TaskStream | _AheadStream], starts: Sequence[int], number: int) -> StackedBatch:
        batches = []
        for member, (source, start) in enumerate(zip(sources, starts)):
            try:
                batch = source.batch(start + number)
                # An id beyond its own table would be looked up in that of the next model.
                check_ids(batch.tokens, None, self.config.d_vocab)
                check_ids(batch.targets, batch.loss_mask, self.config.d_vocab)
            except Exception as error:
                raise BadBatch(member, error) from error
            batches.append(batch)
        micros = stacked_micro_batches(batches, *self.limits)
        n_scored = torch.stack([batch.loss_mask.sum() for batch in batches]).clamp_min(1).float()
        if self.device.type == "cuda":
            micros, n_scored = [micro.pin() for micro in micros], n_scored.pin_memory()
        return StackedBatch(micros, n_scored, [int(batch.lengths.sum()) for batch in batches])
