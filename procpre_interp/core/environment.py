"""What a run was computed with (versions, commit, threads, machine), and what commands take from their environment.

Found without torch and pandas, so that a command can speak before it imports them.
"""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

PACKAGES = ("procpre-interp", "torch", "transformer-lens", "numpy", "pandas", "tokenizers")
"""Packages whose version can change a number."""


def environment(threads: int | None = None) -> dict[str, object]:
    """Versions, git commit, thread count and machine, to be stored beside a run's numbers."""
    commit, dirty = _git_commit()
    return {
        "started": now(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": commit,
        "git_dirty": dirty,
        "threads": threads,
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "platform": platform.platform(),
    }


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_workers(workers: int) -> None:
    """Raise `ValueError` for fewer than one."""
    if workers < 1:
        raise ValueError(f"workers={workers}; there must be at least 1")


def default_store() -> Path:
    """Folder of the runs where none is named: $PROCPRE_STORE, or `runs`."""
    return Path(os.environ.get("PROCPRE_STORE") or "runs")


def now() -> str:
    """The present time, UTC, as ISO 8601 to the millisecond (such strings sort by time)."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this package runs from, and whether its files differ from that commit."""
    package = str(Path(__file__).parents[1])

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", "-C", package, *command], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed copy inside somebody else's checkout fails
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", package))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
