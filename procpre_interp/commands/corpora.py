"""`procpre-interp corpora`: every corpus, whether it is here, and a sample."""

import hashlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, fields

from rich.console import Console
from rich.markup import escape

from procpre_interp.commands._options import Names, parse
from procpre_interp.core.config import ID_LENGTH
from procpre_interp.data.corpus import CORPORA, Corpus, SourceFile, build_corpus, needs_a_name, sample_document
from procpre_interp.data.semantic.packages import Package
from procpre_interp.data.token_file import packed_texts

SAMPLE = 160
"""Characters of a sample."""


@dataclass(frozen=True, kw_only=True)
class Corpora:
    """List the corpora of real text: what each is, whether it is here, its size, its licence, and a sample.

    For example: procpre-interp corpora wikipedia-leads --fetch
    """

    names: Names = ()
    """Show these only, as `--task.corpus` takes them, such as deepmind-math:1000 or files:PATH."""
    fetch: bool = False
    """Fetch or make what is not here. Training does it too, when a corpus is needed."""
    files: bool = False
    """List the files, with the beginning of each one's SHA-256."""


def main(arguments: list[str]) -> int:
    """Print the list."""
    command = parse(Corpora, "corpora", arguments)
    if (command.fetch or command.files) and not command.names:
        raise ValueError("--fetch and --files want the names of corpora; `procpre-interp corpora` lists them")
    console = Console(highlight=False, soft_wrap=True)
    if command.names:
        corpora = [build_corpus(name) for name in command.names]
    else:
        corpora = [name if needs_a_name(name) else build_corpus(name) for name in CORPORA]
    for corpus in corpora:
        if command.fetch and isinstance(corpus, Corpus):
            corpus.files()
        print_corpus(console, corpus)
        if command.names and isinstance(package := getattr(corpus, "package", None), Package):
            console.print(f"    archive {escape(package.checksum())}")
        if command.files and isinstance(corpus, Corpus):
            print_files(console, corpus)
    return 0


def print_corpus(console: Console, corpus: Corpus | str) -> None:
    """What a corpus is, and a sample of one that is here. Of one that lacks a name there is only the former."""
    kind = CORPORA[corpus] if isinstance(corpus, str) else type(corpus)
    state = "yours" if isinstance(corpus, str) else corpus.state()
    title = f"{corpus}:{fields(kind)[0].name.upper()}" if isinstance(corpus, str) else str(corpus)
    console.print(f"[bold]{escape(title)}[/bold]  {escape((inspect.getdoc(kind) or '').partition(chr(10))[0])}")
    about = kind.about
    console.print(f"    {about.domain}; {state}; {escape(about.size)}; licence {escape(about.licence)}")
    console.print(f"    {escape(about.source)}")
    for packed in packed_texts(str(corpus)):
        console.print(f"    packed: {escape(packed.tokenizer)}, {packed.tokens:,} tokens to train on")
    if state in ("in place", "in the cache", "yours") and isinstance(corpus, Corpus):
        console.print(f"    [italic]{escape(sample(corpus))}[/italic]")


def sample(corpus: Corpus) -> str:
    """The beginning of the first document with some text, on a line."""
    document = sample_document(corpus, SAMPLE // 2)
    return "(no document of some length)" if document is None else f"{' '.join(document.split())[:SAMPLE]} ..."


def print_files(console: Console, corpus: Corpus) -> None:
    """A line per file, with its hash as it is part of the corpus's identity, its size and its name."""
    for digest, size, file in hashed(corpus.files()):
        console.print(f"    {digest}  {size:>12,}  {escape(file.name)}")


def hashed(files: list[SourceFile]) -> Iterator[tuple[str, int, SourceFile]]:
    """Hash and size of each file; a link that leads nowhere has none."""
    for file in files:
        if file.path.is_file():
            with file.path.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()[:ID_LENGTH]
                yield digest, content.tell(), file
