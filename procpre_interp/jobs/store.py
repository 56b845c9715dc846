"""The jobs of a run store: started, listed, asked to stop, and deleted."""

import fcntl
import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from procpre_interp.core.atomic_files import remove, write_json
from procpre_interp.core.children import child_environment
from procpre_interp.core.locks import is_locked
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.plain_values import parse_json
from procpre_interp.core.regular_files import SAFELY, open_regular, read_regular
from procpre_interp.jobs.forms import command_line
from procpre_interp.jobs.option import Value
from procpre_interp.jobs.orphans import is_orphan, stop_orphan

State = Literal["running", "stopping", "finished", "cancelled", "failed", "died"]

LOG_BYTES = 20_000
"""Bytes read from the end of a log."""

_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z]+-[0-9a-f]{4}")
_OLD_FIELDS = {"name", "arguments", "started", "program"}
"""Fields of a job.json from before forms were stored."""
OLD = "An older version started this job, and kept no form of it: start it again from the form."
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f]")
_STOPPED = 130
"""Exit code of a command that was stopped."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command that was started; what it says of itself is read anew at each call."""

    folder: Path
    name: str
    """Name of its form."""
    values: Mapping[str, Value]
    """Label of each option -> its value."""
    arguments: tuple[str, ...]
    """Arguments of `procpre-interp` that form and values give."""
    started: str
    problem: str = ""
    """Why it cannot be repeated: what is stored is not what its form allows."""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and of one that died."""
        return self._end[0]

    @property
    def is_running(self) -> bool:
        """Whether any of its processes lives: each of them has the lock open."""
        return is_locked(self.folder / "lock")

    @property
    def state(self) -> State:
        asked = (self.folder / "cancel").is_file()
        if self.is_running:
            return "stopping" if asked else "running"
        code = self.exit_code
        if code is None:  # the guard was killed, and could not write it down
            return "cancelled" if asked else "died"
        if code == 0:
            return "finished"
        return "cancelled" if code == _STOPPED or asked else "failed"

    @property
    def ended(self) -> str:
        """When it ended; empty while it runs."""
        return self._end[1]

    @property
    def _end(self) -> tuple[int | None, str]:
        """Exit code and time, as the guard wrote them down."""
        try:
            end = parse_json(read_regular(self.folder / "end.json"))
            return int(end["exit_code"]), str(end["ended"])
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            return None, ""

    def log(self, at_most: int = LOG_BYTES) -> str:
        """The end of what the command said, without the codes that colour a terminal; of a line that was written over
        and over, the last state."""
        try:
            with open_regular(self.folder / "log") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - at_most))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        return _ESCAPES.sub("", "\n".join(lines[size > at_most :])).strip()

    def cancel(self) -> None:
        """Ask it to stop, as Ctrl-C does: it saves its state. Asked again, it is killed.

        Raises `OSError` where it cannot be: its guard was killed, and its processes are another user's or machine's.
        """
        if is_orphan(self.folder) and self.is_running:
            asked = (self.folder / "cancel").exists()
            stop_orphan(self.folder, signal.SIGKILL if asked else signal.SIGINT)
        handle = os.open(self.folder / "cancel", os.O_WRONLY | os.O_APPEND | os.O_CREAT | SAFELY, 0o644)
        try:
            os.write(handle, b"stop\n")
        finally:
            os.close(handle)


class JobStore:
    """The jobs below the folder of a run store."""

    def __init__(self, store: Path) -> None:
        self.path = store / "jobs"

    def start(self, name: str, values: Mapping[str, Value], *, command: Sequence[str] | None = None) -> Job:
        """Start a form's command with these values in a session of its own. `command`: another one, for tests.

        Raises `ValueError` for values that the form does not allow.
        """
        arguments = command_line(name, values, self.path.parent)
        now = datetime.now(UTC)
        folder = self.path / f"{now:%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(2)}"
        folder.mkdir(parents=True)
        about = {"form": name, "values": dict(values), "started": now.isoformat(timespec="seconds")}
        write_json(folder / "job.json", about)
        command = command or [sys.executable, "-m", "procpre_interp.cli", *arguments]
        with (folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # The guard inherits the open file, and with it the lock: there is no moment without it. It goes into the
            # background by itself, so that it is nobody's child.
            subprocess.run(
                [sys.executable, "-m", "procpre_interp.jobs.guard", str(folder), str(lock.fileno()), *command],
                env=child_environment(),
                pass_fds=[lock.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                check=True,
            )
        return self.open(folder.name)

    def open(self, job_id: str) -> Job:
        """A job by its id. Raises `ValueError` for one that is not there; what is damaged has a `problem`."""
        if not _ID.fullmatch(job_id) or not (self.path / job_id).is_dir():
            raise unknown_name("job", job_id[:60], [path.name for path in self._folders()][:12])
        folder, name = self.path / job_id, job_id.split("-")[2]
        try:
            about = parse_json(read_regular(folder / "job.json"))
            if set(about) == _OLD_FIELDS:
                return Job(folder, name, {}, tuple(map(str, about["arguments"])), str(about["started"]), OLD)
            if set(about) != {"form", "values", "started"} or about["form"] != name:
                raise ValueError(f"it is not what the form {name} writes")
            values = dict(about["values"])
            arguments = command_line(name, values, self.path.parent)
            return Job(folder, name, values, tuple(arguments), str(about["started"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            return Job(folder, name, {}, (), "", f"job.json is damaged: {' '.join(str(problem).split())[:200]}")

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        return [self.open(folder.name) for folder in self._folders()]

    def delete(self, job_id: str) -> None:
        """Forget a job and its log; its runs stay. Raises `ValueError` while it runs."""
        job = self.open(job_id)
        if job.is_running:
            raise ValueError(f"job {job_id} is running; cancel it first")
        remove(job.folder)

    def _folders(self) -> list[Path]:
        found = self.path.iterdir() if self.path.is_dir() else []
        return sorted((path for path in found if _ID.fullmatch(path.name) and path.is_dir()), reverse=True)
