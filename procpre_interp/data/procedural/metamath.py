"""Derivations from a formal database: `$given ph $given ( ph -> ps ) $show ps $proof ps $end`."""

import dataclasses
import functools
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Int
from torch import Generator, Tensor

from procpre_interp.core import atomic_files, checksums, locks, regular_files
from procpre_interp.core.config import ID_LENGTH
from procpre_interp.core.plain_values import parse_json
from procpre_interp.data.documents import document_split
from procpre_interp.data.draws import random_orders
from procpre_interp.data.procedural.metamath_database import ASSERTED, Formula, derivation, read_theorems
from procpre_interp.data.semantic.mathematics import SetMm
from procpre_interp.data.task import SPLIT_SIXTEENTHS, TASKS, Batch, Split, Task
from procpre_interp.data.vocab import PADDING, Token

GIVEN, SHOW, PROOF, THEN, END = MARKS = ("$given", "$show", "$proof", "$then", "$end")
"""What stands before each hypothesis, the statement, the first step and each later one, and behind the last. No symbol
of a database has a $."""
FORMAT = 1
"""Raised when the same database would give other derivations than before."""

_OWN = re.compile(r"(train|validation|test)\.npy|meta\.json")
log = logging.getLogger(__name__)


@TASKS.register("metamath")
@dataclass(frozen=True, kw_only=True, slots=True)
class Metamath(Task):
    """Derivations in formal mathematics: a theorem's hypotheses and statement, then the formulas of its proof in order.

    Of each theorem of a Metamath database there are the formulas that its proof asserts, each once, types of formulas
    left out; every proof is checked when it is read. The proof is scored. Theorems are split, not sequences: what is
    the same theorem but for the names of variables is in one split. Batches that are not for a split are training's.
    """

    in_words: ClassVar[str] = (
        "Formal mathematics: what is given, what is to be shown, and a proof, formula by formula; predict the proof."
    )
    why_no_causes: ClassVar[str] = "no single symbol of a theorem could be changed so that it stays one"

    database: str = SetMm.name
    """set-mm: the corpus of that name, which is fetched once; file:PATH for a Metamath database of your own."""
    symbols: int = 64
    """Ids of symbols: the most frequent ones. Derivations with any other are left out."""
    length: int = 128
    """Tokens of the longest derivation; longer ones are left out."""
    rename: bool = True
    """Give variables other names of their type, drawn for each sequence, so that a theorem has many forms."""
    database_hash: str = ""
    """Hash of the database's content; `resolve` fills it in."""

    def __post_init__(self) -> None:
        if self.symbols < 2 or self.symbols > 2**14:
            raise ValueError(f"symbols={self.symbols}; there must be 2 to {2**14}")
        if self.length < 5:
            raise ValueError(f"length={self.length}; the shortest derivation, $show x $proof x $end, has 5 tokens")
        if self.database != SetMm.name and not self.database.startswith("file:"):
            raise ValueError(f"database={self.database!r}; write {SetMm.name} or file:PATH")

    @property
    def pad(self) -> int:
        return self.symbols + len(MARKS)

    @property
    def d_vocab(self) -> int:
        return self.pad + 1

    @property
    def n_ctx(self) -> int:
        return self.length

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        names = {number: Token(name, "symbol") for number, name in enumerate(self._open().names)}
        marks = {self.symbols + number: Token(name, "separator") for number, name in enumerate(MARKS)}
        return {**names, **marks, self.pad: PADDING}

    def batch(self, n: int, *, generator: Generator) -> Batch:
        return self.split_batch(n, "train", generator=generator)

    def candidates(self, n: int, split: Split, *, generator: Generator) -> Batch:
        return self.split_batch(n, split, generator=generator)

    def split_batch(self, n: int, split: Split, *, generator: Generator, separable: bool | None = None) -> Batch:
        """`n` derivations of theorems of the split. `separable` plays no part: theorems were split, not sequences."""
        opened = self._open()
        rows = np.load(opened.folder / f"{split}.npy", mmap_mode="r")
        drawn = torch.randint(len(rows), (n,), generator=generator)
        tokens = torch.from_numpy(rows[drawn.numpy()].astype(np.int64))
        if self.rename:
            tokens = self._renamed(tokens, opened.kinds, generator=generator)
        first = (tokens == self.symbols + MARKS.index(PROOF)).int().argmax(1)
        return Batch.from_sequences(tokens, (tokens != self.pad).sum(1), first, pad=self.pad)

    def _renamed(
        self, tokens: Int[Tensor, "batch pos"], kinds: Sequence[Sequence[int]], *, generator: Generator
    ) -> Int[Tensor, "batch pos"]:
        """Each row with its variables permuted among those of their type."""
        names = torch.arange(self.d_vocab).repeat(len(tokens), 1)
        for kind in kinds:
            ids = torch.tensor(kind)
            order = random_orders(torch.full((len(tokens),), len(kind)), len(kind), generator=generator)
            names[:, ids] = ids[order]
        return names.gather(1, tokens)

    def epochs(self, tokens: int) -> float | None:
        return tokens / self._open().training_tokens

    def resolve(self) -> "Metamath":
        """The task with the hash of its database, whose derivations are then in the cache.

        Raises `ValueError` where it is no longer the one that an earlier `resolve` found.
        """
        return replace(self, database_hash=self._build().database_hash)

    def from_cache(self) -> "Metamath":
        return CachedMetamath(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def prepare(self) -> None:
        self._open()

    def to_be_made(self) -> str:
        """The database, or the derivations from it."""
        if self.database == SetMm.name and SetMm().state() == "to be fetched":
            return f"{self.database} is to be fetched, and its proofs to be checked, which takes a minute or two"
        found = hashlib.sha256(self._path().read_bytes()).hexdigest()[:ID_LENGTH]
        return (
            "" if _read(self._folder(found)) else f"the proofs of {self.database} are to be checked for a minute or two"
        )

    def _open(self) -> "Derivations":
        found = _read(self._folder(self.database_hash)) if self.database_hash else None
        return found or self._build()

    def _build(self) -> "Derivations":
        """The derivations, made unless they are in the cache."""
        content = self._path().read_bytes()
        found = hashlib.sha256(content).hexdigest()[:ID_LENGTH]
        if self.database_hash and found != self.database_hash:
            raise ValueError(
                f"database {self.database} changed since `resolve` (hash {found}, was {self.database_hash}); bring it "
                "back, or leave out database_hash to take what there is"
            )
        folder = self._folder(found)
        if (opened := _read(folder)) is not None:
            atomic_files.remove_leftovers_of(folder, folder.with_suffix(".lock"))
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locks.locked(folder.with_suffix(".lock")):
                if (opened := _read(folder)) is None:
                    with atomic_files.rebuilt_folder(folder) as temporary:
                        self._write(temporary, content.decode(), found)
                    opened = _read(folder)
        assert opened is not None
        return opened

    def _path(self) -> Path:
        if self.database == SetMm.name:
            (file,) = SetMm().files()
            return file.path
        return Path(self.database.removeprefix("file:"))

    def _folder(self, database_hash: str) -> Path:
        key = json.dumps([FORMAT, database_hash, self.symbols, self.length])
        name = hashlib.sha256(key.encode()).hexdigest()[:ID_LENGTH]
        return atomic_files.cache_folder() / "metamath" / name

    def _write(self, folder: Path, text: str, database_hash: str) -> None:
        log.info("checking the proofs of database %s", self.database)
        found: list[tuple[Split, list[str]]] = []
        kinds: Mapping[str, str] = {}
        for theorem, database in read_theorems(text, f"database {self.database}"):
            if theorem.formula[0] != ASSERTED:
                continue
            kinds = database.kinds
            words = in_order(theorem.essential, derivation(theorem, database))
            if len(words) <= self.length:
                found.append((document_split(" ".join(anonymous(words, kinds))), words))
        counts = Counter(word for _, words in found for word in words if word not in MARKS)
        ids = {word: number for number, (word, _) in enumerate(counts.most_common(self.symbols))}
        names, ids = list(ids), ids | {word: self.symbols + number for number, word in enumerate(MARKS)}
        for split in SPLIT_SIXTEENTHS:
            kept = [words for its, words in found if its == split and ids.keys() >= set(words)]
            if not kept:
                raise ValueError(
                    f"database {self.database}: no derivation of at most {self.length} tokens and these {self.symbols} "
                    f"symbols is in the {split} split; allow longer ones, more symbols, or take another database"
                )
            rows = np.full((len(kept), self.length), self.pad, np.int16)
            for row, words in zip(rows, kept):
                row[: len(words)] = [ids[word] for word in words]
            np.save(folder / f"{split}.npy", rows)
        variables = [[ids[word] for word in names if kinds.get(word) == kind] for kind in sorted(set(kinds.values()))]
        meta = {"names": names, "kinds": [kind for kind in variables if kind], "database_hash": database_hash}
        meta["training_tokens"] = int((np.load(folder / "train.npy") != self.pad).sum())
        atomic_files.write_json(folder / "meta.json", meta)
        checksums.seal(folder, _OWN)


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedMetamath(Metamath):
    """The derivations of a stored run, opened by their hash alone: the file that its config names may be anybody's."""

    def _build(self) -> "Derivations":
        if self.database_hash and (found := _read(self._folder(self.database_hash))) is not None:
            return found
        raise ValueError("this run's database is not in the cache; only the command line reads one")


@dataclass(frozen=True, slots=True)
class Derivations:
    """An intact folder of derivations."""

    folder: Path
    database_hash: str
    names: tuple[str, ...]
    """Symbols by id."""
    kinds: tuple[tuple[int, ...], ...]
    """Ids of the variables of each type."""
    training_tokens: int


@functools.lru_cache(maxsize=16)
def _intact(folder: Path, modified: int) -> Derivations:
    manifest = checksums.read_manifest(folder, ("meta.json", *(f"{split}.npy" for split in SPLIT_SIXTEENTHS)))
    for name in manifest:
        checksums.check_content(folder, name, manifest)
    meta = parse_json(regular_files.read_regular(folder / "meta.json"))
    kinds = tuple(map(tuple, meta["kinds"]))
    return Derivations(folder, meta["database_hash"], tuple(meta["names"]), kinds, meta["training_tokens"])


def _read(folder: Path) -> Derivations | None:
    """The derivations in a folder; None where they are missing or damaged."""
    try:
        return _intact(folder, (folder / "meta.json").stat().st_mtime_ns)
    except (OSError, ValueError, LookupError):
        return None


def in_order(given: Sequence[Formula], proof: Sequence[Formula]) -> list[str]:
    """The words of a derivation: what is given, what is to be shown, and the steps, each without its |-."""
    shown = proof[-1]
    first, *later = proof
    parts = [(GIVEN, each) for each in given] + [(SHOW, shown), (PROOF, first)] + [(THEN, each) for each in later]
    return [word for mark, formula in parts for word in (mark, *formula[1:])] + [END]


def anonymous(words: Sequence[str], kinds: Mapping[str, str]) -> list[str]:
    """What a derivation is about, up to where its proof begins, with its variables numbered as they first occur."""
    about = words[: words.index(PROOF)]
    numbers = {word: str(number) for number, word in enumerate(dict.fromkeys(w for w in about if w in kinds))}
    return [numbers.get(word, word) for word in about]
