"""Where a run stands between two steps, and how that is kept in a file."""

import dataclasses
import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import pandas as pd
import safetensors
import safetensors.torch
from jaxtyping import Float
from torch import Tensor

from procpre_interp.core.atomic_files import atomic_write, remove
from procpre_interp.core.checksums import CHECKSUM_PLACE, check_checksum, with_checksum
from procpre_interp.core.plain_values import load_header, load_json
from procpre_interp.core.regular_files import read_regular
from procpre_interp.train.shards import check_shards, need_shards, whole_tensors

Status = Literal["finished", "diverged"]


class Evaluation(TypedDict):
    """A row of the history: what training has seen up to here, and the scores of a split."""

    step: int
    tokens: int
    seconds: float
    task_length: int | None
    """The curriculum's length; None for the task as it is."""
    split: Literal["train", "validation"]
    loss_nats: float
    learning_rate: NotRequired[float]
    """Training rows alone have it, validation rows what follows."""
    accuracy: NotRequired[float]
    exact_match: NotRequired[float]
    perplexity: NotRequired[float]
    bits_per_byte: NotRequired[float]


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
    """The curriculum's current length; None for the task as it is."""
    best_loss: float = math.inf
    since_best: int = 0
    """Evaluations since the lowest validation loss."""
    train_loss: float = 0.0
    """Sum of the training loss over the steps since the last evaluation."""
    train_steps: int = 0
    status: Status | None = None
    stop_reason: str | None = None
    history: list[Evaluation] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the kept weights, by step (as text, since JSON keys are text)."""
    shards: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the files that hold the state's tensors, where several processes wrote them (`shards`)."""

    def latest(self, column: str, split: str) -> float | None:
        """A number of the last evaluation on a split; None before the first."""
        rows = (row[column] for row in reversed(self.history) if row["split"] == split and column in row)
        value = next(rows, None)
        return float(value) if isinstance(value, (int, float)) else None

    @property
    def mean_train_loss(self) -> float | None:
        """Mean training loss since the last evaluation, in nats per token."""
        return self.train_loss / self.train_steps if self.train_steps else None

    def end(self, status: Status, reason: str) -> None:
        """Say that, and why, the run is over."""
        self.status, self.stop_reason = status, reason

    def table(self) -> pd.DataFrame:
        """The history, one row per observation."""
        return pd.DataFrame(self.history)


def previous_state(path: Path) -> Path:
    """Where the state saved before the one at `path` is."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_state(path: Path, state: TrainState, tensors: dict[str, Float[Tensor, "..."]]) -> None:
    """Write state, tensors and a checksum of both into one file, atomically; the one before is kept next to it."""
    metadata = {"state": json.dumps(dataclasses.asdict(state)), "checksum": CHECKSUM_PLACE}
    with atomic_write(path) as temporary:
        # Not save_file, which hides a full disk behind an error of its own.
        temporary.write_bytes(with_checksum(safetensors.torch.save(tensors, metadata)))
        _keep_previous(path)


def _keep_previous(path: Path) -> None:
    """Give the state at `path` a second name, which stays when `path` is replaced."""
    link = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    # There is none yet, or the file system has no links: then there is no state to fall back on.
    with suppress(OSError):
        os.link(path, link)
        os.replace(link, previous_state(path))
    with suppress(FileNotFoundError):  # both names were those of one file already
        link.unlink()


def read_state(path: Path) -> tuple[TrainState, dict[str, Float[Tensor, "..."]]]:
    """What `write_state` wrote. Raises `ValueError` for any other file, and for a damaged one."""
    content = read_regular(path)
    try:
        metadata = load_header(BytesIO(content))["__metadata__"]
        if "checksum" in metadata:  # older states have none
            check_checksum(content, metadata["checksum"])
        state = TrainState(**load_json(metadata["state"]))
        return state, safetensors.torch.load(content)
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError) as problem:
        raise ValueError(f"{path.name} is not a training state, or is damaged: {problem}") from None


def shards_of(path: Path) -> dict[str, str]:
    """The shards that the state at `path` names; none where it cannot be read, and so cannot be used."""
    try:
        return read_state(path)[0].shards
    except (OSError, ValueError):
        return {}


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved state."""

    path: Path
    state: TrainState
    tensors: dict[str, Float[Tensor, "..."]]


_NO_FILE = (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENOTDIR)
"""Errors of what is no file; any other may be of this moment, such as too many open files, or of the disk."""


def newest_state(
    path: Path | None, check_kept: Callable[[Mapping[str, str]], None], *, whole: bool = True
) -> tuple[Saved | None, list[str]]:
    """The newest of the two saved states that is undamaged and whose kept weights are, and what is wrong with others.

    Damaged states are removed. `check_kept` raises `ValueError` for kept weights that are damaged. Tensors in shards
    are put together, unless not the `whole` is asked for: then there are none. Raises `RuntimeError` where this torch
    cannot read shards, and `OSError` where a state cannot be read, which may be whole.
    """
    damage: list[str] = []
    for file in () if path is None else (path, previous_state(path)):
        try:
            state, tensors = read_state(file)
            if state.shards:
                need_shards()
                folder = check_shards(file, state.shards)
                if whole:
                    tensors, state.shards = whole_tensors(folder), {}
            elif "flat" not in tensors:
                raise ValueError(f"{file.name} has no weights")
            check_kept(state.kept)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as problem:
            if isinstance(problem, OSError) and problem.errno not in _NO_FILE:
                said = f"{file} cannot be read ({problem.strerror or problem}), and stays as it is; repeat the command"
                raise OSError(problem.errno, said) from problem
            damage.append(str(problem))
            remove(file)  # otherwise the next save would keep it as the previous one
            continue
        return Saved(file, state, tensors), damage
    return None, damage
