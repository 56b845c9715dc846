"""Tasks, controls, interventions, probes and corpora of your own: files and modules that register them when loaded.

A plugin is loaded where the user asks for it: by `--import`, by `plugins:` in a YAML file, by `load_plugin`, by
$PROCPRE_PLUGINS, or by installing a package with an entry point in the group `procpre_interp.plugins`. What a store
names is never loaded: a run records its plugin's name and hash, and keeps a copy of the file, which nothing reads.

The hash of a plugin's source is part of the identity of what it registers, so that two plugins with one name never
share a run.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from procpre_interp.core.config import ID_LENGTH
from procpre_interp.core.registry import registering

GROUP = "procpre_interp.plugins"
"""Entry points of installed packages, each of which names a module."""
VARIABLE = "PROCPRE_PLUGINS"
"""Environment variable with the plugins of a command and of its child processes, separated as in PATH."""
_ATTRIBUTE = "__procpre_plugin__"
"""Where a loaded module holds its `Plugin`."""
_one_at_a_time = threading.RLock()
"""Two browser sessions may ask for one plugin at once, and a plugin may load another."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A file or a module, as it was when it was loaded."""

    source: str
    """Absolute path of a .py file, or the name of a module."""
    digest: str
    """16 hexadecimal digits of the SHA-256 of its source; for a module, of all files of its package."""

    @property
    def is_file(self) -> bool:
        return self.source.endswith(".py")

    @property
    def name(self) -> str:
        """Name of the file without its folder, or of the module."""
        return Path(self.source).name if self.is_file else self.source

    @property
    def mark(self) -> str:
        """What configs record, and what is hashed."""
        return f"{self.name}@{self.digest}"

    def text(self) -> str:
        """The file's source. Raises `ValueError` where it is no longer what was loaded."""
        content = Path(self.source).read_bytes()
        if _digest(content) != self.digest:
            raise ValueError(f"plugin {self.source} has changed since it was loaded; start the command anew")
        return content.decode()


def load_plugin(name: str | Path, *, expected: Plugin | None = None) -> Plugin:
    """Load a plugin once: a path that ends in .py, or the name of an installed module.

    Raises `ValueError` where there is none, where its code fails or registers a name twice, and where its source is
    not what was loaded before in this process, or `expected` by another one.
    """
    source = locate(name)
    with _one_at_a_time:
        if source.endswith(".py"):
            content = Path(source).read_bytes()
            plugin = Plugin(source, _digest(content))
        else:
            content, plugin = b"", Plugin(source, _hash_package(source))
        known = [*loaded(), *([] if expected is None else [expected])]
        if other := next((each for each in known if each.source == source and each != plugin), None):
            raise ValueError(f"plugin {source} has changed since it was loaded as {other.mark}; start the command anew")
        if plugin not in loaded():
            _execute(plugin, content)
    return plugin


def load_named() -> None:
    """Load the plugins that $PROCPRE_PLUGINS names, and those of installed packages.

    Errors are those of `load_plugin`.
    """
    for name in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        load_plugin(name)
    for entry in metadata.entry_points(group=GROUP):
        load_plugin(entry.module)


@contextmanager
def named(names: Sequence[str]) -> Iterator[None]:
    """Child processes started in the block load these plugins too: $PROCPRE_PLUGINS names them by absolute paths."""
    before = os.environ.get(VARIABLE)
    found = [*filter(None, (before or "").split(os.pathsep)), *map(locate, names)]
    if found:
        os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(found))
    try:
        yield
    finally:
        if before is not None:
            os.environ[VARIABLE] = before
        else:
            os.environ.pop(VARIABLE, None)


def locate(name: str | Path, folder: Path | None = None) -> str:
    """Absolute path of a plugin's file (relative ones are below `folder`, by default the current one), or its module.

    Raises `ValueError` where there is no such file or module. Nothing is imported.
    """
    text = str(name)
    if text.endswith(".py") or os.sep in text:
        path = (folder or Path()).joinpath(os.path.expanduser(text)).resolve()
        if not path.is_file() or path.suffix != ".py" or os.pathsep in str(path):
            raise ValueError(f"plugin {text}: there is no file {path}, or it is no .py file that can be loaded")
        return str(path)
    if not all(part.isidentifier() for part in text.split(".")) or _top(text) is None:
        raise ValueError(f"plugin {text}: no such module is installed; for a file write its path, such as my.py")
    return text


def loaded() -> tuple[Plugin, ...]:
    """The plugins of this process, in the order of their loading."""
    modules = [module for module in list(sys.modules.values()) if isinstance(module, ModuleType)]
    found = [vars(module).get(_ATTRIBUTE) for module in modules]
    return tuple(each for each in found if isinstance(each, Plugin))


def _execute(plugin: Plugin, content: bytes) -> None:
    """Import the module, with what it registers marked as the plugin's."""
    try:
        with registering(plugin.mark):
            module = _import_file(plugin, content) if plugin.is_file else importlib.import_module(plugin.source)
    except (Exception, SystemExit) as problem:
        lines = [
            frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == plugin.source
        ]
        where = f"{plugin.source}, line {lines[-1]}" if lines else plugin.source
        raise ValueError(f"plugin {where}: {type(problem).__name__}: {' '.join(str(problem).split())}") from problem
    setattr(module, _ATTRIBUTE, plugin)


def _import_file(plugin: Plugin, content: bytes) -> ModuleType:
    """The file as a module whose name follows from its content: so a worker finds the classes of pickled configs."""
    stem = re.sub(r"\W", "_", Path(plugin.source).stem)
    module = ModuleType(f"procpre_plugin_{stem}_{plugin.digest}")
    module.__file__ = plugin.source
    sys.modules[module.__name__] = module  # before its code runs: dataclasses look their module up
    try:
        exec(
            compile(content, plugin.source, "exec"), vars(module)
        )  # what was hashed, and not a file that changed since
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _top(module: str) -> list[Path] | None:
    """The file of the module's outermost package, or its folders; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    return [Path(path) for path in spec.submodule_search_locations or filter(None, [spec.origin])]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:ID_LENGTH]


def _hash_package(module: str) -> str:
    files = [path for top in _top(module) or [] for path in (sorted(top.rglob("*.py")) if top.is_dir() else [top])]
    return _digest(b"".join(path.name.encode() + hashlib.sha256(path.read_bytes()).digest() for path in files))
