"""One run by several processes: the run that one process computes, whatever their number."""

import dataclasses
import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.torch_version import TorchVersion

from procpre_interp.cli import main
from procpre_interp.core.launch import Launch, launched
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.config import RunConfig, model_config
from procpre_interp.pipeline.distributed import execute_distributed
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.partial_run import saved_state
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import Interrupted, TrainConfig, evaluate
from procpre_interp.train.distributed import refuse_distributed
from procpre_interp.train.interventions.base import Intervention
from procpre_interp.train.interventions.entropy import EntropyPenalty, MatchedEntropy
from procpre_interp.train.interventions.rate import Rate
from procpre_interp.train.interventions.rewind import Rewind
from procpre_interp.train.interventions.scaled import Scaled
from procpre_interp.train.loss import Share, micro_batches
from tests.test_cli import complaint
from tests.together import SECONDS, environment, free_port, run_together, run_until

TRAIN = TrainConfig(
    steps=50,
    warmup_steps=5,
    batch_size=33,
    evaluate_every=10,
    evaluate_examples=51,
    checkpoints=3,
    kernel="torch",
    micro_batch_tokens=800,
)
SHORT = dataclasses.replace(TRAIN, steps=4, batch_size=7, evaluate_every=2, evaluate_examples=9, micro_batch_tokens=200)
CONFIG = RunConfig(task=TASKS.build("haystack"), train=TRAIN)
OPTIONS = [
    *("train", "--task", "haystack", "--train.kernel", "torch", "--train.steps", "50", "--train.warmup-steps", "5"),
    *("--train.batch-size", "33", "--train.evaluate-every", "10", "--train.evaluate-examples", "51"),
    *("--train.checkpoints", "3", "--train.micro-batch-tokens", "800"),
]
"""The command that computes `CONFIG`."""
INTERVENTIONS: tuple[Intervention, ...] = (
    EntropyPenalty(from_step=1, to_step=30, n_sequences=5),
    MatchedEntropy(selector="blocks.1.attn"),
    Rate(selector="mlp", learning_rate_factor=0.5),
    Rewind(selector="blocks.0.mlp", steps=(2,)),
    Scaled(factor=0.5),
)
NUMBERS = ["step", "tokens", "loss_nats", "accuracy", "exact_match", "learning_rate"]
TOLERANCE = 1e-5


def assert_same_run(run: Run, alone: Run, tolerance: float = TOLERANCE) -> None:
    """Same id, same history and same files, but for last bits."""
    assert run.id == alone.id
    assert run.manifest.keys() == alone.manifest.keys()
    ours, theirs = run.history(), alone.history()
    assert ours["split"].tolist() == theirs["split"].tolist()
    for column in NUMBERS:
        assert ours[column].to_numpy() == pytest.approx(theirs[column].to_numpy(), abs=tolerance, nan_ok=True)
    assert run.summary["loss_nats"] == pytest.approx(alone.summary["loss_nats"], abs=tolerance)
    assert (run.summary["tokens"], run.summary["teraflops"]) == (alone.summary["tokens"], alone.summary["teraflops"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return execute(CONFIG, RunStore(tmp_path_factory.mktemp("alone")))


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> Launch:
    """A group of this process alone."""
    monkeypatch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
    for name, value in environment(0, 1, free_port()).items():
        monkeypatch.setenv(name, value)
    return Launch(rank=0, size=1, local_rank=0, local_size=1)


def sit_often(config: RunConfig, store: Path, ports: Sequence[int]) -> int:
    """Take part in one sitting of as many runs as there are ports. Exit code: that of a sitting that was stopped."""
    for seed, port in enumerate(ports):
        os.environ["MASTER_PORT"] = str(port)
        if run_until(dataclasses.replace(config, seed=seed), store, 2) != 130:
            return 99
    return 130


def batch_of(n: int) -> Batch:
    return CONFIG.task.batch(n, generator=stream(0, "shares"))


@pytest.mark.parametrize(("n", "size"), [(33, 2), (7, 3), (2, 4)])
def test_shares_of_a_batch_are_disjoint_and_complete(n: int, size: int):
    batch = batch_of(n)
    shares = [list(micro_batches(batch, 200, Share(rank=rank, size=size))) for rank in range(size)]
    # Collectives are made once per micro-batch: their number must be the same everywhere.
    assert len({len(share) for share in shares}) == 1
    scored = [row for share in shares for micro in share for row in micro.rows[(micro.targets >= 0).any(1)].tolist()]
    assert sorted(scored) == list(range(n))
    targets = sum(int((micro.targets >= 0).sum()) for share in shares for micro in share)
    assert targets == int(batch.loss_mask.sum())


def test_scores_of_shares_are_those_of_the_whole():
    model, batch = HookedTransformer.from_seed(model_config(CONFIG), 0), batch_of(7)
    whole = evaluate(model, batch)
    parts = [evaluate(model, batch, share=Share(rank=rank, size=3)) for rank in range(3)]
    assert sorted(example for part in parts for example in part.example) == whole.example.tolist()
    for part in parts:
        same = whole.set_index("example").loc[part.example]
        assert part.loss_nats.to_numpy() == pytest.approx(same.loss_nats.to_numpy(), abs=1e-6)


def test_a_group_of_one_process_computes_the_run(tmp_path: Path, single: Launch):
    """What real processes do below, without waiting for them: begun with sharded weights, gone on with whole ones."""
    config = dataclasses.replace(CONFIG, train=SHORT)
    sharded = dataclasses.replace(config, train=dataclasses.replace(SHORT, shard=True))
    assert sharded.run_id == config.run_id
    store, alone = RunStore(tmp_path / "group"), execute(config, RunStore(tmp_path / "alone"))
    sitting = itertools.count(1)
    with pytest.raises(Interrupted):
        execute_distributed(sharded, store, single, should_stop=lambda: next(sitting) == 2)
    (folder,) = (tmp_path / "group/partial" / config.run_id / "shards").iterdir()
    assert folder.name == "step_00000002"
    assert (saved := saved_state(folder.parents[1])) is not None
    assert saved.step == 2
    steps: list[int] = []
    run = execute_distributed(config, store, single, on_step=lambda state, train: steps.append(state.step))
    assert_same_run(run, alone)
    assert steps == [3, 4]
    assert not (run.folder / "shards").exists()
    assert execute_distributed(config, store, single).id == run.id  # opened, as it is there


@pytest.mark.slow
@pytest.mark.parametrize(("size", "shard"), [(2, False), (3, False), (2, True)])
def test_processes_compute_the_run_of_one(size: int, shard: bool, tmp_path: Path, alone: Run):
    store = RunStore(tmp_path / "runs")
    options = [*OPTIONS, "--store", str(store.path), *(["--train.shard"] if shard else [])]
    done = run_together(main, options, size=size, folder=tmp_path / "output")
    assert [code for code, _ in done] == [0] * size, done
    assert [bool(text) for _, text in done] == [True] + [False] * (size - 1)  # the first one speaks
    run = store.open(alone.id)
    assert_same_run(run, alone)
    assert (run.environment["processes"], run.environment["parallel"]) == ([size], "FSDP2" if shard else "DDP")
    assert "processes" not in alone.environment


def test_a_group_of_one_process_does_all_interventions(tmp_path: Path, single: Launch):
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(SHORT, interventions=INTERVENTIONS))
    alone = execute(config, RunStore(tmp_path / "alone"))
    assert_same_run(execute_distributed(config, RunStore(tmp_path / "group"), single), alone)


@pytest.mark.slow
def test_processes_do_all_interventions(tmp_path: Path, alone: Run):
    """Each of them has the whole penalty beside its share of the loss."""
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(TRAIN, interventions=INTERVENTIONS))
    run = execute(config, RunStore(tmp_path / "alone"))
    assert abs(run.summary["loss_nats"] - alone.summary["loss_nats"]) > 10 * TOLERANCE  # they do something
    sitting = run_together(run_until, config, tmp_path / "runs", 20, size=2, folder=tmp_path / "output")
    assert [code for code, _ in sitting] == [130, 130], sitting
    done = run_together(run_until, config, tmp_path / "runs", None, size=3, folder=tmp_path / "output")
    assert [code for code, _ in done] == [0, 0, 0], done
    assert_same_run(RunStore(tmp_path / "runs").open(run.id), run)


@pytest.mark.slow
def test_processes_that_are_stopped_end(tmp_path: Path):
    """Torch has a race there, of its threads for Python's lock, which every third sitting had lost."""
    config, ports = dataclasses.replace(CONFIG, train=SHORT), [free_port() for _ in range(20)]
    done = run_together(sit_often, config, tmp_path / "runs", ports, size=2, folder=tmp_path / "output")
    assert [code for code, _ in done] == [130, 130], done


@pytest.mark.slow
def test_any_number_of_processes_goes_on(tmp_path: Path, alone: Run):
    """Weights and moments go from shards to more shards, to one process, to shards again and to copies."""
    sharded = dataclasses.replace(CONFIG, train=dataclasses.replace(TRAIN, shard=True))
    store = RunStore(tmp_path / "runs")

    def sit(config: RunConfig, size: int, steps: int | None) -> None:
        done = run_together(run_until, config, store.path, steps, size=size, folder=tmp_path / "output")
        assert [code for code, _ in done] == [0 if steps is None else 130] * size, done

    sit(sharded, 2, 12)
    sit(sharded, 3, 12)
    steps = itertools.count(1)
    with pytest.raises(Interrupted):
        execute(CONFIG, store, should_stop=lambda: next(steps) == 6)
    sit(sharded, 2, 8)
    sit(CONFIG, 2, None)
    run = store.open(alone.id)
    assert_same_run(run, alone)
    assert run.environment["processes"] == [2, 3, 1, 2]


@pytest.mark.slow
def test_damaged_shards_are_not_used(tmp_path: Path, alone: Run):
    sharded = dataclasses.replace(CONFIG, train=dataclasses.replace(TRAIN, shard=True, save_seconds=0.0))
    done = run_together(run_until, sharded, tmp_path / "runs", 3, size=2, folder=tmp_path / "output")
    assert [code for code, _ in done] == [130, 130], done
    shards = sorted((tmp_path / "runs/partial" / alone.id / "shards").rglob("*.safetensors"))
    assert {path.parent.name for path in shards} == {"step_00000002", "step_00000003"}
    content = bytearray(shards[-1].read_bytes())
    content[-1] ^= 1
    shards[-1].write_bytes(content)
    notes: list[str] = []
    run = execute(CONFIG, RunStore(tmp_path / "runs"), on_note=notes.append)
    assert "has changed since it was written" in notes[0]
    assert "goes on from step 2" in notes[0]
    assert_same_run(run, alone)


@pytest.mark.slow
def test_one_process_says_what_is_wrong(tmp_path: Path):
    options = [*OPTIONS, "--train.batch-size", "1", "--store", str(tmp_path / "runs")]
    done = run_together(main, options, size=2, folder=tmp_path / "output")
    assert [code for code, _ in done] == [2, 1], done
    said = done[0][1].splitlines()
    assert len(said) == 1
    assert "batch_size=1 with 2 processes; give each a sequence at least, or start fewer" in said[0]
    assert done[1][1] == ""
    assert RunStore(tmp_path / "runs").query().empty


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
"""--multi_gpu is accelerate's word for several processes, on CPUs too; without it one is started, whatever their
number."""
FRESH = ["--transfer.token-embedding", "fresh", "--transfer.unembedding", "fresh"]
"""With averaged ones all columns of W_U are equal, so logits are, and d loss / d x is 0 at the first step but for
rounding: Adam makes whole steps of that, and 2e-5 nats between one process and two."""


@pytest.mark.slow
def test_launchers_start_both_phases(tmp_path: Path):
    """Each by its own command, as users do, and so with data that is drawn as users have it."""

    def launch(launcher: list[str], store: RunStore, *options: str) -> Run:
        before = set(store.query()["run"])
        command = [sys.executable, *launcher, "-m", "procpre_interp.cli", *options, "--store", str(store.path)]
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        (run,) = set(store.query()["run"]) - before
        return store.open(run)

    launchers = {"alone": [], "torchrun": TORCHRUN, "accelerate": ACCELERATE}
    runs: dict[str, list[Run]] = {}
    for name, launcher in launchers.items():
        store = RunStore(tmp_path / name)
        parent = launch(launcher, store, *OPTIONS)
        second = ["transfer", "--parent", parent.id, "--components", "attn+ln", *FRESH, *OPTIONS[1:], "--seed", "1"]
        runs[name] = [parent, launch(launcher, store, *second)]
    for name in ("torchrun", "accelerate"):
        for run, alone in zip(runs[name], runs["alone"], strict=True):
            assert (run.environment["processes"], run.environment["parallel"]) == ([2], "DDP")
            assert_same_run(run, alone)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True], ids=["copies", "shards"])
@pytest.mark.parametrize(
    ("fields", "tolerance"),
    [({"recompute": True}, TOLERANCE), ({"compile": True}, TOLERANCE), ({"precision": "bfloat16"}, 5e-3)],
    ids=["recompute", "compile", "bfloat16"],
)
def test_what_large_models_need_does_not_change_the_run(
    fields: dict[str, Any], tolerance: float, shard: bool, tmp_path: Path
):
    """Beside one process, which is another one too, since torch's compiler and checked annotations do not fit.

    bfloat16 rounds to 8 bits, sums of two halves otherwise than those of the whole; all else is told apart by 1e-5.
    """
    # Sequences of one length, since the compiler would compile for each anew, as large models do not want it either.
    task = TASKS.build("sort") if "compile" in fields else CONFIG.task
    config = dataclasses.replace(CONFIG, task=task, train=dataclasses.replace(TRAIN, steps=20, **fields))
    together = dataclasses.replace(config, train=dataclasses.replace(config.train, shard=shard))
    sittings = [("alone", config, None, 1), ("runs", together, 8, 2), ("runs", together, None, 2)]
    for name, asked, steps, size in sittings:
        done = run_together(run_until, asked, tmp_path / name, steps, size=size, folder=tmp_path / "output")
        assert [code for code, _ in done] == [0 if steps is None else 130] * size, done
    alone, run = (RunStore(tmp_path / name).open(config.run_id) for name in ("alone", "runs"))
    assert run.environment["processes"] == [2]
    assert_same_run(run, alone, tolerance)


def test_what_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch):
    shape = model_config(CONFIG)
    with pytest.raises(ValueError, match="batch_size=2 with 3 processes"):
        refuse_distributed(dataclasses.replace(TRAIN, batch_size=2), shape, 3)
    with pytest.raises(ValueError, match="kernel=stacked with 2 processes"):
        refuse_distributed(dataclasses.replace(TRAIN, kernel="stacked", micro_batch_tokens=None), shape, 2)
    with monkeypatch.context() as patch:  # a kernel is not compiled to be refused
        patch.setattr("procpre_interp.train.native.step.is_built", lambda shape, level: False)
        patch.setattr("procpre_interp.train.native.why_not", lambda config: pytest.fail("compiled"))
        with pytest.raises(ValueError, match=r"kernel=auto \(here native\) with 2 processes"):
            refuse_distributed(dataclasses.replace(TRAIN, kernel="auto", micro_batch_tokens=None), shape, 2)
    rate = Rate(selector="mlp", learning_rate_factor=0.5)
    with pytest.raises(ValueError, match="shard with rate, which wants whole weights"):
        refuse_distributed(dataclasses.replace(TRAIN, shard=True, interventions=(rate,)), shape, 2)
    refuse_distributed(TRAIN, shape, 33)


def test_a_torch_without_shards_says_so(tmp_path: Path, single: Launch, monkeypatch: pytest.MonkeyPatch):
    sharded = dataclasses.replace(CONFIG, train=dataclasses.replace(SHORT, shard=True))
    store, steps = RunStore(tmp_path), itertools.count(1)
    with pytest.raises(Interrupted):
        execute_distributed(sharded, store, single, should_stop=lambda: next(steps) == 2)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", TorchVersion("2.8.0+cpu"))
        with pytest.raises(RuntimeError, match=r"need torch 2\.9 or newer, and this is 2\.8\.0"):
            refuse_distributed(sharded.train, model_config(CONFIG), 2)
        with pytest.raises(RuntimeError, match=r"need torch 2\.9"):
            execute(dataclasses.replace(CONFIG, train=SHORT), store)
    # It was no damage, so the state is still there.
    resumed: list[int] = []
    execute_distributed(sharded, store, single, on_step=lambda state, train: resumed.append(state.step))
    assert resumed == [3, 4]


def test_the_environment_says_who_was_started_together(monkeypatch: pytest.MonkeyPatch, capsys):
    assert launched() is None
    for name, value in environment(0, 2, 1234).items():
        monkeypatch.setenv(name, value)
    assert launched() == Launch(rank=0, size=2, local_rank=0, local_size=2)
    assert main(["sweep", "components"]) == 2
    assert "sweep is for one process, not 2" in complaint(capsys)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ValueError, match="RANK=2 of WORLD_SIZE=2"):
        launched()
    monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(ValueError, match="without MASTER_ADDR; start with torchrun"):
        launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is None
