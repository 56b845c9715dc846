"""Language corpora: the docstrings of installed packages, and a user's own files (of language or of code)."""

import ast
import gc
import importlib.util
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pyarrow
import pyarrow.parquet

from procpre_interp.core.messages import one_line
from procpre_interp.core.plain_values import load_json
from procpre_interp.data.corpus import CORPORA, END_OF_DOCUMENT, About, Corpus, SourceFile, State, decode, walk

PACKAGES = ("networkx", "numpy", "pandas", "scipy", "sympy", "torch", "transformers")
"""Packages whose docstrings are read, where installed; this project needs them, so all machines have them."""

NO_PROSE = frozenset({"test", "tests", "testing", "models", "__pycache__"})
"""Folders left out. `transformers/models` repeats the same text for hundreds of models."""

BLOCKS = ("body", "handlers", "orelse", "finalbody", "cases")
"""The attributes of a syntax tree that hold statements, in the order of the source."""


@CORPORA.register("docstrings")
@dataclass(frozen=True, kw_only=True, slots=True)
class Docstrings(Corpus):
    """Docstrings of installed packages: those of a module, in order, are one document.

    A docstring that occurred before, in this module or another, is left out. Whole modules, since the
    docstrings of one module repeat each other's sentences: were they split one by one, validation would hold
    training text.
    """

    about = About(
        domain="language",
        source="docstrings of installed packages (torch, numpy, transformers, ...), read in place",
        licence="theirs (mostly BSD, MIT, Apache-2.0)",
        size="differs: about 4,000 documents, 10 to 25 MB",
    )

    def files(self) -> list[SourceFile]:
        found: list[SourceFile] = []
        for package, root in _installed().items():
            found += walk(root, {".py"}, prefix=f"{package}/", without=NO_PROSE)
        return found

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        seen: set[str] = set()
        for _, content in contents:
            if (source := decode(content, skipped)) is None:
                continue
            try:
                fresh = [text for text in dict.fromkeys(docstrings(source)) if text not in seen]
            except (SyntaxError, ValueError):  # a template, or a newer grammar; a null byte
                skipped["not Python"] += 1
                continue
            seen.update(fresh)
            yield "\n\n".join(fresh)

    def versions(self) -> dict[str, str]:
        return {package: metadata.version(package) for package in _installed()}


def _installed() -> dict[str, Path]:
    specs = {package: importlib.util.find_spec(package) for package in PACKAGES}  # finds, does not import
    return {package: Path(spec.origin).parent for package, spec in specs.items() if spec and spec.origin}


def docstrings(source: str) -> list[str]:
    """The docstrings of a module, its classes and functions, in the order of the source, indentation removed.

    Raises `SyntaxError` or `ValueError` where the source is no Python.
    """
    found: list[str] = []
    with _collector_paused(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        stack: list[ast.AST] = [ast.parse(source)]
        while stack:
            node = stack.pop()
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(ast.get_docstring(node) or "")
            # Only statements hold docstrings; the expressions, which are many more, are not entered.
            blocks = [getattr(node, name, None) for name in BLOCKS]
            stack += [child for block in blocks if isinstance(block, list) for child in block][::-1]
    return [text for text in found if text]


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Garbage collection is off while parsing: the collector visits the growing tree again and again, 2.5 x slower."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


PROSE = frozenset({".txt", ".md", ".rst", ".tex", ".html"})
CODE = frozenset({".py", ".java", ".js", ".ts", ".c", ".h", ".cpp", ".go", ".rs", ".rb", ".jl", ".r", ".lua", ".sql"})
ROWS = frozenset({".jsonl", ".parquet"})

FIELDS = ("text", "content")
"""Field of a .jsonl row, or column of a .parquet file, that is the document: the first one there is."""


@CORPORA.register("files")
@dataclass(frozen=True, kw_only=True, slots=True)
class Files(Corpus):
    """A file, or a folder with its subfolders, of the suffixes in `PROSE`, `CODE` and `ROWS`, all in UTF-8.

    A row is a document, and so is a file of prose or code; a .txt file may hold several, `<|endoftext|>`
    between them. Other files of a folder, and hidden ones, are not read.
    """

    about = About(
        domain="any",
        source="a .txt, .jsonl or .parquet file, source code, or a folder of them, read in place",
        licence="yours",
        size="any",
    )

    path: str

    def state(self) -> State:
        return "yours"

    def files(self) -> list[SourceFile]:
        try:
            root = Path(self.path).expanduser()
        except RuntimeError:
            raise ValueError(f"corpus {self}: the home folder in its path is not known; write the whole path") from None
        suffixes = PROSE | CODE | ROWS
        if root.is_dir():
            return walk(root, suffixes)
        if not root.exists():
            raise ValueError(f"corpus {self}: there is no file or folder {os.path.abspath(root)}")
        if root.suffix.lower() not in suffixes:
            known = " ".join(sorted(suffixes))
            raise ValueError(f"corpus {self}: cannot read {root.name}; a file must end in one of: {known}")
        return [SourceFile(root.name, root)]

    def separator(self, name: str) -> bytes | None:
        return {".jsonl": b"\n", ".txt": END_OF_DOCUMENT.encode()}.get(Path(name).suffix.lower())

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        lines: Counter[str] = Counter()
        for name, content in contents:
            where, suffix = f"corpus {self}, {name}", Path(name).suffix.lower()
            if suffix == ".parquet":
                yield from _parquet_documents(where, content, skipped)
            elif (text := decode(content, skipped)) is None:
                continue
            elif suffix == ".jsonl":
                yield from _jsonl_documents(where, text, lines[name] + 1)
                lines[name] += text.count("\n")
            elif suffix == ".txt":
                yield from text.split(END_OF_DOCUMENT)
            else:
                yield text


def _jsonl_documents(where: str, text: str, first_line: int) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), first_line):  # not splitlines: JSON may hold U+2028 as it is
        if not line or line.isspace():
            continue
        try:
            row = load_json(line)
        except ValueError as problem:
            raise ValueError(f"{where}, line {number}: not JSON: {one_line(problem)[:200]}") from None
        document = next((row[f] for f in FIELDS if f in row), None) if isinstance(row, dict) else None
        if not isinstance(document, str):
            raise ValueError(f"{where}, line {number}: expected an object with a string {' or '.join(FIELDS)}")
        yield document


def _parquet_documents(where: str, content: bytes, skipped: Counter[str]) -> Iterator[str]:
    try:
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content), page_checksum_verification=True)
        names = file.schema_arrow.names
    except (pyarrow.ArrowException, OSError) as problem:
        raise ValueError(f"{where}: not a parquet file, or a damaged one: {one_line(problem)[:200]}") from None
    column = next((f for f in FIELDS if f in names), None)
    if column is None:
        raise ValueError(f"{where}: no column {' or '.join(FIELDS)}; there are: {', '.join(names)}")
    try:
        for rows in file.iter_batches(columns=[column]):
            for document in rows.column(0).to_pylist():
                if isinstance(document, str):
                    yield document
                else:
                    skipped["row without text"] += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"{where}: a damaged parquet file: {one_line(problem)[:200]}") from None
