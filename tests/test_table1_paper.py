"""The diagnostic table in the paper's own setting: its cells, its gates, and what it may say about the paper."""

import dataclasses

import pandas as pd
import pytest

from experiments import table1_paper
from experiments.table1_paper import NO_VERDICT, Table1Paper, joined, summarise, undecided
from procpre_interp.stats.confidence_sequence import FEWEST_WITHIN
from procpre_interp.stats.paper_comparison import (
    CHEAP_DIFFERS,
    SEQUENTIAL,
    Agreement,
    compare_tasks,
    effect_verdict,
    of_older_version,
)
from procpre_interp.store.store import RunStore
from procpre_interp.study import diagnostic_table
from procpre_interp.study.paper_table import LEARNT, OURS, PAPER, PHASE1, STARTS, claimed_accuracies, gates, plan
from procpre_interp.study.protocols import PROTOCOLS, reproduction
from procpre_interp.sweep.plan import plan as sweep_plan
from procpre_interp.train import TrainConfig
from procpre_interp.views.exhibits import claims as exhibits

TASK, NONE = "haystack", 0.113


def rows(gain: float, *, phase1="dyck", transfer="full", differs="", learnt=(True,) * 20) -> pd.DataFrame:
    """Replicates without pretraining, and of one cell that gains this much."""
    table = []
    for i, passed in enumerate(learnt):
        row = {"replicate": 3000 + i, "task": TASK, "status": "finished", "positions_carried": False}
        row |= {"setting": "paper", "phase1_accuracy": 0.4}
        table += [
            {**row, "phase1": "none", "transfer": "", "accuracy": NONE, "differs": "", "phase1_learnt": True},
            {**row, "phase1": phase1, "transfer": transfer, "accuracy": NONE + gain + 0.001 * i}
            | {"differs": differs, "phase1_learnt": passed},
        ]
    return pd.DataFrame(table)


def verdict_of(table: pd.DataFrame) -> pd.Series:
    summary = summarise(table).set_index("phase1")
    assert summary.loc["none", "verdict"] == ""
    return summary.drop(index="none").iloc[0]


def test_only_a_cell_in_the_papers_setting_can_disagree():
    for gain, said in ((0.8, "agrees"), (-0.05, "disagrees"), (0.0, "disagrees")):
        assert verdict_of(rows(gain))["verdict"] == said
        other = verdict_of(rows(gain, differs="other embeddings"))
        assert (other["verdict"], other["differs"]) == (Agreement.NOT_COMPARABLE, "other embeddings")


def test_few_replicates_decide_nothing_and_a_quarter_of_the_papers_gain_is_none():
    assert verdict_of(rows(0.8, learnt=(True,) * 5))["verdict"] == Agreement.TOO_FEW
    cell = verdict_of(rows(0.8, learnt=(True,) * 6))
    assert cell["verdict"] == Agreement.UNDECIDED  # six replicates might have missed a tenth that gain nothing
    assert cell["margin"] == pytest.approx((0.969 - NONE) / 4)
    assert cell["gain_low"] < cell["margin"] < cell["gain_mean"]
    assert verdict_of(rows(0.1, learnt=(True,) * 40))["verdict"] == "disagrees"
    assert verdict_of(rows(0.3))["verdict"] == Agreement.UNDECIDED


def test_that_there_is_no_effect_takes_more_replicates():
    below, above = (
        effect_verdict(-0.01, 0.01, n, 0.01, margin=0.02, rule=SEQUENTIAL) for n in (FEWEST_WITHIN - 1, FEWEST_WITHIN)
    )
    assert (below, above) == (Agreement.UNDECIDED, Agreement.AGREES)


def test_replicates_whose_phase_1_was_not_learnt_are_no_evidence():
    missed = verdict_of(rows(0.0, learnt=(False,) * 6))
    assert (missed["verdict"], missed["missed"], missed["n"]) == (Agreement.NOT_LEARNT, 6, 6)
    few = verdict_of(rows(0.0, learnt=(True, False, True, False) * 2))
    assert (few["verdict"], few["missed"], few["n"]) == (Agreement.NOT_LEARNT, 4, 4)
    enough = verdict_of(rows(0.8, learnt=(True, False, True, True) * 5))
    assert (enough["verdict"], enough["missed"], enough["n"]) == ("agrees", 5, 15)
    # What they would have said is left out of the numbers too.
    table = rows(0.8, learnt=(True, False, True, True) * 5)
    table.loc[~table["phase1_learnt"], "accuracy"] = 0.0
    assert verdict_of(table)["accuracy_mean"] > NONE + 0.8
    assert (missed["phase1_low"], missed["phase1_high"]) == (0.4, 0.4)


def test_a_table_that_says_nothing_of_its_setting_is_compared_as_it_is():
    table = rows(0.0).drop(columns=["differs", "phase1_learnt"])
    found = compare_tasks(table, claimed_accuracies(), rule=SEQUENTIAL).set_index("phase1")
    assert (found.loc["dyck", "verdict"], found.loc["dyck", "missed"], found.loc["dyck", "differs"]) == (
        "disagrees",
        0,
        "",
    )


def test_summaries_of_older_versions_compare_nothing():
    old = pd.DataFrame({"verdict": ["agrees", "disagrees", "too few replicates", "", None]})
    found = of_older_version(old)
    assert found["verdict"].tolist()[:4] == [*[Agreement.NOT_COMPARABLE] * 3, ""]
    assert found["verdict"].isna().tolist()[4]
    assert set(found["differs"]) == {CHEAP_DIFFERS}
    assert of_older_version(found) is found
    bundled, _ = exhibits.load_beside()
    assert Agreement.DISAGREES not in set(bundled.loc[bundled["differs"] != "", "verdict"])


def test_the_cheap_table_says_that_no_cell_is_comparable():
    assert set(diagnostic_table.plan(replicates=1).cells["differs"]) == {CHEAP_DIFFERS}


def test_the_store_s_table_in_the_paper_s_setting_stands_first(tmp_path):
    store = RunStore(tmp_path)
    for name, gain in (("table1", -0.05), ("table1-paper", 0.8)):
        summary = summarise(rows(gain)).to_dict("records")
        store.write_table(name, pd.DataFrame({"task": [TASK]}), {"summary": summary})
    found, source = exhibits.load_beside(store)
    assert source == "this store"
    exhibit = exhibits.beside_the_paper(found)
    assert exhibit.table["verdict"].tolist() == ["agrees"]
    assert "Of 1: 1 agrees" in exhibit.title
    other = exhibits.beside_the_paper(summarise(rows(0, differs="x")).rename(columns={"claimed_gain": "paper_gain"}))
    assert "Of 1: 1 not comparable" in other.title
    assert other.notes == ("Not comparable: x.",)
    assert Agreement.NOT_COMPARABLE in {trace.name for trace in other.figure.data}


PLANNED = plan(range(3000, 3002), ours=True)


def config_of(task: str, phase1: str, transfer: str):
    cells = PLANNED.cells.set_index(["task", "phase1", "transfer", "replicate"])
    return PLANNED.configs[cells.loc[(task, phase1, transfer, 3000), "run"]]


def test_every_number_of_the_paper_has_its_cell():
    claimed = claimed_accuracies()
    cells = PLANNED.cells.loc[PLANNED.cells["setting"] == "paper"]
    assert set(cells[["task", "phase1", "transfer"]].itertuples(index=False, name=None)) == set(claimed)
    assert len(claimed) == 30
    assert claimed["reversed_addition", "stack", "full"] == 0.349
    assert set(PAPER) == {(start.phase1, start.transfer) for start in STARTS} - {("dyck_shuffled", "full")}
    # All of the paper's cells come before further ones, and parents before children.
    assert PLANNED.cells["setting"].tolist() == ["paper"] * 60 + ["ours"] * 48
    order = list(PLANNED.configs)
    assert all(order.index(p.run) < order.index(run) for run, c in PLANNED.configs.items() for p in c.parents)
    assert not plan([3000]).cells["setting"].eq("ours").any()


@pytest.mark.parametrize("start", STARTS + OURS, ids=lambda start: f"{start.phase1} {start.transfer} {start.setting}")
def test_treatments_are_the_papers(start):
    config = config_of(
        TASK if start.phase1 != "stack" or start.setting == "ours" else "reversed_addition", *named(start)
    )
    treatment = config.transfer
    parts = (treatment.token_embedding, treatment.unembedding, treatment.positions)
    assert config.train == PROTOCOLS["paper"].phase2 == TrainConfig(evaluate_every=50)
    assert not config.model.tied
    selectors = [parent.selector for parent in config.parents]
    if start.setting == "ours":
        assert start.transfer == "attention" or (parts, selectors) == (("fresh", "fresh", "carry"), ["attn+ln"])
    elif start.transfer == "full":
        assert (parts, selectors) == (("average", "average", "carry"), ["all"])
    elif start.phase1 != "none":
        assert parts == ("fresh", "fresh", "fresh")
        assert selectors == {"attention": ["attn"], "MLP": ["mlp"], "attention+MLP": ["attn", "mlp"]}[start.transfer]


def named(start) -> tuple[str, str]:
    return start.phase1, start.transfer


def test_sums_are_scored_with_the_papers_mask():
    masks = {task: config_of(task, "set", "full").task for task in ("addition", "reversed_addition", "sorting")}
    assert (masks["addition"].mask, masks["reversed_addition"].mask) == ("paper", "paper")
    assert not hasattr(masks["sorting"], "mask")


def test_ecas_cells_differ_in_what_eca_reads():
    by_phase1 = PLANNED.cells.groupby("phase1")["differs"].first()
    assert all(by_phase1[name].startswith("ECA: rows are read as symbols") for name in ("eca", "set+eca"))
    assert by_phase1[["none", "identity", "set", "dyck", "stack"]].eq("").all()


def test_runs_are_shared_with_the_reproduction_under_the_papers_protocol():
    protocol = reproduction(PROTOCOLS["paper"], replicates=1, first_seed=3000)
    theirs = sweep_plan(protocol).cells.set_index("condition")["run"]
    cells = PLANNED.cells.loc[PLANNED.cells["replicate"] == 3000].set_index(["task", "phase1", "transfer"])["run"]
    assert theirs["none"] == cells[TASK, "none", ""]
    assert theirs["dyck_full"] == cells[TASK, "dyck", "full"]
    assert theirs["shuffled_sequences"] == cells[TASK, "dyck_shuffled", "full"]


def test_further_replicates_are_of_undecided_cells_and_their_baseline():
    summary = pd.DataFrame(
        {"task": [TASK, TASK, "sorting"], "phase1": ["set", "dyck", "set"], "transfer": ["full", "full", "attention"]}
    ).assign(verdict=[Agreement.UNDECIDED, "agrees", Agreement.NOT_LEARNT])
    never = summary.assign(phase1_learnt=[True, True, False])
    assert undecided(summary, never) == {(TASK, "set", "full")}
    sometimes = pd.concat([never, never.assign(phase1_learnt=True)])
    assert undecided(summary, sometimes) == {(TASK, "set", "full"), ("sorting", "set", "attention")}
    more = plan([3005], wanted=undecided(summary, never))
    assert more.cells[["phase1", "replicate"]].to_numpy().tolist() == [["none", 3005], ["set", 3005]]
    both = joined(PLANNED, more)
    assert len(both.cells) == len(PLANNED.cells) + 2
    assert len(both.configs) == len(PLANNED.configs) + 3
    assert both.parents["run"].is_unique


def test_each_pretraining_has_a_threshold_but_the_shuffled_one():
    assert set(PHASE1) - set(LEARNT) == {"dyck_shuffled"}
    assert set(PLANNED.parents["pretraining"]) == set(PHASE1)
    assert len(PLANNED.parents) == 2 * len(PHASE1)


def test_quick_from_nothing_to_tables(tmp_path, capsys):
    command = Table1Paper(out=tmp_path, quick=True, ours=True, workers=1)
    assert table1_paper.main(dataclasses.replace(command, count=True)) == 0
    assert "1 runs of phase 1, 8 of phase 2; 0 of them are finished" in capsys.readouterr().out
    assert table1_paper.main(dataclasses.replace(command, minutes=0.0)) == 1
    assert "no cell is finished yet" in capsys.readouterr().out
    assert table1_paper.main(command) == 0
    printed = capsys.readouterr().out
    assert NO_VERDICT in printed
    assert "agrees" not in printed
    assert "Further rows, of ours" in printed
    assert "8 of 8 cells, 0 failed" in printed
    cells = pd.read_csv(tmp_path / "table1_paper_cells.csv", keep_default_na=False)
    assert not cells.loc[cells["phase1"] == "set", "phase1_learnt"].any()
    gated = pd.read_csv(tmp_path / "table1_paper_phase1.csv")
    assert gated[["pretraining", "threshold", "learnt"]].to_numpy().tolist() == [["set", 0.9, False]]
    found = gates(plan([3000], quick=True).parents, RunStore(tmp_path))
    assert found["steps"].tolist() == [20]
    stored = RunStore(tmp_path).read_table("table1-paper-quick")
    assert stored.metadata["phase1"][0]["pretraining"] == "set"
    with pytest.raises(ValueError, match="--replicates 0"):
        table1_paper.main(dataclasses.replace(command, replicates=0))
