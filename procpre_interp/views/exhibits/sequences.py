"""What was generated? Sequences of any task: the roles of their tokens, what is scored, the structure behind."""

import dataclasses
import math
import typing
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
from jaxtyping import Int

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch, Task
from procpre_interp.data.complexity import measure_complexity, stored_complexities, stored_complexity
from procpre_interp.data.derived import Derived, Shuffled
from procpre_interp.data.mixture import Mixture
from procpre_interp.data.procedural.automata import Automaton
from procpre_interp.data.procedural.dyck import BracketTask
from procpre_interp.data.semantic.mathematics import SetMm
from procpre_interp.data.tokens import token_names, token_roles
from procpre_interp.views.exhibits.corpora import readable
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.plots.measures import measure_dots
from procpre_interp.views.plots.sequences import automaton_figure, depth_figure, token_grid

MADE_OF_ONE = tuple(name for name in TASKS if issubclass(TASKS[name], Derived))
"""Tasks that are made of another one."""
MADE_OF_OTHERS = ("mixture", *MADE_OF_ONE)
"""Tasks whose fields are tasks."""
TOKENIZERS = ("byte", "characters", "bpe:1024", "bpe:4096", "gpt2")
MOST_POSITIONS = 256
"""Positions that a grid shows."""


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field of a task that a form can ask for."""

    name: str
    kind: Literal["int", "float", "choice"]
    default: Any
    choices: tuple[str, ...] = ()
    optional: bool = False


def fields(name: str) -> list[Field]:
    """The fields of a task in the order of its class; none of those that are tasks, or that `resolve` fills in."""
    kind, found = TASKS[name], []
    # No path can be given, since a form must not read any file.
    choices = {"corpus": readable, "tokenizer": lambda: TOKENIZERS, "database": databases}
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        declared = types[field.name]
        inner = [each for each in get_args(declared) if each is not type(None)] or [declared]
        if get_origin(declared) is Literal:
            found.append(Field(field.name, "choice", field.default, get_args(declared)))
        elif field.name in choices:
            found.append(Field(field.name, "choice", field.default, choices[field.name]()))
        elif inner[0] in (int, float):
            optional = type(None) in get_args(declared)
            found.append(Field(field.name, "int" if inner[0] is int else "float", field.default, (), optional))
    return found


def databases() -> tuple[str, ...]:
    """Databases of formal mathematics that come by themselves."""
    return (SetMm.name,)


def build(name: str, parts: list[str] | None = None, **values: Any) -> Task:
    """A task of these fields; `parts` are the components of a mixture, or the one that it is made of, at defaults.

    Raises `ValueError` for a value that does not fit, where what is made of others has no parts, and where a database
    is not on this machine: no page fetches one.
    """
    if values.get("database") in databases() and values["database"] not in readable():
        name = values["database"]
        raise ValueError(f"{name} is not on this machine: procpre-interp corpora {name} --fetch brings it")
    if name in MADE_OF_OTHERS:
        if not parts:
            raise ValueError(f"{name} is made of other tasks: choose {'some' if name == 'mixture' else 'one'}")
        made = [TASKS.build(part) for part in parts]
        return Mixture(tasks=tuple(made)) if name == "mixture" else TASKS.build(name, task=made[0], **values)
    return TASKS.build(name, **values)


def draw(task: Task, seed: int = 0, n: int = 8) -> Batch:
    """`n` sequences of a seed. The shuffled control of the same seed has the same tokens in another order."""
    if n < 1:
        raise ValueError(f"n={n}; draw at least one sequence")
    return task.batch(n, generator=stream(seed, "playground", task.stream_label))


def tokens(task: Task, seed: int = 0, n: int = 8, *, title: str = "") -> Exhibit:
    """Generated sequences, each token coloured by its role and marked where it is scored."""
    batch, rows = draw(task, seed, n), []
    for sequence in range(n):
        ids = batch.tokens[sequence].tolist()
        # A token is scored where the position before it has its prediction scored.
        scored = [False, *batch.loss_mask[sequence].tolist()[:-1]]
        known = zip(ids, token_names(task, ids), token_roles(task, batch, sequence), scored)
        rows += [
            {"sequence": sequence, "position": position, "id": number, "token": name, "role": role, "scored": is_scored}
            for position, (number, name, role, is_scored) in enumerate(known)
        ]
    table = pd.DataFrame(rows)
    shown = table.loc[table["position"] < MOST_POSITIONS]
    cut = f"the first {MOST_POSITIONS} of {batch.tokens.shape[1]} positions; " if len(shown) < len(table) else ""
    caption = f"{cut}n = {n} generated sequence{'s' * (n != 1)}, seed {seed}"
    return Exhibit(
        name="tokens",
        figure=token_grid(shown, title=title or f"{task.name}: tokens by role", caption=caption),
        reading="A row is a sequence from left to right; a dot marks a token whose prediction is trained and scored.",
        table=table,
    )


def control(task: Task, seed: int = 0, n: int = 8) -> Exhibit:
    """The shuffled control: the tokens of each sequence in random order. Raises `ValueError` for a shuffled task."""
    if isinstance(task, Shuffled):
        raise ValueError("this is the shuffled control already")
    title = f"Shuffled {task.name}: the same tokens in random order"
    exhibit = tokens(Shuffled(task=task), seed, n, title=title)
    return dataclasses.replace(
        exhibit,
        name="control",
        reading="The same sequences without their structure: what phase 1 teaches on these is not owed to structure.",
    )


def depth(task: Task, seed: int = 0, n: int = 8) -> Exhibit:
    """How many brackets are open after each token. Raises `ValueError` for a task without brackets."""
    if not isinstance(task, BracketTask):
        raise ValueError(f"{task.name} has no brackets, so no depth")
    batch = draw(task, seed, n)
    opened = np.where(batch.tokens.numpy() < task.k, 1, -1).cumsum(axis=1)
    sequence, position = np.indices(opened.shape)
    table = pd.DataFrame({"sequence": sequence.ravel(), "position": position.ravel(), "depth": opened.ravel()})
    return Exhibit(
        name="depth",
        figure=depth_figure(table, title=f"{task.name}: depth of the stack"),
        reading="A model that predicts a close must know what the stack holds: the deeper, the more it must keep.",
        table=table,
    )


def automaton(task: Task, seed: int = 0, example: int = 0) -> Exhibit:
    """The rows of one generated automaton. Raises `ValueError` for another task."""
    if not isinstance(task, Automaton):
        raise ValueError(f"{task.name} is no cellular automaton")
    cells = cells_of(task, draw(task, seed, example + 1).tokens[example].numpy())
    caption = f"sequence {example}, seed {seed}; periodic boundary"
    title = f"{task.rule_name}: {task.rows} rows of {task.cells} cells"
    return Exhibit(
        name="automaton",
        figure=automaton_figure(cells, task.n_states, title=title, caption=caption),
        reading=f"The first row is random; each row follows from the one above by the rule, {task.n_neighbours} "
        "neighbours at a time.",
        table=pd.DataFrame(cells, columns=[f"cell {cell}" for cell in range(task.cells)]),
    )


def cells_of(task: Automaton, symbols: Int[np.ndarray, " pos"]) -> Int[np.ndarray, "row cell"]:
    """The states of the cells that a sequence of symbols stands for."""
    places = task.n_states ** np.arange(task.per_symbol)[::-1]
    return (symbols[:, None] // places % task.n_states).reshape(task.rows, task.cells)


def facts(task: Task, seed: int = 0, n: int = 64) -> dict[str, str]:
    """What a reader must know of a task: sizes, how much is scored, and the loss of a uniform guess."""
    batch = draw(task, seed, n)
    lengths, scored = batch.lengths.double(), batch.loss_mask.sum().item()
    return {
        "Token ids": f"{task.d_vocab:,}",
        "Longest sequence, tokens": f"{task.n_ctx:,}",
        "Mean length, tokens": f"{lengths.mean().item():.1f}",
        "Scored targets": f"{scored / lengths.sum().item():.0%}",
        "Loss of a guess, nats": f"{math.log(task.d_vocab):.2f}",
    }


def complexity(task: Task) -> dict[str, str]:
    """How complex a task measures: the sample's measures, and the stored area under the loss curve where it has one.

    Takes half a second where the fields are not the defaults.
    """
    stored = stored_complexity(task)
    sample = stored.sample if stored else measure_complexity(task)
    area = f"{stored.mean_loss_area:.1%} ± {stored.loss_area_std:.1%}" if stored else "not measured"
    return {
        "Compressed by gzip": f"{sample.gzip_ratio:.1%}",
        "Compressed, tokens shuffled": f"{sample.shuffled_gzip_ratio:.1%}",
        "Entropy, bits per token": f"≤ {sample.entropy_bits:.2f}",
        "Loss area, of a guess": area,
    }


def complexities() -> Exhibit:
    """How complex the tasks measure next to one another, at their default fields: what is stored with the package."""
    defaults = [TASKS.build(name) for name in stored_complexities() if name in TASKS]
    rows = [
        {
            "task": task.name,
            "gzip": found.sample.gzip_ratio,
            "gzip_shuffled": found.sample.shuffled_gzip_ratio,
            "entropy": found.sample.entropy_bits / math.log2(task.d_vocab),
            "loss_area": found.mean_loss_area,
        }
        for task in defaults
        if (found := stored_complexity(task))
    ]
    table = pd.DataFrame(rows).sort_values("loss_area", ignore_index=True)
    hardest = table["task"].iloc[-1]
    figure = measure_dots(
        table,
        ["task"],
        ["gzip", "gzip_shuffled", "entropy", "loss_area"],
        x="Share of the bytes (gzip), or of a guess (%)",
        title=f"Which task is the most complex? By its loss area, {hardest}",
    )
    figure.update_xaxes(rangemode="tozero", tickformat=".0%")
    return Exhibit(
        name="complexities",
        figure=figure,
        reading="A guess holds every token for as likely. The further gzip lies below gzip of shuffled tokens, the "
        "more order there is beyond counts; the loss area is the mean loss of a small model over its first steps.",
        table=table,
    )
