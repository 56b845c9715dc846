"""Activation patching: against TransformerLens, against plain hooks, and by what must hold for any model."""

from functools import partial

import pytest
import torch
import transformer_lens.patching as upstream

from procpre_interp.core.seeding import stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig, from_huggingface, to_huggingface
from procpre_interp.patch import METRICS, activation_patching, patched_values
from procpre_interp.patch.replay import PER_HEAD, RESIDUAL
from tests.models import random_model, told_apart

N_POS = 9
BY_POSITION = {
    "resid_pre": upstream.get_act_patch_resid_pre,
    "resid_mid": upstream.get_act_patch_resid_mid,
    "attn_out": upstream.get_act_patch_attn_out,
    "mlp_out": upstream.get_act_patch_mlp_out,
    "z": upstream.get_act_patch_attn_head_out_by_pos,
    "q": upstream.get_act_patch_attn_head_q_by_pos,
    "k": upstream.get_act_patch_attn_head_k_by_pos,
    "v": upstream.get_act_patch_attn_head_v_by_pos,
    "pattern": upstream.get_act_patch_attn_head_pattern_by_pos,
}
ALL_POSITIONS = {
    "z": upstream.get_act_patch_attn_head_out_all_pos,
    "q": upstream.get_act_patch_attn_head_q_all_pos,
    "k": upstream.get_act_patch_attn_head_k_all_pos,
    "v": upstream.get_act_patch_attn_head_v_all_pos,
    "pattern": upstream.get_act_patch_attn_head_pattern_all_pos,
}


def model_of(n_layers: int) -> HookedTransformer:
    return random_model(ModelConfig(n_layers=n_layers, n_heads=2, d_model=8, n_ctx=12, d_vocab=13))


def some_pairs(n: int = 5, seed: int = 0) -> Pairs:
    """Random sequences, read at different positions, the first and the last among them."""
    draw = partial(torch.randint, generator=stream(seed, "pairs"))
    positions = draw(N_POS, (n,))
    positions[0], positions[1] = N_POS - 1, 0
    answers = draw(13, (n,))
    return Pairs(draw(13, (n, N_POS)), draw(13, (n, N_POS)), positions, answers, (answers + draw(1, 13, (n,))) % 13)


def at_read(logits: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    return logits[torch.arange(len(pairs)), pairs.positions]


def score(logits: torch.Tensor, pairs: Pairs, metric: str = "logit_difference") -> torch.Tensor:
    return METRICS[metric](at_read(logits, pairs), pairs)


def test_metrics_by_hand():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    tokens = torch.zeros(2, 1, dtype=torch.long)
    pairs = Pairs(tokens, tokens, torch.zeros(2).long(), torch.tensor([0, 1]), torch.tensor([2, 0]))
    assert METRICS["logit_difference"](logits, pairs).tolist() == [1, 0]
    share = torch.tensor([2.0, 0.0, 1.0]).softmax(0)[0].item()
    assert METRICS["probability"](logits, pairs).tolist() == pytest.approx([share, 1 / 3])
    assert METRICS["loss"](logits, pairs).tolist() == pytest.approx([-torch.tensor(share).log().item(), 1.0986123])
    assert torch.equal(METRICS["loss"](logits.expand(4, 2, 3), pairs)[3], METRICS["loss"](logits, pairs))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("site", BY_POSITION)
def test_equals_transformer_lens_by_position(site: str, n_layers: int):
    model, pairs = model_of(n_layers), some_pairs()
    with torch.no_grad():
        _, clean = model.run_with_cache(pairs.clean)
        result = BY_POSITION[site](model, pairs.corrupted, clean, partial(score, pairs=pairs), reduce="none")
    # Theirs are [layer, pos, head, pair], but of a pattern [layer, head, pos, pair].
    theirs = result.values.transpose(1, 2) if site in PER_HEAD[:-1] else result.values
    ours = patched_values(model, pairs, site)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("site", ALL_POSITIONS)
def test_equals_transformer_lens_at_all_positions(site: str, n_layers: int):
    model, pairs = model_of(n_layers), some_pairs()
    with torch.no_grad():
        _, clean = model.run_with_cache(pairs.clean)
        result = ALL_POSITIONS[site](model, pairs.corrupted, clean, partial(score, pairs=pairs), reduce="none")
    torch.testing.assert_close(patched_values(model, pairs, site, by_position=False), result.values, atol=1e-5, rtol=0)


def by_hooks(
    model: HookedTransformer, pairs: Pairs, site: str, new: torch.Tensor, layer: int, head: int
) -> list[float]:
    """The clean run with one whole site replaced, through a hook; the metric is the answer's probability."""

    def put(x: torch.Tensor, hook: object) -> None:
        if site == "pattern":
            x[:, head] = new[:, head]
        elif site in PER_HEAD:
            x[:, :, head] = new[:, :, head]
        else:
            x.copy_(new)

    name = f"blocks.{layer}.{'attn.' if site in PER_HEAD else ''}hook_{site}"
    with torch.no_grad():
        logits = model.run_with_hooks(pairs.clean, fwd_hooks=[(name, put)])
    return score(logits, pairs, "probability").tolist()


@pytest.mark.parametrize("site", [*RESIDUAL, *PER_HEAD])
def test_noising_with_zero_mean_and_other(site: str):
    model, pairs = model_of(2), some_pairs(6)
    pairs.positions[:] = N_POS - 1  # so that a mean over pairs is one over all of them, in every layer
    with torch.no_grad():
        _, clean = model.run_with_cache(pairs.clean)
        _, corrupted = model.run_with_cache(pairs.corrupted)
    for layer in range(2):
        own = clean[f"blocks.{layer}.{'attn.' if site in PER_HEAD else ''}hook_{site}"]
        other = corrupted[f"blocks.{layer}.{'attn.' if site in PER_HEAD else ''}hook_{site}"]
        sources = {"zero": torch.zeros_like(own), "mean": own.mean(0, keepdim=True).expand_as(own), "other": other}
        for replacement, new in sources.items():
            values = patched_values(
                model, pairs, site, by_position=False, direction="noise", replacement=replacement, metric="probability"
            )
            for head in range(2 if site in PER_HEAD else 1):
                ours = values[layer, head] if site in PER_HEAD else values[layer]
                assert ours.tolist() == pytest.approx(by_hooks(model, pairs, site, new, layer, head), abs=1e-6)


def test_the_mean_is_over_the_pairs_that_still_read_a_position():
    model, pairs = model_of(2), some_pairs(6)
    with torch.no_grad():
        _, clean = model.run_with_cache(pairs.clean)
    z, mean = clean["blocks.0.attn.hook_z"], torch.zeros(N_POS, 2, 4)
    for t in range(N_POS):
        reading = [i for i, position in enumerate(pairs.positions.tolist()) if position >= t]
        mean[t] = sum(z[i, t] for i in reading) / len(reading)
    values = patched_values(
        model, pairs, "z", by_position=False, direction="noise", replacement="mean", metric="probability"
    )
    for head in range(2):
        expected = by_hooks(model, pairs, "z", mean.expand_as(z), 0, head)
        assert values[0, head].tolist() == pytest.approx(expected, abs=1e-6)


def test_resampling_takes_another_pair():
    model, pairs = model_of(2), some_pairs(3)
    arguments = {"by_position": False, "direction": "noise", "replacement": "resample", "metric": "probability"}
    values = patched_values(model, pairs, "resid_pre", generator=stream(1, "resample"), **arguments)
    with torch.no_grad():
        _, clean = model.run_with_cache(pairs.clean)
    new = clean["blocks.0.hook_resid_pre"]
    # Two cycles through three pairs: which one was drawn is not known, but no pair may get its own.
    cycles = [by_hooks(model, pairs, "resid_pre", new[[*order]], 0, 0) for order in ((1, 2, 0), (2, 0, 1))]
    assert any(values[0].tolist() == pytest.approx(cycle, abs=1e-6) for cycle in cycles)
    again = patched_values(model, pairs, "resid_pre", generator=stream(1, "resample"), max_bytes=1, **arguments)
    torch.testing.assert_close(values, again)
    with pytest.raises(ValueError, match="give a generator"):
        patched_values(model, pairs, "resid_pre", **arguments)


@pytest.mark.parametrize("replacement", ["other", "zero", "mean", "resample"])
def test_a_pattern_of_others_looks_at_nothing_behind_the_read_position(replacement):
    """A mean over rows that were read at different positions, or another pair's row, had looked at the answer."""
    model, pairs = model_of(2), some_pairs(6)
    behind = torch.arange(N_POS) > pairs.positions[:, None]
    changed = Pairs(
        pairs.clean.masked_fill(behind, 7),
        pairs.corrupted.masked_fill(behind, 7),
        pairs.positions,
        pairs.answers,
        pairs.wrong,
    )
    one, other = (
        patched_values(
            model,
            each,
            "pattern",
            by_position=False,
            direction="noise",
            replacement=replacement,
            metric="probability",
            generator=stream(1, "resample"),
        )
        for each in (pairs, changed)
    )
    # In the layers before the last, patterns are known at every position, padding's too, of which no query reads any.
    torch.testing.assert_close(one[-1], other[-1])


def test_patching_everything_restores_the_clean_run():
    model = model_of(3)
    pairs = told_apart(model, some_pairs())
    with torch.no_grad():
        clean, corrupted = (score(model(tokens), pairs) for tokens in (pairs.clean, pairs.corrupted))
    for direction, goal in (("denoise", clean), ("noise", corrupted)):
        for site in ("resid_pre", "resid_mid", "resid_post"):
            values = patched_values(model, pairs, site, by_position=False, direction=direction)
            torch.testing.assert_close(values, goal.expand(3, len(pairs)), atol=1e-5, rtol=0)
    table = activation_patching(model, pairs, sites=["resid_post"], by_position=False)
    assert table["share"].tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert table["clean"].tolist() == pytest.approx([clean.mean().item()] * 3, abs=1e-5)
    assert table["corrupted"].tolist() == pytest.approx([corrupted.mean().item()] * 3, abs=1e-5)


def test_what_follows_the_read_position_has_no_effect():
    model, pairs = model_of(2), some_pairs()
    with torch.no_grad():
        corrupted = score(model(pairs.corrupted), pairs)
    for site in (*RESIDUAL, *PER_HEAD):
        values = patched_values(model, pairs, site)
        for i, position in enumerate(pairs.positions.tolist()):
            moved = (values[..., i] - corrupted[i]).abs()
            assert (moved[..., position + 1 :] < 1e-5).all()
            if position > 0:  # at the first one, a query has no choice
                assert moved[..., position].max() > 1e-4


def test_blocks_change_nothing_but_the_memory():
    model, pairs = model_of(3), some_pairs(7)
    for site in ("resid_pre", "z", "k", "pattern"):
        for replacement in ("other", "mean"):
            whole = patched_values(model, pairs, site, replacement=replacement)
            torch.testing.assert_close(patched_values(model, pairs, site, replacement=replacement, max_bytes=1), whole)


def test_the_table():
    model = model_of(2)
    pairs = told_apart(model, some_pairs())
    table = activation_patching(model, pairs, sites=["z", "mlp_out"], metric="loss")
    assert len(table) == 2 * (2 + 1) * N_POS
    assert table["head"].isna().sum() == 2 * N_POS
    values = patched_values(model, pairs, "z", metric="loss")
    row = table.query("site == 'z' and layer == 1 and head == 0 and position == 8").iloc[0]
    assert row["value"] == pytest.approx(values[1, 0, 8].mean().item(), abs=1e-6)
    assert row["effect"] == pytest.approx(row["value"] - row["corrupted"], abs=1e-6)
    assert row["share"] == pytest.approx(row["effect"] / (row["clean"] - row["corrupted"]), abs=1e-5)
    some = activation_patching(model, pairs, sites=["z"], layers=[1], metric="loss")
    assert set(some["layer"]) == {1}
    assert some["value"].tolist() == pytest.approx(table.query("site == 'z' and layer == 1")["value"].tolist())


def test_a_model_from_hugging_face():
    model, pairs = model_of(2), some_pairs()
    theirs = from_huggingface(to_huggingface(model))
    torch.testing.assert_close(patched_values(theirs, pairs, "z"), patched_values(model, pairs, "z"))


def test_mistakes_are_explained():
    model, pairs = model_of(2), some_pairs()
    with pytest.raises(ValueError, match="unknown site 'zz'"):
        patched_values(model, pairs, "zz")
    with pytest.raises(ValueError, match="unknown metric 'logits'"):
        patched_values(model, pairs, "z", metric="logits")
    with pytest.raises(ValueError, match=r"layer 2; layers are 0..1"):
        activation_patching(model, pairs, layers=[2])
    with pytest.raises(ValueError, match="no pairs"):
        activation_patching(model, pairs[:0])
    with pytest.raises(ValueError, match="exceeds n_ctx=12"):
        patched_values(model, Pairs(*(x.repeat(1, 2) if x.ndim == 2 else x for x in vars_of(pairs))), "z")


def vars_of(pairs: Pairs) -> list[torch.Tensor]:
    return [pairs.clean, pairs.corrupted, pairs.positions, pairs.answers, pairs.wrong]
