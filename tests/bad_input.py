"""What a bad input must not do, watched: hang, take memory, write or read outside of its folder, run a file's code; and
strategies for inputs that nobody would type on purpose.
"""

import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st

SECONDS, GIGABYTES = 10, 2
"""What one input may take: seconds of the processor's time, since others may use the machine."""
WAITING = 120
"""Seconds after which what does nothing hangs."""
WORDS_OF_PYTHON = (
    "Traceback",
    "has no attribute",
    "NoneType",
    "MemoryError",
    "RecursionError",
    "can't alloc",
    "<class",
)
"""What no message to a user says."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork")
_HARMLESS = ("git", "uname")
"""What is asked about the machine and the code."""
_SECRETS = ("/etc/passwd", "/etc/shadow", "/etc/group")
"""What no input may have read, and several of them name."""
_ANYWHERE = ("/dev/null", "/dev/tty", "/proc/self")


class TooLate(BaseException):
    """The time is up. No handler of errors takes it for one."""


class _Watch:
    """What Python reports of what is done: paths that are opened, code that is run, processes that are started."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.typed = self.pickles = False
        self.others: tuple[str, ...] = ()
        self.problems: list[str] = []
        self.installed = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITES)
            follows = not (isinstance(flags, int) and flags & os.O_NOFOLLOW)
            self._see("writes" if writes else "reads", path, follows=follows)
        elif event in _CHANGES:
            # A link is written where it stands, whatever it leads to; what is removed is the link, too.
            paths = {"os.rename": arguments[:2], "os.link": arguments[:2], "os.symlink": arguments[1:2]}
            for path in paths.get(event, arguments[:1]):
                is_there = event == "os.mkdir" and os.path.isdir(path)  # so that nothing is made
                if isinstance(path, (str, bytes, os.PathLike)) and not is_there:
                    self._see(event, Path(os.fsdecode(path)).parent)
        elif event == "exec":
            name = getattr(arguments[0], "co_filename", "")
            if isinstance(name, str) and name.startswith(str(self.folder)):
                self.problems.append(f"runs the code of {name}")
        elif event == "pickle.find_class" and not self.pickles:
            self.problems.append(f"unpickles {arguments}")
        elif event in _STARTS or (event == "subprocess.Popen" and arguments[0] not in _HARMLESS):
            if not self.typed:
                self.problems.append(f"starts {arguments[:2]}")
            raise KeyboardInterrupt
        elif event in ("socket.connect", "socket.getaddrinfo"):
            self.problems.append(f"calls {arguments[1:] if event == 'socket.connect' else arguments[:2]}")
            raise ConnectionRefusedError("no network")

    def _see(self, what: str, path: object, *, follows: bool = True) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        try:
            folder, name = os.path.split(os.fsdecode(path))
            real = os.path.realpath(os.fsdecode(path)) if follows else os.path.join(os.path.realpath(folder), name)
        except (OSError, ValueError):  # no path at all
            return
        inside = real.startswith((f"{self.folder}/", *self.others, *_ANYWHERE)) or real == str(self.folder)
        secret = ("secret" in Path(real).name or real in _SECRETS) and not self.typed
        if secret or (what != "reads" and not inside):
            self.problems.append(f"{what} {real}"[:300])


_WATCH = _Watch()


def _memory(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(f"{name}:"))


@contextmanager
def watched(folder: Path, *, typed: bool = False, pickles: bool = False) -> Iterator[None]:
    """Fail where what is done inside takes more than `SECONDS` or `GIGABYTES`, writes anywhere but in the folder or the
    cache, opens a connection, runs code of a file, unpickles (unless `pickles`, as Streamlit does in memory), reads
    a file with "secret" in its name or one of `_SECRETS`, or starts a process.

    The last two are no failures of what a user `typed`, who may name any file and start any command; processes are not
    started, however: a `KeyboardInterrupt` comes in their place.
    """
    if not _WATCH.installed:
        sys.addaudithook(_WATCH)  # which cannot be taken away again
        _WATCH.installed = True

    def late(*_: object) -> None:
        raise TooLate(f"more than {SECONDS} s")

    limits = resource.getrlimit(resource.RLIMIT_AS)
    clocks = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, WAITING)}
    handlers = {number: signal.signal(number, late) for number, _ in clocks.values()}
    before = _memory("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is counted from here
    # So that a mistake takes down the test, and not the machine.
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + 2 * GIGABYTES * 2**30, limits[1]))
    _WATCH.problems, _WATCH.typed, _WATCH.pickles = [], typed, pickles
    _WATCH.others = tuple(os.path.realpath(path) for path in (os.environ["PROCPRE_CACHE"],))
    _WATCH.folder = Path(os.path.realpath(folder))
    for clock, (_, seconds) in clocks.items():
        signal.setitimer(clock, seconds)
    try:
        yield
    finally:
        for clock in clocks:
            signal.setitimer(clock, 0)
        _WATCH.folder = None
        for number, handler in handlers.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not _WATCH.problems, _WATCH.problems
    grown = _memory("VmHWM") - before
    assert grown < GIGABYTES * 2**30, f"{grown / 2**30:.1f} GiB"


def check_message(text: str) -> None:
    """A message is one clear line, and not in Python's own words."""
    assert text.strip(), "nothing is said"
    assert "\n" not in text.strip(), text[:500]
    for word in WORDS_OF_PYTHON:
        assert word not in text, text[:500]


# ---- Values ----------------------------------------------------------------------------------------------------------

WHOLE_NUMBERS = (-1, 0, 1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400)
NUMBERS = (0.5, -0.0, 1e-320, 1e308, -1.5, float("inf"), float("-inf"), float("nan"))
DEEP = 200
TEXTS = (
    "", " ", "\t", "-", "--", "~", "0", "-1", "1e3", "1e309", "0x10", "1_0", "nan", ".inf", "null", "true", "None",
    "9" * 30, "9" * 5_000, "a" * 300, "a" * 20_000, "[" * DEEP, "{", "]", "{a: b", "*a", "&a [*a]", "<<", "!!binary x",
    "!!python/object/apply:os.system [touch pwned]", "../../secret", "../secret.yaml", "/etc/passwd", "/dev/zero",
    "/proc/self/mem", "$HOME", "latest", "latest@1", "@", "a@b", "%s%n", "{0}", "\\", "'", '"', "`", "\u202e", "é",
    "\U0001f389", "٣", "\x00", "\ud800", "\x1b[2J", "a\nb", "dyck", "haystack", "text", "noisy", "mixture", "attn",
    "blocks.0.attn.head.0", "none", "all", "sharpest.1", "noise", "cpu", "cuda", "meta", "cpu:999", "files:.", "secret",
    "files:../secret.txt", "huggingface:../secret", "native", "torch", "stacked", "auto",
)  # fmt: skip

texts = st.sampled_from(TEXTS) | st.text(max_size=20)
scalars = texts | st.sampled_from(WHOLE_NUMBERS) | st.sampled_from(NUMBERS) | st.booleans() | st.none()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=8
)
"""What JSON or YAML could hold in any place."""


def nested(depth: int) -> list[Any]:
    """A list in a list, and so on."""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@st.composite
def changed(draw: st.DrawFn, tree: Any, most: int = 3) -> Any:
    """The tree of plain values with some of its nodes replaced, removed, renamed or doubled."""
    for _ in range(draw(st.integers(1, most))):
        tree = _changed_once(draw, tree)
    return tree


def _changed_once(draw: st.DrawFn, tree: Any) -> Any:
    places = list(_places(tree))
    path = draw(st.sampled_from(places))
    kind = draw(st.sampled_from(("value", "value", "value", "remove", "rename", "add", "deep", "borrow")))
    if not path:
        return draw(values) if kind == "value" else tree
    if kind == "value":
        return _replaced(tree, path, draw(values))
    if kind == "deep":
        return _replaced(tree, path, nested(DEEP))
    if kind == "borrow":  # from another place of the same tree
        return _replaced(tree, path, _at(tree, draw(st.sampled_from(places))))
    *inside, last = path
    parent = _at(tree, inside)
    if isinstance(parent, dict):
        rest = {key: value for key, value in parent.items() if kind == "add" or key != last}
        extra = {} if kind == "remove" else {draw(texts): parent[last] if kind == "rename" else draw(values)}
        return _replaced(tree, inside, rest | extra)
    rest = [value for index, value in enumerate(parent) if kind != "remove" or index != last]
    return _replaced(tree, inside, rest if kind == "remove" else [*rest, draw(values)])


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        if len(path) < 8:
            yield from _places(value, (*path, key))


def _at(tree: Any, path: Sequence[Any]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _replaced(tree: Any, path: Sequence[Any], value: Any) -> Any:
    if not path:
        return value
    first, *rest = path
    if isinstance(tree, dict):
        return {**tree, first: _replaced(tree[first], rest, value)}
    return [*tree[:first], _replaced(tree[first], rest, value), *tree[first + 1 :]]


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content cut off, or with some bytes replaced, doubled or put in."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(found)))
        match draw(st.sampled_from(("cut", "replace", "insert", "double"))):
            case "cut":
                del found[place:]
            case "replace":
                found[place : place + 1] = draw(st.binary(min_size=1, max_size=2))
            case "insert":
                found[place:place] = draw(st.binary(min_size=1, max_size=8))
            case _:
                found[place:place] = found[place : place + 50]
    return bytes(found)
