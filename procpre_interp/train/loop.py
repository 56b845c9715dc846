"""The one training loop, for both phases and every task: batches in, trained weights and a history table out."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.data.prefetch import Prefetch
from procpre_interp.data.stream import TaskStream
from procpre_interp.data.task import Batch, Task
from procpre_interp.model import HookedTransformer, flat_mask, matrix_parameters, torch_defaults
from procpre_interp.train.evaluate import evaluate, summarise
from procpre_interp.train.interventions.apply import Interventions
from procpre_interp.train.loss import backward
from procpre_interp.train.native import NativeStep
from procpre_interp.train.optimiser import FlatAdamW, schedule_factor
from procpre_interp.train.process import Interrupted, deferred_interrupts, run_threads
from procpre_interp.train.saturation import saturation_note
from procpre_interp.train.settings import TrainConfig
from procpre_interp.train.state import Evaluation, TrainState, newest_state, write_state

DIVERGED_FACTOR = 4.0
"""A loss above this many times ln(d_vocab), the loss of a uniform guess, counts as diverged after the warm-up."""
CURRICULUM_ACCURACY = 0.99
"""Validation accuracy at which the curriculum goes on to longer sequences. Source: P1, released code."""
CURRICULUM_STEP = 2
"""First length of the curriculum, and how far it goes at a time. Source: P1, released code."""


class Trainer:
    """Trains `model` in place on `task`, from where `state_path` left off if that exists.

    `fresh` are the weights before any transfer, by default those of `model`, for interventions; `moments` is the
    optimiser's state to begin with (`FlatAdamW.state`), by default a fresh one. `on_step(state)` is called after each
    step, for progress; `keep(step)` when the weights are to be kept, and returns the SHA-256 of their file, if there is
    one. `check_kept` raises `ValueError` where kept weights, given as step -> SHA-256, are damaged. Training then goes
    back to an earlier state, as it does when a saved state is damaged, and tells `on_note`. That is also told, once,
    where attention is so saturated that gradients cannot be trusted (`saturation`). Raises `Interrupted` on Ctrl-C or
    SIGTERM, or when `should_stop()` turned true: after the step under way, with the state saved.
    """

    @torch_defaults()
    def __init__(
        self,
        model: HookedTransformer,
        task: Task,
        config: TrainConfig,
        *,
        seed: int,
        fresh: Float[Tensor, " n_parameters"] | None = None,
        moments: Mapping[str, Tensor] | None = None,
        state_path: Path | None = None,
        on_step: Callable[["TrainState"], None] = lambda state: None,
        keep: Callable[[int], str | None] = lambda step: None,
        check_kept: Callable[[Mapping[str, str]], None] = lambda kept: None,
        on_note: Callable[[str], None] = lambda note: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config = config.resolve(model.config)
        config.refuse(model.config)
        self.model, self.full_task, self.seed = model, task, seed
        self.state_path, self.on_step, self.keep, self.should_stop = state_path, on_step, keep, should_stop
        self.check_kept, self.on_note, self.is_warned = check_kept, on_note, False
        self.state = TrainState(step=config.start_at, length=next_length(task, 0) if config.curriculum else None)
        self.optimiser = self.make_optimiser()
        self.optimiser.load_state(moments or {})
        self.prefetch = Prefetch(threads=config.threads, end=config.last_step)
        self.kept_steps = config.kept_steps
        model.recompute = config.recompute
        if config.compile:
            model.compile_blocks()
        self.native = NativeStep(model, threads=config.threads) if config.kernel == "native" else None
        self.interventions = None
        if config.interventions:
            self.interventions = Interventions(model, task, config, seed=seed, fresh=fresh)
        self.load()
        self.set_length(self.state.length)

    def make_optimiser(self) -> FlatAdamW:
        """The optimiser of the model's weights, in a fresh state."""
        model, config = self.model, self.config
        return FlatAdamW(
            model.flat,
            model.flat_grad,
            weight_decay=config.weight_decay,
            decay=flat_mask(model, "all" if config.decay == "all" else "+".join(matrix_parameters(model.config))),
            frozen=None if config.freeze is None else flat_mask(model, config.freeze),
            betas=(config.beta1, config.beta2),
            clip_norm=config.clip_norm,
        )

    def set_length(self, length: int | None) -> None:
        """Move the curriculum, and with it both streams, to `length`."""
        self.state.length = length
        task = self.full_task if length is None else self.full_task.at_length(length)
        self.stream = TaskStream(task, seed=self.seed, split="train", size=self.config.batch_size)
        held_out = TaskStream(task, seed=self.seed, split="validation", size=self.config.evaluate_examples)
        self.validation = held_out.batch(0).to(self.config.device)

    @torch_defaults()
    def run(self) -> TrainState:
        """Train to the end and return the final state; its `status` is finished or diverged."""
        if self.config.kernel == "stacked":
            from procpre_interp.train.stacked import StackedTrainer

            return StackedTrainer([self], should_stop=self.should_stop).run()[0]
        state, config, last_step = self.state, self.config, self.config.last_step
        last_save = time.monotonic()
        with run_threads(self.torch_threads), deferred_interrupts() as interrupts, self.prefetch:
            if self.is_new:
                self.evaluate()
                if state.step in self.kept_steps or state.status is not None:
                    self.keep_weights()
            while state.status is None:
                started = time.monotonic()
                self.take_step()
                if state.status is None and self.is_evaluated(state.step):
                    self.evaluate()
                if state.status is None and state.step == last_step:
                    state.end("finished", "step limit")
                state.seconds += time.monotonic() - started
                if state.step in self.kept_steps or state.status is not None:
                    self.keep_weights()
                self.on_step(state)
                if state.status is None:
                    is_due = time.monotonic() - last_save > config.save_seconds
                    stops, is_due = self.agree(bool(interrupts) or self.should_stop(), is_due)
                    if stops or is_due:
                        self.save()
                        last_save = time.monotonic()
                    if stops:
                        raise Interrupted
        return state

    def agree(self, stops: bool, is_due: bool) -> tuple[bool, bool]:
        """Whether the run stops now, and whether its state is saved, where it should, or is due, in this process."""
        return stops, is_due

    @property
    def torch_threads(self) -> int:
        """CPU threads for torch: one beside the native kernel, since torch's wait actively and steal its time."""
        return 1 if self.native is not None else self.config.threads

    @property
    def is_new(self) -> bool:
        """Whether nothing has been done yet."""
        return self.state.step == self.config.start_at and not self.state.history

    def is_evaluated(self, step: int) -> bool:
        """Whether validation examples are scored after that many steps."""
        return step % self.config.evaluate_every == 0 or step == self.config.last_step

    def take_step(self) -> None:
        """One optimiser step on the next batch."""
        state, scales = self.state, None
        batch = self.prefetch.batch(self.stream, state.step)
        if self.interventions is not None:
            self.interventions.set_weights(state.step, self.optimiser)
            scales = self.interventions.scales(state.step)
            # Its gradient goes where the kernel adds that of the loss.
            self.interventions.backward(batch, state.step)
        loss = self.backward(batch)
        self.optimiser.step(self.learning_rate(state.step), scales)
        self.enter_step(loss, int(batch.lengths.sum()))

    def enter_step(self, loss: float, tokens: int) -> None:
        """Count a step that was taken on so many tokens, and end the run where its loss is not finite."""
        state = self.state
        state.step += 1
        state.tokens += tokens
        state.train_loss += loss
        state.train_steps += 1
        if not math.isfinite(state.train_loss):
            state.end("diverged", f"training loss {loss} at step {state.step}")

    def backward(self, batch: Batch) -> float:
        """Mean loss over the batch's scored tokens, in nats; its gradient is added to the parameters' own."""
        config = self.config
        if self.native is not None:
            return self.native.backward(batch)
        assert config.micro_batch_tokens is not None
        return backward(
            self.model,
            batch.to(config.device),
            max_tokens=config.micro_batch_tokens,
            autocast=config.precision == "bfloat16",
        ).item()

    def learning_rate(self, step: int) -> float:
        config = self.config
        factor = schedule_factor(step, schedule=config.schedule, warmup_steps=config.warmup_steps, steps=config.steps)
        return config.learning_rate * factor

    def evaluate(self) -> None:
        """Score the validation examples, enter both rows into the history, and decide whether to go on."""
        autocast = self.config.precision == "bfloat16"
        examples = evaluate(self.model, self.validation, autocast=autocast, native=self.native)
        self.enter_scores(summarise(examples))

    def enter_scores(self, scores: Mapping[str, float]) -> None:
        """Enter the rows of an evaluation with these validation scores into the history; decide whether to go on."""
        state = self.state

        def enter(split: Literal["train", "validation"], scores: Mapping[str, float]) -> None:
            seen = {"step": state.step, "tokens": state.tokens, "seconds": state.seconds, "task_length": state.length}
            state.history.append(cast(Evaluation, {**seen, "split": split, **scores}))

        train_loss = state.mean_train_loss
        if train_loss is not None:
            rate = self.learning_rate(state.step - 1)
            enter("train", {"loss_nats": train_loss, "learning_rate": rate})
        extra = self.full_task.extra_metrics(scores["loss_nats"], "validation")
        enter("validation", {**scores, **extra})
        if not self.is_warned and (note := saturation_note(self.model, self.validation.tokens)) is not None:
            self.is_warned = True
            self.on_note(note)
        state.train_loss, state.train_steps = 0.0, 0
        state.since_best = 0 if scores["loss_nats"] < state.best_loss else state.since_best + 1
        state.best_loss = min(state.best_loss, scores["loss_nats"])
        self.decide(scores["loss_nats"], scores["accuracy"], train_loss)

    def decide(self, loss: float, accuracy: float, train_loss: float | None) -> None:
        """End the run, or lengthen the sequences, as the scores ask for."""
        state, config = self.state, self.config
        uniform = math.log(self.model.config.d_vocab)
        if not math.isfinite(loss):
            state.end("diverged", f"validation loss {loss} at step {state.step}")
        elif train_loss is not None and state.step > config.warmup_steps and train_loss > DIVERGED_FACTOR * uniform:
            state.end(
                "diverged",
                f"training loss {train_loss:.3g} nats up to step {state.step}; a uniform guess has {uniform:.3g}",
            )
        elif state.length is not None and accuracy >= CURRICULUM_ACCURACY:
            state.best_loss, state.since_best = math.inf, 0
            self.set_length(next_length(self.full_task, state.length))
        elif state.length is None and config.target_accuracy is not None and accuracy >= config.target_accuracy:
            state.end("finished", f"accuracy {config.target_accuracy:g} reached")
        elif config.patience is not None and state.since_best >= config.patience:
            state.end("finished", f"no lower validation loss in {config.patience} evaluations")

    def keep_weights(self) -> None:
        """Keep the weights, and enter their hash into the state, so that later damage is noticed."""
        if (digest := self.keep(self.state.step)) is not None:
            self.state.kept[str(self.state.step)] = digest

    def save(self) -> None:
        """Keep the training state, so that a kill at any moment loses no more than what comes after."""
        if self.state_path is not None:
            tensors = {f"adam.{name}": tensor for name, tensor in self.optimiser.state().items()}
            write_state(self.state_path, self.state, {**tensors, "flat": self.model.flat.detach()})

    def load(self) -> None:
        """Continue from the newest saved state that is undamaged and whose kept weights are; otherwise from the start.

        Raises `ValueError` for the state of another model.
        """
        found, damage = newest_state(self.state_path, self.check_kept)
        if found is not None:
            self.state, tensors = found.state, found.tensors
            flat = tensors.pop("flat")
            if flat.shape != self.model.flat.shape:
                raise ValueError(f"{self.state_path}: the state of another model; delete it to start over")
            with torch.no_grad():
                self.model.flat.copy_(flat)
            self.optimiser.load_state({name.removeprefix("adam."): tensor for name, tensor in tensors.items()})
        self.tell_damage(damage)

    def tell_damage(self, damage: Sequence[str]) -> None:
        """Say which saved states could not be used, if any, and where the run goes on instead."""
        if damage:
            start = "starts over" if self.is_new else f"goes on from step {self.state.step:,}"
            self.on_note(f"the saved state cannot be used ({'; '.join(dict.fromkeys(damage))}): the run {start}")


def next_length(task: Task, length: int) -> int | None:
    """The curriculum's next length, `CURRICULUM_STEP` or more above `length`; None for the task as it is, at the end.

    Raises `ValueError` where a task has no length.
    """
    if not task.valid_lengths:
        task.at_length(CURRICULUM_STEP)  # raises, and says why
    return next((n for n in task.valid_lengths[:-1] if n >= length + CURRICULUM_STEP), None)
