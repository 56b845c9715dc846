"""Stacked runs on a GPU: each is the run that it would be alone on the CPU, within float tolerance."""

import dataclasses
from pathlib import Path

import pytest
import torch

from procpre_interp.cli import main
from procpre_interp.core.config import to_yaml
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.engine.stacks import execute_in_stacks
from procpre_interp.model import HookedTransformer, ModelConfig, flat_mask
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep
from procpre_interp.train import Interrupted, StackedTrainer, TrainConfig, Trainer
from procpre_interp.train.interventions import EntropyPenalty, Rate, Rewind
from procpre_interp.train.loss import backward
from procpre_interp.train.stacked.loss import stacked_gradients, stacked_micro_batches, stacked_scores
from tests.devices import DEVICES, usable
from tests.models import random_model

DYCK = TASKS.build("dyck", k=2, length=12)
HAYSTACK = TASKS.build("haystack", max_pairs=4)
TRAIN = TrainConfig(
    steps=24,
    batch_size=16,
    learning_rate=1e-2,
    warmup_steps=4,
    evaluate_every=8,
    evaluate_examples=32,
    kernel="stacked",
)
MIXED = (
    TRAIN,
    dataclasses.replace(TRAIN, learning_rate=3e-3, schedule="linear", clip_norm=None),
    dataclasses.replace(TRAIN, freeze="mlp", weight_decay=0.1, decay="all"),
    dataclasses.replace(
        TRAIN, interventions=(Rewind(selector="attn", steps=(7,)), Rate(selector="ln", decay_factor=2.0))
    ),
    dataclasses.replace(TRAIN, interventions=(EntropyPenalty(selector="attn", weight=0.5),)),
)
"""Runs that share a stack, and little else."""


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def trainer(seed: int, config: TrainConfig, device: str, task=DYCK, **callbacks) -> Trainer:
    shape = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    model = HookedTransformer.from_seed(shape, seed).to(device)
    return Trainer(model, task, dataclasses.replace(config, device=device), seed=seed, **callbacks)


def alone(seed: int, config: TrainConfig, task=DYCK) -> Trainer:
    """The same run by itself, on the CPU."""
    single = trainer(seed, dataclasses.replace(config, kernel="torch"), "cpu", task)
    single.run()
    return single


def assert_same_run(found: Trainer, expected: Trainer) -> None:
    for name in ("step", "tokens", "status", "stop_reason"):
        assert getattr(found.state, name) == getattr(expected.state, name), name
    mine, other = found.state.table(), expected.state.table()
    assert mine["loss_nats"].tolist() == pytest.approx(other["loss_nats"].tolist(), abs=2e-3)
    # The gradient of a key's bias is rounding noise.
    seen = ~flat_mask(found.model, "attn.b_K")
    torch.testing.assert_close(found.model.flat.cpu()[seen], expected.model.flat[seen], rtol=0, atol=5e-3)


@pytest.mark.parametrize("ahead", [0, 4])
@pytest.mark.parametrize("task", [DYCK, HAYSTACK], ids=["dyck", "haystack"])
def test_each_run_is_what_it_is_alone(device: str, task, ahead: int):
    together = [trainer(seed, config, device, task) for seed, config in enumerate(MIXED)]
    StackedTrainer(together, ahead=ahead, fetch_steps=5).run()
    for each, config in zip(together, MIXED):
        assert each.model.flat.device.type == device
        assert_same_run(each, alone(each.seed, config, task))


def test_gradients_and_scores(device: str):
    shape = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=HAYSTACK.n_ctx, d_vocab=HAYSTACK.d_vocab)
    models = [random_model(shape, seed=seed) for seed in range(3)]
    batches: list[Batch] = [HAYSTACK.batch(10, generator=stream(seed, "batch")) for seed in range(3)]
    parameters = {
        name: torch.stack([dict(model.named_parameters())[name].detach() for model in models])
        .to(device)
        .requires_grad_()
        for name, _ in models[0].named_parameters()
    }
    micros = [micro.to(torch.device(device)) for micro in stacked_micro_batches(batches, 3 * 4 * HAYSTACK.n_ctx, 2**31)]
    n_scored = torch.tensor([float(batch.loss_mask.sum()) for batch in batches], device=device)
    parts = [stacked_gradients(parameters, shape, micro, n_scored, autocast=False) for micro in micros]
    scores = stacked_scores(parameters, shape, micros, autocast=True)
    for number, (model, batch) in enumerate(zip(models, batches)):
        loss = backward(model, batch, max_tokens=1000)
        assert sum(float(part[0][number]) for part in parts) == pytest.approx(loss.item(), rel=1e-4)
        assert scores[number]["loss_nats"] == pytest.approx(loss.item(), rel=0.03)
        for place, (name, own) in enumerate(model.named_parameters()):
            total = torch.stack([part[1][place][number] for part in parts]).sum(0)
            torch.testing.assert_close(total.cpu(), own.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_stopped_runs_go_on_in_another_stack(device: str, tmp_path: Path):
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(4)]

    def those(seeds: tuple[int, ...], **callbacks) -> list[Trainer]:
        return [trainer(seed, TRAIN, device, state_path=paths[seed], **callbacks) for seed in seeds]

    stopped_at: dict[int, int] = {}
    for seeds, stop_at in (((0, 1), 5), ((2, 3), 10)):
        stopped = those(seeds)
        with pytest.raises(Interrupted):
            StackedTrainer(
                stopped, should_stop=lambda own=stopped, at=stop_at: own[0].state.step >= at, fetch_steps=5
            ).run()
        stopped_at |= {each.seed: each.state.step for each in stopped}
        assert stop_at <= stopped[0].state.step < TRAIN.steps
    resumed = those((3, 0, 2, 1))
    assert {each.seed: each.state.step for each in resumed} == stopped_at
    StackedTrainer(resumed).run()
    for each in resumed:
        assert_same_run(each, alone(each.seed, TRAIN))


def config_of(task, seed: int, device: str, *parents: Parent, kernel="stacked") -> RunConfig:
    return RunConfig(
        task=task,
        seed=seed,
        model=Architecture(n_layers=2, n_heads=2, d_model=8, n_ctx=64),
        train=dataclasses.replace(TRAIN, steps=8, evaluate_every=4, device=device, kernel=kernel),
        parents=parents,
    )


def test_stacks_of_a_sweep_and_parents_from_elsewhere(device: str, tmp_path: Path):
    """Parents computed on the CPU, children in a stack on the device, and a grandchild on the CPU again."""
    store = RunStore(tmp_path)
    parents = [execute(config_of(DYCK, seed, "cpu", kernel="torch"), store) for seed in (1, 2)]
    children = [
        config_of(HAYSTACK, seed, device, Parent(run=parent.id, selector="attn+ln"))
        for seed, parent in zip((1, 2), parents)
    ]
    assert execute_in_stacks({child.run_id: child for child in children}, store) == {}
    for child in children:
        run = store.open(child.run_id)
        assert (run.summary["device"], run.summary["kernel"]) == (device, "stacked")
        train = dataclasses.replace(child.train, device="cpu", kernel="torch")
        single = execute(dataclasses.replace(child, train=train), store)
        assert run.summary["loss_nats"] == pytest.approx(single.summary["loss_nats"], abs=2e-3)
        assert load_model(run).flat.device.type == "cpu"
        last = config_of(HAYSTACK, 5, "cpu", Parent(run=run.id, selector="all"), kernel="torch")
        assert execute(last, store).summary["status"] == "finished"


def test_the_command(device: str, tmp_path: Path):
    shape = Architecture(n_layers=2, n_heads=2, d_model=8, n_ctx=64)
    # A kernel that is named stays: this one is to be the sweep's.
    train = dataclasses.replace(TRAIN, steps=4, evaluate_every=4, kernel="auto")
    dyck = Pretraining(name="dyck", task=DYCK, model=shape, train=train)
    attention = Condition(name="attn", sources=(Source(phase1="dyck", selector="attn"),))
    sweep = Sweep(
        name="tiny",
        phase1=(dyck,),
        task=HAYSTACK,
        model=shape,
        train=train,
        conditions=(attention,),
        replicates=2,
    )
    path, out = tmp_path / "tiny.yaml", tmp_path / "out"
    path.write_text(to_yaml(sweep))
    assert main(["sweep", str(path), "--out", str(out), "--engine", "stacked", "--device", device]) == 0
    runs = RunStore(out).query()
    assert set(runs["kernel"]) == {"stacked"}
    assert set(runs["device"]) == {device}
