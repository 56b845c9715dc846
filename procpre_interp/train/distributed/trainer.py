"""The training loop in one of several processes, each of which has the whole model: torch's DDP."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from procpre_interp.data.prefetch import Prefetch
from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train.distributed.group import Group
from procpre_interp.train.distributed.scored import Scored, backward_of_share
from procpre_interp.train.evaluate import evaluate, summarise
from procpre_interp.train.loop import Trainer
from procpre_interp.train.settings import TrainConfig
from procpre_interp.train.shards import need_shards
from procpre_interp.train.state import TrainState


class DistributedTrainer(Trainer):
    """A `Trainer` that shares each batch, and the evaluation, with the other processes of its group.

    Every process draws the same batches, computes every `size`-th row of them, and takes the same steps, so that all
    have the same weights and the same history. The first one alone is given a state to go on from, and something to
    write to; the states are those of a run in one process, which may go on with them, and so may any number.
    """

    def __init__(self, model: HookedTransformer, task: Task, config: TrainConfig, *, group: Group, **rest: Any) -> None:
        self.group = group
        self.module = self.wrapped(Scored(model, autocast=config.precision == "bfloat16"))
        super().__init__(model, task, config, **rest)
        self.prefetch = Prefetch(threads=config.threads * group.launch.local_size, end=config.last_step)

    def wrapped(self, scored: Scored) -> nn.Module:
        return DistributedDataParallel(scored)

    def backward(self, batch: Batch) -> float:
        """Compute this process's share of the gradient, and join the shares."""
        assert self.config.micro_batch_tokens is not None
        batch = batch.to(self.config.device)
        return backward_of_share(self.module, batch, self.group, max_tokens=self.config.micro_batch_tokens)

    def evaluate(self) -> None:
        """Score this process's share of the validation set, and join the shares."""
        autocast = self.config.precision == "bfloat16"
        own = evaluate(self.model, self.validation, autocast=autocast, share=self.group.share, forward=self.module)
        self.enter_scores(summarise(self.gathered(own)))

    def gathered(self, own: pd.DataFrame) -> pd.DataFrame:
        """The table of all examples, from those of each process."""
        rows = np.zeros((len(self.validation), own.shape[1]))
        rows[own.example] = own.to_numpy(dtype="float64")
        table = pd.DataFrame(self.group.add(torch.from_numpy(rows)).numpy(), columns=own.columns)
        return table.loc[table.n_scored > 0].astype(own.dtypes).reset_index(drop=True)

    def agree(self, stops: bool, is_due: bool) -> tuple[bool, bool]:
        """The run stops everywhere, and its state is saved, where one process says so."""
        stops, is_due = self.group.any(stops, is_due and self.group.is_first)
        return stops, is_due

    def save(self) -> None:
        """The first process keeps the state."""
        self.group.first(super().save)

    def keep_weights(self) -> None:
        """The first process keeps the weights."""
        self.group.first(super().keep_weights)

    def load(self) -> None:
        """The first process reads the state, and tells it to the others."""
        self.group.first(super().load)
        self.state = TrainState(**self.group.first(lambda: dataclasses.asdict(self.state)))
        self.group.spread(self.model.flat)
        moments = self.optimiser.state()
        shapes = self.group.first(lambda: {name: tuple(tensor.shape) for name, tensor in moments.items()})
        for name, shape in shapes.items():
            if not self.group.is_first:
                moments[name] = self.model.flat.new_empty(shape)
            self.group.spread(moments[name])
        self.optimiser.load_state(moments)


def refuse_distributed(config: TrainConfig, model: ModelConfig, size: int) -> None:
    """Raise `ValueError` for a training that several processes cannot share, `RuntimeError` where torch is too old."""
    # Whether the native kernel can be had is known once it is compiled, which one would not do to refuse it.
    kernel = "native" if config.kernel == "auto" and config.needs_compiling(model) else config.resolve(model).kernel
    if kernel != "torch":
        what = f"kernel={config.kernel}" + (f" (here {kernel})" if config.kernel != kernel else "")
        raise ValueError(f"{what} with {size} processes; it computes in one: give --train.kernel torch")
    if config.batch_size < size:
        raise ValueError(
            f"batch_size={config.batch_size} with {size} processes; give each a sequence at least, or start fewer"
        )
    if config.shard:
        need_shards()
        if config.interventions:
            raise ValueError(f"shard with {config.interventions[0].name}, which wants whole weights; leave shard out")
