"""Closed-form initialisations: each writes what it says, leaves the rest alone, and is fitted on what it should be."""

import dataclasses

import pytest
import torch

from procpre_interp.core.config import from_dict, to_dict
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig, flat_mask
from procpre_interp.train import Initialisation, TrainConfig, Trainer
from procpre_interp.train.closed_form import (
    LowRankIdentity,
    MeanEmbedding,
    Mimetic,
    MimeticPaper,
    PositionCode,
    SpectrumLaw,
    TensorScale,
)
from procpre_interp.train.closed_form.positions import _telling_apart
from procpre_interp.train.interventions import Intervention
from tests.models import random_model

TASK = TASKS.build("haystack", max_pairs=12)
CONFIG = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=TASK.model_n_ctx, d_vocab=TASK.d_vocab)
SHORT = TrainConfig(steps=2, batch_size=8, warmup_steps=1, evaluate_every=2, evaluate_examples=8, kernel="torch")
PHASE1 = ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=40, d_vocab=9, tied=True)


def phase1(n: int = 2) -> list[HookedTransformer]:
    return [random_model(PHASE1, seed=seed, std=0.2) for seed in range(n)]


def fresh(config: ModelConfig = CONFIG, seed: int = 3) -> HookedTransformer:
    return HookedTransformer(config, generator=stream(seed, "init"))


def started(*recipe: Initialisation, model: HookedTransformer | None = None, seed: int = 3) -> HookedTransformer:
    """A model before its first step."""
    model = model or fresh()
    Trainer(model, TASK, dataclasses.replace(SHORT, interventions=recipe), seed=seed)
    return model


def rms(tensor: torch.Tensor) -> float:
    return tensor.detach().double().square().mean().sqrt().item()


def changed(model: HookedTransformer) -> set[str]:
    before = dict(fresh().named_parameters())
    return {name for name, tensor in model.named_parameters() if not torch.equal(tensor, before[name])}


def test_tensor_scale_keeps_directions_and_takes_over_sizes():
    models = phase1()
    recipe = TensorScale.fit(models, "attn.W_Q+attn.b_Q+ln+pos")
    model, own = started(recipe), fresh()
    names = [name for name, _ in recipe.rms]
    assert changed(model) == set(names)
    assert {name.rpartition(".")[2] for name in names} == {"W_Q", "b_Q", "w", "b", "W_pos"}
    for name, wanted in recipe.rms:
        mean = sum(rms(each.get_parameter(name)) for each in models) / len(models)
        assert wanted == pytest.approx(mean, rel=1e-3)
        assert rms(model.get_parameter(name)) == pytest.approx(wanted, rel=1e-4)
    ratio = model.get_parameter("blocks.1.attn.W_Q") / own.get_parameter("blocks.1.attn.W_Q")
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))
    gains = model.get_parameter("blocks.0.ln1.w")
    assert torch.equal(gains, gains[:1].expand_as(gains))
    bias = model.get_parameter("blocks.0.attn.b_Q")
    assert bias.std() > 0
    assert torch.equal(bias, started(recipe).get_parameter("blocks.0.attn.b_Q"))
    assert not torch.equal(bias, started(recipe, seed=4).get_parameter("blocks.0.attn.b_Q"))


def test_only_what_is_selected_is_written():
    recipe = TensorScale.fit(phase1())
    assert changed(started(dataclasses.replace(recipe, selector="blocks.1.attn.head.2.W_Q"))) == {"blocks.1.attn.W_Q"}
    model, own = started(dataclasses.replace(recipe, selector="blocks.1.attn.head.2.W_Q")), fresh()
    others = ~flat_mask(model, "blocks.1.attn.head.2.W_Q")
    assert torch.equal(model.flat[others], own.flat[others])
    assert "unembed.W_U" not in dict(recipe.rms)  # phase 1 is tied, so there is none


def test_a_spectrum_follows_its_law_and_keeps_its_vectors():
    recipe = SpectrumLaw(law=(("blocks.0.attn.W_V", 2.0, 1.5), ("blocks.1.mlp.W_in", 1.0, 0.0)), selector="all")
    model, own = started(recipe), fresh()
    values = torch.linalg.svdvals(model.get_parameter("blocks.0.attn.W_V").detach())
    wanted = 2.0 * torch.arange(1, 5) ** -1.5
    torch.testing.assert_close(values, wanted.expand_as(values), rtol=1e-4, atol=1e-5)
    left, _, right = torch.linalg.svd(own.get_parameter("blocks.0.attn.W_V").detach(), full_matrices=False)
    inner = left.mT @ model.get_parameter("blocks.0.attn.W_V").detach() @ right.mT
    torch.testing.assert_close(inner, torch.diag_embed(wanted).expand_as(inner), rtol=1e-3, atol=1e-5)
    assert changed(model) == {"blocks.0.attn.W_V", "blocks.1.mlp.W_in"}
    # A model that follows a law gives it back, whatever its vectors.
    refitted = SpectrumLaw.fit([model, started(recipe, model=fresh(seed=5))], "blocks.0.attn.W_V")
    assert refitted.law == (("blocks.0.attn.W_V", pytest.approx(2.0, rel=1e-3), pytest.approx(1.5, rel=1e-3)),)


def test_mimetic_heads_have_the_size_and_the_share_that_they_are_given():
    models = phase1(3)
    recipe = Mimetic.fit(models)
    model = started(recipe)
    assert changed(model) == {f"blocks.{i}.attn.{name}" for i in (0, 1) for name in ("W_Q", "W_K", "W_V", "W_O")}
    for layer in range(2):
        assert list(recipe.query_key_share[layer]) == sorted(recipe.query_key_share[layer], reverse=True)
        attn = model.block(layer).attn
        for circuit, norms, shares in (
            (attn.W_Q @ attn.W_K.mT, recipe.query_key_norm, recipe.query_key_share),
            (attn.W_V @ attn.W_O, recipe.value_output_norm, recipe.value_output_share),
        ):
            norm = torch.linalg.matrix_norm(circuit.detach())
            share = circuit.detach().diagonal(dim1=1, dim2=2).sum(-1) / norm / 2
            torch.testing.assert_close(norm, torch.tensor(norms[layer]), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(share, torch.tensor(shares[layer]), rtol=1e-3, atol=1e-4)
    one = ((1.0,) * 4,) * 2
    pure = Mimetic(
        query_key_norm=one, query_key_share=one, value_output_norm=one, value_output_share=((-1.0,) * 4,) * 2
    )
    attn = started(pure).block(1).attn
    square = (attn.W_Q[2] @ attn.W_K[2].T).detach() * 2  # a projection, but for its size
    torch.testing.assert_close(square @ square, square, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close((attn.W_V[1] @ attn.W_O[1]).trace().item(), -2.0)
    assert Mimetic.fit([model]).query_key_share[0] == pytest.approx(recipe.query_key_share[0], abs=1e-3)


def test_low_rank_and_identity_make_up_a_layers_circuits():
    recipe = LowRankIdentity(
        query_key_strength=(0.5, -0.2),
        query_key_values=((3.0, 1.0), (2.0,)),
        value_output_strength=(-0.3, 0.0),
        value_output_values=((1.0,), (0.7, 0.2)),
    )
    model, own = started(recipe), fresh()
    for layer, strength, values in ((0, 0.5, (3.0, 1.0)), (1, -0.2, (2.0,))):
        attn, before = model.block(layer).attn, own.block(layer).attn
        rest = (attn.W_Q @ attn.W_K.mT).sum(0).detach() - strength * torch.eye(16)
        found = torch.linalg.svdvals(rest)
        torch.testing.assert_close(found[: len(values)], torch.tensor(values), rtol=1e-4, atol=1e-5)
        assert found[len(values) :].max() < 1e-5
        left, _, right = torch.linalg.svd((before.W_Q @ before.W_K.mT).sum(0).detach())
        assert abs(left[:, 0] @ rest @ right[0]) == pytest.approx(values[0], rel=1e-4)
        assert (attn.W_Q.detach().flatten(1).norm(dim=1) > 0).all()
    refitted = LowRankIdentity.fit([model], rank=1)
    assert refitted.value_output_values[0][0] == pytest.approx(1.0, abs=0.05)


def test_one_embedding_for_all_tokens():
    recipe = MeanEmbedding.fit(phase1())
    model = started(recipe)
    rows, columns = model.embed.W_E.detach(), model.unembed.W_U.detach()
    assert torch.equal(rows, rows[:1].expand_as(rows))
    assert torch.equal(columns, rows.T)
    assert rms(rows) == pytest.approx(recipe.rms, rel=1e-4)
    assert changed(model) == {"embed.W_E", "unembed.W_U"}
    tied = fresh(dataclasses.replace(CONFIG, tied=True))
    assert torch.equal(started(recipe, model=tied).embed.W_E[0], tied.embed.W_E[5])


def test_positions_are_sinusoids_free_of_mean():
    model = started(PositionCode(rms=0.3))
    rows = model.pos_embed.W_pos.detach().double()
    assert changed(model) == {"pos_embed.W_pos"}
    assert rms(rows) == pytest.approx(0.3, rel=1e-4)
    assert rows.mean(1).abs().max() < 1e-6
    # The product of two positions depends on their distance alone.
    product = rows @ rows.T
    torch.testing.assert_close(product.diagonal(3), product[0, 3].expand(len(rows) - 3), rtol=1e-4, atol=1e-6)
    assert product[0, 0] > product[0, 1:].max()


@pytest.mark.parametrize(("spacing", "last"), [("pairs", 100.0 ** (-6 / 7)), ("paper", 100.0 ** (-2 * 6 / 16))])
def test_sinusoids_have_the_frequencies_of_their_spacing(spacing, last):
    """d_model 16 has 7 pairs of directions; the product of two positions is the sum of cosines of their distance."""
    recipe = PositionCode(rms=0.3, base=100.0, spacing=spacing)
    rows = started(recipe).pos_embed.W_pos.detach().double()
    frequencies = last ** (torch.arange(7, dtype=torch.float64) / 6)
    cosines = (torch.arange(20)[:, None] * frequencies).cos().mean(1)
    product = rows @ rows.T
    torch.testing.assert_close(product[0, :20] / product[0, 0], cosines, rtol=1e-3, atol=1e-3)
    # The default is no part of the hashed config: runs from before there was a choice keep their ids.
    assert ("spacing" in to_dict(recipe, hashed_only=True)) == (spacing == "paper")


def test_the_paper_s_mimetic_circuits_are_noise_beside_the_identity_of_a_layer():
    recipe = MimeticPaper(
        query_key_noise=0.0, query_key_identity=0.7, value_output_noise=0.0, value_output_identity=0.4
    )
    model = started(recipe)
    assert changed(model) == {f"blocks.{i}.attn.{name}" for i in (0, 1) for name in ("W_Q", "W_K", "W_V", "W_O")}
    attn = model.block(1).attn
    torch.testing.assert_close((attn.W_V @ attn.W_O).sum(0).detach(), -0.4 * torch.eye(16), rtol=1e-4, atol=1e-5)
    query_key = (attn.W_Q @ attn.W_K.mT).detach()
    for circuit in query_key:  # the identity, cut to d_head directions
        torch.testing.assert_close(circuit @ circuit, 0.7 * circuit, rtol=1e-4, atol=1e-5)
        assert circuit.trace().item() == pytest.approx(0.7 * 4, rel=1e-4)
    assert MimeticPaper.fit([model]) == recipe


def test_the_paper_s_mimetic_noise_is_new_in_each_layer_and_head():
    recipe = MimeticPaper(
        query_key_noise=0.7, query_key_identity=0.7, value_output_noise=0.4, value_output_identity=0.4
    )
    model = started(recipe)
    sums = torch.stack([(block.attn.W_V @ block.attn.W_O).sum(0).detach() for block in map(model.block, range(2))])
    noise = sums + 0.4 * torch.eye(16)
    assert noise.square().mean(dim=(1, 2)).sqrt().tolist() == pytest.approx([0.4 / 4] * 2, rel=0.2)
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 0.3
    # The 4 strongest of 16 directions of each head's own matrix.
    values = torch.linalg.svdvals((model.block(0).attn.W_Q @ model.block(0).attn.W_K.mT).detach())
    assert (values[:, 3] > 0.5).all()
    assert values[:, 4].max() < 1e-5
    assert not torch.allclose(model.block(0).attn.W_Q[0], model.block(0).attn.W_Q[1])
    assert from_dict(Intervention, to_dict(recipe)) == recipe
    fitted = MimeticPaper.fit([model])
    assert fitted.value_output_noise == pytest.approx(0.4, rel=0.2)
    assert fitted.value_output_identity == pytest.approx(0.4, abs=0.1)


def test_a_head_reads_the_previous_position():
    recipe = PositionCode(rms=0.3, kind="previous", lead=3.0, head=2)
    scale = TensorScale(rms=(("blocks.0.ln1.w", 0.4), ("embed.W_E", 1e-4)))
    model = started(scale, recipe)
    attn = model.block(0).attn
    x = model.block(0).ln1(model.pos_embed.W_pos[None])[0].detach()
    scores = (x @ attn.W_Q[2]) @ (x @ attn.W_K[2]).T / 2
    hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
    pattern = scores.masked_fill(hidden, -torch.inf)
    assert pattern[2:].argmax(1).tolist() == list(range(1, len(x) - 1))
    query = len(x) - 1
    others = torch.cat([scores[query, : query - 1], scores[query, query:]])
    assert (scores[query, query - 1] - others.max()).item() >= 3.0 - 1e-2
    assert changed(model) == {
        "pos_embed.W_pos",
        "blocks.0.attn.W_Q",
        "blocks.0.attn.W_K",
        "blocks.0.ln1.w",
        "embed.W_E",
    }
    assert torch.equal(attn.W_Q[1], fresh().block(0).attn.W_Q[1])


def test_recipes_are_done_in_order_and_are_part_of_the_identity():
    small, large = (TensorScale(rms=(("pos_embed.W_pos", size),)) for size in (0.1, 0.7))
    assert rms(started(small, large).pos_embed.W_pos) == pytest.approx(0.7, rel=1e-4)
    assert rms(started(large, small).pos_embed.W_pos) == pytest.approx(0.1, rel=1e-4)
    for each in (small, Mimetic.fit(phase1()), LowRankIdentity.fit(phase1()), SpectrumLaw.fit(phase1())):
        assert from_dict(Intervention, to_dict(each)) == each


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (TensorScale(rms=(("blocks.7.attn.W_Q", 1.0),)), "unknown tensor 'blocks.7.attn.W_Q'"),
        (SpectrumLaw(law=(("embed", 1.0, 1.0),)), "unknown tensor 'embed'"),
        (TensorScale(rms=(("embed.W_E", -1.0),)), "rms of embed.W_E is negative"),
        (SpectrumLaw(law=(("embed.W_E", -1.0, 1.0),)), "top of embed.W_E is negative"),
        (
            Mimetic(
                query_key_norm=((1.0,),),
                query_key_share=((1.0,),),
                value_output_norm=((1.0,),),
                value_output_share=((1.0,),),
            ),
            "query_key_norm needs 4 numbers in each of 2 layers",
        ),
        (
            LowRankIdentity(
                query_key_strength=(1.0,),
                query_key_values=((1.0,),),
                value_output_strength=(1.0,),
                value_output_values=((1.0,),),
            ),
            "an entry for each of 2 layers",
        ),
        (
            MimeticPaper(
                query_key_noise=-1.0, query_key_identity=1.0, value_output_noise=0.0, value_output_identity=0.0
            ),
            "query_key_noise=-1.0",
        ),
        (PositionCode(rms=-1.0), "rms=-1.0"),
        (PositionCode(rms=1.0, head=9), "head=9"),
        (MeanEmbedding(rms=1.0, selector="nothing"), "nothing"),
    ],
)
def test_what_cannot_be_written_is_refused(recipe, words):
    with pytest.raises(ValueError, match=words):
        started(recipe)


def test_a_share_beyond_one_is_refused():
    one = ((1.0,) * 4,) * 2
    recipe = Mimetic(
        query_key_norm=one, query_key_share=((1.2,) * 4,) * 2, value_output_norm=one, value_output_share=one
    )
    with pytest.raises(ValueError, match=r"a share is in \[-1, 1\]"):
        started(recipe)
    single = fresh(dataclasses.replace(CONFIG, n_heads=1))
    few = ((1.0,),) * 2
    recipe = Mimetic(query_key_norm=few, query_key_share=few, value_output_norm=few, value_output_share=few)
    with pytest.raises(ValueError, match="two heads or more"):
        started(recipe, model=single)


def test_two_recipes_of_one_kind_draw_apart():
    """Biases are 0 in a fresh model, so their scale wants a draw: one for both had made tensors of two kinds equal."""
    names = ("blocks.0.attn.b_Q", "blocks.0.ln1.b")
    recipes = tuple(TensorScale(selector="all", rms=((name, 0.1),)) for name in names)
    config = TrainConfig(interventions=recipes).resolve(CONFIG)
    assert [each.place for each in config.interventions] == [0, 1]
    alone = TrainConfig(interventions=recipes[1:]).resolve(CONFIG)
    assert alone.interventions == recipes[1:]  # one alone has the name and the draw that it always had

    model = started(*config.interventions)
    first, second = (model.get_parameter(name).detach().flatten() for name in names)
    assert first.any()
    assert second.any()
    assert not torch.allclose(first[: len(second)], second[: len(first)])


def test_frequencies_are_exchanged_where_there_are_too_many_choices():
    """At d_model 64 with 4 heads there are 8 million; at fewer, exchanging comes near what trying all of them gives."""
    frequencies = [10_000 ** -(i / 31) for i in range(31)]
    picked, gap = _telling_apart(frequencies, 8, 64)
    assert len({*picked}) == 8
    assert gap > 0.1
    few = frequencies[:12]
    best, largest = _telling_apart(few, 4, 64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procpre_interp.train.closed_form.positions.MOST_PICKS", 0)
        exchanged, near = _telling_apart(few, 4, 64)
    assert len({*best}) == len({*exchanged}) == 4
    assert 0.9 * largest < near <= largest
