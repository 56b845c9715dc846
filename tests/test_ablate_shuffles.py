"""Shuffles in detail: they are permutations, uniform ones, of what they should move."""

import math

import pytest
import torch

from procpre_interp.ablate import ABLATIONS, ShuffleHeads, ShuffleNeurons, ShuffleWithinLayers, ShuffleWithinTensors
from procpre_interp.core.seeding import stream
from procpre_interp.model import select
from tests.test_ablate import CONFIG, KEEPS, build, logits, weights_of

SHUFFLES = [name for name, what in KEEPS.items() if "pooled_values" in what]


@pytest.fixture
def weights():
    return weights_of(CONFIG)


def flat(weights):
    return torch.cat([tensor.flatten() for tensor in weights.values()])


def places(weights):
    """Weights whose values are their own places in `flat`."""
    numbers = torch.arange(flat(weights).numel(), dtype=torch.float64).split([p.numel() for p in weights.values()])
    return {name: part.view(tensor.shape) for part, (name, tensor) in zip(numbers, weights.items())}


def sources(name, weights, seed=0, **fields):
    """For each place of `flat`, the place that its value comes from."""
    moved = build(name, **fields).apply(places(weights), CONFIG, generator=stream(seed, "damage"))
    return {key: tensor.long() for key, tensor in moved.items()}


@pytest.mark.parametrize("name", SHUFFLES)
def test_a_shuffle_then_its_inverse_is_the_identity(name, weights):
    source = flat(sources(name, weights))
    shuffled = flat(build(name).apply(weights, CONFIG, generator=stream(0, "damage")))
    assert torch.equal(shuffled, flat(weights)[source]), "where values go depends on the values"
    restored = torch.empty_like(shuffled)
    restored[source] = shuffled
    assert torch.equal(restored, flat(weights))


def test_values_stay_and_places_do_not(weights):
    shuffled = ShuffleWithinTensors().apply(weights, CONFIG, generator=stream(0, "shuffle"))
    chosen = {piece.parameter for piece in select(CONFIG, "blocks + ln_final")}
    for name, tensor in shuffled.items():
        assert torch.equal(tensor.flatten().sort().values, weights[name].flatten().sort().values)
        assert torch.equal(tensor, weights[name]) == (name not in chosen), name


def test_shuffle_within_tensors_draws_as_in_version_1(weights):
    """Runs of the README have these numbers: one randperm a piece, in the order of the parameters."""
    generator = stream(0, "shuffle")
    expected = {name: tensor.clone() for name, tensor in weights.items()}
    for piece in select(CONFIG, "attn.head.1 + blocks.1"):
        values = expected[piece.parameter][piece.index]
        order = torch.randperm(values.numel(), generator=generator)
        expected[piece.parameter][piece.index] = values.flatten()[order].view(values.shape)
    ablation = ShuffleWithinTensors(selector="attn.head.1 + blocks.1")
    shuffled = ablation.apply(weights, CONFIG, generator=stream(0, "shuffle"))
    assert ablation.version == 1
    assert all(torch.equal(shuffled[name], expected[name]) for name in weights)


def test_one_head_is_shuffled_within_itself(weights):
    ablation = ShuffleWithinTensors(selector="blocks.1.attn.head.0")
    shuffled = ablation.apply(weights, CONFIG, generator=stream(0, "shuffle"))
    changed = {name for name in weights if not torch.equal(shuffled[name], weights[name])}
    assert changed == {f"blocks.1.attn.{leaf}" for leaf in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")}
    for name in changed:
        assert torch.equal(shuffled[name][1:], weights[name][1:])
        assert torch.equal(shuffled[name][0].flatten().sort().values, weights[name][0].flatten().sort().values)


def test_the_papers_shuffle_mixes_the_scales_of_q_k_and_v(weights):
    """Scales of 1, 10 and 100 become one, within a layer; W_O and the other layer have no part in it."""
    for leaf, scale in {"W_Q": 1.0, "W_K": 10.0, "W_V": 100.0, "b_Q": 1.0, "b_K": 10.0, "b_V": 100.0}.items():
        weights[f"blocks.0.attn.{leaf}"] = torch.full_like(weights[f"blocks.0.attn.{leaf}"], scale)
    pooled = ShuffleWithinLayers().apply(weights, CONFIG, generator=stream(0, "shuffle"))
    apart = ShuffleWithinTensors().apply(weights, CONFIG, generator=stream(0, "shuffle"))
    for leaf in ("W_Q", "W_K", "W_V"):
        name = f"blocks.0.attn.{leaf}"
        assert pooled[name].unique().tolist() == [1, 10, 100]
        assert torch.equal(apart[name], weights[name])
    for name in ("blocks.0.attn.W_O", "blocks.0.mlp.W_in", "blocks.1.ln1.w"):
        assert torch.equal(pooled[name].flatten().sort().values, weights[name].flatten().sort().values)
    source = sources("shuffle_within_layers", weights)
    inside = {int(x) for x in torch.cat([places(weights)[f"blocks.1.attn.W_{x}"].flatten() for x in "QKV"])}
    assert {int(x) for x in source["blocks.1.attn.W_Q"].flatten()} <= inside


def test_rows_and_columns_have_orders_of_their_own(weights):
    """Were one order used for all rows, whole columns would move."""
    for name, axis in (("shuffle_within_rows", -1), ("shuffle_within_columns", -2)):
        source = sources(name, weights, selector="mlp.W_in")["blocks.0.mlp.W_in"]
        lines = source.movedim(axis, -1) - places(weights)["blocks.0.mlp.W_in"].long().movedim(axis, -1)[:, :1]
        assert len({tuple(line) for line in lines.tolist()}) == len(lines)


def test_whole_heads_move_with_all_their_weights(weights):
    source = sources("shuffle_heads", weights, selector="blocks.1.attn.head.0 + attn.head.2 + attn.head.3", seed=2)
    here = places(weights)
    orders = set()
    for leaf in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
        name = f"blocks.1.attn.{leaf}"
        starts = here[name].flatten(1)[:, 0].long().tolist()
        order = tuple(starts.index(int(x)) for x in source[name].flatten(1)[:, 0])
        assert torch.equal(source[name], here[name][list(order)].long())
        orders.add(order)
    (order,) = orders
    assert order[1] == 1, "a head that is not selected moved"
    assert order != (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("ablation", "moved"),
    [
        (ShuffleHeads(selector="attn"), "blocks.0.attn.W_Q"),
        (ShuffleHeads(selector="attn.head.1 + attn.head.3"), "blocks.0.attn.W_Q"),
        (ShuffleNeurons(selector="blocks.1.mlp"), "blocks.1.mlp.W_in"),
    ],
)
def test_the_function_stays_though_weights_move(ablation, moved, weights):
    shuffled = ablation.apply(weights, CONFIG, generator=stream(1, "damage"))
    assert not torch.equal(shuffled[moved], weights[moved])
    assert torch.allclose(logits(shuffled, CONFIG), logits(weights, CONFIG), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("ablation", "problem"),
    [
        (ShuffleHeads(selector="attn - attn.W_V"), "would change the function, so name whole heads"),
        (ShuffleHeads(selector="attn - blocks.1.attn.head.2.b_Q"), "in layer 1 .* name whole heads"),
        (ShuffleHeads(selector="attn.head.2"), "no two heads of one layer"),
        (ShuffleNeurons(selector="attn + blocks.1.mlp.W_in"), "would change the function, so name 'mlp'"),
        (ShuffleNeurons(selector="mlp - mlp.b_in"), "would change the function, so name 'mlp'"),
    ],
)
def test_parts_that_belong_together_are_not_torn_apart(ablation, problem, weights):
    with pytest.raises(ValueError, match=problem):
        ablation.apply(weights, CONFIG, generator=stream(0, "damage"))


def test_biases_that_are_no_part_of_a_head_or_neuron_may_be_left_out(weights):
    for ablation, bias in (
        (ShuffleHeads(selector="attn - attn.b_O"), "blocks.0.attn.b_O"),
        (ShuffleNeurons(selector="mlp - mlp.b_out"), "blocks.0.mlp.b_out"),
    ):
        damaged = ablation.apply(weights, CONFIG, generator=stream(0, "damage"))
        assert torch.equal(damaged[bias], weights[bias])
        assert any(not torch.equal(damaged[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("name", "parameter", "axis", "repeats"),
    [
        ("shuffle_within_tensors", "blocks.0.attn.head.0.b_Q", -1, 600),
        ("shuffle_within_rows", "blocks.0.attn.W_Q", -1, 10),
        ("shuffle_within_columns", "blocks.0.attn.W_O", -2, 10),
        ("shuffle_across_heads", "blocks.0.attn.W_Q", 0, 10),
        ("shuffle_heads", "blocks.0.attn", 0, 600),
    ],
)
def test_all_orders_of_four_are_equally_likely(name, parameter, axis, repeats, weights):
    """Chi-square over the 24 orders of 4 entries, or of 4 heads."""
    ablation = build(name, selector=parameter)
    generator = stream(0, "many")
    stored = {key: tensor for key, tensor in places(weights).items() if key.startswith("blocks.0.attn.")}
    read = parameter.replace("head.0.", "") if "_" in parameter else f"{parameter}.b_Q"
    lines = []
    for _ in range(repeats):
        moved = ablation.apply(stored, CONFIG, generator=generator)[read].movedim(axis, -1).reshape(-1, 4)
        # One bias was shuffled, or all entries of a head moved as one: then a line per shuffle tells all.
        lines.append((moved[:1] if repeats == 600 else moved).argsort(-1))
    found = torch.cat(lines)
    counts = (found @ torch.tensor([64, 16, 4, 1])).unique(return_counts=True)[1]
    expected = len(found) / math.factorial(4)
    assert expected >= 25
    assert len(counts) == 24
    assert ((counts - expected) ** 2 / expected).sum() < 49.7  # 23 degrees of freedom, p = .001


def test_neurons_are_dealt_evenly(weights):
    """Where the first of 64 neurons goes, over 800 shuffles, in 8 bins."""
    generator = stream(0, "many")
    stored = {key: tensor for key, tensor in places(weights).items() if key.startswith("blocks.0.mlp.")}
    ablation = ABLATIONS.build("shuffle_neurons", selector="blocks.0.mlp")
    first = stored["blocks.0.mlp.b_in"][0]
    found = [
        int((ablation.apply(stored, CONFIG, generator=generator)["blocks.0.mlp.b_in"] == first).nonzero())
        for _ in range(800)
    ]
    counts = torch.tensor(found).div(8, rounding_mode="floor").bincount(minlength=8)
    assert ((counts - 100) ** 2 / 100).sum() < 24.4  # 7 degrees of freedom, p = .001
