"""Claim: with Dyck's attention a head forms that looks a value up, and without pretraining none does.

    python experiments/retrieval_head_forms.py [--out runs] [--workers 2] [--minutes 90] [--quick]

A head retrieves as far as, at the query, it attends to the value of the queried key: its score is that share of
attention, mean over 256 fresh sequences, and a model's score is that of its best head, the retrieval head. Even
attention scores about 0.05. The weights of 60 steps of phase 2 are kept, which tell when it forms: the first kept step
from which its score stays at 0.25 or above.

Is it the transferred head? Before phase 2 every head of the transplant has a past: the bracket that must close next
(the stack's top) is what a head of Dyck has to look up. If the head that does this best in its layer becomes the
retrieval head, the transfer has brought a lookup along; by chance it would in one of four.
"""

import math
import sys
from collections.abc import Iterable, Mapping
from statistics import mean

import pandas as pd

from procpre_interp.analysis.attention_timeline import formation, timelines
from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.measures import Measure, accuracy_measure
from procpre_interp.core.seeding import stream
from procpre_interp.patch import activation_patching
from procpre_interp.pipeline.lineage import Subject, at_stage
from procpre_interp.probe import attention_scores
from procpre_interp.stats.confidence_sequence import Limits
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.claim_figures import measure_figure
from procpre_interp.study.claim_tables import Tables
from procpre_interp.study.experiment import haystack_experiment, main, run
from procpre_interp.study.observation import Measured, Observation
from procpre_interp.study.protocols import SEEN_IN_MODELS, TIMELINE, dyck

__all__ = ["EXPERIMENT", "figure", "run"]

MEASURE = "retrieval"
MARGIN = 0.25
SEQUENCES = 256
SHOWN = (0, 300, 600, 776, 1000, 1300, 1700, 2250, 3000, 5000)
"""Steps near which the development is stored."""

CLAIM = Claim(
    name="retrieval_head_forms",
    claim="With Dyck's attention and LN a retrieval head forms on haystack; without pretraining none does.",
    prediction="The best head's attention to the queried value is higher than without pretraining by more than 0.25.",
    margin="A quarter of a head's attention, or of the logit difference, or of the replicates.",
    refuted_by="A mean difference whose interval lies wholly below 0.25.",
    measures={
        MEASURE: Measure("attention on the queried value, best head", "0 to 1"),
        "share": Measure("share of the replicates' heads"),
        "lost": accuracy_measure("accuracy lost"),
    },
    # Runs that broke through have such a head and others have none: two modes.
    limits={MEASURE: Limits(low=0, high=1), "share": Limits(low=0, high=1)},
    primary=Contrast(
        name="attention + LN over none",
        weights={"attn+ln": 1, "none": -1},
        predicted="above",
        margin=MARGIN,
        measure=MEASURE,
    ),
    secondary=(
        Contrast(
            name="full transfer over none",
            weights={"full": 1, "none": -1},
            predicted="above",
            margin=MARGIN,
            measure=MEASURE,
        ),
        Contrast(
            name="it was the stack-top head of its layer, over chance",
            weights={"stack_top_head": 1, "chance": -1},
            predicted="above",
            margin=MARGIN,
            measure="share",
        ),
        Contrast(
            name="its mean ablation costs more than that of another head",
            weights={"retrieval_ablated": 1, "other_ablated": -1},
            predicted="above",
            margin=MARGIN,
            measure="lost",
        ),
        Contrast(
            name="and more than that of another head of its layer",
            weights={"retrieval_ablated": 1, "other_in_layer_ablated": -1},
            measure="lost",
        ),
    ),
)


def by_head(table: pd.DataFrame, values: Iterable[float]) -> dict[tuple[int, int], float]:
    """Values by layer and head."""
    return dict(zip(zip(table["layer"].astype(int), table["head"].astype(int)), values))


def attention_to(subject: Subject, target: str, seed: int) -> dict[tuple[int, int], float]:
    """Every head's attention to a target."""
    batch = subject.task.batch(SEQUENCES, generator=stream(seed, "retrieval"))
    table = attention_scores(subject.model, batch, subject.task, targets=[target])
    rows = table.loc[table["score"] == target]
    return by_head(rows, rows["value"])


def lost(subject: Subject, seed: int) -> dict[tuple[int, int], float]:
    """Share of the logit difference that the mean ablation of each head takes away."""
    pairs = subject.task.counterfactuals(64, generator=stream(seed, "retrieval pairs"))
    table = activation_patching(
        subject.model, pairs, sites=["z"], by_position=False, direction="noise", replacement="mean"
    )
    return by_head(table, 1 - table["value"] / table["clean"])


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """The best head after phase 2 in each condition; its past and what depends on it, with attention + LN."""
    seed = runs["none"].seed
    found: dict[str, dict[str, float]] = {}
    for name, each in runs.items():
        subject = at_stage(each, store, "finished").load(store)
        found[name] = {MEASURE: max(attention_to(subject, "value", seed).values())}
    finished = at_stage(runs["attn+ln"], store, "finished").load(store)
    retrieval = attention_to(finished, "value", seed)
    best = max(retrieval, key=lambda place: retrieval[place])
    before = attention_to(at_stage(runs["attn+ln"], store, "phase1").load(store), "stack_top", seed)
    layer = {place: value for place, value in before.items() if place[0] == best[0]}
    found["stack_top_head"] = {"share": float(max(layer, key=lambda place: layer[place]) == best)}
    found["chance"] = {"share": 1 / len(layer)}
    cost = lost(finished, seed)
    found["retrieval_ablated"] = {"lost": cost.pop(best)}
    found["other_ablated"] = {"lost": mean(cost.values())}
    found["other_in_layer_ablated"] = {"lost": mean(value for place, value in cost.items() if place[0] == best[0])}
    found["dearest_below_ablated"] = {"lost": max(value for place, value in cost.items() if place[0] != best[0])}
    ranked = sorted(retrieval.values())
    found["attn+ln"]["lead"] = ranked[-1] - ranked[-2]
    return found


def when(table: pd.DataFrame, store: RunStore) -> Tables:
    """Formation and breakthrough of every run, in steps of phase 2; none where there was none within the limit."""
    cells = table.loc[(table["status"] == "finished") & (table["run"] != "")].set_index("run")
    runs = [store.open(str(run)) for run in cells.index]
    curves = timelines(runs, store, targets=["value", "own_key"])
    heads = formation(curves.loc[curves["task"] == "haystack"], "value", MARGIN)
    formed = heads.loc[heads["strongest"]].set_index("run")
    whole = cells[["condition", "replicate", "breakthrough_step"]].join(
        formed[["layer", "head", "formation_step", "step_before"]]
    )
    whole = whole.join(order_of_formation(curves.loc[curves["task"] == "haystack"]))
    return {"formation": whole.reset_index(), "development": development(curves, cells)}


def order_of_formation(curves: pd.DataFrame) -> pd.DataFrame:
    """What forms first in each run: steps from which some head has looked at keys, and at values, for good; `order`.

    `order` names the two scores in the order of their steps, or says "together" or which of them never formed.
    """
    names = {"own_key": "own_key_step", "value": "value_step"}
    formed = {column: formation(curves, score, MARGIN) for score, column in names.items()}
    steps = pd.DataFrame({column: heads.groupby("run")["formation_step"].min() for column, heads in formed.items()})
    orders = []
    for own_key, value in steps.itertuples(index=False):
        missing = [score for score, step in zip(names, (own_key, value)) if math.isnan(step)]
        first = "together" if own_key == value else "own_key, value" if own_key < value else "value, own_key"
        orders.append(f"without {', '.join(missing)}" if missing else first)
    return steps.assign(order=orders)


def development(curves: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    """Attention of the best head of each layer to the queried value, and of each value to its key, over phase 2."""
    rows = curves.loc[(curves["task"] == "haystack") & curves["score"].isin(["value", "own_key"])]
    keys = ["run", "score", "layer", "step"]
    best = rows.groupby(keys, as_index=False).agg({"value": "max", "uniform": "first"})
    best = best.assign(condition=best["run"].map(cells["condition"]))
    kept = sorted(set(best["step"]))
    shown = [min(kept, key=lambda step, near=near: abs(step - near)) for near in SHOWN]
    chosen = best.loc[best["step"].isin(shown)]
    means = chosen.groupby(["condition", "score", "layer", "step"], as_index=False).agg(
        {"value": "mean", "uniform": "mean", "run": "count"}
    )
    return means.round(4).rename(columns={"run": "n"})


figure = measure_figure(MEASURE, "Attention of the best head to the queried value, share")

EXPERIMENT = haystack_experiment(
    CLAIM,
    (dyck("full", label="attention + MLP + LN"), dyck("attn+ln", "attn+ln", label="attention + LN")),
    figure,
    few=None,
    protocol=TIMELINE,
    observation=Observation(
        needs=("none", "full", "attn+ln"),
        conditions={
            "stack_top_head": "the retrieval head was the stack-top head of its layer",
            "chance": "one of the layer's heads by lot",
            "retrieval_ablated": "the retrieval head's mean in its place",
            "other_ablated": "another head's mean in its place (all seven others)",
            "other_in_layer_ablated": "another head's of its layer",
            "dearest_below_ablated": "that of the most important head of the other layer",
        },
        measure=measure,
    ),
    extra=when,
    seen=SEEN_IN_MODELS,
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
