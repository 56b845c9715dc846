"""What holds for every task, as a test in one line: `check_task(MyTask())`.

Whether the sequences follow the task's own rule is not checked here: that takes a loop which shares no code with the
task (an oracle), in a test of its own.
"""

import dataclasses
import inspect
import itertools
from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from procpre_interp.core.config import from_yaml, to_yaml
from procpre_interp.core.seeding import stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.data.task import SPLIT_SIXTEENTHS, TASKS, Batch, Split, Task, is_separable, prompt_hash, split_mask
from procpre_interp.data.tokens import tokens_of

Drawn = TypeVar("Drawn", Batch, Pairs)

SHORTER_LENGTHS = 3
"""Lengths from the shortest on that are tried besides the task's own."""


def check_task(task: Task, *, n: int = 300, seed: int = 0) -> None:
    """Checks what every test, figure and command relies on, on `n` sequences and on `n` pairs of each cause.

    The config survives being stored; ids have distinct names that can be typed; batches have the layout of `Batch` and
    are a function of their generator; shorter lengths are valid where the task has a length; no prompt of one split
    occurs in another, unless the task draws its splits itself or has too few prompts; pairs are read where their next
    tokens differ, and satisfy the task's own `check_pair` both ways around.

    Raises:
        AssertionError: the rule that is broken.
        ValueError: fields of the task that make one of its causes impossible.
    """
    _check_config(task)
    _check_names(task)
    _check_batches(task, n, seed)
    _check_lengths(task, n, seed)
    _check_splits(task, n, seed)
    for cause in task.causes:
        _check_cause(task, cause, n, seed)


def check_batch(task: Task, batch: Batch, n: int) -> None:
    """Checks the layout of a batch of `n` sequences. Raises `AssertionError` for the rule that is broken."""
    t = torch.arange(task.n_ctx)
    is_real = t < batch.lengths[:, None]
    for name in ("tokens", "targets", "loss_mask"):
        shape = tuple(getattr(batch, name).shape)
        _require(shape == (n, task.n_ctx), task, f"{name} of shape {shape}; a batch of {n} is ({n}, {task.n_ctx})")
    for name in ("tokens", "targets", "lengths"):
        dtype = getattr(batch, name).dtype
        _require(dtype == torch.int64, task, f"{name} of type {dtype}; it must be torch.int64")
    _require(batch.tokens.device.type == "cpu", task, "a batch is made on the CPU, whatever the device of the model")
    _require(batch.tokens.is_contiguous(), task, "tokens are not contiguous")
    _require(batch.targets[:, :-1].equal(batch.tokens[:, 1:]), task, "targets are not the tokens one further on")
    for name in ("tokens", "targets"):
        _check_ids(task, getattr(batch, name), name)
    are_valid = (batch.lengths >= 1) & (batch.lengths <= task.n_ctx)
    _require(bool(are_valid.all()), task, f"lengths must lie between 1 and n_ctx={task.n_ctx}")
    _require(not (batch.loss_mask & (t >= batch.lengths[:, None] - 1)).any(), task, "padding is scored")
    _require(bool(batch.loss_mask.any(1).all()), task, "a sequence has nothing that is scored")
    padding = batch.tokens[~is_real].unique().tolist()
    _require(len(padding) <= 1, task, f"more than one id pads: {padding[:4]}")


def check_pairs(task: Task, pairs: Pairs, n: int) -> None:
    """Checks the layout of `n` pairs, and that something before the token that is read makes the difference.

    Raises `AssertionError` for the rule that is broken.
    """
    rows = torch.arange(n)
    for name, following in (("clean", pairs.answers), ("corrupted", pairs.wrong)):
        tokens = getattr(pairs, name)
        shape = tuple(tokens.shape)
        _require(shape == (n, task.n_ctx), task, f"{name} of shape {shape}; {n} pairs are ({n}, {task.n_ctx})")
        _check_ids(task, tokens, name)
        is_inside = bool((pairs.positions < task.n_ctx - 1).all())
        _require(is_inside, task, "a pair is read at the last position, behind which no token follows")
        what = {"clean": "answers", "corrupted": "wrong"}[name]
        _require(tokens[rows, pairs.positions + 1].equal(following), task, f"{what} are not what follows in {name}")
    for name in ("clean", "corrupted", "positions", "answers", "wrong"):
        dtype = getattr(pairs, name).dtype
        _require(dtype == torch.int64, task, f"{name} of type {dtype}; it must be torch.int64")
    differ = (pairs.clean != pairs.corrupted) & (torch.arange(task.n_ctx) <= pairs.positions[:, None])
    _require(bool(differ.any(1).all()), task, "up to where it is read a pair is one sequence, so nothing could differ")


def _require(holds: bool, task: Task, otherwise: str) -> None:
    if not holds:
        raise AssertionError(f"{task.name}: {otherwise}")


def _check_ids(task: Task, tokens: Int[Tensor, "row pos"], what: str) -> None:
    bad = tokens[(tokens < 0) | (tokens >= task.d_vocab)].tolist()
    _require(not bad, task, f"id {bad[:1]} among the {what}; d_vocab={task.d_vocab} allows 0 to {task.d_vocab - 1}")


def _check_config(task: Task) -> None:
    kind = type(task)
    if getattr(task, "name", None) not in TASKS or TASKS[task.name] is not kind:
        raise AssertionError(f"{kind.__name__} is not registered; decorate it with @TASKS.register(NAME)")
    try:
        hash(task)
    except TypeError as problem:
        raise AssertionError(f"{task.name}: {problem}; fields are numbers, strings, tuples or tasks") from problem
    _require(from_yaml(Task, to_yaml(task)) == task, task, "read back from its YAML it is another task")
    about = inspect.getdoc(kind) or ""
    _require(not about.startswith(f"{kind.__name__}("), task, "it has no docstring, whose first line describes it")
    _require(task.model_n_ctx >= task.n_ctx, task, f"model_n_ctx={task.model_n_ctx} is below n_ctx={task.n_ctx}")


def _check_names(task: Task) -> None:
    bad = [token for token in task.named_tokens if not 0 <= token < task.d_vocab]
    _require(not bad, task, f"id {bad[:1]} has a name; d_vocab={task.d_vocab} allows 0 to {task.d_vocab - 1}")
    names = [token.name for token in tokens_of(task)]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1] if len(set(names)) < len(names) else []
    _require(not twice, task, f"two ids are called {twice[:1]}")
    unusable = [name for name in names if not name or any(character.isspace() for character in name)]
    _require(not unusable, task, f"{unusable[:1]} cannot be typed: a name has a character, and no blank")


def _check_batches(task: Task, n: int, seed: int) -> None:
    batch = _draw_alike(task, "batches", seed, lambda generator: task.batch(n, generator=generator))
    for rows in (n, 0, 1):
        check_batch(task, task.batch(rows, generator=stream(seed, "check", rows)), rows)
    shown = task.example(batch.tokens[0, : int(batch.lengths[0])].tolist())
    _require(bool(shown) and "\n" not in shown, task, f"example gives {shown[:40]!r}; it must be one line of text")


def _draw_alike(task: Task, what: str, seed: int, draw: Callable[[Generator], Drawn]) -> Drawn:
    """What is drawn, which must be a function of its generator and of nothing else."""

    def tensors(found: Drawn) -> list[Tensor]:
        return [getattr(found, field.name) for field in dataclasses.fields(found)]

    before = torch.random.get_rng_state()
    first, again, other = (draw(stream(each, "check", what)) for each in (seed, seed, seed + 1))
    _require(torch.random.get_rng_state().equal(before), task, f"{what} use torch's global generator")
    is_equal = all(map(torch.equal, tensors(first), tensors(again)))
    _require(is_equal, task, f"{what} of equal generators differ")
    _require(not torch.equal(tensors(first)[0], tensors(other)[0]), task, f"{what} of different generators are equal")
    return first


def _check_lengths(task: Task, n: int, seed: int) -> None:
    valid = task.valid_lengths
    if not valid:
        try:
            task.at_length(2)
        except ValueError:
            return
        raise AssertionError(f"{task.name}: at_length gives a task, but valid_lengths is empty")
    for length in [*valid[:SHORTER_LENGTHS], valid[-1], valid[-1] + 50]:
        short = task.at_length(length)
        _require(short.d_vocab == task.d_vocab, task, f"at_length({length}) changes d_vocab to {short.d_vocab}")
        _require(short.n_ctx <= task.n_ctx, task, f"at_length({length}) is wider than the task: n_ctx={short.n_ctx}")
        check_batch(short, short.batch(n, generator=stream(seed, "check", "short", length)), n)
    _require(task.at_length(valid[-1]).n_ctx == task.n_ctx, task, "at its own length it has another n_ctx")


def _check_splits(task: Task, n: int, seed: int) -> None:
    if type(task).split_batch is not Task.split_batch or not is_separable(task):
        return
    seen: dict[Split, Tensor] = {}
    for split in SPLIT_SIXTEENTHS:
        rows = 10 * n if split == "train" else n
        batch = task.split_batch(rows, split, generator=stream(seed, "check", split), separable=True)
        check_batch(task, batch, rows)
        _require(bool(split_mask(batch, split).all()), task, f"prompts of other splits among {split}")
        seen[split] = prompt_hash(batch)
    for one, other in itertools.combinations(seen, 2):
        _require(not torch.isin(seen[other], seen[one]).any(), task, f"prompts of {one} occur in {other}")


def _check_cause(task: Task, cause: str, n: int, seed: int) -> None:
    what = f"pairs of cause {cause!r}"
    pairs = _draw_alike(task, what, seed, lambda generator: task.counterfactual(cause, n, generator=generator))
    check_pairs(task, pairs, n)
    for few in (0, 1):
        check_pairs(task, task.counterfactual(cause, few, generator=stream(seed, "check", few)), few)
    for clean, corrupted, position in zip(pairs.clean.tolist(), pairs.corrupted.tolist(), pairs.positions.tolist()):
        for one, other in ((clean, corrupted), (corrupted, clean)):
            try:
                task.check_pair(cause, one[: position + 2], other[: position + 2])
            except AssertionError as problem:
                problem.add_note(f"{task.name}, {what}: {one[: position + 2]} and {other[: position + 2]}")
                raise
