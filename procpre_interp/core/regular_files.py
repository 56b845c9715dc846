"""Files of a store or cache, opened so that no link, pipe or device in it is followed or waited for."""

import errno
import io
import os
import stat
from pathlib import Path

SAFELY = os.O_NONBLOCK | os.O_NOFOLLOW
"""Flags for opening files in a store. Opening a pipe would wait for its other end, and a link in a store that somebody
else made could expose any file on this computer."""


def open_handle(path: str | Path) -> int:
    """A file opened for reading, whatever it is but a link, which is an `OSError`."""
    try:
        return os.open(path, os.O_RDONLY | SAFELY)
    except OSError as problem:
        if problem.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "a link, which is not followed", str(path)) from None
        raise


def open_regular(path: str | Path) -> io.BufferedReader:
    """A file in a store or cache, opened for reading. Raises `OSError` for links, pipes, devices and folders."""
    handle = open_handle(path)
    try:
        check_regular(handle, path)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(handle: int, path: str | Path) -> int:
    """The size of an open file. Raises `OSError` for a pipe, a device or a folder."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return found.st_size


def read_regular(path: str | Path) -> bytes:
    """The content of a file in a store or cache. Raises `OSError` for links, pipes, devices and folders."""
    handle = open_handle(path)
    try:
        size = check_regular(handle, path)
        parts = [os.read(handle, size + 1)]
        while parts[-1] and len(parts[0]) != size:  # it grows, or is larger than one read can be
            parts.append(os.read(handle, 2**20))
        return b"".join(parts)
    finally:
        os.close(handle)
