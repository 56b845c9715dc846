"""Where does attention look? Scores of all heads, the pattern of one sequence, and both over training."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from procpre_interp.data import Task
from procpre_interp.data.samples import SEQUENCES, sample
from procpre_interp.data.tokens import token_names
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.lineage import Moment, moments
from procpre_interp.probe import attention_pattern, attention_scores
from procpre_interp.probe.targets import targets_of
from procpre_interp.store.run import Run
from procpre_interp.store.store import RunStore
from procpre_interp.train.process import run_threads
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.plots.attention import in_words, pattern_figure, score_heatmap, timeline_figure
from procpre_interp.views.plots.axes import add_click_targets

GENERAL = {
    "entropy_relative": "Spread of attention (0 one token, 1 even)",
    "entropy_bits": "Spread of attention (entropy, bits)",
    "distance": "Distance that attention looks back (tokens)",
}
"""Scores that every task has, other than shares of attention: name -> what people read."""

READINGS = {
    "entropy_relative": "0 (pale): the head looks at one token; 1 (dark): evenly at all that it may look at.",
    "entropy_bits": "0 bits: the head looks at one token; each further bit is twice as many tokens.",
    "distance": "How many tokens back the head looks, on average: the darker, the further.",
}
"""How to read each of them."""


@dataclass(frozen=True, slots=True)
class Look:
    """A score, and the head that stands out by it: where a reader should look first."""

    score: str
    layer: int
    head: int


def score_names(task: Task) -> dict[str, str]:
    """The scores that heads have on a task: name -> what people read. Those of the task's own come first."""
    own = {name: f"{in_words(name)}: {target.description.rstrip('.')}" for name, target in targets_of(task).items()}
    special = {name: text for name, text in own.items() if name not in targets_of(None)}
    return special | GENERAL | {name: text for name, text in own.items() if name not in special}


def standing_out(table: pd.DataFrame, task: Task, score: str | None = None) -> Look:
    """The score of the task's job, or `score`, and the head that stands out by it, from a `score_table`.

    The job is a target that finds the answer; of several, and of all targets where none does, the one with a head
    furthest above even attention. By entropy the head furthest below even attention stands out.
    """
    targets = targets_of(task)
    jobs = [name for name, target in targets.items() if target.finds_answer] or list(targets)
    lead = table["value"] - table["uniform"]
    lead = lead.where(~table["score"].isin(["entropy_relative", "entropy_bits"]), -lead)
    among = table["score"].isin(jobs) if score is None else table["score"] == score
    lead = lead.loc[among].dropna()  # NaN: no query of these sequences has the score
    if lead.empty:
        return Look(score or next(iter(GENERAL)), 0, 0)
    row = table.loc[lead.idxmax()]
    return Look(str(row["score"]), int(row["layer"]), int(row["head"]))


def scores(
    model: HookedTransformer,
    task: Task,
    score: str | None = None,
    *,
    seed: int = 0,
    n: int = SEQUENCES,
    of: str = "",
) -> Exhibit:
    """One score of every head over `n` generated sequences, by default that of the task's job. `of`: whose.

    Each cell can be clicked; its custom data are its layer and head.
    """
    table = score_table(model, task, seed=seed, n=n)
    return scored(table, task, score or standing_out(table, task).score, seed=seed, n=n, of=of)


def scored(table: pd.DataFrame, task: Task, score: str, *, seed: int = 0, n: int = SEQUENCES, of: str = "") -> Exhibit:
    """The same from the `score_table` of these sequences. Raises `ValueError` for a score that the task lacks."""
    if score not in (known := score_names(task)):
        raise ValueError(f"no score {score[:40]!r} on {task.name}; there are: {', '.join(known)}")
    figure = score_heatmap(table, score, title=f"{in_words(score)}{f': {of}' if of else ''}")
    even = float(table.loc[table["score"] == score, "uniform"].mean())
    asks = targets_of(task)[score].description.rstrip(".") if score in targets_of(task) else known[score]
    reading = READINGS.get(score) or (
        f"The share of a head's attention that goes where this score asks ({asks}). "
        f"1 is all of it, and {even:.2g} what even attention gives: a head far above that does this job."
    )
    return Exhibit(
        name=f"attention_{score}",
        figure=add_click_targets(figure),
        reading=reading,
        table=table,
        notes=(f"Means over {n:,} generated sequences of {task.name}, seed {seed}.",),
    )


def score_grid(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """A `score_table` for people: one row per head, and a first one for even attention; one column per score."""
    order = [score for score in score_names(task) if score in set(table["score"])]
    heads = table.assign(of=[f"L{layer}H{head}" for layer, head in zip(table["layer"], table["head"])])
    even = table.drop_duplicates("score").assign(of="even attention", value=lambda rows: rows["uniform"])
    rows = pd.concat([even, heads], ignore_index=True)
    values = {(of, score): value for of, score, value in rows[["of", "score", "value"]].itertuples(index=False)}
    names = dict.fromkeys(rows["of"])
    columns = {in_words(score).lower(): [values[of, score] for of in names] for score in order}
    return pd.DataFrame({"of": list(names), **columns})


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
        tables = [score_table(each.model(store), each.task, n=n) for each in found]
    return developed(run, found, tables, score)


def developed(run: Run, found: Sequence[Moment], tables: Sequence[pd.DataFrame], score: str) -> Exhibit:
    """The same from the `score_table` of each moment."""
    placed = [
        table.assign(phase=each.phase, step=each.source.first_step if each.step is None else each.step)
        for each, table in zip(found, tables)
        if len(table)
    ]
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
