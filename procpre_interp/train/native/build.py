"""Compiles the native kernel with the machine's own compiler, once for each shape, and keeps the library.

The library's name is the hash of everything that its code depends on: sources, flags, compiler, and the features of
the processor, which the compiler's predefined macros spell out. So a changed source, an update of the compiler, or a
home folder on another machine asks for a new one.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from procpre_interp.core.atomic_files import atomic_write, cache_folder, remove_leftovers_of, write_text
from procpre_interp.core.locks import locked
from procpre_interp.core.messages import one_line
from procpre_interp.core.places import check_folder
from procpre_interp.train.native.temporary import make_private, temporary_folder, temporary_folder_name

Level = Literal["native", "avx512", "avx2", "plain"]
"""Which instructions: all that this processor has, or a generation's; plain is what every one of its kind has."""

# With -ffast-math gcc before 13 would link code that flushes denormal numbers in the whole process, torch and numpy
# included. These three are what gains speed of it, 15 %, and they keep NaN and infinity.
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")

LEVEL_FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86-64": {
        "native": ("-march=native",),
        "avx512": ("-march=x86-64-v4",),
        "avx2": ("-march=x86-64-v3",),
        "plain": ("-march=x86-64",),
    },
    "arm64": {"native": ("-mcpu=native",), "plain": ()},
}
PROCESSORS = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "arm64", "arm64": "arm64"}
"""What `platform.machine()` says, in lower case."""

SOURCE = Path(__file__).with_name("kernel.cpp")
COMPILE_SECONDS = 300
"""A compiler that takes longer is taken for one that hangs."""
LEFTOVER_SECONDS = 6 * 3600
"""Temporary files that are older were left by a build that was killed."""

log = logging.getLogger(__name__)


class KernelUnavailable(ValueError):
    """The native kernel cannot be used here; the message says why, in one line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelShape:
    """What the kernel is compiled for: the sizes of its innermost loops."""

    n_heads: int
    d_model: int
    d_mlp: int
    tokens: int
    """Room for one sequence, or a group of shorter ones: a power of two from 256 on."""

    @property
    def flags(self) -> tuple[str, ...]:
        sizes = {"N_HEADS": self.n_heads, "D_MODEL": self.d_model, "D_MLP": self.d_mlp, "TOKENS": self.tokens}
        return tuple(f"-D{name}={size}" for name, size in sizes.items())


def build(shape: KernelShape, level: Level = "native") -> Path:
    """The shared library for this shape: from the cache, or compiled now, which takes seconds.

    Several processes may ask at once; one compiles and the others wait. Raises `KernelUnavailable`.
    """
    # The environment is part of the key: another $CXX or cache folder is another question.
    return _build(shape, level, compiler(), _folders())


def is_built(shape: KernelShape, level: Level = "native") -> bool:
    """Whether the library for this shape has been compiled, or cannot be had at all: `build` then answers at once."""
    try:
        command, folders = compiler(), _folders()
        if any(_is_whole(_library(shape, level, command, folder)) for folder in folders):
            return True
    except KernelUnavailable:
        return True
    return not any(_can_be_written(folder) for folder in folders)


def _can_be_written(folder: Path) -> bool:
    try:
        check_folder(folder)
    except OSError:
        return False
    return True


def _folders() -> tuple[Path, ...]:
    """Where libraries may lie: in the cache and, where that cannot be had or written, among temporary files."""
    found = []
    with suppress(FileNotFoundError):  # the home folder is not known
        found.append(cache_folder() / "native")
    with suppress(FileNotFoundError):  # the system has no temporary files
        found.append(temporary_folder())
    return tuple(found)


def _library(shape: KernelShape, level: Level, command: tuple[str, ...], folder: Path) -> Path:
    return folder / f"{_key(shape, level, command)}.so"


@functools.cache
def _build(shape: KernelShape, level: Level, command: tuple[str, ...], folders: tuple[Path, ...]) -> Path:
    problems = []
    for folder in folders:
        library = _library(shape, level, command, folder)
        try:
            if folder.name == temporary_folder_name():
                make_private(folder)
            if _is_whole(library):
                remove_leftovers_of(library, library.with_suffix(".lock"))
            else:
                _compile_once(shape, level, library)
                if problems:
                    log.warning("%s: the native kernel is compiled in %s, until that is cleared", problems[0], folder)
        except OSError as problem:
            problems.append(f"{problem.filename or folder}: {problem.strerror or problem}")
        else:
            _check_loads(library)
            return library
    reason = problems[0] if problems else "no cache, nor a folder for temporary files"
    raise KernelUnavailable(f"{reason}; set PROCPRE_CACHE to a folder that can be written")


def _compile_once(shape: KernelShape, level: Level, library: Path) -> None:
    """Compile the library unless another process does."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with locked(library.with_suffix(".lock")):
        if not _is_whole(library):  # else another process compiled it while this one waited
            _remove_leftovers(library)
            with atomic_write(library) as temporary:
                compile_kernel(shape, temporary, level=level)
            write_text(_checksum(library), hashlib.sha256(library.read_bytes()).hexdigest())


def _check_loads(library: Path) -> None:
    """Raise `KernelUnavailable` where the library cannot be loaded, whoever compiled it."""
    try:
        ctypes.CDLL(str(library))
    except OSError as problem:
        # For a noexec mount the loader says "failed to map segment", which helps nobody.
        noexec = os.statvfs(library.parent).f_flag & getattr(os, "ST_NOEXEC", 0)
        advice = "; its folder is mounted noexec: set PROCPRE_CACHE to a folder that is not" if noexec else ""
        reason = one_line(problem).removeprefix(f"{library}: ")
        raise KernelUnavailable(f"{library} is compiled but cannot be loaded: {reason}{advice}") from None


def _remove_leftovers(library: Path) -> None:
    """Remove what killed builds left: of this library at once, since its lock is ours, and of others when it is old."""
    for path in library.parent.glob(".*.tmp*"):
        with suppress(OSError):  # it is gone by now, or another user's
            if path.name.startswith(f".{library.stem}.") or time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def compile_kernel(
    shape: KernelShape, output: Path, *, level: Level = "native", flags: Sequence[str] = (), source: Path = SOURCE
) -> None:
    """Compile the kernel into the shared library `output`, `flags` after our own. Raises `KernelUnavailable`.

    `source`: that of another version, for measurements.
    """
    command, linked = compiler(), [flag for flag in flags if flag.startswith("-fsanitize")]
    compiled = output.with_name(output.name + ".o")
    try:
        _call(
            [
                *command,
                *FLAGS,
                *_accepted_flags(level, command),
                *shape.flags,
                *flags,
                "-c",
                str(source),
                "-o",
                str(compiled),
            ]
        )
        _call([*command, "-shared", str(compiled), "-o", str(output), "-pthread", *linked])
    finally:
        compiled.unlink(missing_ok=True)


def compiler() -> tuple[str, ...]:
    """The command of the C++ compiler: $CXX, or the first that there is. Raises `KernelUnavailable`."""
    wanted = os.environ.get("CXX", "")
    try:
        chosen = shlex.split(wanted)
    except ValueError as problem:
        raise KernelUnavailable(f"no C++ compiler: CXX={wanted!r} cannot be split into words: {problem}") from None
    for name in [chosen[0]] if chosen else ["c++", "g++", "clang++"]:
        if (path := shutil.which(name)) is not None:
            return (path, *chosen[1:])
    raise KernelUnavailable(
        f"no C++ compiler: CXX={shlex.join(chosen)} is not there" if chosen else "no C++ compiler (install g++, say)"
    )


def level_flags(level: Level) -> tuple[str, ...]:
    """The compiler's flags for a level on this processor. Raises `KernelUnavailable`."""
    machine = platform.machine()
    processor = PROCESSORS.get(machine.lower())
    if processor is None:
        raise KernelUnavailable(f"unknown processor {machine!r} (known: {', '.join(PROCESSORS)})")
    if level not in LEVEL_FLAGS[processor]:
        raise KernelUnavailable(f"{machine} has no level {level!r}, only {', '.join(LEVEL_FLAGS[processor])}")
    return LEVEL_FLAGS[processor][level]


def _accepted_flags(level: Level, command: Sequence[str]) -> tuple[str, ...]:
    """The level's flags, or none where the compiler does not know how to compile for its own processor."""
    flags = level_flags(level)
    refused = level == "native" and _run([*command, *flags, "-E", "-x", "c++", os.devnull]).returncode != 0
    return () if refused else flags


def _key(shape: KernelShape, level: Level, command: tuple[str, ...]) -> str:
    flags = [*FLAGS, *_accepted_flags(level, command), *shape.flags]
    content = hashlib.sha256(repr((command, flags)).encode())
    content.update(_call([*command, *flags, "-dM", "-E", "-x", "c++", os.devnull]).encode())
    here = Path(__file__).parent
    for source in sorted([*here.glob("*.cpp"), *here.glob("*.h")]):
        content.update(source.name.encode() + source.read_bytes())
    return content.hexdigest()[:24]


def _call(command: Sequence[str]) -> str:
    """What the compiler prints. Raises `KernelUnavailable` with its first complaint."""
    done = _run(command)
    if done.returncode != 0:
        complaints = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()] or ["no message"]
        raise KernelUnavailable(f"{command[0]} fails (exit code {done.returncode}): {complaints[0]}")
    return done.stdout


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The compiler's answer. Raises `KernelUnavailable` where it does not run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise KernelUnavailable(f"{command[0]} does not run: {str(problem).splitlines()[0]}") from None


def _checksum(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _is_whole(library: Path) -> bool:
    """Whether the library is there and undamaged; loading one that is cut off would kill the process."""
    try:
        return hashlib.sha256(library.read_bytes()).hexdigest() == _checksum(library).read_text()
    except OSError:
        return False
