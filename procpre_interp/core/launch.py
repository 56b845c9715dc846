"""Processes that `torchrun` or `accelerate launch` started for one run together, as their environment says."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """One of these processes."""

    rank: int
    """Its number among all of them, from 0."""
    size: int
    """How many there are."""
    local_rank: int
    """Its number among those of its machine, which is that of its GPU."""
    local_size: int
    """How many there are on its machine."""


def launched() -> Launch | None:
    """What this process is among those that were started with it; None where it was started alone.

    Raises `ValueError` for an environment that only half says so.
    """
    found = {name: os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")}
    if found["WORLD_SIZE"] in ("", "1") or not found["RANK"]:
        return None
    if missing := [name for name, value in found.items() if not value]:
        raise ValueError(f"WORLD_SIZE={found['WORLD_SIZE']} without {', '.join(missing)}; start with torchrun")
    try:
        rank, size = int(found["RANK"]), int(found["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError as problem:
        raise ValueError(f"RANK, WORLD_SIZE, LOCAL_RANK and LOCAL_WORLD_SIZE must be numbers ({problem})") from None
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} of WORLD_SIZE={size}; it must be from 0 to {size - 1}")
    return Launch(rank=rank, size=size, local_rank=local_rank, local_size=local_size)
