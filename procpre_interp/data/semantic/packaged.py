"""Corpora whose files come in a package of a registry, and what is said where it cannot be had."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from procpre_interp.data.corpus import CORPORA, Corpus, SourceFile, State, build_corpus, needs_a_name
from procpre_interp.data.semantic.packages import FetchError, Package


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedCorpus(Corpus):
    """A corpus that reads the files kept of a package."""

    package: ClassVar[Package]

    def files(self) -> list[SourceFile]:
        return [SourceFile(name, path) for name, path in fetched(self, self.package).items()]

    def state(self) -> State:
        return "to be fetched" if self.package.find() is None else "in the cache"

    def versions(self) -> dict[str, str]:
        return versions(self.package)


def fetched(corpus: Corpus, package: Package) -> dict[str, Path]:
    """The files kept of a package, fetched unless they are in the cache. Raises `FetchError` with what works here."""
    try:
        return package.files()
    except FetchError as problem:
        raise cannot_be_fetched(corpus, str(problem)) from None


def cannot_be_fetched(corpus: Corpus, why: str) -> FetchError:
    """One line: why, and what can be used instead."""
    return FetchError(f"corpus {corpus} could not be fetched: {why}. Corpora that work here: {', '.join(here())}")


def here() -> list[str]:
    """Names of the corpora that need no network now, and how to write one's own files."""
    whole = [name for name in CORPORA if not needs_a_name(name)]
    return [*(name for name in whole if build_corpus(name).state() != "to be fetched"), "files:PATH"]


def versions(package: Package) -> dict[str, str]:
    """Version of the package as fetched, by its name."""
    origin = package.origin()
    return {origin["package"]: origin["version"]} if origin else {}
