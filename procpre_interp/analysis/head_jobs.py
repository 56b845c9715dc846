"""Does a transplanted head still do its job? Its scores in the parent, and among fresh weights before any training.

A head reads what others wrote. In phase 1 these were trained along with it; at step 0 of phase 2 they are fresh. So
heads are measured in three models, all on the parent's own task: the *parent*; the *host*, fresh weights of the run's
seed in the parent's shape and vocabulary, with what the run takes from the parent in its place; and the *bare host*,
without that. Both hosts have the parent's embeddings and positions, since no head of Dyck can tell brackets apart
whose embeddings it has never seen: what is asked is whether the heads can do without the other components.
"""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from procpre_interp.core.seeding import stream
from procpre_interp.core.selectors import NOTHING, head_term
from procpre_interp.model import HookedTransformer, with_weights
from procpre_interp.patch import head_strengths
from procpre_interp.pipeline.config import model_config
from procpre_interp.pipeline.execute import load_donor, load_model, load_task, run_config
from procpre_interp.probe import attention_scores
from procpre_interp.probe.targets import TARGETS, targets_of
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train.process import run_threads
from procpre_interp.train.sharpness import heads_of
from procpre_interp.transfer import Donor, TransferConfig, transplant

MODELS = ("parent", "host", "bare_host")
"""Models that heads are measured in."""
STRENGTH = "circuit"
"""Score of a head by which `circuit.K` ranks."""
N_SEQUENCES = 128
"""Sequences, or pairs per cause."""


def head_scores(
    runs: Iterable[Run], store: RunStore, *, n: int = N_SEQUENCES, with_strength: bool = True
) -> pd.DataFrame:
    """Scores of the heads that each run takes from its parent, in each of `MODELS`, on the parent's task.

    One row per run, head, model and score: run, replicate, layer, head, model, score, value, uniform. The scores are
    those of `attention_scores`, with all targets of the parent's task, and `circuit`, the head's strength in nats of
    logit difference, by which `circuit.K` ranks heads. It takes longest, and is left out unless `with_strength`.
    `uniform` is what even attention scores, NaN for `circuit`.

    Raises `ValueError` for a run that has not one parent, or takes no heads from it.
    """
    tables = [_of_run(run, store, n, with_strength) for run in runs]
    if not tables:
        raise ValueError("no runs to measure; give at least one")
    return pd.concat(tables, ignore_index=True)


def jobs(scores: pd.DataFrame) -> pd.DataFrame:
    """Each transferred head's job, and how much of it is done where: one row per run and head.

    The job is the target that, in the parent, the head attends to most beyond even attention. Columns: run, replicate,
    layer, head, job, uniform, and the attention on the job's keys in each of `MODELS`, a share, 0 to 1.
    """
    attention = scores.loc[scores["score"].isin(list(TARGETS))].dropna(subset="value")
    keys = ["run", "replicate", "layer", "head"]
    rows = []
    for place, of_head in attention.groupby(keys, sort=False):
        parent = of_head.loc[of_head["model"] == "parent"].set_index("score")
        job = (parent["value"] - parent["uniform"]).idxmax()
        done = of_head.loc[of_head["score"] == job].set_index("model")["value"]
        measured = {name: float(done[name]) for name in MODELS}
        rows.append(dict(zip(keys, place)) | {"job": job, "uniform": float(parent.at[job, "uniform"]), **measured})
    return pd.DataFrame(rows)


def _of_run(run: Run, store: RunStore, n: int, with_strength: bool) -> pd.DataFrame:
    config = run_config(run)
    if len(config.parents) != 1:
        raise ValueError(f"run {run.id} has {len(config.parents)} parents; heads are compared with those of one")
    (parent,) = config.parents
    source = store.open(parent.run)
    donor, task = load_donor(parent, store, run.seed), load_task(source)
    heads = heads_of(donor.config, parent.selector)
    models = {
        "parent": load_model(source, step=parent.step),
        "host": _host(run, source, donor),
        "bare_host": _host(run, source, Donor(donor.weights, donor.config, NOTHING)),
    }
    batch = task.probe_batch(n, generator=stream(run.seed, "head jobs", task.stream_label))
    tables = []
    with run_threads(1):
        for name, model in models.items():
            attention = attention_scores(model, batch, task, targets=targets_of(task))
            own = [place in heads for place in zip(attention["layer"], attention["head"])]
            found = [attention.loc[own]]
            if with_strength:
                # The circuit's pairs are those on which the parent's heads were ranked.
                pairs = task.counterfactuals(n, generator=stream(source.seed, "head circuit"))
                found.append(_strength_table(head_strengths(model, pairs), heads))
            tables.append(pd.concat(found).assign(run=run.id, replicate=run.seed, model=name))
    columns = ["run", "replicate", "layer", "head", "model", "score", "value", "uniform"]
    return pd.concat(tables, ignore_index=True).loc[:, columns]


def _strength_table(strengths: Mapping[str, float], heads: Sequence[tuple[int, int]]) -> pd.DataFrame:
    values = [strengths[head_term(*place)] for place in heads]
    layers, numbers = zip(*heads)
    return pd.DataFrame({"layer": layers, "head": numbers, "score": STRENGTH, "value": values})


def _host(run: Run, source: Run, donor: Donor) -> HookedTransformer:
    """Fresh weights of a run's seed in the parent's shape and vocabulary, with what a donor gives in their place.

    Blocks are those of the run's own fresh model, tensor by tensor: the fresh weights of the parent itself, from which
    these heads were trained, would be no strangers to them.
    """
    model = HookedTransformer.from_seed(model_config(run_config(source)), run.seed, *run_config(run).fresh_labels)
    transfer = TransferConfig(token_embedding="retain", unembedding="retain", positions="carry")
    return with_weights(model, transplant(dict(model.named_parameters()), model.config, [donor], transfer))
