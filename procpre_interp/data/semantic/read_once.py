"""Corpora whose files are read once for many tasks, such as those of a sweep's runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from procpre_interp.data.token_file import TokenFile

TokenFiles = dict[tuple[str, str], TokenFile]
"""Token files by corpus and tokenizer, as a task names them."""
_KNOWN: ContextVar[TokenFiles | None] = ContextVar("_KNOWN", default=None)


def token_files() -> TokenFiles:
    """What is known of the corpora that are read once; nothing elsewhere."""
    known = _KNOWN.get()
    return {} if known is None else known


@contextmanager
def corpora_read_once() -> Iterator[None]:
    """Take the files of a corpus, until this is left, to stay as they were when a task first read them.

    Those of `docstrings` are five thousand, and to walk through them for every run of a sweep takes minutes.
    """
    token = _KNOWN.set(token_files())
    try:
        yield
    finally:
        _KNOWN.reset(token)
