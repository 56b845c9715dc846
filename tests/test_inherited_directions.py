"""Directions that training began with, taken out of finished models: against projections by hand, and models of which
it is known whether they need them."""

import itertools

import pandas as pd
import pytest
import torch

from procpre_interp.ablate import LowRank, WithoutStrongest
from procpre_interp.analysis.inherited_directions import HELD, InheritedProbe, inherited_directions, what_goes
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.probe import Probed
from procpre_interp.train import evaluate

TASK = TASKS.build("dyck", k=2, length=16)
CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
GENERATOR = stream(9, "unused")


def fresh(seed: int) -> HookedTransformer:
    model = HookedTransformer(CONFIG, generator=stream(seed, "inherited"))
    with torch.no_grad():  # so large that weights matter
        for name, x in model.named_parameters():
            if ".W_" in name:
                x *= 10
    return model


@pytest.fixture
def batch():
    return TASK.batch(40, generator=stream(1, "inherited"))


def matrix(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=stream(seed, "matrix"), dtype=torch.float64)


def test_what_goes_is_the_part_between_the_held_directions():
    before, after = matrix(6, 4), matrix(6, 4, seed=1)
    u, s, vh = torch.linalg.svd(before)
    rank = 1 + int((s.square().cumsum(0) / s.square().sum() < 0.9).sum())
    assert 1 < rank < 4
    by_hand = sum(
        (u[:, i] @ after @ vh[j]) * torch.outer(u[:, i], vh[j]) for i, j in itertools.product(range(rank), repeat=2)
    )
    gone = what_goes(before, after, 0.9, "inherited", GENERATOR)
    torch.testing.assert_close(gone, by_hand)
    rest = after - gone
    torch.testing.assert_close(u[:, :rank].T @ rest @ vh[:rank].T, torch.zeros(rank, rank, dtype=torch.float64))
    own = what_goes(before, after, 0.9, "own", GENERATOR)
    assert torch.linalg.matrix_rank(own) == rank
    assert torch.linalg.matrix_rank(after - own, rtol=1e-9) == 4 - rank
    noise = what_goes(before, after, 0.9, "noise", stream(2, "noise"))
    assert noise.norm().item() == pytest.approx(gone.norm().item())
    assert torch.linalg.matrix_rank(what_goes(before, after, 0.9, "random", stream(2, "random"))) == rank


def test_each_head_has_ranks_of_its_own_and_zeros_have_none():
    # One strong direction, four equal ones, none.
    before = torch.zeros(3, 6, 4, dtype=torch.float64)
    before[0, :4] = torch.diag(torch.tensor([9.0, 1, 1, 1], dtype=torch.float64))
    before[1, :4] = torch.eye(4, dtype=torch.float64)
    after = matrix(3, 6, 4)
    for kind in ("inherited", "own", "random"):
        gone = what_goes(before, after, 0.9, kind, stream(2, "random"))
        assert [int(torch.linalg.matrix_rank(each)) for each in gone] == [1, 4, 0]
    assert not what_goes(before, after, 0.9, "noise", stream(2, "noise"))[2].any()


def test_the_table_is_the_losses_of_copies_by_hand(batch):
    start, finished = fresh(0), fresh(1)
    table = inherited_directions(start, finished, batch, n_draws=2).set_index(["component", "held"])
    parts = [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attn", "mlp.W_in", "mlp.W_out")]
    assert list(table.index) == list(itertools.product([*parts, "blocks"], HELD))
    assert table["layer"].tolist() == [0] * 6 + [1] * 6 + [pd.NA] * 2
    loss = evaluate(finished, batch)["loss_nats"].mean()
    for held in HELD:
        damaged, old = fresh(1), start.blocks[1].mlp.W_in.detach().double()
        w = damaged.blocks[1].mlp.W_in
        gone = what_goes(old, w.detach().double(), held, "inherited", GENERATOR)
        share = (gone.norm() / w.norm()).item() ** 2
        with torch.no_grad():
            w -= gone
        row = table.loc[("blocks.1.mlp.W_in", held)]
        assert row["removed"] == pytest.approx(share, rel=1e-5)
        assert row["inherited"] == pytest.approx(evaluate(damaged, batch)["loss_nats"].mean() - loss, abs=1e-5)


def test_a_model_that_did_not_change_needs_them_as_its_own_and_one_drawn_anew_does_not(batch):
    start = fresh(0)
    same = inherited_directions(start, start, batch, n_draws=2)
    assert (same["inherited"] - same["own"]).abs().max() < 1e-5
    assert (same["removed"] >= same["held"] - 1e-9).all()
    other = inherited_directions(start, fresh(1), batch, n_draws=2).query("held == 0.5")
    assert (other["removed"] < 0.2).all()
    assert other["inherited"].abs().mean() < same.query("held == 0.5")["inherited"].abs().mean()


def test_draws_are_of_the_seed_and_wrong_models_are_refused(batch):
    start, finished = fresh(0), fresh(1)
    one, again, other = (inherited_directions(start, finished, batch, n_draws=1, seed=seed) for seed in (0, 0, 1))
    assert one.equals(again)
    assert one["inherited"].equals(other["inherited"])
    assert not one["random"].equals(other["random"])
    with pytest.raises(ValueError, match="n_draws=0"):
        inherited_directions(start, finished, batch, n_draws=0)
    wider = HookedTransformer(
        ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab), generator=GENERATOR
    )
    with pytest.raises(ValueError, match="d_model=8 before and 16 after"):
        inherited_directions(wider, finished, batch)
    with pytest.raises(ValueError, match="nothing to compare with"):
        InheritedProbe().measure(Probed(model=finished, task=TASK))


def test_what_low_rank_keeps_and_what_it_leaves_are_the_whole():
    model = fresh(0)
    weights = {name: x.detach() for name, x in model.named_parameters()}
    strong, weak = (
        kind(share=0.25, selector="blocks").apply(weights, CONFIG, generator=GENERATOR)
        for kind in (LowRank, WithoutStrongest)
    )
    for name, x in weights.items():
        if ".W_" in name and name.startswith("blocks"):
            torch.testing.assert_close(strong[name] + weak[name], x, rtol=1e-4, atol=1e-5)
            assert not torch.equal(weak[name], x)
        else:
            assert torch.equal(weak[name], x)
    whole = WithoutStrongest(share=1.0).apply(weights, CONFIG, generator=GENERATOR)
    assert max(float(whole[name].abs().max()) for name in whole if ".W_" in name and "blocks" in name) < 1e-5
