"""Files of a store or cache, opened so that no link, pipe or device in it is followed or waited for."""

import errno
import io
import os
import stat
from pathlib import Path

SAFELY = os.O_NONBLOCK | os.O_NOFOLLOW
"""Flags for opening files in a store. Opening a pipe would wait for its other end, and a link in a store that somebody
else made could expose any file on this computer."""


def open_regular(path: str | Path) -> io.BufferedReader:
    """A file in a store or cache, opened for reading. Raises `OSError` for links, pipes, devices and folders."""
    try:
        handle = os.open(path, os.O_RDONLY | SAFELY)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link, which is not followed", str(path)) from None
        raise
    try:
        check_regular(handle, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(handle: int, path: str | Path) -> None:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: str | Path) -> bytes:
    """The content of a file in a store or cache. Raises `OSError` for links, pipes, devices and folders."""
    with open_regular(path) as file:
        return file.read()
