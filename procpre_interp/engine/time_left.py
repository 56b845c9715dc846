"""How long the runs of a plan still take, from the rates at which their steps were seen to go."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from procpre_interp.pipeline.config import RunConfig


@dataclass(frozen=True, slots=True)
class Work:
    """What a run takes, as far as that is known before it starts."""

    steps: int
    """Largest number of steps."""
    kind: str
    """Runs of one kind take equally long per step."""
    tokens: int
    """Tokens of a step, by which the rate of one kind is guessed from those of others."""
    parents: tuple[str, ...] = ()
    """Runs that come before it."""
    first: int = 0
    """Step that it starts from."""
    may_end_early: bool = False
    """Whether it may end before its last step."""

    def done(self, step: int) -> int:
        """Steps that it has taken when it stands at this one."""
        return max(0, min(self.steps, step) - self.first)


def work_of(config: RunConfig) -> Work:
    """What the run of a config takes."""
    train = config.train
    return Work(
        steps=train.last_step,
        first=train.start_at,
        kind=f"{config.task} {config.model} {train.batch_size} {train.kernel} {train.device} {train.interventions}",
        tokens=train.batch_size * config.task.n_ctx,
        parents=tuple(parent.run for parent in config.parents),
        may_end_early=train.target_accuracy is not None or train.patience is not None,
    )


class Rates:
    """Seconds per step of each kind of run, from all steps that were seen."""

    def __init__(self, work: Mapping[str, Work]) -> None:
        self.work = work
        self.first: dict[str, tuple[int, float]] = {}
        """Step and time at which each run was first seen at work: what a resumed run did before does not count."""
        self.last: dict[str, tuple[int, float]] = {}

    def note(self, run: str, step: int, seconds: float) -> None:
        """The run has taken so many steps at this time of the clock."""
        self.first.setdefault(run, (step, seconds))
        self.last[run] = step, seconds

    def seconds_per_step(self) -> dict[str, float]:
        """Kind of run -> seconds per step; guessed from the tokens per step of other kinds if none was seen yet."""
        seen: dict[str, list[float]] = {}
        for run, (step, seconds) in self.last.items():
            if run in self.work and step > self.first[run][0]:
                totals = seen.setdefault(self.work[run].kind, [0.0, 0.0, 0.0])
                steps = step - self.first[run][0]
                for i, amount in enumerate((seconds - self.first[run][1], steps, steps * self.work[run].tokens)):
                    totals[i] += amount
        if not seen:
            return {}
        per_token = sum(totals[0] for totals in seen.values()) / sum(totals[2] for totals in seen.values())
        guessed = {work.kind: per_token * work.tokens for work in self.work.values()}
        return guessed | {kind: seconds / steps for kind, (seconds, steps, _) in seen.items()}

    def seconds_left(self, at: Mapping[str, int], waiting: Mapping[str, int], workers: int) -> float | None:
        """Until all is done, given the steps behind the runs at work, and behind those to come, in their order.

        None before anything was seen. Each worker takes the first waiting run whose parents are done.
        """
        rate = self.seconds_per_step()
        waiting = {run: step for run, step in waiting.items() if run in self.work}
        if not rate:
            return None
        todo = set(waiting) | set(at)
        open_parents = {run: sum(parent in todo for parent in self.work[run].parents) for run in waiting}
        children: dict[str, list[str]] = {}
        for run in waiting:
            for parent in self.work[run].parents:
                children.setdefault(parent, []).append(run)
        order = {run: i for i, run in enumerate(waiting)}
        ready = [(order[run], run) for run in waiting if not open_parents[run]]
        heapq.heapify(ready)
        ends = [(self._seconds(run, step, rate), run) for run, step in at.items() if run in self.work]
        heapq.heapify(ends)
        now = 0.0
        while ready or ends:
            while ready and len(ends) < workers:
                run = heapq.heappop(ready)[1]
                heapq.heappush(ends, (now + self._seconds(run, waiting[run], rate), run))
            now, run = heapq.heappop(ends)
            for child in children.get(run, ()):
                open_parents[child] -= 1
                if not open_parents[child]:
                    heapq.heappush(ready, (order[child], child))
        return now

    def _seconds(self, run: str, step: int, rate: Mapping[str, float]) -> float:
        work = self.work[run]
        return (work.steps - work.first - work.done(step)) * rate[work.kind]


def time_left(seconds: float, *, at_most: bool) -> str:
    """The time left in words, no finer than such an estimate is."""
    if seconds < 60:
        return "less than a minute left"
    about = "at most" if at_most else "about"
    return f"{about} {seconds / 60:.0f} min left" if seconds < 5400 else f"{about} {seconds / 3600:.1f} h left"
