"""Do the claims hold? Verdicts, contrasts with their margins, and the replicates and runs that they rest on."""

import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from procpre_interp.claims.claim import Contrast, Page, Verdict
from procpre_interp.claims.compared import compared_values, trained
from procpre_interp.claims.contrast_text import predicted, why
from procpre_interp.claims.files import QUICK, Unreadable, find_claims, read_claims
from procpre_interp.claims.judged import ContrastResult, Place, StoredClaim
from procpre_interp.claims.looks import sequence_of
from procpre_interp.claims.text import claim_title, contrasts_table, question_title, verdicts_table
from procpre_interp.core.messages import unknown_name
from procpre_interp.core.terminal import beside_package
from procpre_interp.stats.paper_comparison import of_older_version
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import survival_of
from procpre_interp.views.plots.axes import require
from procpre_interp.views.plots.claims import contrast_forest, gains_beside, paired_values
from procpre_interp.views.plots.sequence import sequence_figure

FOLDER = beside_package("experiments") / "results" / "claims"
"""The claim files that come with the package."""

SOURCES: dict[Place, str] = {"bundled": "results that come with the package", "store": "this store"}
"""Where a result is from, in words."""

NUMBERS = ("margin", "estimate", "low", "high")
"""What a contrast has in the unit of its measure."""

NOT_PREDICTED = "not predicted"
"""Said of a contrast that was only to be reported."""

COMPARED = ["task", "phase1", "transfer", "gain_mean", "gain_low", "gain_high", "n", "paper_gain", "verdict"]
"""What the summary of the diagnostic table has."""

READING_FOREST = (
    "A contrast can be supported only where its whole interval lies on the shaded side of its dotted margin, and "
    "refuted only where it lies wholly on the other; the marker says what its tests and missing runs leave of that."
)

CANNOT_SAY = {
    Verdict.SUPPORTED: "Supported says where the mean over seeds lies, not that each seed shows it.",
    Verdict.REFUTED: "Refuted says that the mean is not where it was predicted, not why.",
    Verdict.UNDECIDED: "Undecided says neither that there is an effect nor that there is none.",
}
"""Verdict -> what it must not be taken for."""


def load_claims(
    store: RunStore | None = None, folder: Path | None = FOLDER
) -> tuple[dict[str, StoredClaim], list[Unreadable]]:
    """All judged claims by name, smoke tests as "quick-<name>", and the files that cannot be read."""
    return find_claims(store, folder, quick=True)


def load_earlier(folder: Path = FOLDER) -> dict[str, StoredClaim]:
    """What came with the package before claims were judged anew, by name: cells and verdicts of first declarations, of
    which some have conditions that the newest one has not. Empty where they did not come along. Raises `ValueError` for
    a file that cannot be read."""
    return {claim.name: claim for claim in read_claims(None, folder.parent / "earlier")}


def about_earlier(before: StoredClaim) -> str:
    """What an earlier result of a claim is, in a sentence or two."""
    return (
        f"Judged anew since. This is what was measured before: {before.verdict} by version {before.rule_version} of "
        f"the rule, {len(before.seeds)} seeds. {before.protocol}"
    )


def of_page(known: Mapping[str, StoredClaim], page: Page) -> dict[str, StoredClaim]:
    """Those of the claims that a page of the explorer shows, without smoke tests."""
    return {name: claim for name, claim in known.items() if claim.page == page and not claim.quick}


def overview(claims: Mapping[str, StoredClaim]) -> pd.DataFrame:
    """One row per claim, as text: the sentence, its verdict, primary contrast, name, where it comes from."""
    table = verdicts_table(list(claims.values()))
    table = table.assign(Name=list(claims), From=[claim.source for claim in claims.values()])
    first = ["Claim", "Verdict", "Estimate", "Predicted", "n", "From", "Name"]
    return table.reindex(columns=[*first, *table.columns.difference(first, sort=False)])


def answer(claims: Mapping[str, StoredClaim]) -> Answer:
    """How many claims have which verdict; smoke tests are no evidence, and told apart."""
    counts = Counter(claim.verdict for claim in claims.values() if not claim.quick)
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in CANNOT_SAY if counts[verdict])
    n_quick = sum(claim.quick for claim in claims.values())
    beside = f" Smoke tests, which are no evidence: {n_quick}." if n_quick else ""
    text = f"Of {counts.total()} claims: {said}.{beside}" if said else beside.strip()
    return Answer(text, decided=counts.total() > counts[Verdict.UNDECIDED])


def cannot_say(claim: StoredClaim) -> str:
    """What the verdict of a claim must not be taken for, in a few sentences."""
    if claim.quick:
        return "A smoke test says that the code runs, and nothing of the claim."
    task = f" ({claim.task})" if claim.task else ""
    n = claim.primary.n
    seen = f"It is about one model, task{task}, budget and protocol, with n = {n} seeds; others were not tried."
    return f"{CANNOT_SAY[claim.verdict]} {seen}"


def rows_of(claim: StoredClaim) -> pd.DataFrame:
    """All contrasts as text, with why each verdict is what it is."""
    table = contrasts_table(claim).assign(Why=[why(row, quick=claim.quick) for row in claim.contrasts])
    first = ["Contrast", "Verdict", "Estimate", "Predicted", "n", "Why"]
    return table.reindex(columns=[*first, *table.columns.difference(first, sort=False)])


def describe_contrast(claim: StoredClaim, contrast: str) -> str:
    """One contrast as arithmetic, its verdict and why."""
    row = _contrast(claim, contrast)
    verdict = (row.verdict or NOT_PREDICTED).capitalize()
    return f"{row.contrast} = {row.formula}\n{verdict}: {why(row, quick=claim.quick)}"


def contrasts(claim: StoredClaim) -> Exhibit:
    """All contrasts of a claim with their intervals and margins, the primary one first."""
    return Exhibit(
        name="contrasts",
        figure=contrast_forest(_frame(map(as_read, claim.contrasts)), title=claim_title(claim)),
        reading=READING_FOREST,
        table=_frame(claim.contrasts).drop(columns=["axis"]),
        notes=(
            "The first contrast was named before the runs and decides; the others are adjusted for their number.",
            f"Margin: the smallest difference that counts. {claim.margin}",
        ),
    )


def _frame(rows: Iterable[ContrastResult]) -> pd.DataFrame:
    """Contrasts as a table, with the title of the axis that each is drawn on."""
    lines = []
    for row in rows:
        fields = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
        fields |= {"predicted": row.predicted or "", "verdict": row.verdict or "", "axis": fields.pop("about").axis}
        fields["breakthroughs"] = "; ".join(map(str, row.breakthroughs))
        lines.append({name: value for name, value in fields.items() if name != "weights"})
    return pd.DataFrame(lines)


def as_read(row: ContrastResult) -> ContrastResult:
    """A contrast with its numbers in the unit that people read."""
    return dataclasses.replace(row, **{name: row.about.scale * getattr(row, name) for name in NUMBERS})


def sequence_table(row: ContrastResult, cells: pd.DataFrame) -> pd.DataFrame:
    """`sequence_of` a contrast in the unit that people read; no rows where its interval holds at one n alone."""
    steps = sequence_of(row, cells)
    return steps.assign(**{name: row.about.scale * steps[name].astype(float) for name in ("estimate", "low", "high")})


def sequence(claim: StoredClaim, contrast: str) -> Exhibit | None:
    """A contrast from replicate to replicate; None where its interval holds at one n alone."""
    row = _contrast(claim, contrast)
    steps = sequence_table(row, claim.cells)
    if steps.empty:
        return None
    taken = claim.looks.loc[claim.looks["contrast"] == contrast, "n"].tolist() if len(claim.looks) else []
    side = f": {predicted(row)} {row.about.unit}".rstrip() if row.predicted else ""
    return Exhibit(
        name="sequence",
        figure=sequence_figure(
            steps, as_read(row), title=question_title(f"{row.contrast}{side}?", row.verdict or NOT_PREDICTED)
        ),
        reading="The interval holds at all numbers of replicates together, so that it may be looked at after each, and "
        "the claim is decided where it leaves the margin behind.",
        table=steps,
        notes=(f"Looked at with n = {', '.join(map(str, taken))}.",) if taken else (),
    )


def why_no_replicates(claim: StoredClaim, contrast: str) -> str:
    """Why nothing can be shown of what a contrast compares; empty where it can."""
    row = _contrast(claim, contrast)
    if not row.weights:
        return "This claim file is older than its contrasts' weights: judge it again with `claims --run`."
    return "" if len(_compared(row, claim)) else "No replicate has finished runs of all that this contrast compares."


def replicates(claim: StoredClaim, contrast: str) -> Exhibit:
    """What a contrast compares in each replicate, and its value there. Raises `ValueError` where there is nothing."""
    if reason := why_no_replicates(claim, contrast):
        raise ValueError(reason)
    row = _contrast(claim, contrast)
    values = _compared(row, claim)
    weights = [float(weight) for weight in row.weights.values()]
    pairs = values.assign(value=values.to_numpy(dtype=float) @ weights).rename_axis("replicate").reset_index()
    labels = dict(zip(claim.cells["condition"][::-1], claim.cells["label"][::-1]))
    side = f": {predicted(row)} {row.about.unit}".rstrip() if row.predicted else ""
    return Exhibit(
        name="replicates",
        figure=paired_values(
            pairs.assign(**(row.about.scale * pairs.drop(columns="replicate")).to_dict("series")),
            as_read(row),
            labels=labels,
            title=question_title(f"{row.contrast}{side}?", row.verdict or NOT_PREDICTED),
        ),
        reading="Left, what was compared, one row per seed; right, the contrast in that seed: a mean that few seeds "
        "make is no regularity.",
        table=pairs,
    )


def was_trained(claim: StoredClaim, contrast: str) -> bool:
    """Whether what a contrast compares are runs, which have a time to breakthrough, and not measurements."""
    cells = _trained_cells(claim, contrast)
    return len(cells) > 0 and {"breakthrough_step", "limit"} <= set(cells)


def survival(claim: StoredClaim, contrast: str) -> Exhibit:
    """Time to breakthrough of the conditions that a contrast compares. Raises `ValueError` where none was trained."""
    if not was_trained(claim, contrast):
        raise ValueError("what this contrast compares was measured, not trained: it has no time to breakthrough")
    return survival_of(_trained_cells(claim, contrast), "claim_survival")


def beside_the_paper(summary: pd.DataFrame) -> Exhibit:
    """Gains of the diagnostic table beside the paper's; `summary` as `paper_comparison.compare_tasks` gives it."""
    rows = summary.loc[summary["paper_gain"].notna()].rename(columns={"paper_gain": "claimed_gain"})
    label = rows["phase1"].astype(str) + ", " + rows["transfer"].astype(str)
    counts = rows["verdict"].value_counts()
    verdict = ", ".join(f"{count} {name}" for name, count in counts.items())
    title = question_title("Do the gains go the paper's way?", f"Of {len(rows)}: {verdict}")
    return Exhibit(
        name="beside_the_paper",
        figure=gains_beside(rows.assign(label=label), title=title),
        reading="Ours agrees with the paper's where its interval lies on the same side of the grey band as the "
        "diamond; only directions are compared. A cell whose setting differs from the paper's is not comparable, and "
        "one whose phase 1 was not learnt is no evidence, wherever they lie.",
        table=rows.drop(columns=["claimed_gain"]).assign(paper_gain=rows["claimed_gain"]),
        notes=tuple(f"Not comparable: {reason}." for reason in _reasons(rows)),
    )


def _reasons(rows: pd.DataFrame) -> list[str]:
    """How the settings of a table's cells differ from the paper's, each reason once."""
    return [reason for reason in rows["differs"].dropna().unique() if reason] if "differs" in rows else []


def load_beside(store: RunStore | None = None) -> tuple[pd.DataFrame, str]:
    """The summary for `beside_the_paper` and where it is from: the store's before the bundled one, and the table in the
    paper's own setting (`experiments/table1_paper.py`) before the cheap one."""
    for name in ("table1-paper", "table1"):
        if store is not None and name in store.tables(name):
            stored = store.read_table(name)
            if isinstance(stored.metadata, dict) and (summary := stored.metadata.get("summary")):  # not of older ones
                table = pd.DataFrame(summary).rename(columns={"claimed_gain": "paper_gain"})
                require(table, COMPARED, f"ours beside the paper's in {name}")
                if table["paper_gain"].notna().to_numpy().any():
                    return of_older_version(table), SOURCES["store"]
    bundled = [FOLDER.parent / f"{name}_summary.csv" for name in ("table1_paper", "table1")]
    return of_older_version(pd.read_csv(next(path for path in bundled if path.is_file()))), SOURCES["bundled"]


def command(name: str) -> str:
    """What computes a claim, smoke test or not."""
    quick = name.startswith(QUICK)
    return f"procpre-interp claims {shlex.quote(name.removeprefix(QUICK))} --run{' --quick' if quick else ''}"


def _compared(row: ContrastResult, claim: StoredClaim) -> pd.DataFrame:
    found = Contrast(name=row.contrast, weights=row.weights, measure=row.measure)
    return compared_values(found, claim.cells)


def _trained_cells(claim: StoredClaim, contrast: str) -> pd.DataFrame:
    cells, names = trained(claim.cells), list(_contrast(claim, contrast).weights)
    return cells.loc[cells["condition"].isin(names)]


def _contrast(claim: StoredClaim, name: str) -> ContrastResult:
    for row in claim.contrasts:
        if row.contrast == name:
            return row
    raise unknown_name("contrast", name[:60], [row.contrast for row in claim.contrasts])
