"""Sweeps in stacks: the same folders as ever, grouped by shape, parents first; failures stay where they are."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from procpre_interp.cli import main
from procpre_interp.core.config import to_yaml
from procpre_interp.core.locks import locked
from procpre_interp.data import TASKS
from procpre_interp.engine import stacks
from procpre_interp.engine.engines import Stacked
from procpre_interp.engine.events import Event
from procpre_interp.engine.stacks import execute_in_stacks
from procpre_interp.pipeline import stacked as pipeline
from procpre_interp.pipeline.config import Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.pipeline.stacked import execute_stacked
from procpre_interp.store.store import RunStore
from procpre_interp.store.unfinished import saved_step
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep
from procpre_interp.sweep.plan import plan, run_sweep
from procpre_interp.sweep.stacked import stacked_sweep
from procpre_interp.train import Interrupted, StackedTrainer
from tests.test_pipeline import PHASE1, PHASE2, SHAPE, TRAIN

ROOT = Path(__file__).parents[1]
STACKED = dataclasses.replace(TRAIN, kernel="stacked", checkpoints=2)


def phase1(seed: int, **train) -> RunConfig:
    return dataclasses.replace(PHASE1, seed=seed, train=dataclasses.replace(STACKED, **train))


def phase2(seed: int, *parents: Parent, **train) -> RunConfig:
    return dataclasses.replace(PHASE2, seed=seed, parents=parents, train=dataclasses.replace(STACKED, **train))


def by_id(*configs: RunConfig) -> dict[str, RunConfig]:
    return {config.run_id: config for config in configs}


@pytest.fixture
def groups(monkeypatch) -> list[list[str]]:
    """The ids of each stack, in order."""
    seen: list[list[str]] = []

    def noted(configs, store, **arguments):
        seen.append(list(configs))
        execute_stacked(configs, store, **arguments)

    monkeypatch.setattr(stacks, "execute_stacked", noted)
    return seen


def test_runs_of_a_stack_are_the_runs_that_they_are_alone(tmp_path, groups):
    """Folders have the same files and, within float tolerance, numbers; the ids are those of the configs."""
    store, single = RunStore(tmp_path / "stacked"), RunStore(tmp_path / "single")
    parents = [phase1(seed) for seed in (1, 2)]
    children = [phase2(each.seed, Parent(run=each.run_id, selector="attn")) for each in parents]
    fresh = [phase2(seed, learning_rate=3e-3) for seed in (1, 2)]
    configs = by_id(*children, *fresh, *parents)
    events: list[Event] = []
    assert execute_in_stacks(configs, store, on_event=events.append) == {}
    assert groups == [[each.run_id for each in parents], [each.run_id for each in (*children, *fresh)]]
    for run, config in by_id(*parents, *children, *fresh).items():
        mine, other = store.open(run), execute(config, single)
        assert (mine.id, set(mine.manifest)) == (other.id, set(other.manifest))
        assert (mine.folder / "config.yaml").read_bytes() == (other.folder / "config.yaml").read_bytes()
        assert mine.summary["kernel"] == mine.environment["kernel"] == "stacked"
        for name in ("status", "steps", "tokens", "parents", "components", "breakthrough_step", "stop_reason"):
            assert mine.summary[name] == other.summary[name], name
        assert mine.summary["loss_nats"] == pytest.approx(other.summary["loss_nats"], rel=1e-4)
        mine_history, other_history = mine.history(), other.history()
        assert mine_history["loss_nats"].tolist() == pytest.approx(other_history["loss_nats"].tolist(), rel=1e-4)
        kinds = [event.kind for event in events if event.run == run]
        assert (kinds[0], kinds[-1]) == ("started", "finished")
        assert "progress" in kinds
    # Nothing is repeated.
    again: list[Event] = []
    assert execute_in_stacks(configs, store, on_event=again.append) == {}
    assert {event.kind for event in again} == {"finished"}
    assert len(groups) == 2


def test_a_failing_replicate_leaves_the_others_alone(tmp_path, groups, monkeypatch):
    """A misfit is refused before the stack, an orphan skipped, a full disk met within it; another kernel runs alone."""
    store = RunStore(tmp_path)
    good = [phase2(seed) for seed in range(3)]
    misfit = phase2(7, Parent(run="0" * 16))
    wide, torch_kernel = phase2(8, batch_size=9), phase2(9, kernel="torch")
    orphan = phase2(7, Parent(run=misfit.run_id))
    real = pipeline.finish

    def full(start, partial, state):
        if start.config.seed == 1:
            raise OSError("no space left")
        return real(start, partial, state)

    monkeypatch.setattr(pipeline, "finish", full)
    configs = by_id(orphan, good[0], misfit, good[1], wide, torch_kernel, good[2])
    events: list[Event] = []
    problems = execute_in_stacks(configs, store, stack=2, on_event=events.append)
    assert set(problems) == {misfit.run_id, orphan.run_id, good[1].run_id}
    assert problems[good[1].run_id] == "no space left"
    assert problems[orphan.run_id] == f"its parent {misfit.run_id} failed"
    assert {event.run for event in events if event.kind == "skipped"} == {orphan.run_id}
    finished = {good[0].run_id, good[2].run_id, wide.run_id, torch_kernel.run_id}
    assert {event.run for event in events if event.kind == "finished"} == finished
    assert all(store.is_finished(run) for run in finished)
    assert max(map(len, groups)) == 2
    assert [wide.run_id] in groups
    monkeypatch.undo()
    assert execute_in_stacks(by_id(good[1]), store) == {}


def test_an_error_of_the_whole_computation_is_each_runs(tmp_path, monkeypatch):
    def out_of_memory(self):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(StackedTrainer, "run", out_of_memory)
    configs = by_id(phase2(1), phase2(2))
    problems = execute_in_stacks(configs, RunStore(tmp_path))
    assert problems == dict.fromkeys(configs, "RuntimeError: out of memory")


def test_damaged_weights_are_computed_again_alone(tmp_path):
    store, configs = RunStore(tmp_path), by_id(phase2(1), phase2(2))
    victim = next(iter(configs))
    notes: list[str] = []

    def damage(run, state, train):
        weights = store.path / "partial" / victim / "weights" / "step_00000000.safetensors"
        if run == victim and state.step == 5 and not notes:
            notes.append("damaged")
            weights.write_bytes(b"damaged")

    finished: list[str] = []
    listener = pipeline.Listener(
        on_step=damage, on_note=lambda run, text: notes.append(run), on_finished=finished.append
    )
    execute_stacked(configs, store, listener=listener)
    assert sorted(finished) == sorted(configs)
    assert finished[-1] == victim
    store.open(victim)


def test_a_run_that_another_process_has_is_not_waited_for_in_the_stack(tmp_path):
    store, configs = RunStore(tmp_path), by_id(phase2(1), phase2(2))
    taken, other = configs
    finished: list[str] = []
    held = locked(store._lock(taken))
    (tmp_path / "partial").mkdir()
    held.__enter__()

    def note(run: str) -> None:
        finished.append(run)
        if run == other:
            held.__exit__(None, None, None)

    execute_stacked(configs, store, listener=pipeline.Listener(on_finished=note))
    assert finished == [other, taken]


def test_stopped_runs_go_on_in_another_grouping(tmp_path):
    """Ctrl-C in the middle; then one is run alone by the ordinary function, the others in a stack with a new one."""
    store, configs = RunStore(tmp_path / "a"), by_id(*(phase2(seed) for seed in range(3)))
    events: list[Event] = []

    def stop(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and event.step == 1 and event.run == list(configs)[-1]:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        execute_in_stacks(configs, store, on_event=stop)
    assert {event.run for event in events if event.kind == "stopping"} == set(configs)
    assert {saved_step(store.path / "partial" / run) for run in configs} <= {1, 2}
    first, *rest = configs
    execute(configs[first], store)
    execute_in_stacks({run: configs[run] for run in rest} | by_id(phase2(9)), store)
    for run, config in configs.items():
        whole = execute(config, RunStore(tmp_path / "b"))
        torch.testing.assert_close(load_model(store.open(run)).flat, load_model(whole).flat, rtol=1e-4, atol=2e-3)
        assert store.open(run).history()["step"].equals(whole.history()["step"])


SWEEP = Sweep(
    name="tiny",
    phase1=(
        Pretraining(name="dyck", task=PHASE1.task, model=dataclasses.replace(SHAPE, tied=True, n_ctx=64), train=TRAIN),
    ),
    task=PHASE2.task,
    model=dataclasses.replace(SHAPE, n_ctx=64),
    train=TRAIN,
    conditions=(
        Condition(name="dyck", sources=(Source(phase1="dyck", selector="attn"),)),
        Condition(name="own kernel", train=dataclasses.replace(TRAIN, kernel="torch", learning_rate=2e-3)),
    ),
    replicates=3,
)


def test_a_stacked_sweep_is_other_runs_except_where_a_kernel_is_named():
    before, after = plan(SWEEP), plan(stacked_sweep(SWEEP, "cuda"))
    devices = {}
    for (_, old), (_, new) in zip(before.cells.iterrows(), after.cells.iterrows()):
        assert (old["run"] == new["run"]) == (old["condition"] == "own kernel")
        train = after.configs[new["run"]].train
        devices[new["condition"]] = (train.kernel, train.device)
        for parent in after.configs[new["run"]].parents:
            assert after.configs[parent.run].train.kernel == "stacked"
    assert devices == {"none": ("stacked", "cuda"), "dyck": ("stacked", "cuda"), "own kernel": ("torch", "cpu")}
    assert stacked_sweep(stacked_sweep(SWEEP)) == stacked_sweep(SWEEP)
    # Auto never becomes the kernel.
    assert all(config.resolve().train.kernel != "stacked" for config in before.configs.values())


def test_a_sweep_in_stacks_groups_by_itself(tmp_path, groups):
    planned, problems = run_sweep(stacked_sweep(SWEEP), RunStore(tmp_path), engine=Stacked(2))
    assert problems == {}
    assert set(planned.configs) == {path.name for path in (tmp_path / "runs").iterdir()}
    assert [len(group) for group in groups] == [2, 1, 2, 2, 2]


def test_from_the_command_line(tmp_path, capsys):
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(to_yaml(dataclasses.replace(SWEEP, replicates=2)))
    command = ["sweep", str(path), "--out", str(out)]
    assert main([*command, "--engine", "stacked", "--device", "cpu", "--stack", "4"]) == 0
    said = capsys.readouterr()
    assert "6 cells finished, 0 failed" in said.out
    assert "8/8 runs done" in said.err
    kernels = RunStore(out).query()["kernel"].value_counts().to_dict()
    assert kernels == {"stacked": 6, "torch": 2}
    for wrong, why in (
        (["--stack", "4"], "are for --engine stacked"),
        (["--engine", "stacked", "--stack", "0"], "at least 1 run"),
        (["--engine", "stacked", "--device", "nonsense"], "nonsense"),
    ):
        assert main([*command, *wrong]) == 2
        assert why in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_sweep_goes_on(tmp_path):
    """SIGINT to the process of `sweep --engine stacked`: exit code 130, states saved, and the same command ends it."""
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    long = dataclasses.replace(TRAIN, steps=3000)
    path.write_text(to_yaml(dataclasses.replace(SWEEP, phase1=(), conditions=(), train=long)))
    command = [sys.executable, "-m", "procpre_interp.cli", "sweep", str(path), "--out", str(out), "--engine", "stacked"]
    process = subprocess.Popen(command, cwd=ROOT)
    while len(list(out.glob("partial/*/config.yaml"))) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert len(list(out.glob("partial/*/resume.safetensors"))) == 3
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    assert len(list(out.glob("runs/*/manifest.json"))) == 3


def test_tasks_may_differ_where_shapes_do_not(tmp_path, groups):
    """A control has its task's vocabulary and context."""
    shuffled = TASKS.build("shuffled", task=PHASE1.task)
    configs = by_id(phase1(1), dataclasses.replace(phase1(1), task=shuffled))
    assert execute_in_stacks(configs, RunStore(tmp_path)) == {}
    assert groups == [list(configs)]
