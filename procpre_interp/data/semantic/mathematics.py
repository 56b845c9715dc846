"""Mathematics corpora: DeepMind's generated questions, and Metamath's set.mm, formal mathematics."""

import json
import logging
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import ClassVar

from procpre_interp.core import atomic_files, locks
from procpre_interp.core.children import child_environment
from procpre_interp.core.environment import usable_cores
from procpre_interp.core.progress_bar import progress_bar
from procpre_interp.core.streams import announce
from procpre_interp.data.corpus import CORPORA, About, Corpus, SourceFile, State, decode
from procpre_interp.data.semantic import deepmind
from procpre_interp.data.semantic.packaged import PackagedCorpus, fetched, versions
from procpre_interp.data.semantic.packages import Deb, Package, Wheel

PER_FILE = 500
"""Questions of a file."""
GENERATION = 1
"""Raised when the same package would give other questions than before."""

log = logging.getLogger(__name__)


@CORPORA.register("deepmind-math")
@dataclass(frozen=True, kw_only=True, slots=True)
class DeepMindMath(Corpus):
    """School mathematics in words, made by DeepMind's generator: a question, and its answer on the next line.

    Each is a document. `deepmind-math:QUESTIONS` has that many of each of the 56 modules; a larger corpus begins with
    the questions of a smaller one. Made once, by one process per core, and kept in the cache.
    """

    questions: str = "3000"

    asks: ClassVar[bool] = True
    about = About(
        domain="mathematics",
        source="made by wheel mathematics-dataset 1.0.1, by pip",
        licence="Apache-2.0",
        size="168,000 documents, 12 MB; deepmind-math:QUESTIONS has that many per module instead of 3000",
    )
    package: ClassVar[Package] = Wheel(
        name="mathematics-dataset",
        version="1.0.1",
        sha256="8ebfe083ed65e07a9a555c9a51449c8e7c0ee097a96880a7183d2e8606081de6",
        keep=r"mathematics_dataset/(?!.*_test\.py$).*\.py",
        megabytes=0.1,
    )

    def __post_init__(self) -> None:
        if not re.fullmatch("[1-9][0-9]{0,8}", self.questions) or int(self.questions) % PER_FILE:
            raise ValueError(
                f"corpus deepmind-math:{self.questions}: the questions of each module, "
                f"a multiple of {PER_FILE}, come after the colon"
            )

    def files(self) -> list[SourceFile]:
        made = self._files()
        if not all(file.path.is_file() for file in made):
            package = fetched(self, self.package)
            folder = self._folder()
            folder.mkdir(parents=True, exist_ok=True)
            with locks.locked(folder / "lock"):
                missing = [file for file in made if not file.path.is_file()]
                make_questions(self._root(package), missing)
        return made

    def state(self) -> State:
        if all(file.path.is_file() for file in self._files()):
            return "in the cache"
        return "to be fetched" if self.package.find() is None else "to be made"

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        for _, content in contents:
            if (text := decode(content, skipped)) is None:
                continue
            lines = text.splitlines()
            for question, answer in zip(lines[::2], lines[1::2]):
                yield f"{question}\n{answer}"

    def versions(self) -> dict[str, str]:
        return {**versions(self.package), "sympy": metadata.version("sympy"), "numpy": metadata.version("numpy")}

    def _files(self) -> list[SourceFile]:
        folder = self._folder()
        names = [f"{module}/{i:05}.txt" for module in deepmind.NAMES for i in range(int(self.questions) // PER_FILE)]
        return [SourceFile(name, folder / name) for name in names]

    def _folder(self) -> Path:
        """Another one for another sympy, by which answers are simplified and written."""
        package = self.package
        made_by = f"{package.version}-{package.sha256[:8]}-{GENERATION}-sympy-{metadata.version('sympy')}"
        return atomic_files.cache_folder() / "corpora" / f"deepmind-math-{made_by}"

    def _root(self, package: dict[str, Path]) -> Path:
        """The folder that holds the package's own."""
        return package[f"{deepmind.PACKAGE}/__init__.py"].parents[1]


def make_questions(package: Path, files: list[SourceFile]) -> None:
    """Make files of questions, MODULE/NUMBER.txt, by one process per core.

    Those that are finished stay when it is interrupted. Raises `RuntimeError` where a process fails.
    """
    jobs: SimpleQueue[SourceFile] = SimpleQueue()
    for file in files:
        jobs.put(file)
    results: SimpleQueue[int | str] = SimpleQueue()
    workers = [_start(package) for _ in range(min(usable_cores(), len(files)))]
    announce(f"making {len(files) * PER_FILE:,} questions by {len(workers)} processes; they are kept in the cache")
    try:
        for worker in workers:
            threading.Thread(target=_feed, args=(worker, jobs, results), daemon=True).start()
        left_out = 0
        with progress_bar("deepmind-math", len(files), "files") as move:
            for done in range(1, len(files) + 1):
                result = results.get()
                if isinstance(result, str):
                    raise RuntimeError(f"the generator of deepmind-math failed: {result}")
                left_out += result
                move(done)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    if left_out:
        log.warning("deepmind-math: %d questions took too long and were left out", left_out)


def _start(package: Path) -> subprocess.Popen[str]:
    # Run as a file: as a module of this package it would import torch, once per core.
    return subprocess.Popen(
        [sys.executable, str(Path(deepmind.__file__)), str(package)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
    )


def _feed(worker: subprocess.Popen[str], jobs: "SimpleQueue[SourceFile]", results: "SimpleQueue[int | str]") -> None:
    """Give a process one file after the other, until there are none."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    assert worker.stderr is not None
    with suppress(Empty, ValueError, OSError):  # closed: another process has failed
        while True:
            file = jobs.get_nowait()
            name, _, number = file.name.removesuffix(".txt").partition("/")
            start = int(number) * PER_FILE
            line = json.dumps([name, start, start + PER_FILE, str(file.path)])
            try:
                worker.stdin.write(f"{line}\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except BrokenPipeError:
                answer = ""
            if not answer:
                lines = worker.stderr.read().strip().splitlines()
                results.put(lines[-1] if lines else f"a process was killed while it made {file.name}")
                return
            results.put(json.loads(answer))


@CORPORA.register("set-mm")
@dataclass(frozen=True, kw_only=True, slots=True)
class SetMm(PackagedCorpus):
    """Metamath's set.mm: a document is a theorem or an axiom: what its comment says, its hypotheses, and its statement.

    Proofs, which are compressed, are left out. The database is that of 2020-12-28, so reproducible.
    """

    about = About(
        domain="mathematics",
        source="Debian package metamath-databases, by apt-get",
        licence="CC0-1.0",
        size="39,135 documents, 14 MB",
    )
    package: ClassVar[Package] = Deb(
        name="metamath-databases",
        keep=r"usr/share/metamath/databases/set\.mm",
        megabytes=12.8,
    )

    def documents(self, contents: Iterable[tuple[str, bytes]], skipped: Counter[str]) -> Iterator[str]:
        for name, content in contents:
            if (text := decode(content, skipped)) is not None:
                yield from theorems(f"corpus {self}, {name}", text)


_STATEMENT = re.compile(
    r"\$\((?P<comment>.*?)\s\$\)"
    r"|(?P<open>\$\{)|(?P<close>\$\})"
    # With the proof, in which a search for the next statement would lose its time.
    r"|(?<!\S)(?P<label>[^\s$]+)\s+\$(?P<kind>[eap])\s+(?P<formula>[^$]*)\$(?:\.|=[^$]*)",
    re.DOTALL,
)


def theorems(where: str, text: str) -> Iterator[str]:
    """The theorems and axioms of a Metamath database, in its order. Raises `ValueError` where blocks do not match."""
    hypotheses: list[list[str]] = [[]]
    comment = ""
    for found in _STATEMENT.finditer(text):
        if found["comment"] is not None:
            comment = found["comment"]
        elif found["open"]:
            hypotheses.append([])
        elif found["close"]:
            if len(hypotheses) == 1:
                raise ValueError(f"{where}: a block ends, at character {found.start():,}, that did not begin")
            hypotheses.pop()
        else:
            statement = f"{found['label']} ${found['kind']} {' '.join(found['formula'].split())} $."
            if found["kind"] == "e":
                hypotheses[-1].append(statement)
            elif found["formula"].startswith("|-"):  # else it says how a formula is written
                given = [line for block in hypotheses for line in block]
                yield "\n".join(filter(None, [" ".join(comment.split()), *given, statement]))
            comment = "" if found["kind"] != "e" else comment
    if len(hypotheses) != 1:
        raise ValueError(f"{where}: it ends within a block: a part of it is missing")
