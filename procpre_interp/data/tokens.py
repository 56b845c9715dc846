"""What each token id of a task is called, and what role it plays: for figures and for people who type sequences."""

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from procpre_interp.data.derived import Derived
from procpre_interp.data.mixture import Mixture
from procpre_interp.data.task import Batch, Task
from procpre_interp.data.vocab import Token

ANSWER, PROMPT = "answer", "prompt"
"""Roles of what is scored, and of what is given, in tasks whose ids do not tell them apart."""


@functools.lru_cache(maxsize=16)  # a figure asks for each of its sequences
def tokens_of(task: Task) -> tuple[Token, ...]:
    """Every id of a task in order: its name and role, or its number where the task gives it no name."""
    named = task.named_tokens
    return tuple(named.get(token, Token(str(token), "token")) for token in range(task.d_vocab))


def same_vocabulary(one: Task, other: Task) -> bool:
    """Whether the ids of two tasks stand for the same: as many, with the same names, on text of one tokenizer, and in
    mixtures of the same in the same places."""
    return (one.d_vocab, _meanings(one)) == (other.d_vocab, _meanings(other))


def _meanings(task: Task) -> tuple[object, ...]:
    """What the ids of a task stand for, as far as it can be compared."""
    if isinstance(task, Derived):
        return _meanings(task.task)
    if isinstance(task, Mixture):  # a prefix says whose the ids behind it are
        return ("mixture", *((part.d_vocab, _meanings(part)) for part in task.tasks))
    return getattr(task.resolve(), "tokenizer_hash", None), task.named_tokens


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
    """The ids of a typed sequence: names, or ids as numbers where no token has that name, separated by blanks.

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
        raise ValueError("no tokens: type names or ids separated by blanks")
    if len(found) > task.model_n_ctx:
        raise ValueError(f"{len(found)} tokens; a model of {task.name} has {task.model_n_ctx} positions")
    return torch.tensor(found)
