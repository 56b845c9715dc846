"""Ablations that change values: noise, spectra, signs, fresh weights. Their sizes, against closed forms."""

import math

import pytest
import torch

from procpre_interp.ablate import (
    FlatSpectrum,
    Gaussian,
    LayerNormsOnly,
    LowRank,
    MagnitudesOnly,
    Noise,
    NormsOnly,
    RandomSingularVectors,
    ReversedSpectrum,
    RowNormsOnly,
    SignFlips,
    SignsOnly,
)
from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig
from tests.test_ablate import CONFIG, weights_of

HEAD = "blocks.0.attn.head.1.W_V"


@pytest.fixture
def weights():
    return weights_of(CONFIG)


def damage(ablation, weights, *labels):
    return ablation.apply(weights, CONFIG, generator=stream(0, "damage", *labels))


def bits(tensor):
    return tensor.view(torch.int32)


def test_no_noise_changes_no_bit(weights):
    weights["blocks.0.attn.b_O"][0] = -0.0
    for ablation in (Noise(noise_std=0.0), SignFlips(share=0.0), LowRank(share=1.0)):
        damaged = damage(ablation, weights)
        assert all(torch.equal(bits(damaged[name]), bits(weights[name])) for name in weights)
        assert all(damaged[name].data_ptr() != weights[name].data_ptr() for name in weights)


def test_noise_is_in_units_of_the_tensor(weights):
    """2,048 draws: the standard error of their standard deviation is 1.6 %."""
    weights["blocks.0.mlp.W_in"] *= 7
    damaged = damage(Noise(noise_std=0.5, selector="mlp.W_in + blocks.0.mlp.W_out"), weights)
    for name in ("blocks.0.mlp.W_in", "blocks.1.mlp.W_in", "blocks.0.mlp.W_out"):
        added = (damaged[name] - weights[name]) / weights[name].std(correction=0)
        assert added.numel() == 1024
        assert added.std().item() == pytest.approx(0.5, rel=4 / math.sqrt(2 * 1024))
        assert abs(added.mean().item()) < 4 * 0.5 / math.sqrt(1024)


def test_a_head_alone_gets_the_noise_of_its_tensor(weights):
    """Its own standard deviation is a hundredth of the others'."""
    weights["blocks.0.attn.W_V"][1] *= 0.01
    damaged = damage(Noise(noise_std=1.0, selector=HEAD), weights)
    added = (damaged["blocks.0.attn.W_V"] - weights["blocks.0.attn.W_V"])[1]
    unit = weights["blocks.0.attn.W_V"].std(correction=0)
    assert added.std().item() == pytest.approx(unit.item(), rel=4 / math.sqrt(2 * 64))


def test_doses_of_noise_have_one_direction(weights):
    once, thrice = (damage(Noise(noise_std=std), weights) for std in (0.1, 0.3))
    for name in weights:
        small, large = once[name] - weights[name], thrice[name] - weights[name]
        assert torch.allclose(3 * small, large, atol=1e-5)


def test_gaussian_has_mean_and_std_and_not_the_outliers(weights):
    name = "blocks.0.mlp.W_in"
    weights[name] += 3
    weights[name][0, 0] = 60
    mean, std = weights[name].mean().item(), weights[name].std(correction=0).item()
    drawn = torch.stack([damage(Gaussian(selector=name), weights, i)[name] for i in range(5)])
    assert drawn.mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(drawn.numel()))
    assert drawn.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * drawn.numel()))
    assert drawn.max() < 30


def test_constant_tensors_have_no_scale_to_be_damaged_in(weights):
    weights["blocks.0.mlp.b_in"] = torch.zeros(64)
    for ablation in (Gaussian(), Noise(noise_std=3.0)):
        assert torch.equal(damage(ablation, weights)["blocks.0.mlp.b_in"], torch.zeros(64))


def matrices(weights):
    """Every matrix of the blocks, heads apart, in float64."""
    for name, tensor in weights.items():
        if name.startswith("blocks.") and ".W_" in name:
            for i, matrix in enumerate(tensor.double() if tensor.ndim == 3 else [tensor.double()]):
                yield f"{name}[{i}]", matrix


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_low_rank_is_the_best_of_its_rank(share, weights):
    """Eckart and Young: the squared error is the sum of the squares of the singular values left out."""
    damaged = dict(matrices(damage(LowRank(share=share), weights)))
    for name, matrix in matrices(weights):
        s = torch.linalg.svdvals(matrix)
        rank = max(1, round(share * min(matrix.shape)))
        assert torch.linalg.matrix_rank(damaged[name], rtol=1e-5) == rank
        error = (damaged[name] - matrix).square().sum()
        assert torch.allclose(error, s[rank:].square().sum(), rtol=1e-4, atol=1e-9)


def test_the_flat_spectrum_is_the_root_mean_square(weights):
    for _, matrix in matrices(damage(FlatSpectrum(), weights)):
        s = torch.linalg.svdvals(matrix)
        assert torch.allclose(s, s.mean(), rtol=1e-5)
    diagonal = torch.diag(torch.tensor([3.0, 4.0, 0.0, 0.0])).repeat(1, 4)  # a row [3 0 0 0 3 0 ...] has norm 6
    stored = {"blocks.0.attn.W_O": diagonal.repeat(4, 1, 1)}
    flat = FlatSpectrum(selector="blocks.0.attn.W_O").apply(stored, CONFIG, generator=stream(0, "damage"))
    s = torch.linalg.svdvals(flat["blocks.0.attn.W_O"])
    assert torch.allclose(s, torch.full_like(s, 5))  # sqrt((6^2 + 8^2) / 4)


def test_the_reversed_spectrum_twice_is_the_matrix(weights):
    once = damage(ReversedSpectrum(), weights)
    twice = damage(ReversedSpectrum(), once)
    assert all(torch.allclose(twice[name], weights[name], atol=1e-5) for name in weights)
    stored = {"blocks.0.attn.W_O": torch.eye(4, 16).mul(torch.tensor([[1.0], [2], [3], [4]])).repeat(4, 1, 1)}
    swapped = ReversedSpectrum(selector="blocks.0.attn.W_O").apply(stored, CONFIG, generator=stream(0, "damage"))
    expected = torch.eye(4, 16).mul(torch.tensor([[4.0], [3], [2], [1]]))
    assert torch.allclose(swapped["blocks.0.attn.W_O"], expected.expand(4, 4, 16), atol=1e-6)


def test_random_singular_vectors_prefer_no_direction(weights):
    """Each entry has mean 0 and mean square |S|^2 / (rows * columns): 300 draws."""
    matrix = weights["blocks.0.attn.W_V"][1]
    ablation, generator = RandomSingularVectors(selector=HEAD), stream(0, "damage")
    stored = {"blocks.0.attn.W_V": weights["blocks.0.attn.W_V"]}
    drawn = torch.stack(
        [ablation.apply(stored, CONFIG, generator=generator)["blocks.0.attn.W_V"][1] for _ in range(300)]
    )
    expected = matrix.square().sum() / matrix.numel()
    assert drawn.mean(0).abs().max() < 4.5 * (expected / 300).sqrt()
    assert (drawn.square().mean(0) / expected - 1).abs().max() < 4.5 * math.sqrt(2 / 300)


def test_a_share_of_the_signs_flips(weights):
    for share in (0.1, 0.5, 1.0):
        damaged = damage(SignFlips(share=share), weights)
        flipped = torch.cat([(a != b).flatten() for (_, a), (_, b) in zip(matrices(weights), matrices(damaged))])
        tolerance = 4 * math.sqrt(share * (1 - share) / flipped.numel())
        assert flipped.double().mean().item() == pytest.approx(share, abs=tolerance + 1e-12)


def test_magnitudes_only_tosses_a_fair_coin_whatever_the_sign(weights):
    positive = {name: tensor.abs() for name, tensor in weights.items()}
    once, again = damage(MagnitudesOnly(), weights), damage(MagnitudesOnly(), positive)
    assert all(torch.equal(once[name], again[name]) for name in weights if ".W_" in name and "blocks" in name)
    signs = torch.cat([matrix.flatten().sign() for _, matrix in matrices(once)])
    assert abs(signs.mean().item()) < 4 / math.sqrt(signs.numel())


@pytest.mark.parametrize("ablation", [SignFlips(share=1.0), MagnitudesOnly()])
def test_gains_keep_their_signs(ablation, weights):
    damaged = damage(ablation, weights)
    for name in ("blocks.0.ln1.w", "blocks.1.ln2.w", "ln_final.w"):
        assert torch.equal(damaged[name], weights[name])
    assert not torch.equal(damaged["ln_final.b"], weights["ln_final.b"])


def test_signs_only_has_one_magnitude_a_tensor(weights):
    weights["blocks.0.mlp.b_out"][3] = 0
    damaged = damage(SignsOnly(), weights)
    for name, matrix in damaged.items():
        if name.startswith("blocks"):
            size = weights[name].abs().mean()
            assert torch.allclose(matrix, size * weights[name].sign())
    assert damaged["blocks.0.mlp.b_out"][3] == 0


def test_layer_norms_only_is_a_fresh_model_with_the_trained_layer_norms(weights):
    damaged = damage(LayerNormsOnly(selector="all"), weights)
    fresh = dict(HookedTransformer(CONFIG, generator=stream(0, "damage")).named_parameters())
    for name, tensor in damaged.items():
        assert torch.equal(tensor, weights[name] if "ln" in name else fresh[name])
    part = damage(LayerNormsOnly(selector="attn.head.2"), weights)
    assert torch.equal(part["blocks.1.attn.W_Q"][2], damaged["blocks.1.attn.W_Q"][2])
    assert torch.equal(part["blocks.1.attn.W_Q"][1], weights["blocks.1.attn.W_Q"][1])


def test_fresh_weights_have_the_models_own_scale():
    config = ModelConfig(n_layers=2, n_heads=4, d_model=32, n_ctx=9, d_vocab=11, init_std=0.1)
    damaged = LayerNormsOnly().apply(weights_of(config), config, generator=stream(0, "damage"))
    assert damaged["blocks.0.mlp.W_in"].std().item() == pytest.approx(0.1, rel=0.06)
    assert damaged["blocks.0.mlp.W_out"].std().item() == pytest.approx(0.1 / math.sqrt(4), rel=0.06)
    assert not damaged["blocks.0.mlp.b_in"].any()


def test_norms_only_keeps_norms_and_no_direction(weights):
    damaged = damage(NormsOnly(selector="blocks + ln_final"), weights)
    for name, tensor in damaged.items():
        if "embed" not in name:
            assert tensor.norm().item() == pytest.approx(weights[name].norm().item(), rel=1e-5), name
        if name.startswith("blocks") and ".W_" in name:
            cosine = (tensor * weights[name]).sum() / tensor.square().sum()
            assert abs(cosine.item()) < 4.5 / math.sqrt(tensor.numel())
    gains = damaged["blocks.0.ln1.w"]
    assert torch.equal(gains, gains[:1].expand(16))
    weights["blocks.0.attn.b_O"] = torch.zeros(16)
    assert not damage(NormsOnly(), weights)["blocks.0.attn.b_O"].any()


def test_row_norms_only_keeps_what_each_input_dimension_sends_and_no_direction(weights):
    damaged = damage(RowNormsOnly(selector="blocks + ln_final"), weights)
    for name, tensor in damaged.items():
        if ".b_" in name or name.startswith("ln_final.b"):
            torch.testing.assert_close(tensor.norm(dim=-1), weights[name].norm(dim=-1))
            assert not torch.equal(tensor, weights[name])
        elif name.endswith(".w"):
            assert torch.equal(tensor, weights[name])
        elif name.startswith("blocks") and ".W_" in name:
            torch.testing.assert_close(tensor.norm(dim=-1), weights[name].norm(dim=-1))
            cosine = (tensor * weights[name]).sum() / tensor.square().sum()
            assert abs(cosine.item()) < 4.5 / math.sqrt(tensor.numel())
    weights["blocks.0.mlp.W_in"][3] = 0
    assert not damage(RowNormsOnly(), weights)["blocks.0.mlp.W_in"][3].any()
    part = damage(RowNormsOnly(selector=HEAD), weights)
    assert torch.equal(part["blocks.0.attn.W_V"][0], weights["blocks.0.attn.W_V"][0])
    torch.testing.assert_close(part["blocks.0.attn.W_V"].norm(dim=-1), weights["blocks.0.attn.W_V"].norm(dim=-1))
