"""The flat AdamW is torch's AdamW, and schedules are what their formulas say."""

import math

import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.train.optimiser import FlatAdamW, schedule_factor


def gradients(n: int, steps: int) -> torch.Tensor:
    return 3 * torch.randn(steps, n, generator=stream(0, "gradients"))


def flat_after(start, steps, frozen=None, decay=None, clip_norm=1.0):
    flat, grad = start.clone(), torch.zeros_like(start)
    optimiser = FlatAdamW(
        flat,
        grad,
        weight_decay=0.1,
        decay=torch.ones_like(start, dtype=torch.bool) if decay is None else decay,
        frozen=frozen,
        clip_norm=clip_norm,
    )
    for step, g in enumerate(gradients(len(start), steps)):
        grad += g
        optimiser.step(1e-2 * (step + 1))
        assert not grad.any()
    return flat


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_equals_torch_with_decay_groups(clip_norm):
    start = torch.randn(20, generator=stream(0, "start"))
    decay = torch.arange(20) < 12
    decayed, plain = torch.nn.Parameter(start[:12].clone()), torch.nn.Parameter(start[12:].clone())
    reference = torch.optim.AdamW(
        [{"params": [decayed], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}], lr=1e-2
    )
    for step, g in enumerate(gradients(20, 7)):
        decayed.grad, plain.grad = g[:12].clone(), g[12:].clone()
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([decayed, plain], clip_norm)
        for group in reference.param_groups:
            group["lr"] = 1e-2 * (step + 1)
        reference.step()
    mine = flat_after(start, 7, decay=decay, clip_norm=clip_norm)
    torch.testing.assert_close(mine, torch.cat([decayed, plain]).detach(), rtol=1e-5, atol=1e-6)


def test_frozen_entries_keep_their_bits_and_do_not_count_in_the_norm():
    start = torch.randn(20, generator=stream(0, "start"))
    frozen = torch.arange(20) % 3 == 0
    end = flat_after(start, 5, frozen=frozen)
    assert torch.equal(end[frozen], start[frozen])
    assert (end[~frozen] != start[~frozen]).all()
    grad = torch.zeros(20)
    flat = start.clone()
    optimiser = FlatAdamW(flat, grad, weight_decay=0.0, decay=frozen, frozen=frozen, clip_norm=1.0)
    grad[:] = torch.where(frozen, 1e6, 0.01)
    optimiser.step(1e-2)
    moments = optimiser.state()["exp_avg"]
    torch.testing.assert_close(moments[~frozen], torch.full_like(moments[~frozen], 0.001))


def test_state_continues_bit_for_bit():
    start = torch.randn(20, generator=stream(0, "start"))
    whole = flat_after(start, 6)
    flat, grad = start.clone(), torch.zeros(20)
    arguments = {"weight_decay": 0.1, "decay": torch.ones(20, dtype=torch.bool)}
    first = FlatAdamW(flat, grad, **arguments)
    assert first.state() == {}
    for step, g in enumerate(gradients(20, 6)):
        if step == 3:
            second = FlatAdamW(flat, grad, **arguments)
            second.load_state(first.state())
            first = second
        grad += g
        first.step(1e-2 * (step + 1))
    assert torch.equal(flat, whole)


def test_schedules_by_hand():
    def factor(step, schedule):
        return schedule_factor(step, schedule=schedule, warmup_steps=4, steps=12)

    for schedule in ("constant", "linear", "cosine"):
        assert [factor(step, schedule) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
        assert factor(4, schedule) == 1.0
    assert factor(11, "constant") == 1.0
    assert factor(8, "linear") == 0.5
    assert factor(8, "cosine") == pytest.approx(0.5)
    assert factor(6, "cosine") == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert factor(12, "linear") == factor(12, "cosine") == 0.0
    assert schedule_factor(0, schedule="cosine", warmup_steps=0, steps=1) == 1.0


def test_moments_of_different_ages_are_each_corrected_for_their_own():
    """Two of torch's optimisers, one of which begins when the other has taken five steps."""
    start = torch.randn(20, generator=stream(0, "start"))
    older = torch.arange(20) % 7 < 3
    old, young = torch.nn.Parameter(start[older].clone()), torch.nn.Parameter(start[~older].clone())
    references = {p: torch.optim.AdamW([p], lr=1e-2, weight_decay=0.1) for p in (old, young)}

    def flat_optimiser(flat):
        grad = torch.zeros_like(flat)
        decay = torch.ones_like(flat, dtype=torch.bool)
        return grad, FlatAdamW(flat, grad, weight_decay=0.1, decay=decay, clip_norm=None)

    flat = start.clone()
    grad, mine = flat_optimiser(flat)
    for step, g in enumerate(gradients(20, 12)):
        if step == 5:
            age = torch.where(older, 5.0, 0.0)
            moments = {name: torch.zeros(20) for name in ("exp_avg", "exp_avg_sq")}
            for name, moment in moments.items():
                moment[older] = references[old].state[old][name]
            flat[older] = old.detach()
            mine.load_state({**moments, "step": age})
        if step == 9:  # and an interruption changes nothing
            state = mine.state()
            assert torch.equal(state["step"], torch.where(older, 9.0, 4.0))
            grad, mine = flat_optimiser(flat)
            mine.load_state(state)
        old.grad = g[older].clone()
        references[old].step()
        if step >= 5:
            young.grad = g[~older].clone()
            references[young].step()
            grad += g
            mine.step(1e-2)
    torch.testing.assert_close(flat[older], old.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(flat[~older], young.detach(), rtol=1e-5, atol=1e-6)


def test_equal_numbers_of_steps_are_one():
    flat, grad = torch.zeros(4), torch.zeros(4)
    mine = FlatAdamW(flat, grad, weight_decay=0.0, decay=torch.zeros(4, dtype=torch.bool))
    mine.load_state({"exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4), "step": torch.full((4,), 3.0)})
    assert mine.state()["step"].ndim == 0
