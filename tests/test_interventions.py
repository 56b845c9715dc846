"""Interventions: what each changes, what it leaves alone, and that an interrupted run goes on bit for bit."""

import dataclasses

import pytest
import torch

from procpre_interp.cli import main
from procpre_interp.core.config import content_hash, from_dict, to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import HookedTransformer, ModelConfig, flat_mask
from procpre_interp.probe import attention_entropy
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.config import Condition, Sweep
from procpre_interp.sweep.plan import plan
from procpre_interp.train import Interrupted, TrainConfig, Trainer
from procpre_interp.train.closed_form import TensorScale
from procpre_interp.train.interventions import (
    INTERVENTIONS,
    EntropyPenalty,
    MatchedEntropy,
    Rate,
    Rescaled,
    Rewind,
    Scaled,
)
from procpre_interp.train.sharpness import heads_of, relative_entropy
from tests.models import TINY, random_model

TASK = TASKS.build("haystack", max_pairs=4)
SHORT = TrainConfig(
    steps=12, batch_size=16, learning_rate=1e-2, warmup_steps=2, evaluate_every=6, evaluate_examples=16, kernel="torch"
)


def fresh(seed: int = 0, std: float = 0.3) -> HookedTransformer:
    config = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
    return random_model(config, seed=seed, std=std)


def trained(*interventions, model: HookedTransformer | None = None, config=SHORT, **kwargs) -> HookedTransformer:
    model = model or fresh()
    Trainer(model, TASK, dataclasses.replace(config, interventions=interventions), seed=0, **kwargs).run()
    return model


def entropies(model: HookedTransformer, batch: Batch | None = None) -> torch.Tensor:
    batch = TASK.batch(256, generator=stream(5, "entropy")) if batch is None else batch
    return torch.tensor(attention_entropy(model, batch)["entropy_relative"].to_numpy())


def test_entropy_is_the_probes_and_has_a_gradient():
    model, batch = fresh(), TASK.batch(32, generator=stream(0, "batch"))
    heads = heads_of(model.config, "attn")
    found = relative_entropy(model, batch, heads)
    expected = attention_entropy(model, batch)["entropy_relative"].to_numpy()
    assert heads == [(0, 0), (0, 1), (1, 0), (1, 1)]
    torch.testing.assert_close(found.detach().double(), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    one = relative_entropy(model, batch, [(1, 1)])
    assert one.item() == pytest.approx(expected[3], abs=1e-5)
    one.sum().backward()
    reads = flat_mask(model, "blocks.1.attn.head.0+blocks.1.mlp+ln_final+unembed")
    assert not model.flat_grad[reads].any()
    grad = model.flat_grad.clone()
    assert grad.isfinite().all()
    index = int(flat_mask(model, "blocks.1.attn.head.1.W_Q").nonzero()[3])
    with torch.no_grad():
        model.flat[index] += 1e-2
        above = relative_entropy(model, batch, [(1, 1)]).item()
        model.flat[index] -= 2e-2
        below = relative_entropy(model, batch, [(1, 1)]).item()
    assert grad[index].item() == pytest.approx((above - below) / 2e-2, rel=0.05, abs=1e-5)


@pytest.mark.parametrize(("target", "kernel"), [(None, "native"), (0.3, "torch"), (0.9, "native")])
def test_the_penalty_moves_entropy_to_its_target(target, kernel):
    config = dataclasses.replace(SHORT, steps=150, schedule="constant", kernel=kernel)
    before = entropies(fresh())
    after = entropies(trained(EntropyPenalty(weight=20.0, target=target), config=config))
    wanted = 0.0 if target is None else target
    assert (after - wanted).abs().mean() < 0.5 * (before - wanted).abs().mean()
    assert (after - wanted).abs().mean() < 0.12


@pytest.mark.usefixtures("large_draws")  # how far the others stray by themselves depends on the data
def test_the_penalty_of_one_head_leaves_the_others_free():
    config = dataclasses.replace(SHORT, steps=150, schedule="constant")
    plain = entropies(trained(config=config))
    found = entropies(trained(EntropyPenalty(selector="blocks.1.attn.head.0", weight=20.0, target=0.2), config=config))
    assert found[2] == pytest.approx(0.2, abs=0.1)
    assert (found[[0, 1, 3]] - plain[[0, 1, 3]]).abs().max() < 0.25


def test_a_window_and_its_weight():
    penalty = EntropyPenalty(from_step=10, to_step=20, schedule="linear", weight=2.0)
    model, batch = fresh(), TASK.batch(8, generator=stream(0, "batch"))
    values = [penalty.penalty(model, batch, step) for step in (9, 10, 15, 20)]
    assert values[0] is None
    assert values[3] is None
    assert values[2].item() == pytest.approx(values[1].item() / 2)
    assert trained(EntropyPenalty(from_step=11)).flat.equal(trained().flat) is False
    assert Rate(selector="mlp", learning_rate_factor=0.5, from_step=2, to_step=4).rate(4) == (1.0, 1.0)


@pytest.mark.parametrize("pattern", ["fresh", "transferred"])
def test_matched_entropy(pattern):
    other = "transferred" if pattern == "fresh" else "fresh"
    at_start, transplanted = fresh(1, std=0.05), fresh(2, std=0.6)
    sources = {"fresh": at_start.flat.detach().clone(), "transferred": transplanted.flat.detach().clone()}
    model = fresh(2, std=0.6)
    trainer = Trainer(
        model,
        TASK,
        dataclasses.replace(SHORT, interventions=(MatchedEntropy(pattern=pattern, entropy=other),)),
        seed=0,
        fresh=sources["fresh"],
    )
    # What is measured of the fresh model is measured in it, with its own embeddings.
    batch = trainer.interventions.initial.examples(256)
    wanted = entropies(at_start if other == "fresh" else transplanted, batch)
    torch.testing.assert_close(entropies(model, batch), wanted, atol=1e-4, rtol=0)
    untouched = ~flat_mask(model, "attn.W_Q+attn.b_Q+attn.W_K+attn.b_K")
    assert torch.equal(model.flat[untouched], sources["transferred"][untouched])
    for head in ("blocks.0.attn.head.1", "blocks.1.attn.head.0"):
        changed = flat_mask(model, "+".join(f"{head}.{name}" for name in ("W_Q", "W_K", "b_Q", "b_K")))
        ratio = model.flat[changed] / sources[pattern][changed]
        assert ratio[0] != 1
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)


def test_heads_that_cannot_be_made_sharp_are_refused():
    model, alike = fresh(2, std=0.6), fresh(2, std=0.6)
    with torch.no_grad():
        for name in ("embed", "pos_embed"):
            for parameter in getattr(alike, name).parameters():
                parameter.copy_(parameter.mean(0, keepdim=True).expand_as(parameter))
    # The fresh queries and keys see the same token everywhere, so that no scale makes a difference.
    sharp = MatchedEntropy(selector="blocks.0.attn", pattern="fresh", entropy="fresh")
    config = dataclasses.replace(SHORT, interventions=(sharp,))
    with pytest.raises(ValueError, match=r"gives it an entropy of 0\.\d+"):
        Trainer(alike, TASK, config, seed=0, fresh=model.flat.detach().clone())


@pytest.mark.parametrize("to", ["start", "fresh"])
def test_rewinding_sets_the_weights_before_the_step_and_nothing_else(to):
    at_start, seen = fresh(3).flat.detach().clone(), {}
    model = fresh()
    start = model.flat.detach().clone()
    config = dataclasses.replace(SHORT, interventions=(Rewind(selector="mlp", to=to, steps=(0, 5)),))
    trainer = Trainer(model, TASK, config, seed=0, fresh=at_start)
    mlp = flat_mask(model, "mlp")
    assert trainer.interventions is not None
    for step in range(7):
        before = model.flat.detach().clone()
        trainer.interventions.set_weights(step, trainer.optimiser)
        seen[step] = torch.equal(model.flat, before)
        if step in (0, 5):
            assert torch.equal(model.flat[mlp], (at_start if to == "fresh" else start)[mlp])
            assert torch.equal(model.flat[~mlp], before[~mlp])
        if step == 5:
            moment = trainer.optimiser.state()["exp_avg"]
            assert not moment[mlp].any()
            assert moment[~mlp].any()
        trainer.take_step()
    assert [step for step, same in seen.items() if not same] == ([0, 5] if to == "fresh" else [5])


def test_rate_zero_is_a_freeze_in_its_window_and_half_is_half():
    model = fresh()
    start, attn = model.flat.detach().clone(), flat_mask(model, "attn")
    trained(Rate(selector="attn", learning_rate_factor=0.0), model=model)
    assert torch.equal(model.flat[attn], start[attn])
    assert (model.flat[~attn] != start[~attn]).float().mean() > 0.9
    one = dataclasses.replace(SHORT, steps=1, warmup_steps=0, clip_norm=None)
    moves = [
        trained(*each, config=one).flat - start for each in [(), (Rate(selector="attn", learning_rate_factor=0.5),)]
    ]
    torch.testing.assert_close(moves[1][attn], 0.5 * moves[0][attn], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(moves[1][~attn], moves[0][~attn])
    thawed = trained(Rate(selector="attn", learning_rate_factor=0.0, to_step=6))
    assert (thawed.flat[attn] != start[attn]).any()


def rms(tensor: torch.Tensor, per: str) -> torch.Tensor:
    if per == "tensor":
        return tensor.square().mean().sqrt()
    return tensor.square().mean(-1, keepdim=True).sqrt() if tensor.ndim > 1 else tensor.abs()


@pytest.mark.parametrize("per", ["tensor", "row"])
@pytest.mark.parametrize("direction", ["fresh", "transferred"])
@pytest.mark.parametrize("scale", ["fresh", "transferred"])
@pytest.mark.parametrize("relative_step", ["fresh", "transferred"])
def test_rescaled_weights_have_the_size_of_one_model_and_step_like_another(direction, scale, relative_step, per):
    """W = c W' and the first update, which AdamW gives the same size whatever the gradient."""
    if (direction, scale, relative_step) == ("transferred",) * 3:
        return
    models = {"fresh": fresh(1, std=0.2), "transferred": fresh(2, std=0.6)}
    for parameter in (models["fresh"].block(0).attn.b_Q, models["transferred"].block(1).attn.b_V):
        torch.nn.init.zeros_(parameter)
    asked = Rescaled(selector="attn+ln1.w", direction=direction, scale=scale, relative_step=relative_step, per=per)
    one = dataclasses.replace(SHORT, steps=1, warmup_steps=0, weight_decay=0.0, interventions=(asked,))
    model = HookedTransformer(models["fresh"].config, generator=stream(0, "x"))
    with torch.no_grad():
        model.flat.copy_(models["transferred"].flat)
    trainer = Trainer(model, TASK, one, seed=0, fresh=models["fresh"].flat.detach().clone())
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer.run()
    for name, parameter in model.named_parameters():
        own = {whose: each.get_parameter(name).detach() for whose, each in models.items()}
        if ".attn." not in name and not name.endswith("ln1.w"):
            assert torch.equal(start[name], own["transferred"])
            continue
        sizes = {whose: rms(values, "row" if per == "row" else "tensor") for whose, values in own.items()}
        if per == "row" and name.endswith("b_O"):
            sizes = {whose: rms(values, "tensor") for whose, values in own.items()}
        if any(not size.any() for size in sizes.values()):
            assert torch.equal(start[name], own[direction])
            factor = torch.ones(())
        else:
            torch.testing.assert_close(start[name], own[direction] * sizes[scale] / sizes[direction])
            factor = sizes[scale] / sizes[relative_step]
        moved = (parameter.detach() - start[name]).abs() / (1e-2 * factor)
        # lr u, and u is 1 at the first step wherever the gradient is far above eps; that of b_K is zero, as what it
        # adds to all scores of a query alike is nothing to their softmax.
        if not name.endswith("b_K"):
            assert moved.median().item() == pytest.approx(1, rel=2e-2)
        assert moved.max().item() < 1 + 1e-3


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_scale_with_the_step_kept_is_the_training_of_the_smaller_weights(decay):
    """W = c W' where the function cannot tell them apart: the course of the fresh run, c times as large.

    Scores are products of queries and keys, so that a head with queries times c and keys over c is the same head.
    """
    # Softmax does not see b_K, whose gradient is rounding noise.
    names = [f"blocks.{layer}.attn.{name}" for layer in range(2) for name in ("W_Q", "b_Q", "W_K")]
    small, large = fresh(1), fresh(1)
    with torch.no_grad():
        for name in names:
            large.get_parameter(name).mul_(4.0 if name.endswith("Q") else 0.25)
    at_start = small.flat.detach().clone()
    config = dataclasses.replace(SHORT, weight_decay=decay, decay="all", clip_norm=None, schedule="constant")
    config = dataclasses.replace(config, freeze="attn.b_K")
    asked = Rescaled(selector="attn.W_Q+attn.b_Q+attn.W_K")
    with_large = trained(asked, model=large, config=config, fresh=at_start)
    trained(model=small, config=config)
    for name, parameter in small.named_parameters():
        factor = (4.0 if name.endswith("Q") else 0.25) if name in names else 1.0
        found = with_large.get_parameter(name) / factor
        torch.testing.assert_close(found, parameter, rtol=2e-3, atol=2e-4)
    assert (small.flat - at_start).abs().max() > 0.05


def start_of(model: HookedTransformer, *interventions, **kwargs) -> torch.Tensor:
    """The weights that training begins with."""
    trainer = Trainer(model, TASK, dataclasses.replace(SHORT, interventions=interventions), seed=0, **kwargs)
    return trainer.model.flat.detach().clone()


def test_a_fresh_model_scaled_is_that_of_another_initial_spread():
    config = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
    wanted = HookedTransformer.from_seed(dataclasses.replace(config, init_std=3 * config.init_std), 0).flat.detach()
    found = start_of(HookedTransformer.from_seed(config, 0), Scaled(factor=3.0))
    torch.testing.assert_close(found, wanted)


def test_a_scale_is_on_the_sizes_that_an_earlier_intervention_gave():
    before, mlp = fresh(1, std=0.2).flat.detach(), flat_mask(fresh(), "mlp.W_in")
    sizes = Rescaled(selector="all", relative_step="transferred")
    plain = start_of(fresh(2, std=0.6), sizes, fresh=before)
    found = start_of(fresh(2, std=0.6), sizes, Scaled(selector="mlp.W_in", factor=0.5), fresh=before)
    torch.testing.assert_close(found[mlp], plain[mlp] / 2)
    assert torch.equal(found[~mlp], plain[~mlp])


def test_decay_of_a_component():
    config = dataclasses.replace(SHORT, steps=1, warmup_steps=0, weight_decay=0.5, decay="all")
    start, mlp = fresh().flat.detach(), flat_mask(fresh(), "mlp")
    plain, without = trained(config=config).flat, trained(Rate(selector="mlp", decay_factor=0.0), config=config).flat
    torch.testing.assert_close((without - plain)[mlp], (1e-2 * 0.5 * start)[mlp], rtol=1e-3, atol=1e-6)
    assert torch.equal(without[~mlp], plain[~mlp])


EVERY = (
    MatchedEntropy(),
    EntropyPenalty(target=0.5, from_step=3),
    Rewind(selector="mlp", steps=(4, 9)),
    Rate(selector="ln", learning_rate_factor=0.3, from_step=2, to_step=8),
    TensorScale(rms=(("blocks.0.attn.W_O", 0.1), ("blocks.1.ln1.w", 0.5))),
    Rescaled(selector="mlp", direction="transferred", scale="fresh", per="row"),
    Scaled(factor=1.5),
)


@pytest.mark.parametrize("kernel", ["torch", "native"])
@pytest.mark.parametrize("stop_at", [1, 5, 9])
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path, stop_at, kernel):
    config = dataclasses.replace(SHORT, interventions=EVERY, kernel=kernel)
    at_start = fresh(7).flat.detach().clone()
    whole, again = fresh(), fresh()
    Trainer(whole, TASK, config, seed=0, fresh=at_start).run()
    steps, path = [], tmp_path / "resume.safetensors"
    kwargs = {"seed": 0, "fresh": at_start, "state_path": path}
    with pytest.raises(Interrupted):
        Trainer(
            fresh(),
            TASK,
            config,
            **kwargs,
            on_step=lambda s: steps.append(s),
            should_stop=lambda: len(steps) == stop_at,
        ).run()
    Trainer(again, TASK, config, **kwargs).run()
    assert torch.equal(again.flat, whole.flat)


def test_identity():
    plain = SHORT.resolve(TINY)
    assert content_hash(plain) == content_hash(dataclasses.replace(plain, interventions=()))
    for each in EVERY:
        config = dataclasses.replace(SHORT, interventions=(each,)).resolve(TINY)
        assert content_hash(config) != content_hash(plain)
        assert from_dict(TrainConfig, to_dict(config)) == config
    spelt = [Rate(selector=text, learning_rate_factor=0.0) for text in ("attn + ln", "attn,ln")]
    ids = {content_hash(dataclasses.replace(SHORT, interventions=(each,)).resolve(TINY)) for each in spelt}
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("intervention", "said"),
    [
        (EntropyPenalty(selector="mlp"), "names no head"),
        (EntropyPenalty(target=1.5), "is in \\[0, 1\\]"),
        (EntropyPenalty(weight=0.0), "positive"),
        (EntropyPenalty(schedule="linear"), "needs to_step"),
        (EntropyPenalty(from_step=12), "only 12 steps"),
        (Rate(selector="attn", from_step=3, to_step=3), "from_step < to_step"),
        (Rate(selector="attn", learning_rate_factor=-1.0), "not be negative"),
        (Rate(selector="atn"), "Did you mean"),
        (Rewind(selector="mlp", steps=()), "distinct steps"),
        (Rewind(selector="mlp", steps=(3, 3)), "distinct steps from 0 on"),
        (MatchedEntropy(selector="ln"), "names no head"),
        (Rescaled(selector="atn"), "Did you mean"),
        (Scaled(selector="atn", factor=2.0), "Did you mean"),
        (Scaled(factor=0.0), "positive"),
        (Rescaled(selector="attn"), "nothing of 'attn' was transferred"),
        (
            Rescaled(selector="attn", direction="transferred", relative_step="transferred"),
            "which is the transfer as it is",
        ),
    ],
)
def test_mistakes(intervention, said):
    with pytest.raises(ValueError, match=said):
        trained(intervention)


def test_every_intervention_says_what_it_holds_fixed_and_what_it_changes():
    for name in INTERVENTIONS:
        said = INTERVENTIONS[name].__doc__ or ""
        assert "Changes" in said, name
        assert "olds fixed" in said, name


def test_from_the_command_line(tmp_path, capsys):
    command = ["train", "--task", "haystack", "--train.steps", "4", "--train.batch-size", "8"]
    command += ["--train.evaluate-examples", "8", "--store", str(tmp_path)]
    asked = ["--intervene", "rewind selector=mlp steps=[0,2]", "--intervene=rate selector=ln learning_rate_factor=0.5"]
    assert main([*command, *asked]) == 0
    (entry,) = RunStore(tmp_path).query()["run"]
    interventions = RunStore(tmp_path).open(entry).config["train"]["interventions"]
    assert [each["name"] for each in interventions] == ["rewind", "rate"]
    assert interventions[0]["steps"] == [0, 2]
    for bad, said in (("rewnd x=1", "Did you mean 'rewind'"), ("rewind mlp", "no field=value"), ("", "unknown")):
        assert main([*command, "--intervene", bad]) == 2
        assert said in capsys.readouterr().err


def test_a_sweeps_condition_has_its_own(tmp_path):
    rewound = Condition(name="rewound", interventions=(Rewind(selector="mlp", steps=(1,)),))
    planned = plan(Sweep(name="s", task=TASK, train=SHORT, conditions=(rewound,), replicates=1))
    found = {cell["condition"]: planned.configs[cell["run"]] for cell in planned.cells.to_dict("records")}
    assert found["none"].train.interventions == ()
    assert found["rewound"].train.interventions == rewound.interventions
    assert found["none"].run_id != found["rewound"].run_id
