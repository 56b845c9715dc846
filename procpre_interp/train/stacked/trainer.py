"""R runs trained as one: a `StackedTrainer` takes the steps of R ordinary trainers at once."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.model import torch_defaults
from procpre_interp.train.loop import Trainer
from procpre_interp.train.process import Interrupted, deferred_interrupts, run_threads
from procpre_interp.train.stacked.feed import STEPS_AHEAD, BadBatch, Feed
from procpre_interp.train.stacked.optimiser import Scales
from procpre_interp.train.stacked.stack import Stack, stacking_key
from procpre_interp.train.state import TrainState

FETCH_STEPS = 10
"""Steps between two looks at the losses on a device that is not the CPU: to look is to wait for it."""
SAVING_SHARE = 0.05
"""Largest share of the time that is spent on saving, where a stack has many runs and its files are slow."""


class StackedTrainer:
    """Trains the runs of `trainers`, which have equal `stacking_key`, from wherever each of them stands.

    Each trainer keeps its model, state, callbacks and files; the memory of their parameters and moments is joined while
    they are in the stack, so that whoever saves, keeps or measures one finds it as ever. Results do not depend on who
    else is in the stack, beyond the last bits of sums. `on_step` of a trainer is called after each of its steps on a
    CPU, and after every `fetch_steps` elsewhere, where a loss that is not finite is noticed then, too, and counted from
    the step that had it. `seconds` of a run is its share of the stack's time.

    A run that ends leaves the stack, and `on_end(trainer)` is called. An error of one run (of its data, its files or a
    callback) goes to `on_failure(trainer, error)`, and the others go on; without it, it is raised. Raises `Interrupted`
    on Ctrl-C or SIGTERM, or when `should_stop()` turned true, once all states are saved, and `ValueError` for runs that
    cannot be stacked. `ahead`: steps whose batches are made in advance, in threads. Default: as many as a GPU needs,
    and none on a CPU.
    """

    @torch_defaults()
    def __init__(
        self,
        trainers: Sequence[Trainer],
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_end: Callable[[Trainer], None] = lambda trainer: None,
        on_failure: Callable[[Trainer, Exception], None] | None = None,
        ahead: int | None = None,
        fetch_steps: int | None = None,
    ) -> None:
        keys = {stacking_key(trainer.model.config, trainer.full_task, trainer.config) for trainer in trainers}
        kernels = {trainer.config.kernel for trainer in trainers}
        if len(keys) != 1 or kernels != {"stacked"}:
            raise ValueError(
                f"{len(trainers)} runs of {len(keys)} shapes with kernels {sorted(kernels)}; a stack takes runs of "
                "kernel stacked with one `stacking_key`"
            )
        self.trainers, self.should_stop, self.on_end, self.on_failure = trainers, should_stop, on_end, on_failure
        model = trainers[0].model
        on_cpu = model.flat.device.type == "cpu"
        self.fetch_steps = fetch_steps or (1 if on_cpu else FETCH_STEPS)
        ahead = ahead if ahead is not None else 0 if on_cpu else STEPS_AHEAD
        self.feed = Feed(model.config, model.flat.device, ahead=ahead)
        self.stack: Stack | None = None
        self.failed: list[Trainer] = []
        self.pending: list[tuple[Float[Tensor, " model"], list[int]]] = []
        """Losses on the device, and tokens, of the steps that are not entered in the states yet."""
        self.counted = time.monotonic()

    @torch_defaults()
    def run(self) -> list[TrainState]:
        """Train all runs to their ends; their states, in the order of the trainers."""
        with run_threads(self.trainers[0].config.threads), deferred_interrupts() as interrupts, self.joined():

            def stopped() -> bool:
                return bool(interrupts) or self.should_stop()

            self.end([trainer for trainer in self.trainers if trainer.state.status is not None], stopped)
            self.begin()
            self.leave(stopped)
            saved, saving = time.monotonic(), 0.0
            while self.members:
                taken = self.take_step()
                rest = max(self.trainers[0].config.save_seconds, saving / SAVING_SHARE)
                is_due = time.monotonic() - saved > rest
                if not taken or is_due or self.is_eventful or stopped():
                    self.catch_up(stopped)
                if self.members and not self.pending and stopped():
                    self.save()
                    raise Interrupted
                if is_due:
                    started = time.monotonic()
                    self.save()
                    saved = time.monotonic()
                    saving = saved - started
        return [trainer.state for trainer in self.trainers]

    @contextmanager
    def joined(self) -> Iterator[None]:
        """The runs that have not ended are in a stack, and leave it at the end; for `take_step` alone, too."""
        self.join([trainer for trainer in self.trainers if trainer.state.status is None])
        self.counted = time.monotonic()
        try:
            yield
        finally:
            self.pending = []  # after an error, which may be one of the device, they are not asked for
            self.join([])
            self.feed.close()

    @property
    def members(self) -> tuple[Trainer, ...]:
        """The runs in the stack."""
        return () if self.stack is None else self.stack.trainers

    def join(self, trainers: Sequence[Trainer]) -> None:
        """A stack of these instead of the present one. No step may be pending."""
        assert not self.pending
        if self.stack is not None:
            self.stack.release()
        self.stack = Stack(trainers) if trainers else None
        self.follow()

    def follow(self) -> None:
        """Have batches made of the members' streams, each from its own step on."""
        self.feed.follow([each.stream for each in self.members], [each.state.step for each in self.members])

    def begin(self) -> None:
        """Score and keep the initial weights of runs that have not begun."""
        fresh = [row for row, each in enumerate(self.members) if each.is_new]
        self.evaluate(fresh)
        for row in fresh:
            trainer = self.members[row]
            if trainer.state.step in trainer.kept_steps or trainer.state.status is not None:
                with self.alone(trainer):
                    trainer.keep_weights()

    def take_step(self) -> bool:
        """One optimiser step of every member on its next batch, whose losses are then pending.

        False where no step was taken, since the batch of a run cannot be made.
        """
        assert self.stack is not None
        try:
            batch = self.feed.next()
        except BadBatch as bad:
            # Nothing has happened in this step: the others take it without that run.
            with self.alone(self.members[bad.member]):
                raise bad.error from None
            return False
        steps = [trainer.state.step + len(self.pending) for trainer in self.members]
        scales = [self.intervene(trainer, step) for trainer, step in zip(self.members, steps)]
        losses = self.stack.backward(batch)
        self.stack.step(steps, scales)
        self.pending.append((losses, batch.n_tokens))
        return True

    def intervene(self, trainer: Trainer, step: int) -> Scales | None:
        """Do what the interventions of a run ask for before this step; the factors on its rates and decays."""
        if (interventions := trainer.interventions) is None:
            return None
        scales = None
        with self.alone(trainer):
            interventions.set_weights(step, trainer.optimiser)
            scales = interventions.scales(step)
            if interventions.may_penalise:
                # One pass of this model alone, whose gradient goes where that of the loss is added.
                interventions.backward(trainer.stream.batch(step), step)
        return scales

    @property
    def is_eventful(self) -> bool:
        """Whether something is to be done between this step and the next one."""
        if len(self.pending) >= self.fetch_steps or any(trainer in self.failed for trainer in self.members):
            return True
        steps = ((trainer, trainer.state.step + len(self.pending)) for trainer in self.members)
        return any(trainer.is_evaluated(step) or step in trainer.kept_steps for trainer, step in steps)

    def catch_up(self, stopped: Callable[[], bool]) -> None:
        """Do what is to be done after the pending steps, and take what has ended or failed out of the stack."""
        if self.pending:
            self.settle()
            self.observe()
        self.leave(stopped)

    def settle(self) -> None:
        """Enter the pending steps in the states, which waits for the device."""
        if not self.members:
            return
        if self.pending:
            losses = torch.stack([losses for losses, _ in self.pending]).tolist()
            for row, trainer in enumerate(self.members):
                for of_step, (_, n_tokens) in zip(losses, self.pending):
                    if trainer.state.status is None:
                        trainer.enter_step(of_step[row], n_tokens[row])
            self.pending = []
        now = time.monotonic()
        for trainer in self.members:
            trainer.state.seconds += (now - self.counted) / len(self.members)
        self.counted = now

    def observe(self) -> None:
        """Score, end and keep what is to be after the step just settled, as `Trainer.run` does after its own."""
        going = [row for row, trainer in enumerate(self.members) if trainer.state.status is None]
        self.evaluate([row for row in going if self.members[row].is_evaluated(self.members[row].state.step)])
        for trainer in self.members:
            state = trainer.state
            if trainer in self.failed:
                continue
            with self.alone(trainer):
                if state.status is None and state.step == trainer.config.last_step:
                    state.end("finished", "step limit")
                if state.step in trainer.kept_steps or state.status is not None:
                    trainer.keep_weights()
                trainer.on_step(state)

    def evaluate(self, rows: Sequence[int]) -> None:
        """Score the validation examples of some members."""
        if not rows or self.stack is None:
            return
        for row, scores in zip(rows, self.stack.scores(rows)):
            with self.alone(self.members[row]):
                self.members[row].enter_scores(scores)
        self.settle()
        if any(trainer.stream is not followed for trainer, followed in zip(self.members, self.feed.followed)):
            self.follow()  # a curriculum went on

    def leave(self, stopped: Callable[[], bool]) -> None:
        """Take what has ended or failed out of the stack."""
        staying = [each for each in self.members if each.state.status is None and each not in self.failed]
        if len(staying) < len(self.members):
            ended = [each for each in self.members if each.state.status is not None and each not in self.failed]
            self.join(staying)
            self.end(ended, stopped)

    def end(self, ended: Sequence[Trainer], stopped: Callable[[], bool]) -> None:
        """Hand on what has ended. Raises `Interrupted` where it is to stop meanwhile; all other states are saved."""
        for number, trainer in enumerate(ended):
            if number and stopped():
                for waiting in ended[number:]:
                    with self.alone(waiting):
                        waiting.save()
                self.save()
                raise Interrupted
            with self.alone(trainer):
                self.on_end(trainer)
        self.counted = time.monotonic()

    def save(self) -> None:
        """Keep the state of every member in its own file."""
        self.settle()
        for trainer in self.members:
            with self.alone(trainer):
                trainer.save()

    @contextmanager
    def alone(self, trainer: Trainer) -> Iterator[None]:
        """An error in here is that of one run: it is told, and the run leaves the stack at the next event."""
        try:
            yield
        except Exception as error:
            if self.on_failure is None:
                raise
            self.failed.append(trainer)
            self.on_failure(trainer, error)
