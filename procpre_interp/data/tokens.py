"""What each token id of a task is called, and what role it plays: for figures and for people who type sequences."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from procpre_interp.data.downstream.arithmetic import ArithmeticTask
from procpre_interp.data.downstream.composed import PRIMITIVES, Composed
from procpre_interp.data.downstream.recall import Haystack
from procpre_interp.data.mixture import Shuffled
from procpre_interp.data.procedural.automata import CellularAutomaton
from procpre_interp.data.procedural.dyck import FAMILIAR, BracketTask
from procpre_interp.data.procedural.sequence import SequenceTask
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.task import Batch, Task
from procpre_interp.data.vocab import ArithmeticVocab, HaystackVocab

PADDING = "·"
"""Name of a padding."""
ANSWER, PROMPT = "answer", "prompt"
"""Roles of what is scored, and of what is given, in tasks whose ids do not tell them apart."""


@dataclass(frozen=True, slots=True)
class Token:
    """An id's name, unique within its task, and its role."""

    name: str
    role: str


@functools.lru_cache(maxsize=16)  # a figure asks for each of its sequences
def tokens_of(task: Task) -> tuple[Token, ...]:
    """Every id of a task in order: name and role. Ids that never occur, and those of mixtures, are called by number."""
    if isinstance(task, Shuffled):
        return tokens_of(task.task)
    names = [Token(str(token), "token") for token in range(task.d_vocab)]
    if isinstance(task, BracketTask):
        names[: 2 * task.k] = [
            Token(_bracket(kind, side, task.k), ("opens", "closes")[side]) for side in (0, 1) for kind in range(task.k)
        ]
        names[task.ids.pad] = Token(PADDING, "padding")
    elif isinstance(task, SequenceTask):
        names[: task.ids.n_symbols] = [Token(str(symbol), "symbol") for symbol in range(task.ids.n_symbols)]
        if isinstance(task, Composed):
            steps = [Token(name, "step") for name in PRIMITIVES]
            names[task.first_step : task.first_step + len(steps)] = steps
        names[task.ids.separator] = Token("|", "separator")
        names[task.ids.pad] = Token(PADDING, "padding")
    elif isinstance(task, Haystack):
        ids = HaystackVocab
        for key in range(ids.N_KEYS):
            names[ids.FIRST_KEY + key] = Token(f"k{key}", "key")
            names[ids.FIRST_KEY + key + ids.TWIN_OFFSET] = Token(f"k{key}?", "query")
        for value in range(ids.FIRST_VALUE, ids.LAST_VALUE + 1):
            names[value] = Token(str(value), "value")
        names[ids.PAD] = Token(PADDING, "padding")
    elif isinstance(task, ArithmeticTask):
        ids = ArithmeticVocab
        names[:10] = [Token(str(digit), "digit") for digit in range(10)]
        for digit in range(10):
            names[ids.FIRST_ANSWER_DIGIT + digit] = Token(f"{digit}'", "answer digit")
        names[task.operator_id] = Token(task.operator_sign, "sign")
        names[ids.EQUALS], names[ids.STOP] = Token("=", "sign"), Token(".", "stop")
        names[ids.PAD] = Token(PADDING, "padding")
    elif isinstance(task, CellularAutomaton):
        names = [Token(format(symbol, "b").zfill(task.bits), "cells") for symbol in range(2**task.bits)]
        names += [Token(str(token), "token") for token in range(len(names), task.d_vocab)]
    elif isinstance(task, Text) and task.tokenizer == "byte":
        names[:256] = [Token(_byte(value), "text") for value in range(256)]
    return tuple(names)


def token_names(task: Task, tokens: Sequence[int] | Int[Tensor, " pos"]) -> list[str]:
    """What the ids of a sequence are called, one name per position. Raises `ValueError` for an unknown id."""
    names = tokens_of(task)
    ids = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    if bad := [token for token in ids if not 0 <= token < len(names)]:
        raise ValueError(f"token id {bad[0]}; {task.name} has ids 0 to {len(names) - 1}")
    return [names[token].name for token in ids]


def token_roles(task: Task, batch: Batch, row: int = 0) -> list[str]:
    """The role of each token of a row, padding included; symbols are told apart by whether they are scored."""
    known = tokens_of(task)
    roles = [known[token].role for token in batch.tokens[row].tolist()]
    is_answer = [False, *batch.loss_mask[row].tolist()[:-1]]  # a target stands one further on
    for position, scored in enumerate(is_answer):
        if position >= int(batch.lengths[row]):
            roles[position] = "padding"
        elif roles[position] == "symbol":
            roles[position] = f"{ANSWER} symbol" if scored else f"{PROMPT} symbol"
    return roles


def parse_tokens(task: Task, text: str) -> Int[Tensor, " pos"]:
    """The ids of a typed sequence: names, or ids as numbers where no token has that name, with blanks between.

    Raises `ValueError` for no token, an unknown one, and more than the task's model has positions for.
    """
    ids = {token.name: number for number, token in reversed(list(enumerate(tokens_of(task))))}
    found = []
    for word in text.split():
        if word in ids:
            found.append(ids[word])
        elif word.isascii() and word.isdecimal() and int(word) < task.d_vocab:
            found.append(int(word))
        else:
            some = ", ".join(token.name for token in tokens_of(task)[:4])
            raise ValueError(
                f"{task.name} has no token {word[:20]!r}; it has ids 0 to {task.d_vocab - 1}, named {some} ..."
            )
    if not found:
        raise ValueError("no tokens: type names or ids with blanks between them")
    if len(found) > task.model_n_ctx:
        raise ValueError(f"{len(found)} tokens; a model of {task.name} has {task.model_n_ctx} positions")
    return torch.tensor(found)


def _bracket(kind: int, side: int, k: int) -> str:
    """( ) [ ] ... up to four types; with more types numbered ones, (0 and )0."""
    return FAMILIAR[kind][side] if k <= len(FAMILIAR) else f"{'()'[side]}{kind}"


def _byte(value: int) -> str:
    """Printable ASCII as it is; others as an escape, which has no blank."""
    return chr(value) if 33 <= value < 127 else f"\\x{value:02x}"
