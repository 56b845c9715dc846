"""A task's tokens as the files of a Hugging Face tokenizer: those of text, or the names of a task's ids as words."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, cast

from tokenizers import Tokenizer as Model
from tokenizers import decoders, models, pre_tokenizers

from procpre_interp.data.corpus import END_OF_DOCUMENT
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.semantic.tokenizers import (
    CHARACTERS,
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
)
from procpre_interp.data.task import Task
from procpre_interp.data.token_file import TokenFile, find_token_file
from procpre_interp.data.tokens import tokens_of
from procpre_interp.data.vocab import TextVocab

PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""Bytes that byte-level BPE writes as the character of their own number. Source: GPT-2, released code."""


class NoTokenizer(ValueError):
    """A task whose ids no tokenizer file can describe; the message says why, in a line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFiles:
    """A tokenizer as it is written next to a model."""

    texts: dict[str, str]
    """Content of each file, by its name."""
    end: int | None = None
    """The id that stands for the end of a text; None where there is none."""
    pad: int | None = None
    """The id that fills up a batch; None where there is none."""


def tokenizer_files(task: Task, n_ctx: int) -> TokenizerFiles:
    """What `AutoTokenizer.from_pretrained` opens: ids are exactly the task's, for a model of `n_ctx` positions.

    No text is read as the end of a document, as here, so it must be appended by its id. Raises `NoTokenizer` for a task
    whose ids have no names, and `ValueError` for text that is gone.
    """
    if isinstance(task, Text):
        return _of_text(opened(task).tokenizer(), task, n_ctx)
    if not task.named_tokens:
        raise NoTokenizer(f"the token ids of {task.name} have no names; give the model ids")
    names = [token.name for token in tokens_of(task)]
    model = Model(models.WordLevel(vocab={name: number for number, name in enumerate(names)}))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    pad = next((token for token, named in task.named_tokens.items() if named.role == "padding"), None)
    special = {} if pad is None else {"pad_token": names[pad]}
    return _files(json.loads(model.to_str()), n_ctx, special, pad=pad)


def opened(task: Text) -> TokenFile:
    """The token file of a task on text. Raises `ValueError` where its corpus is gone, or is another one now."""
    resolved = task if task.corpus_hash else task.resolve()
    resolved.prepare()
    found = find_token_file(resolved.corpus_hash, resolved.tokenizer, resolved.tokenizer_hash)
    if found is None:
        raise ValueError(f"the text of corpus {task.corpus} is no longer in the cache")
    return found


def foreign_tokenizer_files(text: str, n_ctx: int) -> TokenizerFiles:
    """The tokenizer.json of an imported model as it is; <|endoftext|> ends a text where it has that token."""
    end = cast(Any, Model).from_str(text).token_to_id(END_OF_DOCUMENT)
    special = {} if end is None else {"bos_token": END_OF_DOCUMENT, "eos_token": END_OF_DOCUMENT}
    files = _files({}, n_ctx, {**special, "split_special_tokens": False}, end=end)
    return dataclasses.replace(files, texts=files.texts | {"tokenizer.json": text})


def _of_text(tokenizer: Tokenizer, task: Text, n_ctx: int) -> TokenizerFiles:
    match tokenizer:
        case ByteTokenizer():
            fields = json.loads(_bytes_as_pairs().to_str())
        case BytePairTokenizer():
            fields = json.loads(tokenizer.to_json())
        case CharacterTokenizer():
            fields = json.loads(_characters().to_str())
        case _:
            raise NoTokenizer(f"tokenizer {task.tokenizer} has no form that the library tokenizers reads")
    end = tokenizer.end_of_document
    # In the vocabulary itself, since an added token would take the next free id, which a small text leaves lower.
    fields["model"]["vocab"][END_OF_DOCUMENT] = end
    special: dict[str, Any] = {"bos_token": END_OF_DOCUMENT, "eos_token": END_OF_DOCUMENT, "pad_token": END_OF_DOCUMENT}
    return _files(fields, n_ctx, special, end=end, pad=end)


def _bytes_as_pairs() -> Model:
    """Byte-level BPE that never merges: its ids are the bytes."""
    others = [byte for byte in range(TextVocab.N_BYTES) if byte not in PRINTABLE]
    written = {chr(byte): byte for byte in PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(others)}
    model = cast(Any, Model(models.BPE(vocab=written, merges=[])))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    return model


def _characters() -> Model:
    """BPE of the characters that never merges. It leaves out other characters, where this package refuses the text."""
    model = cast(Any, Model(models.BPE(vocab={character: n for n, character in enumerate(CHARACTERS)}, merges=[])))
    model.decoder = decoders.Fuse()
    return model


def _files(
    tokenizer: dict[str, Any], n_ctx: int, special: dict[str, Any], *, end: int | None = None, pad: int | None = None
) -> TokenizerFiles:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": n_ctx,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        **special,
    }
    texts = {
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(config, indent=1, ensure_ascii=False) + "\n",
    }
    return TokenizerFiles(texts=texts, end=end, pad=pad)
