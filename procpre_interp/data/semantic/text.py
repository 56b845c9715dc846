"""Real text as a task: windows of a corpus's token file, every next token scored.

def mean(self):\\n        return self.total / self.n\\n<|endoftext|>import bisect\\nimport dataclas
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Generator, Tensor

from procpre_interp.core.messages import shown
from procpre_interp.core.seeding import stream
from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.derived import Derived
from procpre_interp.data.documents import corpus_hash
from procpre_interp.data.draws import choose
from procpre_interp.data.semantic import code, language  # noqa: F401  (they register the corpora)
from procpre_interp.data.semantic.questions import NoQuestions, question_batch
from procpre_interp.data.semantic.read_once import token_files
from procpre_interp.data.semantic.tokenizers import CHARACTERS, vocabulary_size
from procpre_interp.data.task import TASKS, Batch, Split, Task
from procpre_interp.data.token_file import TokenFile, build_token_file, find_token_file
from procpre_interp.data.vocab import TextVocab, Token
from procpre_interp.data.walk import walk

LARGEST_EXPONENT = 709
"""Largest loss whose exponential is a float, nats."""


@TASKS.register("text")
@dataclass(frozen=True, kw_only=True, slots=True)
class Text(Task):
    """Next-token prediction on real text, in windows of it.

    A split's documents follow one another in one array, each with its end, and a window lies within that
    array: no token of another split is ever in it. Training walks through the array (see `order`); validation, test
    and every batch that is not part of training are windows drawn uniformly: one may start anywhere in a document.
    `resolve` before drawing often: without the hashes, every batch must first read the whole corpus to find its token
    file.
    """

    in_words: ClassVar[str] = "Real text: predict the next token."

    corpus: str = "python-stdlib"
    """One of those that `procpre-interp corpora` lists, such as python-stdlib, wikipedia-leads or files:PATH."""
    tokenizer: str = "byte"
    """byte; bpe:4096 for BPE with that many ids, trained on the training split; bpe:4096@python-stdlib+docstrings for
    one trained on equal amounts of several corpora; characters for printable ASCII and line ends alone; gpt2."""
    length: int = 256
    """Tokens of a window."""
    order: Literal["single_pass", "uniform"] | None = None
    """single_pass walks through the training split, cut into windows, in a random order without replacement, and then
    through it again in another order; uniform draws windows that may overlap and recur, as a mixture always does.
    Default: single_pass. A config with `corpus_hash` but no order was resolved as, or before there was, uniform."""
    answers: bool | None = None
    """Whether a trained model is asked the questions of the test split, documents of two lines that fit into a window,
    and writes the second line by itself. Default: where the corpus is made of questions, as deepmind-math is."""
    corpus_hash: str = ""
    """Hash of the names and contents of the corpus's files; `resolve` fills it in."""
    tokenizer_hash: str = ""
    """Hash of the trained tokenizer; `resolve` fills it in."""

    causes: ClassVar[Mapping[str, str]] = {
        "copy": "another token follows the one earlier occurrence of a token; read where that token occurs again, and "
        "with it what followed"
    }

    def __post_init__(self) -> None:
        if self.length < 2:
            raise ValueError(f"length={self.length} tokens; a window needs at least 2, to predict one from the other")
        build_corpus(self.corpus)
        vocabulary_size(self.tokenizer)

    @property
    def d_vocab(self) -> int:
        return vocabulary_size(self.tokenizer)

    @property
    def n_ctx(self) -> int:
        return self.length

    @property
    def named_tokens(self) -> Mapping[int, Token]:
        """Bytes and characters: printable ASCII as it is, others as an escape, which has no blank."""
        codes = {"byte": range(TextVocab.N_BYTES), "characters": CHARACTERS.encode()}.get(self.tokenizer, b"")
        names = [chr(value) if 33 <= value < 127 else f"\\x{value:02x}" for value in codes]
        return {token: Token(name, "text") for token, name in enumerate(names)}

    def batch(self, n: int, *, generator: Generator) -> Batch:
        """`n` windows of the training split: the others are only for those who ask for them."""
        return self.split_batch(n, "train", generator=generator)

    def split_batch(self, n: int, split: Split, *, generator: Generator, separable: bool | None = None) -> Batch:
        """`n` windows of the split. `separable` plays no part: documents were split, not windows."""
        # Opened at each call, for less than .1 ms: so the task stays a plain value that any process can use.
        opened = self._open()
        starts = torch.randint(opened.splits[split].tokens - self.length + 1, (n,), generator=generator)
        return self._windows(opened, split, starts.numpy())

    def probe_batch(self, n: int, *, generator: Generator) -> Batch:
        return self.split_batch(n, "validation", generator=generator)

    def _windows(self, opened: TokenFile, split: Split, starts: Int64[np.ndarray, " batch"]) -> Batch:
        rows = torch.from_numpy(opened.windows(split, starts, self.length))
        return Batch.from_sequences(
            rows, torch.full((len(rows),), self.length), 0, pad=TextVocab(self.d_vocab).end_of_document
        )

    def draw_pairs(self, cause: str, n: int, *, generator: Generator) -> Pairs:
        """Windows `.. a b .. a b ..` in which a occurs for the second time, and `.. a c .. a c ..`.

        c is a random token of the corpus, and neither a nor b. The corrupted window is no text: only
        what stood earlier in the window speaks for c, while all that one knows of the language speaks for b.
        """
        self.check_cause(cause, "two tokens twice", length=4)
        both = self.probe_batch(2 * n, generator=generator).tokens
        clean, others = both[:n], both[n:]
        earlier, second = second_occurrences(clean)
        followed = clean.gather(1, earlier + 1)
        copies = second & (clean.roll(-1, 1) == followed)
        t = torch.arange(self.length)
        copies &= (earlier + 1 < t) & (t < self.length - 1)
        position = choose(copies, generator=generator)[:, None]
        other = others[:, :1]
        changed = torch.cat([earlier.gather(1, position), position], 1) + 1
        corrupted = clean.scatter(1, changed, other.expand(-1, 2))
        kept = copies.any(1) & (other != clean.gather(1, position))[:, 0]
        return Pairs.from_sequences(clean, corrupted, position[:, 0], kept)

    @property
    def walks(self) -> bool:
        return self.order == "single_pass" or (self.order is None and not self.corpus_hash)

    def walk(self, first: int, n: int, *, seed: int, generator: Generator) -> Batch:
        """Windows that lie side by side from the first token on; fewer than `length` tokens at the end are left out."""
        opened, steps = self._open(), np.arange(first, first + n)
        n_windows = opened.splits["train"].tokens // self.length
        places = walk(steps, n_windows, seed=seed, label=self.stream_label)
        return self._windows(opened, "train", places * self.length)

    def independent(self) -> "Text":
        if self.order == "single_pass":
            raise ValueError(
                "order=single_pass within a mixture, which draws its components at random; leave out the order"
            )
        return replace(self, order="uniform")

    def epochs(self, tokens: int) -> float | None:
        return tokens / self._open().splits["train"].tokens

    def questions(self, n: int, split: Split, *, generator: Generator) -> Batch | None:
        """Questions with their answers; None of a corpus that has none that fit, unless `answers` asks for them."""
        asks = build_corpus(self.corpus).asks if self.answers is None else self.answers
        if not asks:
            return None
        try:
            return question_batch(self._open(), self.length, n, split, generator=generator)
        except NoQuestions as problem:
            if self.answers is None:
                return None
            raise ValueError(f"answers of corpus {self.corpus}: {problem}") from None

    def candidates(self, n: int, split: Split, *, generator: Generator) -> Batch:
        """Windows of the split itself, so that a mixture or a control never trains on another's."""
        return self.split_batch(n, split, generator=generator)

    def resolve(self) -> "Text":
        """The task with the hashes of its files and its tokenizer, and its order. Builds the token file where there is
        none. A uniform order is written as none, as before there was a choice: so such runs keep their ids.

        Raises `ValueError` where they are no longer those that an earlier `resolve` filled in.
        """
        token_file = self._build()
        return replace(
            self,
            order="single_pass" if self.walks else None,
            corpus_hash=token_file.corpus_hash,
            tokenizer_hash=token_file.tokenizer_hash,
        )

    def from_cache(self) -> "Text":
        return CachedText(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def prepare(self) -> None:
        """Build the token file where there is none. Where there is, a stored run opens without its corpus.

        Raises `ValueError` where there are no questions whose answers are wanted.
        """
        self._open()
        if self.answers:
            self.questions(1, "test", generator=stream(0, "questions"))

    def extra_metrics(self, loss_nats: float, split: Split) -> dict[str, float]:
        """Perplexity a token, and bits per byte: loss / ln 2 x tokens / bytes, to compare across tokenizers.

        The end of a document is a token, and no byte: the bits are those that the whole split would take.
        """
        size = self._open().splits[split]
        perplexity = math.inf if loss_nats > LARGEST_EXPONENT else math.exp(loss_nats)
        return {"perplexity": perplexity, "bits_per_byte": loss_nats / math.log(2) * size.tokens / size.bytes}

    def example(self, tokens: list[int]) -> str:
        """The text on one line: line ends, and what else cannot be printed, are escaped."""
        text = self._open().tokenizer().decode(tokens)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

    def _open(self) -> TokenFile:
        found = find_token_file(self.corpus_hash, self.tokenizer, self.tokenizer_hash) if self.corpus_hash else None
        return self._checked(found) if found else self._build()

    def _build(self) -> TokenFile:
        known, name = token_files(), (self.corpus, self.tokenizer)
        if name not in known:
            corpus = build_corpus(self.corpus)
            found = corpus_hash(corpus)
            self._expect(found, self.corpus_hash, "its files")
            known[name] = build_token_file(corpus, found, self.tokenizer)
        self._expect(known[name].corpus_hash, self.corpus_hash, "its files")
        return self._checked(known[name])

    def _checked(self, token_file: TokenFile) -> TokenFile:
        self._expect(token_file.tokenizer_hash, self.tokenizer_hash, f"its tokenizer {self.tokenizer}")
        for split, size in token_file.splits.items():
            if size.tokens < self.length:
                raise ValueError(
                    f"length={self.length} is longer than the {size.tokens} tokens of the {split} split of "
                    f"corpus {self.corpus}; take a shorter length or a larger corpus"
                )
        return token_file

    def _expect(self, found: str, resolved: str, what: str) -> None:
        if resolved and found != resolved:
            raise ValueError(
                f"corpus {self.corpus}: {what} changed since `resolve` (hash {found}, was {resolved}); "
                "bring it back, or leave out corpus_hash and tokenizer_hash to take what there is"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class CachedText(Text):
    """The text of a stored run, opened by its hashes alone: the folder that its config names may be anybody's.

    No registered task of its own: its name, hash and batches are those of `text`.
    """

    def _open(self) -> TokenFile:
        is_resolved = self.corpus_hash and self.tokenizer_hash
        found = find_token_file(self.corpus_hash, self.tokenizer, self.tokenizer_hash) if is_resolved else None
        if found is None:
            why = (
                "is not in the cache" if is_resolved else "cannot be found in the cache, since its config has no hashes"
            )
            raise ValueError(
                f"this run's text (corpus {shown(self.corpus)}) {why}; only the command line reads a corpus: "
                "`procpre-interp probe RUN` does, and keeps the text in the cache"
            )
        return self._checked(found)

    def _build(self) -> TokenFile:
        return self._open()


def text_of(task: Task) -> Text | None:
    """The text that a task is, or is made of; None for any other."""
    while isinstance(task, Derived):
        task = task.task
    return task if isinstance(task, Text) else None


def second_occurrences(
    tokens: Int[Tensor, "batch pos"],
) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
    """Where each token occurred last before in its row (0 where it did not), and whether that was the first time."""
    ascending, order = torch.sort(tokens, dim=1, stable=True)
    again = ascending[:, 1:] == ascending[:, :-1]
    before = torch.full_like(tokens, -1).scatter_(1, order[:, 1:], torch.where(again, order[:, :-1], -1))
    earlier = before.clamp(min=0)
    return earlier, (before >= 0) & (before.gather(1, earlier) < 0)
