"""Where does attention look? Scores of all heads, the pattern of one sequence, and both over training."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from procpre_interp.data import Batch, Task
from procpre_interp.data.tokens import token_names
from procpre_interp.exhibits.exhibit import Exhibit
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline import load_model, load_task
from procpre_interp.plots.attention import in_words, pattern_figure, score_heatmap, timeline_figure
from procpre_interp.plots.axes import add_click_targets
from procpre_interp.probe import attention_pattern, attention_scores
from procpre_interp.probe.targets import targets_of
from procpre_interp.run import DamagedRun, Run, UnknownRun
from procpre_interp.runs import RunStore
from procpre_interp.seeding import stream
from procpre_interp.train.process import run_threads

GENERAL = {
    "entropy_relative": "Entropy over its maximum (0 one key, 1 even)",
    "entropy_bits": "Entropy (bits)",
    "distance": "Distance (tokens back)",
}
"""Scores that every task has: name -> what people read."""

SEQUENCES = 128
"""Sequences that scores are means over, as `procpre-interp probe` has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A time in the making of a run's model: a kept step, of its parent or its own, or the transplanted model."""

    label: str
    """What people read, unique within a run."""
    run: Run
    step: int | None
    """None: the transplanted model of the run itself, before its first step."""
    phase: int
    """1 or 2; the transplanted model begins phase 2."""


def moments(run: Run, store: RunStore) -> list[Moment]:
    """All that is kept of a run's model in order: its first parent's steps, the transplanted model, its own steps.

    What cannot be had (a parent that is gone, or keeps no weights) is left out. Raises `ValueError` for a run that
    keeps no weights itself.
    """
    if not run.steps:
        raise ValueError(f"run {run.id} keeps no weights, so there is no model to look into")
    found, parents = [], run.config.get("parents") or []
    if parents:
        try:
            parent = store.open(parents[0]["run"], verify=False)
        except (UnknownRun, DamagedRun):
            parent = None
        if parent is not None and parent.steps:
            found += [Moment(label=f"phase 1, step {step:,}", run=parent, step=step, phase=1) for step in parent.steps]
            if 0 not in run.steps:
                found.append(Moment(label="transplanted", run=run, step=None, phase=2))
    number = 2 if parents else 1
    own = [Moment(label=f"phase {number}, step {step:,}", run=run, step=step, phase=number) for step in run.steps]
    return found + own


def score_names(task: Task) -> dict[str, str]:
    """The scores that heads have on a task: name -> what people read. Entropy and the task's own come first."""
    own = {name: f"{in_words(name)}: {target.description.rstrip('.')}" for name, target in targets_of(task).items()}
    special = {name: text for name, text in own.items() if name not in targets_of(None)}
    first = {"entropy_relative": GENERAL["entropy_relative"]}
    return first | special | GENERAL | {name: text for name, text in own.items() if name not in special}


def sample(task: Task, seed: int, n: int) -> Batch:
    """The sequences that scores are made of: those of `procpre-interp probe` with this seed."""
    return task.batch(n, generator=stream(seed, "probe", task.stream_label))


def scores(
    model: HookedTransformer,
    task: Task,
    score: str = "entropy_relative",
    *,
    seed: int = 0,
    n: int = SEQUENCES,
    of: str = "",
) -> Exhibit:
    """One score of every head over `n` generated sequences; each cell can be clicked, and is its head. `of`: whose."""
    if score not in (known := score_names(task)):
        raise ValueError(f"no score {score[:40]!r} on {task.name}; there are: {', '.join(known)}")
    table = attention_scores(model, sample(task, seed, n), task)
    figure = score_heatmap(table, score, title=f"{in_words(score)}{f': {of}' if of else ''}")
    return Exhibit(
        name=f"attention_{score}",
        figure=add_click_targets(figure, lambda head, layer: f"L{layer}H{head}"),
        reading=f"{known[score]}."
        if score in GENERAL
        else f"{known[score]}. A head that is darker than even attention does this job.",
        table=table,
        notes=(f"Means over {n:,} generated sequences of {task.name}, seed {seed}.",),
    )


def clicked_head(hover: str) -> tuple[int, int]:
    """Layer and head of a clicked cell of `scores`."""
    layer, _, head = hover.partition(":")[0].removeprefix("L").partition("H")
    return int(layer), int(head)


def sequence(task: Task, seed: int, example: int) -> Int[Tensor, " pos"]:
    """Generated sequence number `example` of a seed, without its padding."""
    batch = sample(task, seed, example + 1)
    return batch.tokens[example, : int(batch.lengths[example])]


def pattern(
    model: HookedTransformer,
    task: Task,
    tokens: Sequence[int] | Int[Tensor, " pos"],
    layer: int | None = None,
    head: int | None = None,
    *,
    of: str = "",
) -> Exhibit:
    """Attention over the tokens of one sequence: of one head, of a layer, or of all heads.

    Raises `ValueError` for a layer or head that there is not, and for tokens that the model does not know.
    """
    config, tokens = model.config, torch.as_tensor(tokens)
    if len(tokens) > config.n_ctx or int(tokens.max()) >= config.d_vocab:
        raise ValueError(f"the model has {config.n_ctx} positions and token ids 0 to {config.d_vocab - 1}")
    table = attention_pattern(model, tokens)
    names = token_names(task, tokens.tolist())
    place = "All heads" if head is None else f"Layer {layer}, head {head}"
    title = f"{place}{f': {of}' if of else ''}"
    figure = pattern_figure(table, names, layer=layer, head=head, title=title)
    shown = table if layer is None else table.loc[table["layer"] == layer]
    shown = shown if head is None else shown.loc[shown["head"] == head]
    labels = dict(enumerate(names))
    return Exhibit(
        name="pattern",
        figure=figure,
        reading="Each row is a token that looks back, each column a token that is looked at; a row sums to 1.",
        table=shown.assign(
            query_token=[labels[position] for position in shown["query"]],
            key_token=[labels[position] for position in shown["key"]],
        ),
    )


def score_table(model: HookedTransformer, task: Task, *, seed: int = 0, n: int = SEQUENCES) -> pd.DataFrame:
    """Every score of every head, as `probe.attention_scores` gives them, on the sequences of `scores`."""
    return attention_scores(model, sample(task, seed, n), task)


def development(run: Run, store: RunStore, score: str = "entropy_relative", *, n: int = SEQUENCES) -> Exhibit:
    """One score of every head at all kept steps of both phases; each phase on sequences of its own task.

    Raises `ValueError` for a run that keeps no weights, and for a score that neither phase has.
    """
    found = [each for each in moments(run, store) if each.step is not None]
    with run_threads(1):
        tables = [score_table(load_model(each.run, each.step), load_task(each.run), n=n) for each in found]
    return developed(run, found, tables, score)


def developed(run: Run, found: Sequence[Moment], tables: Sequence[pd.DataFrame], score: str) -> Exhibit:
    """The same from the `score_table` of each moment."""
    placed = [table.assign(phase=each.phase, step=each.step or 0) for each, table in zip(found, tables) if len(table)]
    table = pd.concat(placed, ignore_index=True)
    shown = table.loc[table["score"] == score]
    if shown.empty:
        raise ValueError(f"no score {score[:40]!r} in the phases of run {run.id}")
    return Exhibit(
        name=f"development_{score}",
        figure=timeline_figure(shown, score, title=f"{in_words(score)} over training: run {run.id[:8]}"),
        reading="A head forms where its curve leaves the dashed line, which is even attention; coloured are the heads "
        "that move the most.",
        table=shown,
        notes=("One run: an observation, not a result.",),
    )
