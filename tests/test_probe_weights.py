"""Weight tables against numpy and by hand, composition against upstream, drift of planted changes."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from transformer_lens import FactoredMatrix
from transformer_lens.utilities import composition_scores as upstream_scores

from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig, select
from procpre_interp.probe.weights import composition_scores, drift, spectra, weight_table
from tests.models import TINY, random_model


def matrix(model: HookedTransformer, row) -> np.ndarray:
    """A row's matrix, looked up without the library's tables."""
    attn = f"blocks.{row.layer}.attn"
    parameters = {name: value.detach().double().numpy() for name, value in model.named_parameters()}
    if row.matrix == "QK":
        return parameters[f"{attn}.W_Q"][row.head] @ parameters[f"{attn}.W_K"][row.head].T
    if row.matrix == "OV":
        return parameters[f"{attn}.W_V"][row.head] @ parameters[f"{attn}.W_O"][row.head]
    if ".head." in row.name:
        return parameters[f"{attn}.{row.matrix}"][row.head]
    return parameters[row.name]


def test_the_table_against_numpy():
    model = random_model()
    table = weight_table(model)
    assert len(table) == 2 * (3 * 6 + 2) + 3
    for row in table.itertuples():
        w = matrix(model, row)
        p = [s * s for s in np.linalg.svd(w)[1] if s > 1e-9]
        entropy = -sum(x / sum(p) * math.log(x / sum(p)) for x in p)
        assert row.frobenius == pytest.approx(np.linalg.norm(w), rel=1e-6)
        assert row.spectral == pytest.approx(np.linalg.norm(w, 2), rel=1e-6)
        assert row.stable_rank == pytest.approx(sum(p) / max(p), rel=1e-6)
        assert row.effective_rank == pytest.approx(math.exp(entropy), rel=1e-6)
        assert row.rms == pytest.approx(math.sqrt((w**2).mean()), rel=1e-6)
        assert row.n_entries == w.size


def test_components_are_selectors():
    table = weight_table(random_model())
    assert set(table["component"]) == {
        *(f"blocks.{layer}.attn.head.{head}" for layer in range(2) for head in range(3)),
        *("blocks.0.mlp", "blocks.1.mlp", "embed", "pos", "unembed"),
    }
    for name in table.loc[~table["matrix"].isin(["QK", "OV"]), "name"]:
        assert select(TINY, name)
    assert table["head"].isna().sum() == 7
    assert str(table["head"].dtype) == str(table["layer"].dtype) == "Int64"


def test_known_spectra_by_hand():
    model = random_model()
    with torch.no_grad():
        model.blocks[0].mlp.W_in.zero_()
        model.blocks[0].mlp.W_in[0, 0], model.blocks[0].mlp.W_in[1, 1] = 4.0, 3.0
        model.blocks[1].mlp.W_in.copy_(2 * torch.eye(12, 48))
        model.blocks[0].mlp.W_out.zero_()
    table = weight_table(model).set_index("name")
    two, even = table.loc["blocks.0.mlp.W_in"], table.loc["blocks.1.mlp.W_in"]
    assert (two.frobenius, two.spectral) == (5, 4)
    assert two.stable_rank == pytest.approx(25 / 16)
    assert two.effective_rank == pytest.approx((25 / 16) ** (16 / 25) * (25 / 9) ** (9 / 25))
    assert two.rms == pytest.approx(5 / 24)
    assert (even.stable_rank, even.effective_rank) == (pytest.approx(12), pytest.approx(12))
    zero = table.loc["blocks.0.mlp.W_out"]
    assert zero.frobenius == 0
    assert math.isnan(zero.stable_rank)
    assert math.isnan(zero.effective_rank)
    values = spectra(model)
    assert values.loc[values["name"] == "blocks.0.mlp.W_in", "singular_value"].tolist() == [4, 3] + [0] * 10


def test_spectra_agree_with_the_table():
    model = random_model()
    values = spectra(model)
    energy = values.assign(energy=values["singular_value"] ** 2).groupby("name")["energy"].sum() ** 0.5
    table = weight_table(model).set_index("name")
    assert energy.sub(table["frobenius"]).abs().max() < 1e-9
    assert (values.groupby("name")["singular_value"].diff().dropna() <= 1e-12).all()
    qk = values[values["name"] == "blocks.1.attn.head.2.QK"]
    assert qk["index"].tolist() == [0, 1, 2, 3]


def test_a_tied_unembedding_is_no_second_matrix():
    model = random_model(dataclasses.replace(TINY, tied=True))
    assert "W_U" not in set(weight_table(model)["matrix"])
    assert "W_U" not in set(drift(model, model)["matrix"])


def test_composition_against_a_plain_loop_and_upstream():
    config = dataclasses.replace(TINY, n_layers=3)
    model = random_model(config)
    table = composition_scores(model).set_index(["kind", "layer", "head", "to_layer", "to_head"])
    assert len(table) == 3 * 3 * 9
    theirs = {
        "q": upstream_scores(model.OV, model.QK),
        "k": upstream_scores(model.OV, model.QK.T),
        "v": upstream_scores(model.OV, model.OV),
    }
    w = {name: getattr(model, f"W_{name}").detach().double().numpy() for name in "QKVO"}
    for (kind, *place), row in table.iterrows():
        assert row.score == pytest.approx(theirs[kind][tuple(place)].item(), rel=1e-4)
        layer, head, to_layer, to_head = place
        assert layer < to_layer
        a = w["V"][layer, head] @ w["O"][layer, head]
        b = {
            "q": w["Q"][to_layer, to_head] @ w["K"][to_layer, to_head].T,
            "k": w["K"][to_layer, to_head] @ w["Q"][to_layer, to_head].T,
            "v": w["V"][to_layer, to_head] @ w["O"][to_layer, to_head],
        }[kind]
        assert row.score == pytest.approx(np.linalg.norm(a @ b) / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-6)
    assert len(composition_scores(random_model(dataclasses.replace(TINY, n_layers=1)))) == 0


def test_a_head_that_reads_another_composes_with_it_alone():
    model = random_model()
    with torch.no_grad():
        first, second = model.blocks[0].attn, model.blocks[1].attn
        first.W_O[0].zero_()
        first.W_O[0, :, :4] = torch.eye(4)  # head 0 writes into dimensions 0..3
        second.W_K[1].zero_()
        second.W_K[1, 1, 0] = 1.0  # key of head 1 reads dimension 1 and nothing else
        second.W_K[2].zero_()
        second.W_K[2, 7, 0] = 1.0  # key of head 2 reads where head 0 does not write
    table = composition_scores(model).set_index(["kind", "layer", "head", "to_layer", "to_head"])["score"]
    w_v = first.W_V[0].detach()
    assert table["k", 0, 0, 1, 1] == pytest.approx(float(w_v[:, 1].norm() / w_v.norm()), rel=1e-5)
    assert table["k", 0, 0, 1, 2] == 0


def test_the_baseline_is_the_score_of_matrices_turned_at_random():
    model = random_model()
    with torch.no_grad():  # far from even singular values: the baseline must not mind
        model.blocks[0].attn.W_V[:, :, 0] *= 10
    ov, qk = model.OV[0], model.QK[1]
    squares = []
    generator = stream(0, "turns")
    for _ in range(500):
        turn = torch.linalg.qr(torch.randn(12, 12, generator=generator))[0]
        squares.append(upstream_scores(FactoredMatrix(ov.A, ov.B @ turn), qk).square().mean().item())
    assert composition_scores(model)["baseline"].unique() == pytest.approx(np.mean(squares) ** 0.5, rel=0.02)


def test_no_change_is_no_drift():
    model = random_model()
    table = drift(model, model)
    assert (table["relative_change"] == 0).all()
    assert table["cosine"].sub(1).abs().max() < 1e-12
    assert table["in_subspace"].isna().all()
    assert (table["note"] == "").all()


def test_drift_against_a_plain_loop():
    before, after = random_model(), random_model(seed=1)
    names = list(weight_table(before)["name"])
    for rank in (None, 2):
        table = drift(before, after, rank=rank)
        assert table["name"].tolist() == names
        for row in table.itertuples():
            w, new = matrix(before, row), matrix(after, row)
            change = new - w
            u, s, vt = np.linalg.svd(w)
            r = rank or next(i for i in range(1, len(s) + 1) if (s[:i] ** 2).sum() >= 0.9 * (s**2).sum())
            turned = change - w * (change * w).sum() / (w * w).sum()
            assert row.rank == r
            assert row.relative_change == pytest.approx(np.linalg.norm(change) / np.linalg.norm(w), rel=1e-6)
            cosine = (w * new).sum() / np.linalg.norm(w) / np.linalg.norm(new)
            assert row.cosine == pytest.approx(cosine, abs=1e-6)
            for value, x in ((row.in_subspace, change), (row.turned_in_subspace, turned)):
                inside = u[:, :r] @ u[:, :r].T @ x @ vt[:r].T @ vt[:r]
                assert value == pytest.approx((np.linalg.norm(inside) / np.linalg.norm(x)) ** 2, rel=1e-6)
            assert row.expected == pytest.approx(r * r / w.size)


def changed(model: HookedTransformer, change) -> HookedTransformer:
    other = random_model(model.config)
    with torch.no_grad():
        other.flat.copy_(model.flat)
        for parameter in (other.blocks[0].mlp.W_in, other.blocks[1].mlp.W_in):
            parameter.copy_(change(parameter))
    return other


def test_planted_changes_lie_where_they_were_planted():
    model = random_model(ModelConfig(n_layers=2, n_heads=2, d_model=24, n_ctx=4, d_vocab=5))
    rows = ["blocks.0.mlp.W_in", "blocks.1.mlp.W_in"]

    def along_the_top(w):
        u, _, vt = torch.linalg.svd(w, full_matrices=False)
        return w + 0.1 * u[:, :3] @ torch.randn(3, 3, generator=stream(0, "core")) @ vt[:3]

    def along_the_bottom(w):
        u, _, vt = torch.linalg.svd(w, full_matrices=False)
        return w + 0.1 * u[:, -3:] @ vt[-3:]

    top = drift(model, changed(model, along_the_top), rank=3).set_index("name").loc[rows]
    assert top["in_subspace"].sub(1).abs().max() < 1e-6
    bottom = drift(model, changed(model, along_the_bottom), rank=3).set_index("name").loc[rows]
    assert bottom["in_subspace"].max() < 1e-6
    noise = changed(model, lambda w: w + 0.1 * torch.randn(w.shape, generator=stream(1, "noise")))
    table = drift(model, noise, rank=12).set_index("name").loc[rows]
    assert table["expected"].unique() == pytest.approx(0.0625)
    assert table["in_subspace"].tolist() == pytest.approx([0.0625] * 2, abs=0.025)
    anew = changed(model, lambda w: 0.5 * torch.randn(w.shape, generator=stream(2, "anew")))
    table = drift(model, anew, rank=12).set_index("name").loc[rows]
    assert table["in_subspace"].min() > 0.15  # -W, which it replaces
    assert table["turned_in_subspace"].tolist() == pytest.approx([0.0625] * 2, abs=0.025)


def test_another_vocabulary_is_noted_and_other_blocks_are_refused():
    before = random_model()
    after = random_model(dataclasses.replace(TINY, d_vocab=13, n_ctx=20))
    table = drift(before, after).set_index("name")
    noted = table[table["note"] != ""]
    assert list(noted.index) == ["embed.W_E", "pos_embed.W_pos", "unembed.W_U"]
    assert noted.loc["embed.W_E", "note"] == "shape (11, 12) before, (13, 12) after"
    assert noted[["relative_change", "in_subspace", "rank"]].isna().all().all()
    assert table[table["note"] == ""]["relative_change"].notna().all()
    with pytest.raises(ValueError, match=r"d_hidden=48 before and 24 after; to compare them takes equal blocks"):
        drift(before, random_model(dataclasses.replace(TINY, d_mlp=24)))
    with pytest.raises(ValueError, match=r"rank=0; rank must be at least 1"):
        drift(before, before, rank=0)
