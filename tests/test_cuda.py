"""What a GPU must do as the CPU does. `make test-cuda` runs these tests there; the fast suite runs them on the CPU."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch

from procpre_interp.ablate import ABLATIONS, ShuffleWithinTensors, damaged_copies
from procpre_interp.core.config import content_hash
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.samples import pairs_of
from procpre_interp.model import HookedTransformer, ModelConfig, to_bridge, to_huggingface
from procpre_interp.patch import (
    Graph,
    activation_patching,
    circuit_curve,
    circuit_values,
    edge_attribution,
    edge_patching,
    head_test,
    mask_scores,
    minimality,
    path_patching,
    random_edges,
)
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.pipeline.lineage import starting_model
from procpre_interp.probe import PROBES, Probe, Probed
from procpre_interp.probe.labels import labels_for
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train import Initialisation, Interrupted, TrainConfig, Trainer, evaluate, evaluate_copies, summarise
from procpre_interp.train.closed_form import (
    LowRankIdentity,
    MeanEmbedding,
    Mimetic,
    MimeticPaper,
    PositionCode,
    SpectrumLaw,
    TensorScale,
)
from procpre_interp.train.interventions import EntropyPenalty, Intervention, MatchedEntropy, Rate, Rewind
from procpre_interp.transfer import TransferConfig
from procpre_interp.views.exhibits import attention, circuits
from tests.devices import DEVICES, agree, usable
from tests.models import random_model

TASK = TASKS.build("haystack", max_pairs=4)
DYCK = TASKS.build("dyck", k=2, length=16)
SHAPE = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=32, d_vocab=TASK.d_vocab)
TRAIN = TrainConfig(
    steps=24,
    batch_size=16,
    learning_rate=1e-2,
    warmup_steps=2,
    evaluate_every=8,
    evaluate_examples=32,
    kernel="torch",
)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def both(device: str, seed: int = 0) -> tuple[HookedTransformer, HookedTransformer]:
    """One model on the CPU and on the device."""
    return random_model(SHAPE, seed=seed), random_model(SHAPE, seed=seed).to(device)


def trained(device: str, task=DYCK, **options) -> tuple[Trainer, torch.Tensor]:
    """A model after a short training, and its weights, on the CPU."""
    shape = dataclasses.replace(SHAPE, n_ctx=task.n_ctx, d_vocab=task.d_vocab, tied=options.pop("tied", False))
    config = dataclasses.replace(TRAIN, device=device, **options)
    model = random_model(shape, std=0.1).to(device)
    trainer = Trainer(model, task, config, seed=0)
    assert trainer.run().status == "finished"
    assert model.flat.device.type == device
    return trainer, model.flat.detach().cpu()


def losses(trainer: Trainer) -> list[float]:
    table = trainer.state.table()
    return table.loc[table["split"] == "validation", "loss_nats"].tolist()


# Training


@pytest.mark.parametrize(
    ("task", "options"),
    [
        (DYCK, {}),
        (DYCK, {"tied": True, "decay": "all"}),
        (TASK, {"freeze": "mlp"}),
        (DYCK, {"micro_batch_tokens": 64}),
        (DYCK, {"curriculum": True, "steps": 8, "evaluate_every": 2}),
    ],
    ids=["dyck", "tied", "frozen", "micro-batches", "curriculum"],
)
def test_training_is_that_of_the_cpu(device: str, task, options: dict):
    there, weights = trained(device, task, **options)
    here, expected = trained("cpu", task, **options)
    assert losses(there)[-1] < losses(there)[0]
    assert losses(there) == pytest.approx(losses(here), abs=2e-3)
    torch.testing.assert_close(weights, expected, rtol=0, atol=5e-3)
    assert there.state.tokens == here.state.tokens


def test_bfloat16_learns(device: str):
    there, _ = trained(device, precision="bfloat16")
    here, _ = trained("cpu")
    assert losses(there) == pytest.approx(losses(here), abs=0.03)


@pytest.mark.parametrize(
    "intervention",
    [
        EntropyPenalty(selector="attn", weight=1.0),
        MatchedEntropy(selector="attn"),
        Rate(selector="mlp", learning_rate_factor=0.5, decay_factor=2.0),
        Rewind(selector="attn", steps=(5,)),
        TensorScale.fit([random_model(SHAPE, std=0.2)]),
    ],
    ids=lambda each: each.name,
)
def test_interventions_do_the_same(device: str, intervention: Intervention):
    there, weights = trained(device, TASK, interventions=(intervention,))
    here, expected = trained("cpu", TASK, interventions=(intervention,))
    assert losses(there) == pytest.approx(losses(here), abs=5e-3)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-2)


def numbers(value: object) -> list[float]:
    """Every number in the fields of a recipe, in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.astuple(value)
    if isinstance(value, tuple):
        return [number for each in value for number in numbers(each)]
    return [float(value)] if isinstance(value, (int, float)) else []


@pytest.mark.parametrize(
    "recipe", [LowRankIdentity, MeanEmbedding, Mimetic, MimeticPaper, PositionCode, SpectrumLaw, TensorScale]
)
def test_closed_forms_are_fitted_and_written_there(device: str, recipe: type[Initialisation]):
    here, there = both(device)
    fitted = recipe.fit([there])
    assert numbers(fitted) == pytest.approx(numbers(recipe.fit([here])), rel=1e-3, abs=1e-4)
    with torch.no_grad():
        for model in (here, there):
            fitted.write(model, stream(0, "write"))
    torch.testing.assert_close(there.flat.detach().cpu(), here.flat.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stop_at", [1, 13])
def test_an_interrupted_run_goes_on(device: str, tmp_path: Path, stop_at: int):
    """The same weights: to the bit on a CPU, and up to the order of atomic sums on a GPU."""

    def trainer(path: Path | None, **options) -> Trainer:
        config = dataclasses.replace(TRAIN, device=device, interventions=(Rewind(selector="attn", steps=(16,)),))
        return Trainer(random_model(SHAPE).to(device), TASK, config, seed=0, state_path=path, **options)

    whole, path = trainer(None), tmp_path / "resume.safetensors"
    whole.run()
    stopped = trainer(path)
    stopped.should_stop = lambda: stopped.state.step == stop_at
    with pytest.raises(Interrupted):
        stopped.run()
    resumed = trainer(path)
    assert resumed.state.step == stop_at
    resumed.run()
    atol = 0.0 if device == "cpu" else 1e-4
    torch.testing.assert_close(resumed.model.flat, whole.model.flat, rtol=0, atol=atol)
    for name, moment in resumed.optimiser.state().items():
        assert moment.device == resumed.model.flat.device
        torch.testing.assert_close(moment, whole.optimiser.state()[name], rtol=0, atol=atol)


# Runs, and weights that change their device between them


def config_of(task, device: str, *parents: Parent, **options) -> RunConfig:
    return RunConfig(
        task=task,
        seed=3,
        model=Architecture(n_layers=2, n_heads=2, d_model=8, n_ctx=64),
        train=dataclasses.replace(TRAIN, steps=8, device=device, checkpoints=2),
        parents=parents,
        **options,
    )


@pytest.mark.parametrize("way", ["there", "back"])
def test_weights_go_from_a_run_on_one_device_to_one_on_another(device: str, tmp_path: Path, way: str):
    store = RunStore(tmp_path)
    first, second = ("cpu", device) if way == "there" else (device, "cpu")
    parent = execute(config_of(DYCK, first), store)
    given = Parent(run=parent.id, selector="attn+ln", step=1, ablation=ShuffleWithinTensors())
    child = config_of(TASK, second, given, transfer=TransferConfig())
    run = execute(child, store)
    assert run.summary["device"] == second
    assert run.summary["status"] == "finished"
    same = execute(config_of(TASK, "cpu", given, transfer=TransferConfig()), store)
    assert run.id == content_hash(child.resolve())
    assert (run.id == same.id) == (second == "cpu")
    assert run.summary["loss_nats"] == pytest.approx(same.summary["loss_nats"], abs=2e-3)
    for step in run.steps:  # stored weights are the CPU's, wherever they were made
        torch.testing.assert_close(load_model(run, step=step).flat, load_model(same, step=step).flat, rtol=0, atol=5e-3)
    assert starting_model(run, store).flat.device.type == "cpu"


# Measurements


def test_evaluation(device: str):
    here, there = both(device)
    batch = TASK.batch(64, generator=stream(0, "batch"))
    expected = evaluate(here, batch)
    for given in (batch, batch.to(device)):
        agree(evaluate(there, given), expected)
    assert summarise(evaluate(there, batch, autocast=True)) == pytest.approx(summarise(expected), abs=0.05)


@pytest.mark.parametrize("name", list(ABLATIONS))
def test_damage_is_the_same_and_is_scored_there(device: str, name: str):
    fields = {"noise": {"noise_std": 0.5}, "low_rank_mlp": {"rank": 2}, "without_strongest": {"share": 0.25}}.get(
        name, {}
    )
    here, there = both(device)
    batch, damage = TASK.batch(16, generator=stream(0, "batch")), [ABLATIONS.build(name, **fields)]
    expected = list(damaged_copies(here, damage, n_draws=2, seed=0))
    found = list(damaged_copies(there, damage, n_draws=2, seed=0))
    for copy, other in zip(found, expected, strict=True):
        assert copy.device == there.flat.device
        torch.testing.assert_close(copy.cpu(), other, rtol=1e-5, atol=1e-6)
    agree(evaluate_copies(there, found, batch), evaluate_copies(here, expected, batch), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in PROBES if issubclass(PROBES[name], Probe)])
def test_probes(device: str, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "procpre_interp.probe.probes.labels_for", lambda task: labels_for(task)[:1]
    )  # each takes seconds
    here, there = both(device)
    kind, needs = PROBES[name], {}
    if kind.reference is not None:
        needs = dict(zip((here, there), both(device, seed=1)))
    probe = kind()
    assert isinstance(probe, Probe)
    found, expected = (
        probe.measure(Probed(model=model, task=TASK, sequences=12, reference=needs.get(model)))
        for model in (there, here)
    )
    probe.check(found)
    # Linear probes count hits, of which one more or less may come of rounding.
    agree(found, expected, atol=0.05 if name == "linear" else 1e-3)


CAUSE = next(iter(TASK.causes))


def test_activation_patching(device: str):
    here, there = both(device)
    pairs = pairs_of(TASK, CAUSE, n=12)
    for options in ({}, {"by_position": False}, {"direction": "noise"}):
        agree(activation_patching(there, pairs, **options), activation_patching(here, pairs, **options))


def test_edges_and_circuits(device: str):
    here, there = both(device)
    pairs, graph = pairs_of(TASK, CAUSE, n=12), Graph(SHAPE)
    for method in ("eap", "eap_ig_inputs", "eap_ig_activations"):
        agree(edge_attribution(there, pairs, method=method), edge_attribution(here, pairs, method=method))
    some = graph.edges[::3]
    agree(edge_patching(there, pairs, edges=some), edge_patching(here, pairs, edges=some))
    path = ["embed", "blocks.1.attn.head.0.v", "logits"]
    agree(path_patching(there, pairs, path), path_patching(here, pairs, path))
    circuit = random_edges(graph, 20, generator=stream(0, "edges"))
    masks = torch.stack([graph.mask(circuit), torch.ones(len(graph.edges), dtype=torch.bool)])
    for replacement in ("corrupted", "zero", "mean", "resample"):
        found, expected = (
            circuit_values(model, pairs, masks, replacement=replacement, generator=stream(0, "resample"))
            for model in (there, here)
        )
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-4)
    scores = edge_attribution(here, pairs)
    agree(
        *(
            circuit_curve(model, pairs, scores, sizes=[5, 20], n_random=2, generator=stream(0, "curve"))
            for model in (there, here)
        )
    )
    agree(*(minimality(model, pairs, circuit, n_random=3, generator=stream(0, "min")) for model in (there, here)))


def test_masks_and_pruning(device: str):
    here, there = both(device)
    batch, other = (TASK.batch(24, generator=stream(seed, "batch")) for seed in (0, 1))
    kept = torch.tensor([[[True, False], [True, True]], [[False, False], [True, False]]])
    agree(mask_scores(there, batch, kept), mask_scores(here, batch, kept))
    found, expected = (
        head_test(model, batch, other, generator=stream(0, "prune"), n_random=4, steps=20, sparsities=(0.1, 2.0))
        for model in (there, here)
    )
    pd.testing.assert_series_equal(found["heads"], expected["heads"])
    agree(found, expected)


# What the explorer and notebooks ask of a model


def test_exhibits(device: str):
    here, there = both(device)
    tokens = attention.sequence(TASK, 0, 0)
    for found, expected in (
        (attention.score_table(there, TASK, n=16), attention.score_table(here, TASK, n=16)),
        (attention.pattern(there, TASK, tokens, 0).table, attention.pattern(here, TASK, tokens, 0).table),
        (circuits.effects(there, TASK, CAUSE).table, circuits.effects(here, TASK, CAUSE).table),
        (circuits.effects_on_pair(there, TASK, CAUSE).table, circuits.effects_on_pair(here, TASK, CAUSE).table),
        (
            circuits.live_patch(there, TASK, CAUSE, 0, "z", 1, 3, 0).table,
            circuits.live_patch(here, TASK, CAUSE, 0, "z", 1, 3, 0).table,
        ),
        (circuits.graph(there, TASK, CAUSE).table, circuits.graph(here, TASK, CAUSE).table),
        (
            circuits.faithfulness(there, TASK, CAUSE, n_random=1).table,
            circuits.faithfulness(here, TASK, CAUSE, n_random=1).table,
        ),
    ):
        agree(found, expected)


def test_activations_directions_and_texts(device: str):
    here, there = both(device)
    tokens = TASK.batch(4, generator=stream(0, "batch")).tokens.long()
    logits, cache = there.run_with_cache(tokens.to(device))
    expected, plain = here.run_with_cache(tokens)
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-4)
    for name in plain:
        torch.testing.assert_close(cache[name].cpu(), plain[name], rtol=1e-3, atol=1e-3)
    first = tokens[:, :3]
    assert torch.equal(there.generate(first.to(device), 4).cpu(), here.generate(first, 4))
    drawn = [
        model.generate(first.to(model.flat.device), 4, temperature=0.5, generator=stream(0, "text"))
        for model in (there, here)
    ]
    assert torch.equal(drawn[0].cpu(), drawn[1])
    assert there.to_tokens([1, 2]).device == there.flat.device
    assert there.tokens_to_residual_directions(there.to_tokens([1])).device == there.flat.device
    torch.testing.assert_close(there.OV.AB.cpu(), here.OV.AB, rtol=1e-3, atol=1e-4)


def test_other_libraries_get_copies(device: str):
    here, there = both(device)
    tokens = TASK.batch(2, generator=stream(0, "batch")).tokens.long()
    expected = here(tokens)
    for other in (to_bridge(there), to_huggingface(there)):
        found = other(tokens.to(next(other.parameters()).device))
        torch.testing.assert_close(getattr(found, "logits", found).cpu(), expected, rtol=1e-3, atol=1e-3)


def test_the_model_of_a_stored_run_is_on_the_cpu(device: str, tmp_path: Path):
    run: Run = execute(config_of(DYCK, device), RunStore(tmp_path))
    model = load_model(run)
    assert model.flat.device.type == "cpu"
    assert model.to(device).cfg.device == str(model.flat.device)
