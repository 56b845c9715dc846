"""Watches over one job: starts its command, passes on that it shall stop, and writes down how it ended.

    python -m procpre_interp.jobs.guard FOLDER LOCK COMMAND ...

FOLDER is the job's, LOCK the number of an open, locked file that both inherit, so that the lock is held while either
lives. The command comes from whoever starts the job, never from a file of the store. Only this process signals it,
which has not yet waited for it: no other process can have its number.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from procpre_interp.core.atomic_files import write_json
from procpre_interp.core.regular_files import read_regular

POLL_SECONDS = 0.2


def main(folder: Path, lock: int, command: Sequence[str]) -> int:
    """Run the command to its end; its exit code. The process that calls this must have no other threads."""
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[lock],
            start_new_session=True,  # so that a signal reaches its workers, and none of ours reaches it
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


def _lines(path: Path) -> int:
    try:
        return read_regular(path).count(b"\n")
    except OSError:
        return 0


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
