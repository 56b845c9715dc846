"""The reproduction: its plan, and the whole command on a protocol of a few steps."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest

from procpre_interp.cli import main
from procpre_interp.commands.reproduce import CPU_MINUTES, RUNS, Reproduce, opening
from procpre_interp.store.about import About
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore
from procpre_interp.study.headline import chosen_protocol
from procpre_interp.study.protocols import (
    CONDITIONS,
    HEADLINE_CONDITIONS,
    PROTOCOLS,
    QUICK,
    QUICK_CONDITIONS,
    QUICK_SEED,
    ProtocolName,
    metadata,
    quick_finding,
    reproduction,
)
from procpre_interp.sweep.plan import plan, results
from tests.serial import execute_here


def short(config):
    return dataclasses.replace(config, steps=4, batch_size=4, warmup_steps=1, evaluate_every=2, evaluate_examples=16)


TINY = dataclasses.replace(
    PROTOCOLS["cheap"], phase1=short(PROTOCOLS["cheap"].phase1), phase2=short(PROTOCOLS["cheap"].phase2)
)
TINY_PAPER = dataclasses.replace(TINY, name="paper")
TINY_QUICK = dataclasses.replace(
    QUICK, phase1=TINY.phase1, phase2=dataclasses.replace(short(QUICK.phase2), stop_after=3)
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "cheap", TINY)
    monkeypatch.setitem(PROTOCOLS, "paper", TINY_PAPER)
    monkeypatch.setattr("procpre_interp.study.headline.QUICK", TINY_QUICK)


def quick_plan(replicates: int):
    return plan(reproduction(TINY_QUICK, replicates=replicates, conditions=QUICK_CONDITIONS, first_seed=QUICK_SEED))


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
    quick = plan(reproduction(TINY, replicates=1, conditions=QUICK_CONDITIONS))
    assert set(quick.cells["condition"]) == set(QUICK_CONDITIONS)
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
    # Quick: the paper's phase 2, the schedule included, and only ended sooner.
    assert (QUICK.phase2.stop_after, QUICK.phase2.target_accuracy) == (2_500, 0.9)
    assert dataclasses.replace(QUICK.phase2, stop_after=None, target_accuracy=None) == paper.phase2
    assert QUICK.phase1 == cheap.phase1 == paper.phase1
    assert (paper.phase2.steps, paper.phase2.batch_size, paper.phase2.learning_rate) == (10_000, 1000, 1e-3)
    sweep = reproduction(cheap, replicates=1)
    assert all(each.model.tied for each in sweep.phase1)
    assert not sweep.model.tied


def test_the_command_from_nothing_to_a_report_and_on(tmp_path, tiny, capsys, runs_here):
    out = tmp_path / "runs"
    assert main(["reproduce", "--quick", "--out", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "no pretraining" in printed
    assert "11.3" in printed
    assert "96.9" in printed
    assert "n = 1 replicate: no interval" in printed
    assert "Cost: 5 runs" in printed
    assert "Had not after 3 steps: no pretraining; Dyck, full transfer; Dyck, weights" in printed
    assert "demonstration, not evidence" in printed
    html = (out / "reproduce.html").read_text()
    assert "96.9" in html
    assert "One replicate" in html
    assert "demonstration, not evidence" in html
    store = RunStore(out)
    finished = store.query().set_index("run")["created"]
    assert len(finished) == 5
    planned = quick_plan(1)
    assert store.read_table(planned.table_name).metadata["target_accuracy"] == 0.9
    spent = cost_of(planned.configs, store)
    assert spent["runs"] == 5  # the shared parent once
    assert spent["tokens"] == store.query()["tokens"].sum()
    found = results(planned, store)
    assert len(found) == 4
    assert found["limit"].tolist() == [3] * 4
    # More replicates go on from there: nothing that is finished is computed again.
    assert main(["reproduce", "--quick", "--replicates", "2", "--out", str(out)]) == 0
    assert "n = 2 replicates" in capsys.readouterr().out
    again = store.query().set_index("run")["created"]
    assert len(again) == 10
    assert again[finished.index].equals(finished)
    table = store.read_table(quick_plan(2).table_name).frame
    assert table.groupby("condition").size().to_dict() == dict.fromkeys(QUICK_CONDITIONS, 2)
    assert set(table.loc[table.condition == "none", "phase1_run"]) == {()}


def test_replicates_until_the_headline_is_decided(tmp_path, tiny, capsys, runs_here):
    """Two conditions, fresh seeds; as many replicates as decide, or as there may be; more go on from there."""
    command = ["reproduce", "--out", str(tmp_path), "--workers", "1"]
    assert main([*command, "--most-replicates", "2"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert [f"n = {n}: " in printed for n in (1, 2, 3)] == [True, True, False]
    assert "broke through in 0 of 2 replicates" in printed
    assert "undecided (n = 2; no verdict rests on fewer than 6 replicates)" in printed
    assert "not to be compared with the paper's 96.9%" in printed
    store = RunStore(tmp_path)
    assert sorted(set(store.query()["seed"])) == [3000, 3001]
    assert len(store.query()) == 2 * RUNS["headline"]
    finished = store.query().set_index("run")["created"]
    # Accuracies of models that were hardly trained differ by nothing near the margin.
    assert main([*command, "--most-replicates", "40"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "refuted (the 95 % interval lies wholly outside of what was predicted (above +0.214))" in printed
    again = store.query().set_index("run")["created"]
    assert again[finished.index].equals(finished)
    assert 6 < len(set(store.query()["seed"])) < 40


def test_every_condition_and_a_fixed_number_of_replicates(tmp_path, tiny, capsys, runs_here):
    out = ["--out", str(tmp_path), "--workers", "1"]
    assert main(["reproduce", "--replicates", "1", "--every-condition", "--to-the-end", *out]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "11.3" in printed
    assert "96.9" in printed
    assert "not to be compared" not in printed
    assert len(RunStore(tmp_path).query()) == RUNS["all"]


def test_the_command_says_once_why_it_has_no_native_kernel(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PROTOCOLS, "cheap", TINY)
    monkeypatch.setattr("procpre_interp.engine.engines.execute_all", lambda *args, **kwargs: {})
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert main(["reproduce", "--out", str(tmp_path / "runs")]) == 1  # no table without runs
    said = [line for line in capsys.readouterr().err.splitlines() if "kernel: " in line]
    assert said == ["kernel: torch, since no C++ compiler: CXX=no-such-compiler is not there"]


def test_a_failed_run_leaves_a_partial_table_and_an_exit_code(tmp_path, tiny, capsys, monkeypatch):
    out = tmp_path / "runs"
    with monkeypatch.context() as patched:
        patched.setattr("procpre_interp.engine.processes.execute_all", execute_here)
        assert main(["reproduce", "--quick", "--out", str(out)]) == 0
    planned = quick_plan(1)
    store = RunStore(out)
    cells = planned.cells.set_index("condition")
    (weights,) = (out / "runs" / cells.loc["dyck_full", "phase1_run"][0]).glob("weights/*")
    weights.write_bytes(b"damaged")
    store.delete(cells.loc["dyck_full", "run"])
    capsys.readouterr()
    assert main(["reproduce", "--quick", "--out", str(out)]) != 0
    text = capsys.readouterr()
    assert "is damaged" in text.err
    assert "Traceback" not in text.err


def outcomes(**steps: float) -> pd.DataFrame:
    rows = [
        {"condition": name, "label": name.upper(), "replicate": 2000, "breakthrough_step": step}
        for name, step in steps.items()
    ]
    return pd.DataFrame(rows)


def test_what_quick_shows_is_said_as_it_is():
    about, nan = About(threshold=0.5, limit=2500), float("nan")
    effect = quick_finding(outcomes(none=nan, dyck_full=1800.0, dyck_shuffled_weights=nan), about)
    assert "DYCK_FULL at step 1,800. Had not after 2,500 steps: NONE; DYCK_SHUFFLED_WEIGHTS." in effect
    assert "learns to recall where a fresh one does not, and the arrangement of its weights matters" in effect
    assert "arrangement" not in quick_finding(outcomes(none=nan, dyck_full=1.0, dyck_shuffled_weights=2.0), about)
    for steps in ({"none": nan, "dyck_full": nan}, {"none": 1.0, "dyck_full": 1.0}, {"none": nan}):
        assert "is not seen here" in quick_finding(outcomes(**steps), about)


def test_accuracies_that_were_stopped_early_are_not_set_beside_the_papers():
    table = outcomes(none=float("nan"), dyck_full=1800.0)
    planned = quick_plan(1)
    quick, full = metadata(planned, QUICK, table, {}), metadata(planned, PROTOCOLS["paper"], table, {})
    assert quick.paper == {}
    assert quick.limit == 3  # the sweep's
    assert quick.protocol_name == "quick"
    assert quick.note.startswith("Broke through")
    assert full.paper == {"none": 0.113, "dyck_full": 0.969}
    assert full.note == ""


def test_what_the_first_sentence_says_is_what_is_planned():
    sweeps = {
        "quick": reproduction(QUICK, replicates=1, conditions=QUICK_CONDITIONS),
        "headline": reproduction(PROTOCOLS["paper"], replicates=1, conditions=HEADLINE_CONDITIONS),
        "all": reproduction(PROTOCOLS["cheap"], replicates=1),
    }
    assert {kind: len(plan(sweep).configs) for kind, sweep in sweeps.items()} == RUNS
    assert set(RUNS) == set(CPU_MINUTES)
    assert set(get_args(get_args(Reproduce.__annotations__["protocol"])[0])) == set(get_args(ProtocolName))
    assert "45 runs (15 seeds decide as a rule, two conditions)" in opening(Reproduce())
    assert "48 runs (6 seeds, six conditions)" in opening(Reproduce(protocol="cheap"))
    assert "96 runs (12 seeds, six conditions)" in opening(Reproduce(every_condition=True, replicates=12))


def test_the_chosen_protocol():
    ended = chosen_protocol("paper", quick=False, to_the_end=False)
    assert ended.phase2 == dataclasses.replace(PROTOCOLS["paper"].phase2, target_accuracy=0.9)
    assert chosen_protocol("paper", quick=False, to_the_end=True) is PROTOCOLS["paper"]
    assert chosen_protocol("cheap", quick=False, to_the_end=False) is PROTOCOLS["cheap"]
    assert chosen_protocol("paper", quick=True, to_the_end=False) is QUICK


@pytest.mark.parametrize("flag", ["--protocol paper", "--every-condition", "--to-the-end"])
def test_quick_has_a_protocol_of_its_own(capsys, flag):
    assert main(["reproduce", "--quick", *flag.split()]) == 2
    assert "--quick has a protocol and conditions of its own" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--quick", "--replicates 3", "--protocol cheap"])
def test_a_fixed_number_of_replicates_has_no_limit(capsys, flag):
    assert main(["reproduce", *flag.split(), "--most-replicates", "2"]) == 2
    assert "--most-replicates is for as many as decide" in capsys.readouterr().err


def test_the_first_sentence_comes_before_anything_slow(tmp_path):
    """Also where torch cannot be imported at all, or pandas: no clock is needed to tell."""
    for name in ("torch", "pandas", "transformer_lens"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])}
    command = [sys.executable, "-m", "procpre_interp.cli", "reproduce", "--quick", "--out", str(tmp_path / "store")]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert time.monotonic() - started < 10
    assert done.returncode == 7
    assert "5 runs (one seed, four conditions), about " in done.stderr
    assert f"The report will be {tmp_path / 'store' / 'reproduce.html'}" in done.stderr
