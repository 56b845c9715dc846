"""Named collections of classes: tasks, corpora, ablations, probes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, TypeVar

from procpre_interp.core.config import from_dict
from procpre_interp.core.messages import unknown_name

T = TypeVar("T")
C = TypeVar("C", bound=type)

PLURALS = {"corpus": "corpora"}

_PLUGIN: ContextVar[str | None] = ContextVar("plugin", default=None)


@contextmanager
def registering(mark: str) -> Iterator[None]:
    """What is registered in the block belongs to the plugin with this mark, which is then part of its identity."""
    token = _PLUGIN.set(mark)
    try:
        yield
    finally:
        _PLUGIN.reset(token)


class Registry(Generic[T]):
    """Classes by name. A duplicate name, or an unknown one, is a `ValueError`."""

    def __init__(self, kind: str, *, base: type = object) -> None:
        self.kind, self.base = kind, base
        self._classes: dict[str, type[T]] = {}
        self._unlisted: set[str] = set()

    def register(self, name: str, *, listed: bool = True) -> Callable[[C], C]:
        """Class decorator: enter the class under `name`, and set its attributes `name` and `plugin`.

        What is not `listed` is found by its name, in a stored config, but offered to nobody: iteration leaves it out.
        Raises `ValueError` for a name that is taken, a class that is not derived from `base`, and an abstract one.
        """

        def enter(cls: C) -> C:
            if not issubclass(cls, self.base):
                raise ValueError(f"{self.kind} {name!r}: {cls.__qualname__} is not derived from {self.base.__name__}")
            if missing := sorted(getattr(cls, "__abstractmethods__", ())):
                raise ValueError(f"{self.kind} {name!r}: {cls.__qualname__} lacks {', '.join(missing)}")
            if name in self._classes:
                raise ValueError(f"{self.kind} {name!r} is registered already, by {self._classes[name].__qualname__}")
            cls.name, cls.plugin = name, _PLUGIN.get()  # type: ignore[attr-defined]
            self._classes[name] = cls  # pyright: ignore[reportArgumentType]
            if not listed:
                self._unlisted.add(name)
            return cls

        return enter

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._classes:
            own = f"; {PLURALS.get(self.kind, f'{self.kind}s')} of your own come with --import FILE.py"
            raise ValueError(f"{unknown_name(self.kind, name, list(self))}{own}")
        return self._classes[name]

    def build(self, name: str, **params: Any) -> T:
        """An instance of the class registered as `name`; values are coerced to the declared field types."""
        return from_dict(self[name], params)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._classes.keys() - self._unlisted))

    def __len__(self) -> int:
        return len(self._classes) - len(self._unlisted)

    def __contains__(self, name: object) -> bool:
        return name in self._classes
