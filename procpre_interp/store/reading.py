"""The small files of a finished run, each checked when it is read. Without pandas, so that a list of runs is quick."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from procpre_interp.core import checksums, schema
from procpre_interp.core.checksums import FileEntry
from procpre_interp.core.messages import one_line
from procpre_interp.core.places import unreadable
from procpre_interp.core.plain_values import parse_json
from procpre_interp.core.schema import ClassFields, Summary

REQUIRED = ("config.yaml", "environment.json", "summary.json")


class UnknownRun(ValueError, LookupError):
    """No run, or no table, of that name."""


class DamagedRun(ValueError):
    """A finished run whose files are not those that were written, or hold what no run writes."""

    def __init__(self, folder: Path, problem: str) -> None:
        super().__init__(f"run {folder.name} {self._said(folder, problem)}")
        self.folder, self.problem = folder, problem

    @staticmethod
    def _said(folder: Path, problem: str) -> str:
        return f"is damaged: {problem}. Remove {folder} and repeat its command: it is computed again."

    def __reduce__(
        self,
    ) -> tuple[Any, ...]:  # an error of a worker process must reach the one that waits for it
        return type(self), (self.folder, self.problem)


class UnreadableRun(DamagedRun):
    """A finished run that may be whole, with a file that this user may not read."""

    @staticmethod
    def _said(folder: Path, problem: str) -> str:
        return f"cannot be read: {problem}. Change the permissions in {folder}; nothing else need be wrong with it."


def read_summary(folder: Path) -> Summary:
    """The summary of the run in `folder`, as `read_run` checks it; the quickest look at a run."""
    try:  # quicker than `reading`, and done for every run of a list
        manifest = checksums.read_manifest(folder, REQUIRED)
        return with_parents(read_fields(folder, "summary.json", manifest, parse_json, schema.check_summary))
    except (OSError, ValueError) as problem:
        raise _told(folder, problem) from None


def is_light(folder: Path) -> bool:
    """Whether the run in `folder` is a copy that something was left out of. Raises as `read_summary` does."""
    return "left_out" in read_summary(folder)


def with_parents(summary: dict[str, Any]) -> Summary:
    """The summary with its parents as a tuple of ids; older versions wrote text, with commas between them, or null."""
    parents = summary.get("parents") or ()
    summary["parents"] = tuple(parents.split(", ") if isinstance(parents, str) else parents)
    return cast(Summary, summary)


def read_manifest(folder: Path) -> dict[str, FileEntry]:
    """The manifest of the run in `folder`, names and sizes checked.

    Raises `DamagedRun`, or `UnknownRun` where it is deleted meanwhile.
    """
    with reading(folder):
        return checksums.read_manifest(folder, REQUIRED)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Errors of reading a run's files as `DamagedRun`, or as `UnknownRun` where the run is gone."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as problem:  # torch's of a file that went away is of the last kind
        raise _told(folder, problem) from None


def _told(folder: Path, problem: Exception) -> Exception:
    if not folder.is_dir():
        return UnknownRun(f"run {folder.name} was deleted while it was read")
    if isinstance(problem, DamagedRun):
        return problem
    may_all_be_read = all(unreadable(path) is None for path in (folder, *folder.rglob("*")))
    return (DamagedRun if may_all_be_read else UnreadableRun)(folder, one_line(problem))


def read_fields(
    folder: Path,
    name: str,
    manifest: Mapping[str, FileEntry],
    parse: Callable[[bytes], Any],
    check: Callable[[ClassFields], None] = lambda fields: None,
) -> Any:
    """What a small file holds. Raises `ValueError` where its content changed, or is not what a run writes."""
    content = checksums.read_checked(folder, name, manifest)
    try:
        found = parse(content)
    except ValueError as problem:
        raise ValueError(f"{name} cannot be read ({one_line(problem)})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} holds no fields")
    try:
        check(found)
    except ValueError as problem:
        raise ValueError(f"{name}: {problem}") from None
    return found
