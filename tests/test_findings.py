"""The page of findings: its tables are those of the stored results, and a stale one is noticed."""

from pathlib import Path

import pandas as pd
import pytest

from procpre_interp.claims.files import find_claims
from procpre_interp.cli import main
from procpre_interp.store.about import About
from procpre_interp.study.protocols import PAPER
from procpre_interp.views.findings import refresh, reproduction, verdicts
from procpre_interp.views.markdown import markdown_table

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
PAGE = EXPERIMENTS / "README.md"


def bundled() -> dict:
    claims, problems = find_claims(None, EXPERIMENTS / "results" / "claims")
    assert problems == []
    return claims


def test_the_page_of_findings_is_not_stale():
    text = PAGE.read_text(encoding="utf-8")
    assert refresh(text, bundled(), EXPERIMENTS / "results", About(paper=PAPER)) == text, (
        "run: procpre-interp claims --format markdown --update experiments/README.md"
    )


def test_every_claim_is_on_the_page():
    text = PAGE.read_text(encoding="utf-8")
    assert [name for name in bundled() if f"({name}.py)" not in text] == []


def test_update_writes_a_stale_table_anew_and_keeps_the_prose(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- table: claims parts_combine -->\n| stale |\n<!-- end -->\nAfter.\n")
    assert main(["claims", "--format", "markdown", "--update", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("Before.\n<!-- table: claims parts_combine -->\n| Claim |")
    assert "-23.7 [-66.7, +38.1] points" in text
    assert "stale" not in text
    assert text.endswith("<!-- end -->\nAfter.\n")


def test_a_marker_that_asks_for_something_else_is_refused():
    for marker, message in (("claim parts_combine", "unknown table of findings"), ("claims nonsense", "unknown claim")):
        with pytest.raises(ValueError, match=message):
            refresh(f"<!-- table: {marker} -->\n<!-- end -->", bundled(), EXPERIMENTS / "results", About())


def test_a_bar_in_a_cell_stays_in_its_cell():
    table = markdown_table(pd.DataFrame({"a": ["x|y"], "b": [1]}))
    assert table == "| a | b |\n| --- | --- |\n| x\\|y | 1 |\n"


def test_a_decided_claim_is_set_in_bold():
    table = verdicts(["shuffled_sequences_teach_nothing", "parts_combine"], bundled())
    assert table["Verdict"].tolist() == ["**supported**", "undecided"]


def test_the_first_table_of_the_readme_is_that_of_the_stored_runs():
    stored = reproduction(EXPERIMENTS / "results" / "reproduce_paper.csv", About(paper=PAPER))
    rows = stored.set_index("Condition")
    text = (EXPERIMENTS.parent / "README.md").read_text(encoding="utf-8")
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if " of 15 |" in line]
    assert len(table) == len(stored) == 3
    for condition, accuracy, broke, steps in table:
        row = rows.loc[condition]
        assert [accuracy, steps] == row[["Accuracy %", "Steps to breakthrough"]].tolist()
        assert str(row["Broke through"]).startswith(f"{broke} [")
    judged = bundled()
    for name in ("dyck_teaches_recall", "attention_carries_the_gain"):
        primary = judged[name].primary
        assert primary.verdict == "supported"
        for number in (primary.estimate, primary.low, primary.high):
            assert f"{100 * number:.1f}" in text, (name, number)
