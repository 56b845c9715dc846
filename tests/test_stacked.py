"""Stacked runs: each is the run that it would be alone, whoever shares its stack, however it ends and goes on."""

import dataclasses
import math
import os
import signal
from collections.abc import Sequence

import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.stream import TaskStream
from procpre_interp.model import HookedTransformer, ModelConfig, flat_mask
from procpre_interp.train import Interrupted, StackedTrainer, TrainConfig, Trainer, evaluate, summarise
from procpre_interp.train.closed_form import Initialisation
from procpre_interp.train.interventions import INTERVENTIONS, EntropyPenalty, Intervention, Rate, Rewind
from procpre_interp.train.loss import backward
from procpre_interp.train.optimiser import FlatAdamW
from procpre_interp.train.stacked.feed import Feed
from procpre_interp.train.stacked.loss import stacked_gradients, stacked_micro_batches, stacked_scores
from procpre_interp.train.stacked.optimiser import StackedAdamW
from tests.models import random_model

DYCK = TASKS.build("dyck", k=2, length=12)
HAYSTACK = TASKS.build("haystack", max_pairs=4)
SMALL = TrainConfig(
    steps=50,
    batch_size=16,
    learning_rate=1e-2,
    warmup_steps=5,
    evaluate_every=10,
    evaluate_examples=32,
    checkpoints=3,
    kernel="stacked",
)


def fresh(seed: int, task=DYCK, **shape) -> HookedTransformer:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 8, "n_ctx": task.n_ctx, "d_vocab": task.d_vocab, **shape}
    return HookedTransformer.from_seed(ModelConfig(**shape), seed)


def trainer(seed: int, config: TrainConfig = SMALL, task=DYCK, model=None, **callbacks) -> Trainer:
    return Trainer(model or fresh(seed, task), task, config, seed=seed, **callbacks)


def alone(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, kernel="torch")


def assert_same_run(found: Trainer, expected: Trainer, *, rtol: float = 1e-4, atol: float = 2e-3) -> None:
    """Histories and weights agree within float tolerance, and everything that is counted is equal."""
    for name in ("step", "tokens", "status", "stop_reason", "length"):
        assert getattr(found.state, name) == getattr(expected.state, name), name
    mine, other = found.state.table(), expected.state.table()
    assert mine.columns.tolist() == other.columns.tolist()
    counted = ["step", "tokens", "split"]
    assert mine[counted].equals(other[counted])
    for column in ("loss_nats", "learning_rate"):
        assert mine[column].tolist() == pytest.approx(other[column].tolist(), rel=rtol, abs=1e-6, nan_ok=True)
    assert mine["accuracy"].tolist() == pytest.approx(other["accuracy"].tolist(), abs=0.01, nan_ok=True)
    # Softmax does not see a key's bias: its gradient is rounding noise, which AdamW scales up to whole steps.
    seen = ~flat_mask(found.model, "attn.b_K")
    torch.testing.assert_close(found.model.flat[seen], expected.model.flat[seen], rtol=rtol, atol=atol)


def test_forward_gradients_and_scores_are_those_of_each_model():
    for task, tied in ((DYCK, True), (HAYSTACK, False), (TASKS.build("dyck", k=2, length=40), False)):
        shape = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab, tied=tied)
        models = [random_model(shape, seed=seed) for seed in range(3)]
        batches = [task.batch(10, generator=stream(seed, "batch")) for seed in range(3)]
        parameters = {
            name: torch.stack([dict(model.named_parameters())[name].detach() for model in models]).requires_grad_()
            for name, _ in models[0].named_parameters()
        }
        micros = stacked_micro_batches(batches, 3 * 4 * task.n_ctx, 2**31)
        assert len(micros) > 1
        n_scored = torch.tensor([float(batch.loss_mask.sum()) for batch in batches])
        parts = [stacked_gradients(parameters, shape, micro, n_scored, autocast=False) for micro in micros]
        scores = stacked_scores(parameters, shape, micros, autocast=False)
        half = stacked_scores(parameters, shape, micros, autocast=True)
        for number, (model, batch) in enumerate(zip(models, batches)):
            loss = backward(model, batch, max_tokens=1000)
            assert sum(part[0][number] for part in parts) == pytest.approx(loss.item(), rel=1e-5)
            for place, (name, own) in enumerate(model.named_parameters()):
                together = torch.stack([part[1][place][number] for part in parts]).sum(0)
                torch.testing.assert_close(together, own.grad, rtol=1e-4, atol=1e-5, msg=name)
            assert scores[number] == pytest.approx(summarise(evaluate(model, batch)), rel=1e-5)
            assert half[number]["loss_nats"] == pytest.approx(scores[number]["loss_nats"], rel=0.02)


def flat_optimiser(row: int, size: int = 30) -> FlatAdamW:
    flat = torch.randn(size, generator=stream(row, "flat"))
    decay, frozen = torch.arange(size) % 2 == 0, torch.arange(size) % 5 == row
    return FlatAdamW(
        flat,
        torch.zeros(size),
        weight_decay=0.1 * row,
        decay=decay,
        frozen=frozen if row else None,
        betas=(0.9 - 0.1 * row, 0.99),
        clip_norm=None if row == 1 else 0.5,
    )


def test_a_stacked_update_is_that_of_each_optimiser():
    singles, members = ([flat_optimiser(row) for row in range(3)] for _ in range(2))
    flat = torch.stack([member.parameter.detach() for member in members])
    # One of them has taken steps before.
    for optimiser in (singles[2], members[2]):
        optimiser.grad += 1.0
        optimiser.step(0.01)
    flat[2] = members[2].parameter.detach()
    stacked = StackedAdamW(members, flat, torch.zeros_like(flat))
    halved = torch.full((30,), 0.5), torch.full((30,), 2.0)
    before = flat[2].clone()
    for step in range(6):
        scales = [None, halved if step > 2 else None, (torch.zeros(30), torch.ones(30)) if step == 5 else None]
        before = flat[2].clone()
        for row, single in enumerate(singles):
            gradient = 3 * torch.randn(30, generator=stream(step, "gradient", row))
            single.grad += gradient
            stacked.grad[row] += gradient
            single.step(0.01 * (row + 1), scales[row])
        stacked.step([0.01, 0.02, 0.03], scales)
        assert not stacked.grad.any()
    assert torch.equal(flat[2], before), "a rate of 0 leaves bits alone"
    for row, (single, member) in enumerate(zip(singles, members)):
        torch.testing.assert_close(flat[row], single.parameter.detach(), rtol=1e-5, atol=1e-6)
        assert member.parameter.data_ptr() == flat[row].data_ptr()
        for name, moment in single.state().items():
            torch.testing.assert_close(member.state()[name], moment, rtol=1e-5, atol=1e-6)
            assert member.state()[name].dtype == moment.dtype


MIXED = [
    SMALL,
    dataclasses.replace(SMALL, learning_rate=2e-3, schedule="linear", clip_norm=None),
    dataclasses.replace(SMALL, weight_decay=0.5, decay="all", evaluate_every=15, warmup_steps=0, beta2=0.98),
    dataclasses.replace(SMALL, freeze="blocks.0.attn+ln", steps=60, stop_after=45, checkpoints=1),
]


@pytest.mark.parametrize("task", [DYCK, HAYSTACK])
@pytest.mark.parametrize("ahead", [0, 3])
def test_fifty_steps_are_those_of_the_single_runs(task, ahead):
    """Seeds, learning rates, schedules, decay, freezing and parents differ; batches are made at once or in advance."""
    kept = [[] for _ in MIXED]
    # The third one goes on from another model, as after a transfer.
    models = [random_model(fresh(0, task).config, seed=5) if row == 2 else fresh(row, task) for row in range(4)]
    starts = [model.flat.detach().clone() for model in models]
    together = [
        trainer(row, config, task, model=models[row], keep=kept[row].append) for row, config in enumerate(MIXED)
    ]
    StackedTrainer(together, ahead=ahead, fetch_steps=1 + 3 * ahead).run()
    for row, (config, stacked) in enumerate(zip(MIXED, together)):
        model = fresh(row, task)
        with torch.no_grad():
            model.flat.copy_(starts[row])
        steps: list[int] = []
        single = trainer(row, alone(config), task, model=model, keep=steps.append)
        single.run()
        assert_same_run(stacked, single)
        assert kept[row] == steps
        assert stacked.model is models[row]
    frozen = flat_mask(models[3], "blocks.0.attn+ln")
    assert torch.equal(models[3].flat[frozen], starts[3][frozen])
    assert not torch.equal(models[3].flat[~frozen], starts[3][~frozen])


def test_one_run_of_the_kernel_is_a_stack_of_one():
    single = trainer(0)
    single.run()
    together = [trainer(seed) for seed in range(3)]
    StackedTrainer(together).run()
    assert_same_run(together[0], single)


def test_a_replicate_does_not_depend_on_the_others():
    """Its numbers are the same beside a run that diverges, and the shortest of others' sequences."""
    wild = dataclasses.replace(SMALL, learning_rate=1e30, warmup_steps=0, clip_norm=None)
    calm, first = trainer(0), trainer(0)
    other = trainer(1, wild)
    StackedTrainer([first, trainer(2)]).run()
    StackedTrainer([other, calm]).run()
    assert_same_run(calm, first)
    expected = trainer(1, alone(wild))
    expected.run()
    assert (other.state.status, other.state.step) == ("diverged", expected.state.step)


@pytest.mark.parametrize("fetch_steps", [1, 4])
def test_divergence_is_counted_from_its_step_wherever_it_is_noticed(fetch_steps):
    wild = dataclasses.replace(SMALL, learning_rate=1e30, warmup_steps=0, clip_norm=None)
    run, ends = trainer(1, wild), []
    StackedTrainer([run, trainer(2)], fetch_steps=fetch_steps, on_end=lambda each: ends.append(each.seed)).run()
    expected = trainer(1, alone(wild))
    expected.run()
    assert (run.state.step, run.state.tokens) == (expected.state.step, expected.state.tokens)
    assert run.state.stop_reason is not None
    assert run.state.stop_reason.endswith(f"at step {run.state.step}")
    assert ends == [1, 2]


def test_a_run_that_is_done_early_leaves_and_the_others_go_on():
    easy = dataclasses.replace(SMALL, target_accuracy=0.3)
    impatient = dataclasses.replace(SMALL, patience=2, freeze="all")  # so its validation loss stays as it is
    configs, ends = (SMALL, easy, impatient), []
    together = [trainer(seed, config) for seed, config in enumerate(configs)]
    StackedTrainer(together, on_end=lambda each: ends.append(each.seed)).run()
    for seed, config in enumerate(configs):
        single = trainer(seed, alone(config))
        single.run()
        assert_same_run(together[seed], single)
    assert ends[-1] == 0
    assert together[1].state.step < 50


def test_killed_runs_go_on_in_other_stacks(tmp_path):
    """Eight runs, killed at three steps in three stacks, go on in one stack of six and two alone."""
    paths = [tmp_path / str(seed) / "resume.safetensors" for seed in range(8)]
    for path in paths:
        path.parent.mkdir()

    def those(seeds: Sequence[int], **callbacks) -> list[Trainer]:
        return [trainer(seed, state_path=paths[seed], **callbacks) for seed in seeds]

    for seeds, stop_at in (((0, 1, 2), 7), ((3, 4), 20), ((5, 6, 7), 33)):
        seen: list[int] = []
        stopped = those(seeds, on_step=lambda state, seen=seen: seen.append(state.step))
        with pytest.raises(Interrupted):
            StackedTrainer(stopped, should_stop=lambda seen=seen, at=stop_at: at in seen).run()
        assert {each.state.step for each in stopped} == {stop_at}
    resumed = {each.seed: each for each in those(range(8), model=None)}
    assert [resumed[seed].state.step for seed in range(8)] == [7, 7, 7, 20, 20, 33, 33, 33]
    StackedTrainer([resumed[seed] for seed in (7, 0, 3, 1, 5, 4)]).run()
    resumed[2].run()
    resumed[6].run()
    for seed, run in resumed.items():
        single = trainer(seed, alone(SMALL))
        single.run()
        assert_same_run(run, single)
    # The file is that of any other run: the torch path, too, goes on from it.
    (again,) = those([3])
    assert again.optimiser.state()["step"] == again.state.step == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_all(tmp_path, number):
    paths = [tmp_path / f"{seed}.safetensors" for seed in range(3)]
    handler = signal.getsignal(number)

    def send(state):
        if state.step == 7:
            os.kill(os.getpid(), number)

    runs = [trainer(seed, state_path=path, on_step=send if seed == 1 else print) for seed, path in enumerate(paths)]
    with pytest.raises(Interrupted):
        StackedTrainer(runs).run()
    assert signal.getsignal(number) is handler
    at = {trainer(seed, state_path=path).state.step for seed, path in enumerate(paths)}
    assert at in ({7}, {8})  # Python runs the handler at the next opportunity


def test_steps_that_were_pending_are_in_the_saved_state(tmp_path):
    """A stop between two looks at the losses, which are entered before the state is saved."""
    calls, paths = [], [tmp_path / f"{seed}.safetensors" for seed in range(2)]

    def stop() -> bool:
        calls.append(0)
        return len(calls) >= 13

    config = dataclasses.replace(SMALL, evaluate_every=25, checkpoints=1)
    runs = [trainer(seed, config, state_path=path) for seed, path in enumerate(paths)]
    with pytest.raises(Interrupted):
        StackedTrainer(runs, should_stop=stop, fetch_steps=1000).run()
    resumed = [trainer(seed, config, state_path=path) for seed, path in enumerate(paths)]
    assert 0 < resumed[0].state.step < 25
    StackedTrainer(resumed, fetch_steps=1000).run()
    for run in resumed:
        single = trainer(run.seed, alone(config))
        single.run()
        assert_same_run(run, single)


def test_what_has_ended_when_all_must_stop_is_handed_on_later(tmp_path):
    """Three runs end at once, and after the first is dealt with it is to stop."""
    paths, ends = [tmp_path / f"{seed}.safetensors" for seed in range(4)], []
    configs = [dataclasses.replace(SMALL, steps=12)] * 3 + [SMALL]

    def those() -> list[Trainer]:
        return [trainer(seed, config, state_path=paths[seed]) for seed, config in enumerate(configs)]

    with pytest.raises(Interrupted):
        StackedTrainer(those(), should_stop=lambda: bool(ends), on_end=lambda each: ends.append(each.seed)).run()
    assert ends == [0]
    resumed = those()[1:]
    assert [each.state.status for each in resumed] == ["finished", "finished", None]
    assert [each.state.step for each in resumed] == [12, 12, 12]
    StackedTrainer(resumed, on_end=lambda each: ends.append(each.seed)).run()
    assert ends == [0, 1, 2, 3]
    single = trainer(3, alone(SMALL))
    single.run()
    assert_same_run(resumed[2], single)


def test_states_are_saved_while_running(tmp_path):
    path, seen = tmp_path / "resume.safetensors", []
    config = dataclasses.replace(SMALL, save_seconds=0.0)
    runs = [trainer(0, config, state_path=path, on_step=lambda state: seen.append(path.exists())), trainer(1, config)]
    StackedTrainer(runs).run()
    assert seen[0] is False
    assert any(seen)


def intervention_of(name: str) -> Intervention:
    """One of each kind."""
    kind = INTERVENTIONS[name]
    if issubclass(kind, Initialisation):
        return kind.fit([random_model(fresh(0, HAYSTACK).config, seed=9)])
    fields = {
        "rate": {"selector": "attn", "learning_rate_factor": 0.5, "decay_factor": 0.0, "from_step": 3, "to_step": 9},
        "rewind": {"selector": "mlp", "steps": (0, 4, 11)},
        "entropy_penalty": {"target": 0.4, "n_sequences": 8, "from_step": 2},
        "rescaled": {"selector": "mlp", "scale": "fresh", "relative_step": "transferred"},
        "scaled": {"selector": "mlp", "factor": 1.5},
        "matched_entropy": {"pattern": "transferred", "entropy": "fresh"},
    }
    return kind(**fields.get(name, {}))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", list(INTERVENTIONS))
def test_every_intervention_does_in_a_stack_what_it_does_alone(name):
    config = dataclasses.replace(SMALL, steps=15, evaluate_every=5, interventions=(intervention_of(name),))
    before = fresh(7, HAYSTACK).flat.detach().clone()
    pair = []
    for seed, given in ((1, config), (2, dataclasses.replace(config, interventions=()))):
        together = trainer(seed, given, HAYSTACK, model=random_model(fresh(0, HAYSTACK).config, seed=3), fresh=before)
        model = random_model(fresh(0, HAYSTACK).config, seed=3)
        pair.append((together, trainer(seed, alone(given), HAYSTACK, model=model, fresh=before)))
    StackedTrainer([together for together, _ in pair]).run()
    for together, single in pair:
        single.run()
        assert_same_run(together, single)


def test_interventions_differ_from_row_to_row():
    each = ((), (Rate(selector="mlp", learning_rate_factor=0.0, from_step=5),), (Rewind(selector="ln", steps=(6,)),))
    each = (*each, (EntropyPenalty(weight=5.0, n_sequences=4), Rate(selector="embed", decay_factor=3.0)))
    configs = [dataclasses.replace(SMALL, steps=12, interventions=some) for some in each]
    together = [trainer(seed, config) for seed, config in enumerate(configs)]
    StackedTrainer(together).run()
    for seed, config in enumerate(configs):
        single = trainer(seed, alone(config))
        single.run()
        assert_same_run(together[seed], single)


def test_curricula_go_on_each_at_its_own_time(monkeypatch):
    monkeypatch.setattr("procpre_interp.train.loop.CURRICULUM_ACCURACY", 0.4)
    # Not for long: where lengths change, the loss is steep, and last bits grow.
    quick = dataclasses.replace(SMALL, curriculum=True, steps=20, evaluate_every=5)
    configs = [dataclasses.replace(quick, learning_rate=rate) for rate in (1e-2, 1e-4)]
    together = [trainer(seed, config) for seed, config in enumerate(configs)]
    StackedTrainer(together, ahead=2, fetch_steps=3).run()
    lengths = []
    for seed, config in enumerate(configs):
        single = trainer(seed, alone(config))
        single.run()
        assert_same_run(together[seed], single)
        lengths.append(single.state.table()["task_length"].tolist())
    assert lengths[0] != lengths[1]


def broken(*arguments: object) -> str | None:
    raise OSError("no space left")


@pytest.mark.parametrize("fetch_steps", [1, 4])
def test_what_fails_in_one_run_stays_there(monkeypatch, fetch_steps):
    """Its files, its data, its tokens and its interventions."""
    runs = [trainer(seed, dataclasses.replace(SMALL, steps=25)) for seed in range(3)]
    full = trainer(3, dataclasses.replace(SMALL, steps=25), keep=lambda step: broken() if step == 5 else None)
    no_data, foreign = (trainer(seed, dataclasses.replace(SMALL, steps=25)) for seed in (4, 5))
    batch = foreign.stream.batch
    monkeypatch.setattr(no_data.stream, "batch", lambda index: broken() if index == 11 else batch(index))
    wrong = dataclasses.replace(batch(0), tokens=batch(0).tokens + DYCK.d_vocab)
    monkeypatch.setattr(foreign.stream, "batch", lambda index: wrong if index == 12 else batch(index))
    penalised = trainer(6, dataclasses.replace(SMALL, steps=25, interventions=(EntropyPenalty(n_sequences=4),)))
    monkeypatch.setattr(penalised.interventions, "set_weights", lambda step, optimiser: step == 9 and broken())
    failed: dict[int, str] = {}
    every = [runs[0], full, no_data, runs[1], foreign, penalised, runs[2]]
    StackedTrainer(
        every, fetch_steps=fetch_steps, on_failure=lambda each, error: failed.update({each.seed: str(error)})
    ).run()
    assert set(failed) == {3, 4, 5, 6}
    assert failed[3] == failed[4] == failed[6] == "no space left"
    assert "ids must be in" in failed[5]
    for run in runs:
        single = trainer(run.seed, dataclasses.replace(alone(SMALL), steps=25))
        single.run()
        assert_same_run(run, single)
    with pytest.raises(OSError, match="no space"):
        StackedTrainer([trainer(0, keep=lambda step: broken() if step == 7 else None), trainer(1)]).run()


def test_runs_that_do_not_fit_are_refused():
    wider = trainer(1, dataclasses.replace(SMALL, batch_size=17))
    for bad in ([trainer(0), wider], [trainer(0, alone(SMALL))], []):
        with pytest.raises(ValueError, match="a stack takes runs of"):
            StackedTrainer(bad)


def test_batches_made_in_advance_are_those_of_the_streams(monkeypatch):
    """Blocks of a few batches, drawn while others are read; one stream leaves, and one stays."""
    monkeypatch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 3 * 16 * DYCK.n_ctx)
    streams = [TaskStream(DYCK, seed=seed, split="train", size=16) for seed in range(3)]
    assert streams[0].batches_per_block == 3
    feed = Feed(fresh(0).config, torch.device("cpu"), ahead=5)
    expected = [TaskStream(DYCK, seed=seed, split="train", size=16) for seed in range(3)]
    try:
        for members, starts, n in ((range(3), [0, 4, 1], 10), ((2, 0), [11, 10], 7)):
            feed.follow([streams[member] for member in members], starts)
            for number in range(n):
                made = feed.next()
                for row, (member, start) in enumerate(zip(members, starts)):
                    batch = expected[member].batch(start + number)
                    assert made.n_tokens[row] == int(batch.lengths.sum())
                    assert made.n_scored[row] == batch.loss_mask.sum()
                    (micro,) = made.micros
                    width = micro.tokens.shape[2]
                    assert torch.equal(micro.tokens[row].long(), batch.tokens[micro.rows[row], :width])
    finally:
        feed.close()


def test_seconds_are_a_share_of_the_stacks():
    runs = [trainer(seed, dataclasses.replace(SMALL, steps=20)) for seed in range(4)]
    StackedTrainer(runs).run()
    seconds = [run.state.seconds for run in runs]
    assert max(seconds) == pytest.approx(min(seconds))
    assert all(0 < each < math.inf for each in seconds)
