"""Attention for narrow heads is attention: values and gradients against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.core.seeding import stream
from procpre_interp.model.narrow import CHUNK_BYTES, HALVING, is_narrow, narrow_attention


def random(batch: int, pos: int, head: int, d_head: int, seed: int) -> list[torch.Tensor]:
    generator = stream(seed, "narrow")
    return [torch.randn(batch, pos, head, d_head, generator=generator, requires_grad=True) for _ in range(4)]


@given(
    batch=st.integers(1, 5),
    pos=st.sampled_from([1, 2, 7, 32, 33, HALVING - 1, HALVING, HALVING + 1, 130]),
    head=st.integers(1, 4),
    d_head=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_those_of_sdpa(batch, pos, head, d_head, seed):
    q, k, v, weight = random(batch, pos, head, d_head, seed)
    mine = narrow_attention(q, k, v)
    expected = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=True).transpose(1, 2)
    torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad((z * weight.detach()).sum(), (q, k, v)) for z in (mine, expected)]
    for got, wanted in zip(*gradients):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_several_chunks_give_the_same_as_one(monkeypatch):
    q, k, v, weight = random(3, 40, 4, 4, seed=0)
    results = []
    for chunk_bytes in (CHUNK_BYTES, 4 * 40 * 40 * 5):
        monkeypatch.setattr("procpre_interp.model.narrow.CHUNK_BYTES", chunk_bytes)
        z = narrow_attention(q, k, v)
        results.append([z, *torch.autograd.grad((z * weight.detach()).sum(), (q, k, v))])
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)


def test_large_scores_stay_finite():
    q, k, v, _ = random(1, 40, 1, 4, seed=0)
    z = narrow_attention(1e4 * q, 1e4 * k, v)
    assert z.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(z.sum(), (q, k, v)))


def test_a_second_derivative_is_refused():
    q, k, v, _ = random(1, 40, 1, 4, seed=0)
    (first,) = torch.autograd.grad(narrow_attention(q, k, v).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(first.sum(), q)


def test_where_it_is_used():
    assert is_narrow(torch.empty(2, 63, 4, 4))
    for other in (
        torch.empty(2, 63, 4, 16),
        torch.empty(2, 16, 4, 4),
        torch.empty(2, 512, 4, 4),
        torch.empty(2, 63, 4, 4, dtype=torch.float64),
        torch.empty(2, 63, 4, 4, dtype=torch.bfloat16),
        torch.empty(2, 63, 4, 4, device="meta"),
    ):
        assert not is_narrow(other)
