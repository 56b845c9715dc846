"""CKA and overlaps against Gram matrices and numpy, their invariances; logit lens and attribution against the model."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from transformer_lens.tools.analysis import direct_logit_attribution

from procpre_interp.core.seeding import numpy_stream, stream
from procpre_interp.data import Batch
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, from_huggingface, select, to_huggingface
from procpre_interp.probe.lens import direct_logit_attribution_table, logit_lens_table
from procpre_interp.probe.representation import activations, cka, hsic, real_positions, residual_sites, subspace_overlap
from tests.models import TINY, random_model, random_tokens


def ragged_batch(n: int = 12) -> Batch:
    tokens = random_tokens(batch=n, length=8)
    lengths = torch.randint(3, 9, (n,), generator=stream(0, "lengths"))
    return Batch.from_sequences(tokens, lengths, 0, 0)


def rows(cache, batch: Batch, name: str) -> np.ndarray:
    """A plain loop over the real tokens."""
    return np.array([cache[name][i, t].flatten().tolist() for i, n in enumerate(batch.lengths) for t in range(n)])


def hsic_from_gram_matrices(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, equation 5, as it stands there."""
    kx, ky, n = x @ x.T, y @ y.T, len(x)
    np.fill_diagonal(kx, 0)
    np.fill_diagonal(ky, 0)
    one = np.ones(n)
    middle = (one @ kx @ one) * (one @ ky @ one) / (n - 1) / (n - 2)
    return (np.trace(kx @ ky) + middle - 2 / (n - 2) * (one @ kx @ ky @ one)) / n / (n - 3)


def as_tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x)


def test_activations_against_the_cache_whatever_the_blocks():
    model, batch = random_model(), ragged_batch()
    _, cache = model.run_with_cache(batch.tokens)
    hooks = {
        "resid_pre.0": "blocks.0.hook_resid_pre",
        "mlp_out.1": "blocks.1.hook_mlp_out",
        "z.1": "blocks.1.attn.hook_z",
    }
    for size in (5, 64):
        found = activations(model, batch.tokens, real_positions(batch), [*hooks, "z.1.2"], max_sequences=size)
        for site, name in hooks.items():
            assert np.allclose(found[site].numpy(), rows(cache, batch, name), atol=1e-5)
        assert torch.equal(found["z.1.2"], found["z.1"][:, 8:])


@pytest.mark.parametrize("site", ["resid_pre", "resid_pre.2", "resid_pre.0.1", "z.0.3", "z.0.1.1", "z.-1", "z.x"])
def test_a_site_that_does_not_exist_says_how_to_write_it(site):
    with pytest.raises(ValueError, match=r"write (resid_pre|z)\.layer.*2 layers and 3 heads"):
        activations(random_model(), random_tokens(), torch.ones(3, 7, dtype=torch.bool), [site])


def test_an_unknown_point_lists_the_points():
    with pytest.raises(ValueError, match=r"unknown activation 'resid_pro'. Did you mean 'resid_pre'"):
        activations(random_model(), random_tokens(), torch.ones(3, 7, dtype=torch.bool), ["resid_pro.0"])


def test_hsic_against_gram_matrices():
    numbers = numpy_stream(0, "hsic")
    for n, (dx, dy) in itertools.product((4, 5, 30), ((1, 3), (6, 40))):
        x, y = 3 + numbers.normal(size=(n, dx)), numbers.normal(size=(n, dy)) - 7
        y[:, 0] += x[:, 0]
        expected = hsic_from_gram_matrices(x, y)
        assert hsic(as_tensor(x), as_tensor(y)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_hsic_of_independent_rows_is_0_in_the_mean():
    """Where the biased estimate, |X^T Y|^2 / (n-1)^2, is far above 0."""
    numbers = numpy_stream(0, "independent")
    values, biased = [], []
    for _ in range(2000):
        x, y = numbers.normal(size=(10, 5)), numbers.normal(size=(10, 8))
        values.append(hsic(as_tensor(x), as_tensor(y)))
        biased.append((((x - x.mean(0)).T @ (y - y.mean(0))) ** 2).sum() / 81)
    assert abs(np.mean(values)) < 4 * np.std(values) / 2000**0.5
    assert np.mean(biased) > 20 * np.std(biased) / 2000**0.5


def test_cka_against_gram_matrices_at_real_tokens():
    first, second, batch = random_model(), random_model(dataclasses.replace(TINY, d_model=6), seed=1), ragged_batch()
    table = cka(first, second, batch, max_sequences=5)
    caches = [model.run_with_cache(batch.tokens)[1] for model in (first, second)]
    names = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    sites = residual_sites(2, mid=False)
    assert table[["site", "other"]].to_numpy().tolist() == [list(pair) for pair in itertools.product(sites, sites)]
    assert set(table["n"]) == {int(batch.lengths.sum())}
    for value, (name, other) in zip(table["cka"], itertools.product(names, names)):
        x, y = rows(caches[0], batch, name), rows(caches[1], batch, other)
        own = hsic_from_gram_matrices(x, x) * hsic_from_gram_matrices(y, y)
        assert value == pytest.approx(hsic_from_gram_matrices(x, y) / own**0.5, abs=1e-5)
    few, lengths = 0, batch.lengths.tolist()
    while few + lengths[0] <= 20:
        few += lengths.pop(0)
    assert set(cka(first, second, batch, max_positions=20)["n"]) == {few}


def test_cka_of_a_model_with_itself_is_1():
    model, batch = random_model(), ragged_batch()
    table = cka(model, model, batch, sites=["resid_pre.0", "z.1.0", "mlp_out.1"])
    same = table["site"] == table["other"]
    assert table.loc[same, "cka"].tolist() == pytest.approx([1.0] * 3, abs=1e-12)
    assert table.loc[~same, "cka"].abs().max() < 0.999
    values = table.pivot(index="site", columns="other", values="cka").to_numpy()
    assert np.allclose(values, values.T)


def turned(model: HookedTransformer, by: torch.Tensor) -> HookedTransformer:
    """A model whose embeddings are multiplied by a matrix."""
    other = random_model(model.config)
    with torch.no_grad():
        other.flat.copy_(model.flat)
        for weights in (other.embed.W_E, other.pos_embed.W_pos):
            weights.copy_(weights @ by)
    return other


def test_a_rotation_and_a_scale_change_the_overlap_and_not_cka():
    model, batch = random_model(), ragged_batch()
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=stream(0, "rotation")))[0]
    other = turned(model, 3 * rotation)
    assert cka(model, other, batch, sites=["resid_pre.0"])["cka"].item() == pytest.approx(1, abs=1e-6)
    overlap = subspace_overlap(model, other, batch, rank=3, sites=["resid_pre.0"]).iloc[0]
    assert 0.02 < overlap["overlap"] < 0.6
    assert overlap["variance_share"] == pytest.approx(overlap["other_variance_share"], abs=1e-6)
    stretched = turned(model, torch.diag(torch.linspace(0.1, 3, 12)))
    assert cka(model, stretched, batch, sites=["resid_pre.0"])["cka"].item() < 0.95


def test_overlap_against_numpy():
    first, second, batch = random_model(), random_model(seed=1), ragged_batch()
    table = subspace_overlap(first, second, batch, rank=2)
    caches = [model.run_with_cache(batch.tokens)[1] for model in (first, second)]
    for site, row in table.set_index("site").iterrows():
        point, layer = str(site).split(".")
        bases, shares = [], []
        for cache in caches:
            x = rows(cache, batch, f"blocks.{layer}.hook_{point}")
            _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
            bases.append(vt[:2])
            shares.append((s[:2] ** 2).sum() / (s**2).sum())
        cosines = np.linalg.svd(bases[0] @ bases[1].T)[1]
        assert row["overlap"] == pytest.approx((cosines**2).mean(), abs=1e-5)
        assert row["chance"] == pytest.approx(2 / 12)
        assert [row["variance_share"], row["other_variance_share"]] == pytest.approx(shares, abs=1e-5)
    assert subspace_overlap(first, first, batch, rank=4)["overlap"].tolist() == pytest.approx([1.0] * 3)


def test_representations_refuse_what_they_cannot_compare():
    model, batch = random_model(), ragged_batch()
    short = Batch.from_sequences(random_tokens(batch=1, length=3), torch.tensor([3]), 0, 0)
    with pytest.raises(ValueError, match="3 tokens; CKA needs at least 4"):
        cka(model, model, short)
    with pytest.raises(ValueError, match=r"rank=13; rank must be in 1..12"):
        subspace_overlap(model, model, batch, rank=13)
    with pytest.raises(ValueError, match=r"rank=0; rank must be in 1..12"):
        subspace_overlap(model, model, batch, rank=0)
    narrow = random_model(dataclasses.replace(TINY, d_model=6))
    with pytest.raises(ValueError, match=r"resid_pre.0 has 12 and 6 dimensions"):
        subspace_overlap(model, narrow, batch, rank=2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_likeness(dtype):
    """HSIC(X, X) is 0 where all tokens but one are alike, and what rounding makes of it has either sign."""
    for seed in range(54):
        model, differs = random_model(seed=seed).to(dtype), seed % 9
        with torch.no_grad():
            model.pos_embed.W_pos.zero_()
        tokens = torch.full((1, 8), seed % 11)
        if differs < 8:
            tokens[0, differs] = (seed + 1) % 11
        batch = Batch(tokens, tokens, tokens >= 0, torch.tensor([8]))
        table = cka(model, model, batch, sites=["resid_pre.0", "q.0", "mlp_out.1"])
        assert table["cka"].dtype == float
        alone = differs >= 7  # the last, or none: no other token attends to it
        undefined = table.isin(["resid_pre.0", "q.0"])[["site", "other"]].any(axis=1) | alone
        assert table["cka"].isna().tolist() == undefined.tolist()
        assert ((table["cka"].abs() <= 1 + 1e-9) | undefined).all()


def test_small_differences_are_more_than_rounding():
    model, batch = random_model(), ragged_batch()
    with torch.no_grad():
        model.embed.W_E.mul_(1e-3).add_(1)
        model.pos_embed.W_pos.mul_(1e-3)
    table = cka(model, model, batch)
    assert table.loc[table["site"] == table["other"], "cka"].tolist() == pytest.approx([1.0] * 3, abs=1e-9)


def test_a_constant_site_has_no_cka():
    model = random_model()
    with torch.no_grad():
        model.blocks[0].attn.W_O.zero_()  # what attention adds is its bias
    table = cka(model, model, ragged_batch(), sites=["attn_out.0", "resid_pre.0"])
    assert table["cka"].isna().tolist() == [True, True, True, False]


def some_pairs(n: int = 9) -> Pairs:
    numbers = stream(0, "pairs")
    answers, step = (torch.randint(low, 11, (n,), generator=numbers) for low in (0, 1))
    positions = torch.randint(0, 7, (n,), generator=numbers)
    return Pairs(random_tokens(batch=n), random_tokens(batch=n, seed=1), positions, answers, (answers + step) % 11)


def differences(logits: torch.Tensor, pairs: Pairs) -> list[float]:
    """The logit difference of each pair, by a plain loop."""
    places = enumerate(zip(pairs.positions.tolist(), pairs.answers.tolist(), pairs.wrong.tolist()))
    return [(logits[i, t, answer] - logits[i, t, wrong]).item() for i, (t, answer, wrong) in places]


MODELS = {
    "random": random_model,
    "tied": lambda: random_model(dataclasses.replace(TINY, tied=True)),
    "from_huggingface": lambda: from_huggingface(to_huggingface(random_model(seed=3))),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_attributions_add_up_to_the_logit_difference(make):
    model, pairs = make(), some_pairs()
    for size in (4, 64):
        table = direct_logit_attribution_table(model, pairs, max_pairs=size)
        expected = np.mean(differences(model(pairs.clean), pairs))
        assert table["value"].sum() == pytest.approx(expected, abs=1e-4)
        assert abs(expected) > 1e-2
        assert set(table["n_pairs"]) == {9}


def test_each_attribution_is_what_removing_it_from_the_last_stream_takes_away():
    model, pairs = random_model(), some_pairs()
    table = direct_logit_attribution_table(model, pairs).set_index("component")["value"]
    model.set_use_attn_result(True)
    _, cache = model.run_with_cache(pairs.clean)
    w, scale = model.ln_final.w, cache["ln_final.hook_scale"]
    outputs = {
        "embed": cache["hook_embed"] + cache["hook_pos_embed"],
        "attn.b_O": (model.b_O[0] + model.b_O[1]).expand(9, 7, 12),
        "ln_final.b": None,
    }
    for layer in range(2):
        outputs[f"blocks.{layer}.mlp"] = cache["mlp_out", layer]
        for head in range(3):
            outputs[f"blocks.{layer}.attn.head.{head}"] = cache["result", layer][:, :, head]
    assert set(outputs) == set(table.index)
    for component, x in outputs.items():
        read = model.ln_final.b if x is None else (x - x.mean(-1, keepdim=True)) / scale * w
        logits = (read @ model.W_U).expand(9, 7, 11)
        assert table[component] == pytest.approx(np.mean(differences(logits, pairs)), abs=1e-5)
        assert select(model.config, component)


def test_attributions_agree_with_upstream_where_the_last_layernorm_is_plain():
    model, pairs = random_model(), dataclasses.replace(some_pairs(), positions=torch.full((9,), 6))
    with torch.no_grad():
        model.ln_final.w.fill_(1.0)
        model.ln_final.b.zero_()
    table = direct_logit_attribution_table(model, pairs).set_index("component")["value"]
    theirs = direct_logit_attribution(model, pairs.clean, pairs.answers, pairs.wrong)
    values = dict(zip(theirs.labels, theirs.attribution.mean(1).tolist()))
    assert table["embed"] == pytest.approx(values["embed"] + values["pos_embed"], abs=1e-5)
    for layer in range(2):
        assert table[f"blocks.{layer}.mlp"] == pytest.approx(values[f"{layer}_mlp_out"], abs=1e-5)
    heads = table[table.index.str.contains("head")].sum() + table["attn.b_O"]
    assert heads == pytest.approx(values["0_attn_out"] + values["1_attn_out"], abs=1e-5)
    assert table["ln_final.b"] == 0


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_the_logit_lens_against_a_plain_loop(make):
    model, pairs = make(), some_pairs()
    _, cache = model.run_with_cache(pairs.clean)
    states = ["resid_pre", "resid_mid", "resid_post", "resid_mid", "resid_post"]
    for size in (4, 64):
        table = logit_lens_table(model, pairs, max_pairs=size)
        assert table["site"].tolist() == residual_sites(2)
        for row, state in zip(table.itertuples(), states):
            logits = model.unembed(model.ln_final(cache[state, row.layer]))
            best = logits.argmax(-1)[torch.arange(9), pairs.positions]
            assert row.value == pytest.approx(np.mean(differences(logits, pairs)), abs=1e-5)
            assert row.accuracy == pytest.approx((best == pairs.answers).double().mean().item())
            assert row.n_pairs == 9
        last = table["value"].iloc[-1]
        assert last == pytest.approx(np.mean(differences(model(pairs.clean), pairs)), abs=1e-5)


def test_a_readout_needs_pairs():
    for table in (logit_lens_table, direct_logit_attribution_table):
        with pytest.raises(ValueError, match="there are no pairs"):
            table(random_model(), some_pairs()[:0])
