"""Data sets of the Hugging Face hub, read as a stream: WikiText, C4, CodeParrot.

What was read is written into the user's cache, in files of some megabytes, so that hashes of files are its identity as
for every corpus, and so that an interrupted reading goes on after the last whole file.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from procpre_interp.core import atomic_files, locks, regular_files
from procpre_interp.core.messages import one_line, shown
from procpre_interp.core.plain_values import load_json, parse_json
from procpre_interp.core.progress_bar import progress_bar
from procpre_interp.core.streams import announce
from procpre_interp.data.corpus import CORPORA, About, Corpus, SourceFile, State, decode
from procpre_interp.data.semantic.packaged import cannot_be_fetched

FORMAT = 1
"""Raised when the same data set would be written as other files than before."""
MOST_MEGABYTES = 1000
"""Text that is read of a data set unless its name says otherwise."""
FILE_BYTES = 16_000_000
"""Text of a file in the cache, roughly."""
FIELDS = ("text", "content", "code")
"""The column that is the document: the first one there is. A list of tokens is joined with blanks."""

SHORT: dict[tuple[str, str | None], tuple[str, str]] = {
    ("wikitext", None): ("Salesforce/wikitext", "wikitext-103-raw-v1")
}
"""Names without an owner, and without the configuration that the data set wants, which are in use all the same."""
_SPEC = re.compile(r"(?P<path>[^@:]+)(:(?P<config>[^@:]+))?(@(?P<megabytes>[1-9][0-9]{0,8}))?")
_HEADING = re.compile(r" = (?!=).* = \n")
"""The title of an article in WikiText, of which a row is a line."""


@CORPORA.register("huggingface")
@dataclass(frozen=True, kw_only=True, slots=True)
class HuggingFace(Corpus):
    """The training split of a data set on the Hugging Face hub, or in a local folder or parquet file.

    `huggingface:NAME:CONFIG@MEGABYTES`, such as huggingface:Salesforce/wikitext:wikitext-103-raw-v1 or
    huggingface:allenai/c4:en@2000; CONFIG may be left out where there is but one, and so may the megabytes of text,
    1000 by default. huggingface:wikitext is short for the former. A row is a document; of WikiText, whose rows are
    lines, an article is.
    """

    about = About(
        domain="any",
        source="NAME[:CONFIG][@MEGABYTES] on the Hugging Face hub, streamed by `datasets`",
        licence="the data set's",
        size="the first 1000 MB, or @MEGABYTES",
    )

    dataset: str

    def __post_init__(self) -> None:
        if _SPEC.fullmatch(self.dataset) is None:
            raise ValueError(
                f"corpus {self}: write huggingface:NAME, huggingface:NAME:CONFIG or huggingface:NAME:CONFIG@MEGABYTES"
            )

    def files(self) -> list[SourceFile]:
        if (found := self._found()) is None:
            folder = self._folder()
            folder.mkdir(parents=True, exist_ok=True)
            with locks.locked(folder / "lock"):
                if (found := self._found()) is None:
                    self._fetch()
                    found = self._found()
        else:
            atomic_files.remove_leftovers_of(self._folder(), self._folder() / "lock")
        if found is None:
            raise OSError(f"{self._folder()} was damaged while it was written; try again")
        return found

    def state(self) -> State:
        return "to be fetched" if self._found() is None else "in the cache"

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        for name, content in contents:
            if (text := decode(content, skipped)) is None:
                continue
            for number, line in enumerate(filter(None, text.split("\n")), 1):
                try:
                    document = load_json(line)["text"]
                except (ValueError, TypeError, KeyError) as problem:
                    raise ValueError(f"corpus {self}, {name}, line {number}: damaged: {one_line(problem)}") from None
                if not isinstance(document, str):
                    raise ValueError(f"corpus {self}, {name}, line {number}: damaged: its text is {shown(document)}")
                yield document

    def versions(self) -> dict[str, str]:
        return {"datasets": metadata.version("datasets")} if _installed() else {}

    def _parts(self) -> tuple[str, str | None, int]:
        found = _SPEC.fullmatch(self.dataset)
        assert found is not None
        path, config = found["path"], found["config"]
        if not Path(path).exists():  # a folder of that name is a data set of one's own
            path, config = SHORT.get((path, config), (path, config))
        return path, config, int(found["megabytes"] or MOST_MEGABYTES)

    def _folder(self) -> Path:
        key = hashlib.sha256(json.dumps([FORMAT, *self._parts()]).encode()).hexdigest()[:16]
        return atomic_files.cache_folder() / "corpora" / f"huggingface-{key}"

    def _found(self) -> list[SourceFile] | None:
        """The files, if all that is wanted was read."""
        progress = self._progress()
        return self._written(progress["files"]) if progress["complete"] else None

    def _written(self, n: int) -> list[SourceFile]:
        folder = self._folder()
        return [SourceFile(name, folder / name) for name in (f"{i:05}.jsonl" for i in range(n))]

    def _progress(self) -> dict[str, Any]:
        """How far the reading came: files written, rows read for them, bytes of text in them."""
        nothing = {"files": 0, "rows": 0, "bytes": 0, "complete": False}
        try:
            progress = {**nothing, **parse_json(regular_files.read_regular(self._folder() / "progress.json"))}
        except (OSError, ValueError, TypeError):
            return nothing
        return progress if all(file.path.is_file() for file in self._written(progress["files"])) else nothing

    def _fetch(self) -> None:
        path, config, megabytes = self._parts()
        progress = self._progress()
        begun = f", after the {progress['rows']:,} rows in the cache" if progress["rows"] else ""
        announce(f"reading {self}{begun}, up to {megabytes:,} MB of text, to {self._folder()}")
        with self._problems(), progress_bar(str(self), megabytes, "MB") as move:
            rows = open_rows(path, config, progress["rows"])
            for documents, n_rows in _in_files(rows, 1e6 * megabytes - progress["bytes"]):
                file = self._folder() / f"{progress['files']:05}.jsonl"
                atomic_files.write_text(file, "".join(f"{json.dumps({'text': text})}\n" for text in documents))
                progress["files"] += 1
                progress["rows"] += n_rows
                progress["bytes"] += sum(map(_size, documents))
                atomic_files.write_json(self._folder() / "progress.json", progress)
                move(progress["bytes"] / 1e6)
        atomic_files.write_json(self._folder() / "progress.json", {**progress, "complete": True})

    @contextmanager
    def _problems(self) -> Iterator[None]:
        """What the library raises, of any kind, is a line that names the corpus."""
        try:
            yield
        except (ModuleNotFoundError, OSError) as problem:
            raise cannot_be_fetched(self, one_line(problem)[:300]) from None
        except Exception as problem:
            raise ValueError(f"corpus {self}: {type(problem).__name__}: {one_line(problem)[:300]}") from None


def _installed() -> bool:
    try:
        metadata.version("datasets")
    except metadata.PackageNotFoundError:
        return False
    return True


def open_rows(path: str, config: str | None, skip: int) -> Iterator[Mapping[str, Any]]:
    """The rows of a data set's training split after the first `skip`, as a stream."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise ModuleNotFoundError("the package datasets is not installed (`pip install datasets`)") from None
    if path.endswith(".parquet"):
        dataset = load_dataset("parquet", data_files=path, split="train", streaming=True)
    else:
        dataset = load_dataset(path, config, split="train", streaming=True)
    return iter(dataset.skip(skip) if skip else dataset)


def _in_files(rows: Iterator[Mapping[str, Any]], most_bytes: float) -> Iterator[tuple[list[str], int]]:
    """Documents for one file after the other, and the number of rows that they were read from."""
    documents: list[str] = []
    size, total, n_rows = 0, 0, 0
    for document, n in _documents(rows):
        documents.append(document)
        size += _size(document)
        n_rows += n
        if size >= FILE_BYTES or total + size >= most_bytes:
            yield documents, n_rows
            total += size
            documents, size, n_rows = [], 0, 0
            if total >= most_bytes:
                return
    if documents:
        yield documents, n_rows


def _documents(rows: Iterator[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Documents, and the rows of each: one, or the lines of an article of WikiText."""
    article: list[str] = []
    for row in rows:
        text = _text(row)
        if article and (_HEADING.fullmatch(text) or not _is_line(text)):
            yield "".join(article), len(article)
            article = []
        if article or _HEADING.fullmatch(text):
            article.append(text)
        else:
            yield text, 1
    if article:
        yield "".join(article), len(article)


def _is_line(text: str) -> bool:
    """Whether a row may be a line of an article: empty, or one line."""
    return not text or text.find("\n") == len(text) - 1


def _text(row: Mapping[str, Any]) -> str:
    value = next((row[field] for field in FIELDS if field in row), None)
    if isinstance(value, list):
        return " ".join(map(str, value))
    if not isinstance(value, str):
        columns = ", ".join(row)
        raise ValueError(f"no text in a column {', '.join(FIELDS)}; its columns are: {columns}")
    return value


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))
