"""What is there to read? The corpora of real text: which are here, a sample of each, and how to get the others."""

import inspect

import pandas as pd

from procpre_interp.data.corpus import CORPORA, Corpus, State, build_corpus, needs_a_name, sample_document
from procpre_interp.data.semantic import text  # noqa: F401  (it registers the corpora)
from procpre_interp.data.token_file import packed_texts
from procpre_interp.views.exhibits.exhibit import Answer

HERE: tuple[State, ...] = ("in place", "in the cache")
"""States of corpora that can be read at once."""
DEFAULT = "python-stdlib"
"""The corpus of `text` where none is named, which comes first."""
SAMPLE = 1200
"""Characters of a sample, at most."""


def all_corpora() -> dict[str, Corpus]:
    """Every corpus that is known by its name alone, by that name, those that are here first; one's own files are left
    out."""
    found = {name: build_corpus(name) for name in CORPORA if not needs_a_name(name)}
    return dict(sorted(found.items(), key=lambda item: (item[1].state() not in HERE, item[0] != DEFAULT)))


def readable() -> tuple[str, ...]:
    """Names of the corpora that can be read at once."""
    return tuple(name for name, corpus in all_corpora().items() if corpus.state() in HERE)


def answer() -> Answer:
    """Which corpora are here."""
    found, known = readable(), all_corpora()
    return Answer(f"{len(found)} of {len(known)} corpora are on this machine: {', '.join(found)}.", decided=False)


def catalogue() -> pd.DataFrame:
    """One row per corpus as people read it: what it is, where, how large, under which licence, and how it was packed
    into tokens here."""
    rows = []
    for name, corpus in all_corpora().items():
        rows.append(
            {
                "Corpus": name,
                "Here": corpus.state(),
                "Domain": corpus.about.domain,
                "Tokenized here": _packed(name),
                "Licence": corpus.about.licence,
                "Size": corpus.about.size,
                "Source": corpus.about.source,
            }
        )
    return pd.DataFrame(rows)


def _packed(name: str) -> str:
    return ", ".join(f"{each.tokenizer} {each.tokens / 1e6:,.3g} million" for each in packed_texts(name))


def about(corpus: Corpus) -> str:
    """What a corpus is, how large, whence, and under which licence, in a few sentences."""
    said, declared = (inspect.getdoc(type(corpus)) or "").partition("\n")[0], corpus.about
    packed = _packed(str(corpus))
    tokens = f" Tokenized here, tokens to train on: {packed}." if packed else ""
    return f"{said} Size: {declared.size}. Licence: {declared.licence}. Source: {declared.source}.{tokens}"


def how_to_get(corpus: Corpus) -> str:
    """The command that fetches or makes a corpus that is not here; empty for one that is."""
    return "" if corpus.state() in HERE else f"procpre-interp corpora {corpus} --fetch"


def sample(corpus: Corpus) -> str:
    """The beginning of the first document with some text, of a corpus that is here."""
    document = sample_document(corpus, 80)
    if document is None:
        return "(no document of some length)"
    return document if len(document) <= SAMPLE else f"{document[:SAMPLE].rstrip()} ..."
