"""Commands whose guard was killed: who asks them to stop signals them itself."""

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from procpre_interp.core.locks import is_locked
from procpre_interp.core.plain_values import parse_json
from procpre_interp.core.regular_files import read_regular

GUARD = "guard"
"""File that the guard alone holds locked while it lives."""
COMMAND = "command.json"
"""Where the command's process writes its process group, before it becomes the command."""


def is_orphan(folder: Path) -> bool:
    """Whether a job's guard has been killed: the file that it held locked is there, and free."""
    return (folder / GUARD).exists() and not is_locked(folder / GUARD)


def stop_orphan(folder: Path, number: signal.Signals) -> None:
    """Send a signal to a job's command and its workers. Raises `ProcessLookupError` where they cannot be found.

    The number alone could by now be that of any other process. So a process of the group must have the job's lock open,
    which it inherited.
    """
    try:
        group = int(parse_json(read_regular(folder / COMMAND))["group"])
        if group not in _groups_with(folder / "lock"):
            raise LookupError(f"process group {group} does not hold it")
    except (OSError, ValueError, LookupError, TypeError) as problem:
        raise ProcessLookupError(
            f"the process that watched over job {folder.name} was killed, and on this machine none of the job's own "
            f"can be found ({problem}); stop it where it runs"
        ) from None
    with suppress(ProcessLookupError):  # it has ended this moment
        os.killpg(group, number)


def _groups_with(path: Path) -> set[int]:
    """The process groups with a process of this user that has a file open."""
    if Path("/proc/self/fd").is_dir():
        processes = {int(handle.parts[2]) for handle in Path("/proc").glob("[0-9]*/fd/*") if _same(handle, path)}
    elif (lsof := shutil.which("lsof")) is not None:
        listed = subprocess.run([lsof, "-t", str(path)], capture_output=True, text=True).stdout
        processes = {int(word) for word in listed.split()}
    else:
        raise LookupError("neither /proc nor lsof is here")
    groups = set()
    for process in processes:
        with suppress(ProcessLookupError):
            groups.add(os.getpgid(process))
    return groups


def _same(handle: Path, path: Path) -> bool:
    try:
        return os.path.samestat(handle.stat(), path.lstat())  # a link in its place is nobody's lock
    except OSError:  # closed this moment, or no file of the file system
        return False
