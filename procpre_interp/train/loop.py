"""The one training loop, for both phases and every task: batches in, trained weights and a history table out."""

import dataclasses
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import pandas as pd
import safetensors
import safetensors.torch
import torch

from procpre_interp.config import unhashed
from procpre_interp.data.stream import TaskStream
from procpre_interp.data.task import Task
from procpre_interp.files import atomic_write
from procpre_interp.model import HookedTransformer, flat_mask, matrix_parameters
from procpre_interp.train.evaluate import evaluate, summarise
from procpre_interp.train.loss import backward
from procpre_interp.train.optimiser import FlatAdamW, Schedule, schedule_factor

DIVERGED_FACTOR = 4.0
"""A loss above this many times ln(d_vocab), the loss of a uniform guess, counts as diverged after the warm-up."""
CURRICULUM_ACCURACY = 0.99
"""Validation accuracy at which the curriculum goes on to longer sequences. Source: P1, released code."""

CURRICULUM_STEP = 2
"""First length of the curriculum, and how far it goes at a time. Source: P1, released code."""

Status = Literal["finished", "diverged"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How one phase is trained. Defaults: the paper's diagnostic phase 2."""

    version = 1

    steps: int = 10_000
    """Optimiser steps, at most."""
    batch_size: int = 1000
    """Sequences a step."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    schedule: Schedule = "cosine"
    """Course of the learning rate after the warm-up; linear and cosine end at zero."""
    warmup_steps: int = 500
    """Steps of linear warm-up."""
    weight_decay: float = 1e-3
    """Decoupled decay, as a share of the weight times the learning rate."""
    decay: Literal["all", "matrices"] = "matrices"
    """What decays: every parameter, or neither biases nor LayerNorm gains."""
    beta1: float = 0.9
    """Decay rate of Adam's first moment."""
    beta2: float = 0.999
    """Decay rate of Adam's second moment."""
    clip_norm: float | None = 1.0
    """Largest gradient norm; none: no clipping."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes forward and backward under autocast; weights stay float32. Pays from d_model 256 on."""
    micro_batch_tokens: int | None = None
    """Tokens of a micro-batch, whose gradients are accumulated; none: what fits the cache at this d_model."""
    curriculum: bool = False
    """Start at length 2 and go on by 2 whenever validation accuracy reaches .99, up to the task as it is."""
    evaluate_every: int = 100
    """Steps between two evaluations."""
    evaluate_examples: int = 1000
    """Validation examples, the same at every evaluation."""
    patience: int | None = None
    """Stop after so many evaluations without a lower validation loss; none: never."""
    target_accuracy: float | None = None
    """Stop at the first evaluation with at least this token accuracy (share, 0 to 1); none: never."""
    checkpoints: int = 1
    """Log-spaced steps whose weights are kept, the last step among them."""
    freeze: str | None = None
    """Selector of the weights that keep their initial value."""
    threads: int = 1
    """CPU threads. Another number changes the last bits of a sum, so it is part of the run's identity."""
    device: str = "cpu"
    """Where the model is trained: cpu, cuda, cuda:1, mps."""
    save_seconds: float = unhashed(30.0)
    """Seconds between two saved training states: what a killed run loses at most."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "evaluate_every", "evaluate_examples", "checkpoints", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate={self.learning_rate}; it must be a positive number")
        for name in ("warmup_steps", "weight_decay", "save_seconds"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must not be negative")
        for name in ("micro_batch_tokens", "patience"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be at least 1, or none")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; {name} must be in [0, 1)")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm}; it must be positive, or none")
        if self.target_accuracy is not None and not 0 < self.target_accuracy <= 1:
            raise ValueError(f"target_accuracy={self.target_accuracy}; it is a share and must be in (0, 1]")
        try:
            torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device={self.device!r}; it must be one that torch knows, such as cpu or cuda") from None

    def resolve(self, d_model: int) -> "TrainConfig":
        """With everything filled in that the numbers depend on."""
        if self.micro_batch_tokens is not None:
            return self
        return dataclasses.replace(self, micro_batch_tokens=cached_tokens(d_model))


def cached_tokens(d_model: int) -> int:
    """Tokens of a micro-batch whose activations stay in a core's cache; measured at d_model 16, 64, 128 and 256."""
    return max(512, 2**17 // d_model)


@dataclass(slots=True)
class TrainState:
    """Where a run stands between two steps: with the weights and the moments, all that resuming needs."""

    step: int = 0
    """Steps taken."""
    tokens: int = 0
    """Real tokens seen, padding not counted."""
    seconds: float = 0.0
    """Time spent training and evaluating, over all sittings."""
    length: int | None = None
    """The curriculum's current length; None: the task as it is."""
    best_loss: float = math.inf
    since_best: int = 0
    """Evaluations since the lowest validation loss."""
    train_loss: float = 0.0
    """Sum of the training loss over the steps since the last evaluation."""
    train_steps: int = 0
    status: Status | None = None
    stop_reason: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean_train_loss(self) -> float | None:
        """Mean training loss since the last evaluation, in nats a token."""
        return self.train_loss / self.train_steps if self.train_steps else None

    def end(self, status: Status, reason: str) -> None:
        """Say that, and why, the run is over."""
        self.status, self.stop_reason = status, reason

    def table(self) -> pd.DataFrame:
        """The history, one row an observation."""
        return pd.DataFrame(self.history)


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and its state is saved."""


class Trainer:
    """Trains `model` in place on `task`, from where `state_path` left off if that exists.

    `on_step(state)` is called after each step, for progress; `keep(step)` when the weights are to be kept. Raises
    `Interrupted` on Ctrl-C or SIGTERM, or when `should_stop()` turned true: after the step under way, with the state
    saved.
    """

    def __init__(
        self,
        model: HookedTransformer,
        task: Task,
        config: TrainConfig,
        *,
        seed: int,
        state_path: Path | None = None,
        on_step: Callable[["TrainState"], None] = lambda state: None,
        keep: Callable[[int], None] = lambda step: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config = config = config.resolve(model.config.d_model)
        self.model, self.full_task, self.seed = model, task, seed
        self.state_path, self.on_step, self.keep, self.should_stop = state_path, on_step, keep, should_stop
        self.state = TrainState(length=next_length(task, 0) if config.curriculum else None)
        self.optimiser = FlatAdamW(
            model.flat,
            model.flat_grad,
            weight_decay=config.weight_decay,
            decay=flat_mask(model, "all" if config.decay == "all" else "+".join(matrix_parameters(model.config))),
            frozen=None if config.freeze is None else flat_mask(model, config.freeze),
            betas=(config.beta1, config.beta2),
            clip_norm=config.clip_norm,
        )
        self.kept_steps = checkpoint_steps(config.steps, config.checkpoints)
        self.load()
        self.set_length(self.state.length)

    def set_length(self, length: int | None) -> None:
        """Move the curriculum, and with it both streams, to `length`."""
        self.state.length = length
        task = self.full_task if length is None else self.full_task.at_length(length)
        self.stream = TaskStream(task, seed=self.seed, split="train", size=self.config.batch_size)
        held_out = TaskStream(task, seed=self.seed, split="validation", size=self.config.evaluate_examples)
        self.validation = held_out.batch(0).to(self.config.device)

    def run(self) -> TrainState:
        """Train to the end and return the final state; its `status` is finished or diverged."""
        state, config = self.state, self.config
        last_save = time.monotonic()
        with single_run_threads(config.threads), deferred_interrupts() as interrupts:
            if state.step == 0 and not state.history:
                self.evaluate()
                if 0 in self.kept_steps:
                    self.keep(0)
            while state.status is None:
                started = time.monotonic()
                self.take_step()
                if state.status is None and (state.step % config.evaluate_every == 0 or state.step == config.steps):
                    self.evaluate()
                if state.status is None and state.step == config.steps:
                    state.end("finished", "step limit")
                state.seconds += time.monotonic() - started
                if state.step in self.kept_steps or state.status is not None:
                    self.keep(state.step)
                self.on_step(state)
                if state.status is None and (interrupts or self.should_stop()):
                    self.save()
                    raise Interrupted
                if state.status is None and time.monotonic() - last_save > config.save_seconds:
                    self.save()
                    last_save = time.monotonic()
        return state

    def take_step(self) -> None:
        """One optimiser step on the next batch."""
        state, config = self.state, self.config
        batch = self.stream.batch(state.step)
        assert config.micro_batch_tokens is not None
        loss = backward(
            self.model,
            batch.to(config.device),
            max_tokens=config.micro_batch_tokens,
            autocast=config.precision == "bfloat16",
        )
        self.optimiser.step(self.learning_rate(state.step))
        state.step += 1
        state.tokens += int(batch.lengths.sum())
        state.train_loss += loss.item()
        state.train_steps += 1
        if not math.isfinite(state.train_loss):
            state.end("diverged", f"training loss {loss.item()} at step {state.step}")

    def learning_rate(self, step: int) -> float:
        config = self.config
        factor = schedule_factor(step, schedule=config.schedule, warmup_steps=config.warmup_steps, steps=config.steps)
        return config.learning_rate * factor

    def evaluate(self) -> None:
        """Score the validation examples, enter both rows into the history, and decide whether to go on."""
        state, config = self.state, self.config
        examples = evaluate(self.model, self.validation, autocast=config.precision == "bfloat16")
        scores = summarise(examples)
        common = {
            "step": state.step,
            "tokens": state.tokens,
            "seconds": state.seconds,
            "task_length": state.length,
        }
        train_loss = state.mean_train_loss
        if train_loss is not None:
            rate = self.learning_rate(state.step - 1)
            state.history.append({**common, "split": "train", "loss_nats": train_loss, "learning_rate": rate})
        extra = self.full_task.extra_metrics(scores["loss_nats"], "validation")
        state.history.append({**common, "split": "validation", **scores, **extra})
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

    def save(self) -> None:
        """Write the training state, in one file and atomically, so that a kill at any moment leaves a whole one."""
        if self.state_path is None:
            return
        tensors = {f"adam.{name}": tensor for name, tensor in self.optimiser.state().items()}
        tensors["flat"] = self.model.flat.detach()
        with atomic_write(self.state_path) as temporary:
            safetensors.torch.save_file(
                tensors, temporary, metadata={"state": json.dumps(dataclasses.asdict(self.state))}
            )

    def load(self) -> None:
        """Continue from a saved state, if there is one. Raises `ValueError` when it does not fit the model."""
        if self.state_path is None or not self.state_path.exists():
            return
        try:
            with safetensors.safe_open(self.state_path, framework="pt") as file:
                state = TrainState(**json.loads(file.metadata()["state"]))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as problem:
            raise ValueError(f"{self.state_path}: not a training state ({problem}); delete it to start over") from None
        if tensors["flat"].shape != self.model.flat.shape:
            raise ValueError(f"{self.state_path}: the state of another model; delete it to start over")
        with torch.no_grad():
            self.model.flat.copy_(tensors.pop("flat"))
        self.optimiser.load_state({name.removeprefix("adam."): tensor for name, tensor in tensors.items()})
        self.state = state


def next_length(task: Task, length: int) -> int | None:
    """The curriculum's next length, `CURRICULUM_STEP` or more above `length`; None: the task as it is, at the end.

    Raises `ValueError` where a task has no length.
    """
    if not task.valid_lengths:
        task.at_length(CURRICULUM_STEP)  # raises, and says why
    return next((n for n in task.valid_lengths[:-1] if n >= length + CURRICULUM_STEP), None)


def checkpoint_steps(steps: int, n: int) -> set[int]:
    """Step 0 and `n` log-spaced steps from 1 to `steps`, fewer where they coincide; only the last when n is 1."""
    if n == 1:
        return {steps}
    return {0} | {round(steps ** (i / (n - 1))) for i in range(n)}


@contextmanager
def single_run_threads(threads: int) -> Iterator[None]:
    """torch with `threads` CPU threads, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def deferred_interrupts() -> Iterator[list[int]]:
    """A list that holds a signal once Ctrl-C or SIGTERM came, so that the step under way can end; a second one raises.

    Outside the main thread, where Python handles no signals, the list stays empty. An ignored signal stays ignored.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    heeded = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in heeded}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
