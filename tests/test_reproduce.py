"""The reproduction: its plan, and the whole command on a protocol of a few steps."""

import dataclasses

from procpre_interp.cli import main
from procpre_interp.outcomes import cost_of
from procpre_interp.reproduce import CONDITIONS, PROTOCOLS, QUICK, reproduction
from procpre_interp.runs import RunStore
from procpre_interp.sweep import plan, results


def short(config):
    return dataclasses.replace(config, steps=4, batch_size=4, warmup_steps=1, evaluate_every=2, evaluate_examples=16)


TINY = dataclasses.replace(
    PROTOCOLS["cheap"], phase1=short(PROTOCOLS["cheap"].phase1), phase2=short(PROTOCOLS["cheap"].phase2)
)


def test_the_plan_shares_parents_and_pairs_seeds():
    planned = plan(reproduction(TINY, replicates=2))
    assert list(planned.sweep.seeds) == [1000, 1001]
    assert len(planned.cells) == 2 * len(CONDITIONS)
    assert len(planned.configs) == 2 * (len(CONDITIONS) + 2)
    for config in planned.configs.values():
        for parent in config.parents:
            assert planned.configs[parent.run].seed == config.seed
    order = list(planned.configs)
    assert all(order.index(p.run) < order.index(run) for run, c in planned.configs.items() for p in c.parents)
    quick = plan(reproduction(TINY, replicates=1, quick=True))
    assert set(quick.cells["condition"]) == set(QUICK)
    assert set(quick.configs) < set(planned.configs)
    assert quick.table_name != planned.table_name


def test_conditions_differ_in_what_they_name_and_nothing_else():
    planned = plan(reproduction(TINY, replicates=1))
    configs = {cell["condition"]: planned.configs[cell["run"]] for cell in planned.cells.to_dict("records")}
    assert len({(c.task, c.seed, c.model, c.train, c.transfer) for c in configs.values()}) == 1
    full, attention = configs["dyck_full"].parents[0], configs["attention_ln"].parents[0]
    assert dataclasses.replace(attention, selector="all") == full
    assert configs["none"].parents == ()


def test_protocols_are_those_that_their_texts_name():
    cheap, paper = PROTOCOLS["cheap"], PROTOCOLS["paper"]
    assert (cheap.phase1.steps, cheap.phase1.batch_size, cheap.phase1.learning_rate) == (20_000, 32, 2e-3)
    assert (cheap.phase2.steps, cheap.phase2.batch_size, cheap.phase2.learning_rate) == (5_000, 250, 3e-3)
    assert (cheap.phase2.evaluate_every, cheap.phase2.evaluate_examples) == (100, 1000)
    assert (paper.phase2.steps, paper.phase2.batch_size, paper.phase2.learning_rate) == (10_000, 1000, 1e-3)
    sweep = reproduction(cheap, replicates=1)
    assert all(each.model.tied for each in sweep.phase1)
    assert not sweep.model.tied


def test_the_command_from_nothing_to_a_report_and_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "cheap", TINY)
    out = tmp_path / "runs"
    assert main(["reproduce", "--quick", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "no pretraining" in printed
    assert "11.3" in printed
    assert "96.9" in printed
    assert "n = 1 replicate: no interval" in printed
    assert "Cost: 4 runs" in printed
    html = (out / "reproduce.html").read_text()
    assert "96.9" in html
    assert "One replicate" in html
    store = RunStore(out)
    finished = store.query().set_index("run")["created"]
    assert len(finished) == 4
    planned = plan(reproduction(TINY, replicates=1, quick=True))
    spent = cost_of(planned.configs, store)
    assert spent["runs"] == 4  # the shared parent once
    assert spent["tokens"] == store.query()["tokens"].sum()
    assert len(results(planned, store)) == 3
    # More replicates go on from there: nothing that is finished is computed again.
    assert main(["reproduce", "--quick", "--replicates", "2", "--out", str(out)]) == 0
    assert "n = 2 replicates" in capsys.readouterr().out
    again = store.query().set_index("run")["created"]
    assert len(again) == 8
    assert again[finished.index].equals(finished)
    table = store.read_table(plan(reproduction(TINY, replicates=2, quick=True)).table_name).frame
    assert table.groupby("condition").size().to_dict() == dict.fromkeys(QUICK, 2)
    assert table.loc[table.condition == "none", "phase1_run"].eq("").all()


def test_the_command_says_once_why_it_has_no_native_kernel(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "cheap", TINY)
    monkeypatch.setattr("procpre_interp.commands.reproduce.execute_all", lambda *args, **kwargs: {})
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["reproduce", "--out", str(tmp_path / "runs")]) == 1  # no table without runs
    assert capsys.readouterr().err == "kernel: torch, since no C++ compiler: CXX=no-such-compiler is not there\n"


def test_a_failed_run_leaves_a_partial_table_and_an_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "cheap", TINY)
    out = tmp_path / "runs"
    assert main(["reproduce", "--quick", "--out", str(out)]) == 0
    planned = plan(reproduction(TINY, replicates=1, quick=True))
    store = RunStore(out)
    cells = planned.cells.set_index("condition")
    (weights,) = (out / "runs" / cells.loc["dyck_full", "phase1_run"]).glob("weights/*")
    weights.write_bytes(b"damaged")
    store.delete(cells.loc["dyck_full", "run"])
    capsys.readouterr()
    assert main(["reproduce", "--quick", "--out", str(out)]) != 0
    text = capsys.readouterr()
    assert "is damaged" in text.err
    assert "Traceback" not in text.err
