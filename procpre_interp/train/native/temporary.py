"""A folder for compiled kernels where the cache cannot be written: among the system's temporary files."""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def temporary_folder() -> Path:
    """Its place, the same for all processes of a user, so that a kernel is compiled once. It need not be there yet.

    Raises `FileNotFoundError` where the system has no folder for temporary files.
    """
    return Path(tempfile.gettempdir()) / temporary_folder_name()


def temporary_folder_name() -> str:
    """The folder's name, which no other folder of libraries has."""
    return f"procpre_interp-{os.geteuid()}"


def make_private(folder: Path) -> None:
    """Make the folder. Raises `OSError` where another user could put a library of his own there, to be run by us."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & others:
        raise PermissionError(errno.EPERM, "other users could change what is compiled there", str(folder))
