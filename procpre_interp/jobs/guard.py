"""Watches over one job: starts its command, passes on that it shall stop, and writes down how it ended.

    python -m procpre_interp.jobs.guard FOLDER LOCK COMMAND ...

FOLDER is the job's, LOCK the number of an open, locked file that both inherit, so that the lock is held while either
lives. The command comes from whoever starts the job, never from a file of the store. While this process lives, it
alone signals the command, for which it has not yet waited: no other process can have its number. What is done where it
was killed is in `orphans`.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from procpre_interp.core.atomic_files import write_json
from procpre_interp.core.regular_files import SAFELY, read_regular
from procpre_interp.jobs.orphans import COMMAND, GUARD

POLL_SECONDS = 0.2


def main(folder: Path, lock: int, command: Sequence[str]) -> int:
    """Run the command to its end; its exit code. The process that calls this must have no other threads."""
    hold_own_lock(folder)
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            start_new_session=True,  # so that a signal reaches its workers, and none of ours reaches it
            # By itself, before it is the command: none runs that could not be found where this process was killed.
            preexec_fn=partial(write_group, folder),
            env={**os.environ, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "120"},
        )
    passed_on = 0
    while child.poll() is None:
        time.sleep(POLL_SECONDS)
        asked = _lines(folder / "cancel")
        if asked > passed_on:
            # The first time as Ctrl-C, which saves the state; from then on for good.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT if passed_on == 0 else signal.SIGKILL)
            passed_on = asked
    ended = {"exit_code": child.returncode, "ended": datetime.now(UTC).isoformat(timespec="seconds")}
    write_json(folder / "end.json", ended)
    return child.returncode


def write_group(folder: Path) -> None:
    """Write down the process group of the calling process, which leads one, as the leader of a session does."""
    write_json(folder / COMMAND, {"group": os.getpid()})


def hold_own_lock(folder: Path) -> None:
    """Lock a file for as long as this process lives, which no child inherits; it is never there unlocked before."""
    temporary = folder / f"{GUARD}.new"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | SAFELY, 0o644)
    fcntl.flock(handle, fcntl.LOCK_EX)
    temporary.rename(folder / GUARD)


def _lines(path: Path) -> int:
    try:
        return read_regular(path).count(b"\n")
    except OSError:
        return 0


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
