"""The memory of R runs as matrices with a row for each, and what is computed on all rows at once."""

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.task import Batch, Task
from procpre_interp.model import ModelConfig
from procpre_interp.train.evaluate import EVALUATION_TOKENS
from procpre_interp.train.loop import Trainer
from procpre_interp.train.settings import TrainConfig
from procpre_interp.train.stacked.feed import MOST_ROWS, StackedBatch, largest_micro_batch
from procpre_interp.train.stacked.forward import Parameters
from procpre_interp.train.stacked.loss import (
    StackedMicroBatch,
    stacked_gradients,
    stacked_micro_batches,
    stacked_scores,
)
from procpre_interp.train.stacked.optimiser import Scales, StackedAdamW


def stacking_key(model: ModelConfig, task: Task, train: TrainConfig) -> Hashable:
    """What runs must have in common to be stacked: the shapes of their models and batches, and where they compute."""
    where = train.kernel, train.device, train.precision, train.threads
    return model, task.n_ctx, train.batch_size, train.evaluate_examples, *where


class Stack:
    """Joins the memory of trainers: parameters, gradients and moments become rows of matrices, until `release`."""

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.trainers = tuple(trainers)
        model = trainers[0].model
        self.config, self.device = model.config, model.flat.device
        self.autocast = trainers[0].config.precision == "bfloat16"
        self.slices = model.slices
        self.flat = model.flat.new_empty(len(trainers), len(model.flat))
        self.grad = torch.zeros_like(self.flat)
        for row, trainer in enumerate(trainers):
            trainer.model.move(self.flat[row], self.grad[row])
        self.optimiser = StackedAdamW([trainer.optimiser for trainer in trainers], self.flat, self.grad)
        self.parameters = self._named(self.flat)
        for leaf in self.parameters.values():
            leaf.requires_grad_()
        self.gradients = list(self._named(self.grad).values())
        self._validation: tuple[list[Batch], list[StackedMicroBatch]] = [], []

    def _named(self, flat: Float[Tensor, "model n_parameters"]) -> Parameters:
        """Views on the columns of each parameter, in its own shape."""
        return {
            name: flat[:, offset : offset + shape.numel()].unflatten(1, shape)
            for name, (offset, shape) in self.slices.items()
        }

    def backward(self, batch: StackedBatch) -> Float[Tensor, " model"]:
        """Mean loss of each model over its scored tokens, in nats; the gradients are added to the parameters' own."""
        total = self.flat.new_zeros(len(self.trainers))
        for micro in batch.micros:
            loss, gradients = stacked_gradients(
                self.parameters, self.config, micro, batch.n_scored, autocast=self.autocast
            )
            total += loss
            torch._foreach_add_(self.gradients, list(gradients))
        return total

    def step(self, steps: Sequence[int], scales: Sequence[Scales | None]) -> None:
        """One update of each model, from the gradients that are there, at the learning rate of its own step."""
        rates = [trainer.learning_rate(step) for trainer, step in zip(self.trainers, steps)]
        self.optimiser.step(rates, scales)

    def scores(self, rows: Sequence[int]) -> list[dict[str, float]]:
        """Validation scores of some of the models."""
        flat = self.flat if len(rows) == len(self.trainers) else self.flat[list(rows)]
        batches, micros = [self.trainers[row].validation for row in rows], self._validation[1]
        if len(batches) != len(self._validation[0]) or any(x is not y for x, y in zip(batches, self._validation[0])):
            most = EVALUATION_TOKENS, MOST_ROWS
            if self.device.type != "cpu":
                most = largest_micro_batch(self.config, self.device)
            cut = stacked_micro_batches([batch.to("cpu") for batch in batches], *most)
            micros = [micro.to(self.device) for micro in cut]
            self._validation = batches, micros
        return stacked_scores(self._named(flat), self.config, micros, autocast=self.autocast)

    def release(self) -> None:
        """Give each trainer memory of its own again."""
        for trainer in self.trainers:
            trainer.model.bind()
            moments = {name: moment.clone() for name, moment in trainer.optimiser.state().items()}
            trainer.optimiser.move(trainer.model.flat, trainer.model.flat_grad, moments)
