"""Do the claims hold? Verdicts, contrasts with their margins, and the replicates and runs that they rest on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from procpre_interp.claims import OBSERVED, QUICK, Contrast, compared_values, find_claims
from procpre_interp.comparison import MARGIN
from procpre_interp.config import unknown_name
from procpre_interp.describe import READING_SURVIVAL, verdicts_table
from procpre_interp.exhibits.exhibit import Exhibit
from procpre_interp.plots.claims import contrast_forest, gains_beside, paired_values
from procpre_interp.plots.curves import survival_curves
from procpre_interp.runs import RunStore
from procpre_interp.survival import survival_curve
from procpre_interp.terminal import beside_package

Judged = Mapping[str, Any]
"""A claim as `claims.judge` gives it, with `source` and `cells`."""

FOLDER = beside_package("experiments") / "results" / "claims"
"""The claim files that come with the package."""

MEASURES = {
    "accuracy": "test accuracy (share of answer tokens)",
    "restricted_time_steps": "time to breakthrough (steps, at most the limit)",
    "entropy_relative": "attention entropy (share of the largest that causal attention can have)",
    "jaccard": "overlap of circuits (Jaccard index)",
    "faithfulness": "faithfulness (share of what the whole model does)",
    "retrieval": "attention on the queried value, best head (0 to 1)",
    "completeness": "completeness (share of what is left without the circuit)",
    "share": "share of the replicates' heads",
    "lost": "accuracy lost (share of answer tokens)",
}
"""What a claim may be about: column of its cells, and what people read."""

READING_FOREST = (
    "A contrast holds where its whole interval lies on the shaded side of its dotted margin, and is refuted where it "
    "lies wholly on the other; one that crosses the margin is undecided."
)


def load_claims(
    store: RunStore | None = None, folder: Path | None = FOLDER
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """All judged claims by name, smoke tests as "quick-<name>", and a line for each file that cannot be read."""
    return find_claims(store, folder, quick=True)


def overview(claims: Mapping[str, Judged]) -> pd.DataFrame:
    """One row a claim, as text: verdict, primary contrast, where it comes from."""
    table = verdicts_table(list(claims.values()))
    table.insert(0, "Name", list(claims))
    return table.assign(From=[claim["source"] for claim in claims.values()])


def contrasts(claim: Judged) -> Exhibit:
    """All contrasts of a claim with their intervals and margins, the primary one first."""
    table = pd.DataFrame(claim["contrasts"])
    table["axis"] = [axis(measure) for measure in table["measure"]]
    bounds = ["margin", "estimate", "low", "high"]
    table[bounds] = table[bounds].astype(float)
    table["verdict"] = table["verdict"].fillna("")
    return Exhibit(
        name="contrasts",
        figure=contrast_forest(table, title=str(claim["claim"])),
        reading=READING_FOREST,
        table=table.drop(columns=["axis", "weights"], errors="ignore"),
        notes=("The first contrast was named before the runs and decides; the others are adjusted for their number.",),
    )


def replicates(claim: Judged, contrast: str) -> Exhibit:
    """What a contrast compares in each replicate, and its value there. Raises `ValueError` where there is nothing."""
    row = _contrast(claim, contrast)
    if "weights" not in row:
        raise ValueError("this claim file is older than its contrasts' weights: judge it again with `claims --run`")
    found = Contrast(name=row["contrast"], weights=row["weights"], measure=row["measure"])
    values = compared_values(found, claim["cells"])
    if values.empty:
        raise ValueError(f"no replicate has finished runs of all that {contrast!r} compares")
    weights = [float(weight) for weight in row["weights"].values()]
    pairs = values.assign(value=values.to_numpy(dtype=float) @ weights).rename_axis("replicate").reset_index()
    title = axis(row["measure"])
    shown = {**row, "axis": f"{row['formula']}: {title}", "measured": title[0].upper() + title[1:]}
    labels = dict(
        claim["cells"][["condition", "label"]].drop_duplicates("condition").itertuples(index=False, name=None)
    )
    return Exhibit(
        name="replicates",
        figure=paired_values(pairs, shown, labels=labels),
        reading="Left, what was compared, one row a seed; right, the contrast in that seed: a mean that few seeds make "
        "is no regularity.",
        table=pairs,
    )


def was_trained(claim: Judged, contrast: str) -> bool:
    """Whether what a contrast compares are runs, which have a time to breakthrough, and not measurements."""
    cells = _trained_cells(claim, contrast)
    return len(cells) > 0 and {"breakthrough_step", "limit"} <= set(cells)


def survival(claim: Judged, contrast: str) -> Exhibit:
    """Time to breakthrough of the conditions that a contrast compares. Raises `ValueError` where none was trained."""
    if not was_trained(claim, contrast):
        raise ValueError("what this contrast compares was measured, not trained: it has no time to breakthrough")
    cells = _trained_cells(claim, contrast)
    return Exhibit(
        name="claim_survival", figure=survival_curves(cells), reading=READING_SURVIVAL, table=survival_curve(cells)
    )


def beside_the_paper(summary: pd.DataFrame, margin: float = MARGIN) -> Exhibit:
    """Gains of `experiments/table1.py` beside the paper's; `summary` as `comparison.compare_tasks` gives it."""
    rows = summary.loc[summary["paper_gain"].notna()].rename(columns={"paper_gain": "claimed_gain"})
    label = rows["phase1"].astype(str) + ", " + rows["transfer"].astype(str)
    return Exhibit(
        name="beside_the_paper",
        figure=gains_beside(rows.assign(label=label), margin=margin),
        reading="Ours agrees with the paper's where its interval lies on the same side of the grey band as the "
        "diamond; only directions are compared, since budgets differ.",
        table=rows.drop(columns=["claimed_gain"]).assign(paper_gain=rows["claimed_gain"]),
    )


def load_beside(store: RunStore | None = None) -> tuple[pd.DataFrame, str]:
    """The summary for `beside_the_paper` and where it is from: that of the store's `table1`, else the bundled one."""
    if store is not None and "table1" in store.tables("table1"):
        stored = store.read_table("table1")
        summary = stored.metadata.get("summary")
        if summary:
            return pd.DataFrame(summary).rename(columns={"claimed_gain": "paper_gain"}), "this store"
    return pd.read_csv(FOLDER.parent / "table1_summary.csv"), "results that come with the package"


def command(name: str) -> str:
    """What computes a claim, smoke test or not."""
    quick = name.startswith(QUICK)
    return f"procpre-interp claims {name.removeprefix(QUICK)} --run{' --quick' if quick else ''}"


def axis(measure: str) -> str:
    """What people read of a measure, with its unit; its own name where it is unknown."""
    return MEASURES.get(measure, measure.replace("_", " "))


def _trained_cells(claim: Judged, contrast: str) -> pd.DataFrame:
    cells, names = claim["cells"], list(_contrast(claim, contrast).get("weights", {}))
    if OBSERVED in cells:
        cells = cells.loc[~cells[OBSERVED].fillna(False).astype(bool)]
    return cells.loc[cells["condition"].isin(names)]


def _contrast(claim: Judged, name: str) -> dict[str, Any]:
    for row in claim["contrasts"]:
        if row["contrast"] == name:
            return row
    raise unknown_name("contrast", name[:60], [row["contrast"] for row in claim["contrasts"]])
