"""Where a run stands between two steps, and how that is kept in a file."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import safetensors
import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.files import atomic_write

Status = Literal["finished", "diverged"]


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


def write_state(path: Path, state: TrainState, tensors: dict[str, Float[Tensor, "..."]]) -> None:
    """Write state and tensors into one file, atomically."""
    metadata = {"state": json.dumps(dataclasses.asdict(state))}
    with atomic_write(path) as temporary:
        # Not save_file, which hides a full disk behind an error of its own.
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))


def read_state(path: Path) -> tuple[TrainState, dict[str, Float[Tensor, "..."]]]:
    """What `write_state` wrote. Raises `ValueError` for any other file."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            state = TrainState(**json.loads(file.metadata()["state"]))
            return state, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"{path}: not a training state ({problem}); delete it to start over") from None
