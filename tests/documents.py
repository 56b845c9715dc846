"""Corpora read whole, for tests."""

from procpre_interp.data.corpus import Corpus
from procpre_interp.data.documents import read_documents


def read_all(corpus: Corpus) -> tuple[dict[str, str], list[str]]:
    """Hashes of a corpus's files by name, and its documents, split after split."""
    with read_documents(corpus) as found:
        return found.files, [text for texts in found.by_split.values() for text in texts]
