"""Checksums of files, kept inside them or in the manifest of their folder: whether they are as they were written."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict

from procpre_interp.core.atomic_files import sync_folder, write_json
from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import parse_json
from procpre_interp.core.regular_files import open_regular, read_regular

MANIFEST = "manifest.json"
"""Written last into a folder: {file: {"bytes": size, "sha256": hash}}, and under its own name the hash of the rest."""

CHECKSUM_PLACE = "sha256:" + "0" * 64
"""Placeholder that `with_checksum` replaces by the checksum of the whole file."""


_SORTED = json.JSONEncoder(sort_keys=True)


class FileEntry(TypedDict):
    """What a manifest says of a file."""

    bytes: int
    sha256: str


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def with_checksum(content: bytes) -> bytes:
    """`content` with `CHECKSUM_PLACE` replaced by the checksum of all of it: a file that guards itself."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return content.replace(CHECKSUM_PLACE.encode(), checksum.encode())


def check_checksum(content: bytes, checksum: Any) -> None:
    """Raise `ValueError` when `content`, which holds `checksum`, is not what `with_checksum` returned."""
    place = content.replace(str(checksum).encode(), CHECKSUM_PLACE.encode())
    if checksum != f"sha256:{hashlib.sha256(place).hexdigest()}":
        raise ValueError("its content has changed since it was written")


def seal(folder: Path, own: re.Pattern[str]) -> None:
    """Sync the files in `folder` whose names match `own`, write the manifest, and remove what broken writes left.

    Other files (a .DS_Store, an editor's swap file) come and go, so they are not part of the manifest.
    """
    entries: dict[str, FileEntry] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") and path.name.endswith(".tmp"):
            path.unlink(missing_ok=True)
        elif path.is_dir():
            sync_folder(path)
        elif own.fullmatch(name):
            with open_regular(path) as file:
                os.fsync(file.fileno())
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                entries[name] = {"bytes": file.tell(), "sha256": digest}
    write_json(folder / MANIFEST, sealed(entries))


def sealed(entries: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest with these entries holds: they, and under its own name their hash."""
    return {**entries, MANIFEST: {"sha256": _hash_entries(entries)}}


def _hash_entries(entries: Mapping[str, Any]) -> str:
    return hashlib.sha256(_SORTED.encode(entries).encode()).hexdigest()


def read_manifest(folder: Path, required: Collection[str] = ()) -> dict[str, FileEntry]:
    """The manifest of a sealed folder. Raises `ValueError` where it is damaged, or where files do not match it.

    Here only names and sizes are compared: `check_content` and `read_checked` compare the hash of one file.
    """
    place = str(folder)  # paths joined as text: a list of runs looks at tens of thousands of files
    try:
        manifest = parse_json(read_regular(f"{place}/{MANIFEST}"))
        rest = dict(manifest)
        own = rest.pop(MANIFEST, None)  # older manifests have none
        if own is not None and own["sha256"] != _hash_entries(rest):
            raise ValueError("it has changed since it was written")
        entries: dict[str, FileEntry] = {}
        sizes: dict[str, int] = {}
        parents: set[str] = set()
        for name, entry in rest.items():
            parent, _, leaf = name.rpartition("/")
            # Older versions sealed every file in the folder, even hidden ones that the system or an editor removes.
            if not leaf.startswith("."):
                sizes[name], _ = int(entry["bytes"]), str(entry["sha256"])
                entries[name] = entry
                parents.add(parent)
    except FileNotFoundError:
        raise ValueError(f"{MANIFEST} is missing") from None
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"{MANIFEST} cannot be read (an entry is not a size and a hash)") from None
    except (OSError, ValueError) as problem:
        raise ValueError(f"{MANIFEST} cannot be read ({_reason(problem)})") from None
    if never := [name for name in required if name not in entries]:
        raise ValueError(f"{never[0]} was never written")
    for parent in parents - {""}:
        if ".." in parent.split("/") or os.path.islink(f"{place}/{parent}"):
            raise ValueError(f"{parent} leads out of the folder")
    for name, size in sizes.items():
        try:
            found = os.lstat(f"{place}/{name}")
        except FileNotFoundError:
            raise ValueError(f"{name} is missing") from None
        except OSError as problem:
            raise ValueError(f"{name} cannot be read ({_reason(problem)})") from None
        if not stat.S_ISREG(found.st_mode):
            raise ValueError(f"{name} is not a regular file")
        if found.st_size != size:
            raise ValueError(f"{name} has {found.st_size:,} bytes, the manifest says {size:,}")
    return entries


def check_content(folder: Path, name: str, manifest: Mapping[str, FileEntry]) -> None:
    """Raise `ValueError` when the file's content is not what the manifest says."""
    try:
        found = sha256(folder / name)
    except OSError as problem:
        raise ValueError(f"{name} cannot be read ({_reason(problem)})") from None
    if found != manifest[name]["sha256"]:
        raise ValueError(f"the content of {name} has changed since it was written")


def read_checked(folder: Path, name: str, manifest: Mapping[str, FileEntry]) -> bytes:
    """The file's content. Raises `ValueError` when it is not what the manifest says."""
    try:
        content = read_regular(f"{folder}/{name}")
    except OSError as problem:
        raise ValueError(f"{name} cannot be read ({_reason(problem)})") from None
    if hashlib.sha256(content).hexdigest() != manifest[name]["sha256"]:
        raise ValueError(f"the content of {name} has changed since it was written")
    return content


def _reason(problem: Exception) -> str:
    """What went wrong on one line, without the path, which the message around it has."""
    text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    return one_line(text) or type(problem).__name__
