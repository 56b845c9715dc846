"""What the pages on one model say first, computed from the tables of their figures: one model is an observation."""

from typing import Any

import pandas as pd

from procpre_interp.views.exhibits.exhibit import Answer, Exhibit

ONE = "One model: an observation, not a result."
NOTHING = Answer("There is no finite number to compare: this model diverged.", decided=False)


def strongest_head(exhibit: Exhibit, score: str, of: str) -> Answer:
    """The head that has most of a score."""
    rows = exhibit.table.loc[exhibit.table["score"] == score].dropna(subset="value")
    if rows.empty:
        return NOTHING
    best = rows.loc[rows["value"].idxmax()]
    even = f", where even attention has {best['uniform']:.3g}" if "uniform" in rows else ""
    name = score.replace("_", " ")
    return Answer(f"Most {name} in {of} has {_place(best)}: {best['value']:.3g}{even}. {ONE}", decided=False)


def strongest_patch(exhibit: Exhibit) -> Answer:
    """The patch that moves the answer most, of one pair or of many."""
    table = exhibit.table.dropna(subset="effect")
    if table.empty:
        return NOTHING
    best = table.loc[table["effect"].abs().idxmax()]
    metric, n = str(best["metric"]).replace("_", " "), int(best["n_pairs"])
    pairs = "this pair" if n == 1 else f"{n:,} pairs, on average"
    return Answer(
        f"The patch that moves the {metric} most is {_place(best)}: {best['effect']:+.3g} of the "
        f"{best['clean'] - best['corrupted']:+.3g} between the corrupted and the clean run of {pairs}. {ONE}",
        decided=False,
    )


def strongest_edge(exhibit: Exhibit) -> Answer:
    """The edge with the largest estimated effect."""
    known = exhibit.table.dropna(subset="score")
    if known.empty:
        return NOTHING
    best = known.loc[known["score"].abs().idxmax()]
    return Answer(
        f"The strongest of {len(exhibit.table):,} edges runs from {best['writer']} to {best['reader']}: "
        f"{best['score']:+.3g} by its gradients. {ONE}",
        decided=False,
    )


def smallest_circuit(exhibit: Exhibit, enough: float = 0.8) -> Answer:
    """The smallest circuit that alone does most of what the model does."""
    found = exhibit.table.loc[exhibit.table["search"] != "random"]
    if found["faithfulness"].isna().all():
        return Answer(
            f"The model does not tell these pairs apart, so no circuit can do what it does. {ONE}", decided=False
        )
    reached = found.loc[found["faithfulness"] >= enough]
    if reached.empty:
        return Answer(f"No circuit of these sizes does {enough:.0%} of what the model does. {ONE}", decided=False)
    n = int(reached["n_edges"].min())
    return Answer(f"{n:,} edges alone do {enough:.0%} or more of what the model does. {ONE}", decided=False)


def most_moved(exhibit: Exhibit) -> Answer:
    """The matrix that moved the furthest for its size."""
    known = exhibit.table.dropna(subset="relative_change")
    if known.empty:
        return Answer("These models have no matrix of the same shape to compare.", decided=False)
    best = known.loc[known["relative_change"].idxmax()]
    return Answer(
        f"{best['name']} moved most: by {best['relative_change']:.3g} times its own norm. {ONE}", decided=False
    )


def steepest(exhibit: Exhibit, of: str) -> Answer:
    """The matrix whose largest singular value has most of its squared norm."""
    squares: Any = exhibit.table.assign(square=exhibit.table["singular_value"] ** 2).groupby("name")["square"]
    shares = (squares.max() / squares.sum()).dropna()
    if shares.empty:
        return NOTHING
    name = shares.idxmax()
    said = f"In {of} one direction has {shares[name]:.0%} of the squared norm of {name}, more than in any other matrix"
    return Answer(f"{said}. {ONE}", decided=False)


def likeness(exhibit: Exhibit) -> Answer:
    """How alike two models are at the same sites."""
    same = exhibit.table.loc[exhibit.table["site"] == exhibit.table["other"]]
    if same.empty:
        return Answer(f"The models share no site. {ONE}", decided=False)
    same = same.dropna(subset="cka")
    if same.empty:
        return NOTHING
    low, high = same.loc[same["cka"].idxmin()], same.loc[same["cka"].idxmax()]
    return Answer(
        f"At the same site the models are alike by {low['cka']:.2f} ({low['site']}) to {high['cka']:.2f} "
        f"({high['site']}), where 1 is the same. {ONE}",
        decided=False,
    )


def scored(exhibit: Exhibit) -> Answer:
    """How much of generated sequences is to be predicted, and what it is."""
    table = exhibit.table.loc[exhibit.table["role"] != "padding"]
    wanted = table.loc[table["scored"]]
    roles = ", ".join(wanted["role"].value_counts().index[:3])
    return Answer(f"{len(wanted):,} of {len(table):,} tokens are to be predicted: {roles or 'none'}.", decided=False)


def _place(row: Any) -> str:
    head, position = row.get("head"), row.get("position")
    name = f"layer {row['layer']}" if pd.isna(head) else f"layer {row['layer']}, head {head}"
    return name if pd.isna(position) else f"{name}, position {position}"
