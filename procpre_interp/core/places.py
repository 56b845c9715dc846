"""Whether a file can be written somewhere, asked before hours of work whose result goes there, or may be read."""

import errno
import os
from pathlib import Path

from procpre_interp.core.messages import SHOWN

LONGEST_NAME = 230
"""Bytes of a file's name: a file system takes 255, and a temporary file's name is longer by 19."""


def check_file(path: Path) -> None:
    """Raise `OSError` where `path` cannot become a file: its name is too long, or its folder cannot be written."""
    if os.path.isdir(path):
        raise IsADirectoryError(errno.EISDIR, "a folder; give the name of a file in it", str(path))
    if os.path.exists(path) and not os.path.isfile(path):  # which a file would take the place of, were it /dev/null
        raise OSError(errno.EINVAL, "a pipe or a device; give the name of a file", str(path))
    if len(os.fsencode(path.name)) > LONGEST_NAME:
        raise OSError(errno.ENAMETOOLONG, f"Name too long, at most {LONGEST_NAME} bytes", f"{str(path)[:SHOWN]}...")
    check_folder(path.parent)


def check_folder(folder: Path) -> None:
    """Raise `OSError` where no file can be put into `folder`, which may have to be made first."""
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in folder.parts):
        raise OSError(errno.ENAMETOOLONG, f"Name too long, at most {LONGEST_NAME} bytes", f"{str(folder)[:SHOWN]}...")
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not os.path.isdir(there):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not _may(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def unreadable(path: Path) -> Path | None:
    """What may not be read: the file or folder at `path`, or a folder on the way to it; None where all may."""
    path = path.absolute()
    for place in (*reversed(path.parents), path):
        wanted = os.R_OK if place == path else 0  # a way leads through a folder that may not be listed
        if os.path.lexists(place) and not _may(place, wanted | (os.X_OK if os.path.isdir(place) else 0)):
            return place
    return None


def _may(path: Path, wanted: int) -> bool:
    """Whether this process may do that with what is there."""
    return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)
