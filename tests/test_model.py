"""HookedTransformer: GPT-2's function, hooks that reach every reader, one flat vector."""

import copy
import dataclasses
import io
import math
import pickle
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformer_lens import patching
from transformer_lens.head_detector import detect_head
from transformer_lens.tools.analysis import attribution_patching as attribution
from transformer_lens.tools.analysis.direct_logit_attribution import direct_logit_attribution
from transformer_lens.tools.analysis.logit_lens import logit_lens

from procpre_interp.core.seeding import stream
from procpre_interp.model import HookedTransformer, ModelConfig, to_huggingface
from tests.models import TINY, random_model, random_tokens

TIED = dataclasses.replace(TINY, tied=True)


@pytest.fixture(params=[TINY, TIED], ids=["untied", "tied"])
def model(request):
    return random_model(request.param)


def test_logits_and_gradients_are_hugging_faces(model):
    theirs = to_huggingface(model)
    tokens = random_tokens()
    targets = random_tokens(seed=1)
    logits, their_logits = model(tokens), theirs(tokens).logits
    torch.testing.assert_close(logits, their_logits, atol=1e-5, rtol=0)
    for x in (logits, their_logits):
        F.cross_entropy(x.flatten(0, 1), targets.flatten()).backward()
    # A model whose parameters are the gradients translates them.
    gradients = HookedTransformer(model.config, generator=torch.Generator())
    with torch.no_grad():
        gradients.flat.copy_(model.flat_grad)
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    if model.config.tied:
        expected.pop("lm_head.weight", None)
    for name, p in to_huggingface(gradients).named_parameters():
        torch.testing.assert_close(p.detach(), expected[name], atol=1e-6, rtol=0, msg=name)


def test_loss_is_next_token_cross_entropy(model):
    tokens = random_tokens()
    logits, loss = model(tokens, return_type="both")
    expected = -logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None]).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(model(tokens, return_type="loss"), expected)
    assert model(tokens, return_type=None) is None


def test_a_tied_gradient_is_the_sum_of_both_uses():
    tied = random_model(TIED)
    free = HookedTransformer(TINY, generator=torch.Generator())
    with torch.no_grad():
        for name, p in free.named_parameters():
            p.copy_(tied.W_U if name == "unembed.W_U" else tied.get_parameter(name))
    for model in (tied, free):
        model(random_tokens(), return_type="loss").backward()
    torch.testing.assert_close(tied.embed.W_E.grad, free.embed.W_E.grad + free.unembed.W_U.grad.T)


def test_bfloat16_autocast_is_close_and_keeps_float32_gradients(model):
    tokens = random_tokens()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens)
        _, cache = model.run_with_cache(tokens)
        at_the_end = model(tokens, torch.full((3, 1), 6))
    torch.testing.assert_close(at_the_end, logits[:, -1:], atol=0.1, rtol=0.05)
    assert logits.dtype == torch.bfloat16
    assert cache["blocks.1.hook_resid_post"].dtype == torch.float32
    torch.testing.assert_close(logits.float(), model(tokens), atol=0.15, rtol=0.05)
    logits.float().sum().backward()
    assert model.flat_grad.dtype == torch.float32
    assert model.flat_grad.isfinite().all()


shapes = st.tuples(st.integers(1, 4), st.integers(1, TINY.n_ctx), st.integers(1, 5), st.integers(0, 2**16))


@pytest.mark.parametrize("hooked", [False, True])
@given(shapes)
@settings(max_examples=12, deadline=None)
def test_positions_change_nothing_but_cost(hooked, shape):
    batch, length, n_read, seed = shape
    model = random_model()
    tokens = random_tokens(batch=batch, length=length, seed=seed)
    positions = torch.randint(length, (batch, n_read), generator=stream(seed, "positions"))
    weights = torch.randn(batch, n_read, TINY.d_vocab, generator=stream(seed, "weights"))
    # A hook that only looks takes the slow paths.
    hooks = [(lambda name: hooked, lambda x, hook: None)]
    gradients = []
    with model.hooks(fwd_hooks=hooks):
        everywhere = model(tokens)
        there = model(tokens, positions)
    expected = everywhere.gather(1, positions[..., None].expand(-1, -1, TINY.d_vocab))
    assert there.shape == (batch, n_read, TINY.d_vocab)
    torch.testing.assert_close(there, expected, atol=1e-5, rtol=1e-5)
    for logits in (expected, there):
        model.zero_grad()
        (logits * weights).sum().backward()
        gradients.append(model.flat_grad.clone())
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("switch", [None, "use_split_qkv_input", "use_attn_in", "use_attn_result"])
def test_hooks_see_only_the_positions_that_are_computed(model, switch):
    tokens, positions = random_tokens(), torch.tensor([[6, 2], [0, 0], [3, 6]])
    if switch:
        getattr(model, f"set_{switch}")(True)
    everything, full = model.run_with_cache(tokens)
    logits, cache = model.run_with_cache(tokens, positions)
    rows = torch.arange(3)[:, None]
    torch.testing.assert_close(logits, everything[rows, positions])
    assert set(cache.cache_dict) == set(full.cache_dict)
    for name in full.cache_dict:
        if cache[name].shape == full[name].shape:
            expected = full[name]
        elif name.endswith(("hook_pattern", "hook_attn_scores")):
            expected = full[name].transpose(1, 2)[rows, positions].transpose(1, 2)
        else:
            expected = full[name][rows, positions]
            assert name.startswith(("blocks.1.", "ln_final."))
        torch.testing.assert_close(cache[name], expected, msg=name)
    read = {name for name in full.cache_dict if cache[name].shape != full[name].shape}
    assert {"blocks.1.attn.hook_q", "blocks.1.hook_resid_post", "ln_final.hook_scale"} <= read
    assert not {"blocks.1.attn.hook_k", "blocks.1.hook_resid_pre", "blocks.0.hook_resid_post"} & read


POINTS = list(random_model().hook_dict)
IN_FIRST_LAYER = [name for name in POINTS if "blocks.1." not in name]


def switch_on(model: HookedTransformer, name: str) -> None:
    """What `name` needs to be called."""
    if name.endswith("hook_result"):
        model.set_use_attn_result(True)
    elif name.endswith("hook_attn_in"):
        model.set_use_attn_in(True)
    elif name.endswith("_input"):
        model.set_use_split_qkv_input(True)


def test_hook_points_are_the_classic_ones():
    layer = [
        *(f"hook_resid_{x}" for x in ("pre", "mid", "post")),
        *("hook_attn_out", "hook_mlp_in", "hook_mlp_out"),
        *(f"attn.hook_{x}" for x in ("q", "k", "v", "z", "attn_scores", "pattern", "result", "attn_in")),
        *(f"attn.hook_{x}_input" for x in "qkv"),
        *("mlp.hook_pre", "mlp.hook_post", "ln1.hook_scale", "ln1.hook_normalized"),
        *("ln2.hook_scale", "ln2.hook_normalized"),
    ]
    names = ["hook_embed", "hook_pos_embed", "ln_final.hook_scale", "ln_final.hook_normalized"]
    assert sorted(POINTS) == sorted(names + [f"blocks.{i}.{name}" for i in (0, 1) for name in layer])


@pytest.mark.parametrize("switch", ["use_attn_result", "use_attn_in", "use_split_qkv_input"])
def test_looking_changes_nothing_and_sees_the_classic_shapes(model, switch):
    tokens = random_tokens()
    expected = model(tokens)
    getattr(model, f"set_{switch}")(True)
    logits, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    heads, d_head, width = TINY.n_heads, TINY.d_head, TINY.d_model
    for name, activation in cache.items():
        leaf = name.rpartition(".")[2].removeprefix("hook_")
        rest = {
            **dict.fromkeys("qkvz", (heads, d_head)),
            **dict.fromkeys(("q_input", "k_input", "v_input", "attn_in", "result"), (heads, width)),
            **dict.fromkeys(("pre", "post"), (TINY.d_hidden,)),
            "scale": (1,),
        }.get(leaf, (width,))
        if "ln1" in name and switch != "use_attn_result":  # then it normalises a residual stream a head
            rest = (heads, *rest)
        expected_shape = (3, heads, 7, 7) if leaf in ("pattern", "attn_scores") else (3, 7, *rest)
        assert activation.shape == expected_shape, name
    costly = {"use_attn_result": 1, "use_attn_in": 1, "use_split_qkv_input": 3}[switch]
    assert len(cache.cache_dict) == len(POINTS) - 2 * 5 + 2 * costly


@pytest.mark.parametrize("in_place", [False, True], ids=["new", "in place"])
@pytest.mark.parametrize("name", IN_FIRST_LAYER)
def test_an_edit_reaches_every_later_reader(name, in_place):
    """Another run's activation, patched in, gives what a GPT-2 written out in formulas computes from it."""
    model = random_model()
    switch_on(model, name)
    _, other = model.run_with_cache(random_tokens(seed=5))

    def patch(x, hook):
        if not in_place:
            return other[hook.name]
        x.copy_(other[hook.name])
        return None

    with torch.no_grad():
        before = model.flat.clone()
        with model.hooks(fwd_hooks=[(name, patch)]):
            logits, cache = model.run_with_cache(random_tokens())
        assert torch.equal(model.flat, before)
        expected = recompute(model, random_tokens(), name, other[name])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cache[name], other[name])


def recompute(model: HookedTransformer, tokens: torch.Tensor, name: str, patched: torch.Tensor) -> torch.Tensor:
    """Logits of a plain GPT-2 written out head by head, with the activation `name` replaced."""

    def at(point, x):
        return patched if point == name else x

    def norm(point, x, ln):
        x = x - x.mean(-1, keepdim=True)
        scale = at(f"{point}.hook_scale", (x.var(-1, correction=0, keepdim=True) + TINY.ln_eps) ** 0.5)
        return at(f"{point}.hook_normalized", x / scale) * ln.w + ln.b

    causal = torch.ones(tokens.shape[1], tokens.shape[1]).tril().bool()
    resid = at("hook_embed", model.W_E[tokens]) + at("hook_pos_embed", model.W_pos[: tokens.shape[1]])
    for i, block in enumerate(model.blocks):
        at_block, attn = f"blocks.{i}", block.attn
        resid = at(f"{at_block}.hook_resid_pre", resid)
        forked = resid[:, :, None].expand(-1, -1, TINY.n_heads, -1)
        projected = {}
        for letter in "QKV":
            forked_here = at(f"{at_block}.attn.hook_attn_in", forked)
            forked_here = at(f"{at_block}.attn.hook_{letter.lower()}_input", forked_here)
            # Without a fork ln1's activations are not per head.
            split = model.cfg.use_split_qkv_input or model.cfg.use_attn_in
            x = norm(f"{at_block}.ln1", forked_here if split else resid, block.ln1)
            x = x if split else x[:, :, None].expand_as(forked)
            W, b = getattr(attn, f"W_{letter}"), getattr(attn, f"b_{letter}")
            heads = [x[:, :, h] @ W[h] + b[h] for h in range(TINY.n_heads)]
            projected[letter] = at(f"{at_block}.attn.hook_{letter.lower()}", torch.stack(heads, 2))
        q, k, v = (projected[letter].transpose(1, 2) for letter in "QKV")
        scores = (q @ k.mT / TINY.d_head**0.5).masked_fill(~causal, -torch.inf)
        pattern = at(f"{at_block}.attn.hook_pattern", at(f"{at_block}.attn.hook_attn_scores", scores).softmax(-1))
        z = at(f"{at_block}.attn.hook_z", (pattern @ v).transpose(1, 2))
        result = torch.stack([z[:, :, h] @ attn.W_O[h] for h in range(TINY.n_heads)], 2)
        out = at(f"{at_block}.attn.hook_result", result).sum(2) + attn.b_O
        resid = at(f"{at_block}.hook_resid_mid", resid + at(f"{at_block}.hook_attn_out", out))
        x = norm(f"{at_block}.ln2", at(f"{at_block}.hook_mlp_in", resid), block.ln2)
        pre = at(f"{at_block}.mlp.hook_pre", x @ block.mlp.W_in + block.mlp.b_in)
        post = at(f"{at_block}.mlp.hook_post", F.gelu(pre, approximate="tanh"))
        out = at(f"{at_block}.hook_mlp_out", post @ block.mlp.W_out + block.mlp.b_out)
        resid = at(f"{at_block}.hook_resid_post", resid + out)
    return norm("ln_final", resid, model.ln_final) @ model.W_U


def test_backward_hooks_see_the_gradient_of_their_activation(model):
    tokens = random_tokens()
    seen = {}

    def keep(gradient, hook):
        seen[hook.name] = gradient

    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    names = [name for name in POINTS if not name.endswith("attn_in")]
    with model.hooks(bwd_hooks=[(name, keep) for name in names]):
        model(tokens, return_type="loss").backward()
    assert set(seen) == set(names)
    step = 1e-3
    for name in ("blocks.0.hook_resid_mid", "blocks.1.attn.hook_pattern", "blocks.0.attn.hook_k_input"):
        direction = torch.randn(seen[name].shape, generator=stream(0, name))
        shift = [(name, lambda x, hook, d=direction: x + step * d)]
        up = model.run_with_hooks(tokens, fwd_hooks=shift, return_type="loss")
        change = (up - model(tokens, return_type="loss")) / step
        torch.testing.assert_close(change, (seen[name] * direction).sum(), atol=2e-2, rtol=2e-2)


def test_a_point_that_is_off_or_unknown_is_an_error(model):
    nothing = lambda x, hook: None  # noqa: E731
    for name, switch in [
        ("blocks.0.attn.hook_result", "set_use_attn_result"),
        ("blocks.1.attn.hook_k_input", "set_use_split_qkv_input"),
        ("blocks.0.attn.hook_attn_in", "set_use_attn_in"),
    ]:
        with pytest.raises(ValueError, match=switch):
            model.run_with_hooks(random_tokens(), fwd_hooks=[(name, nothing)])
        with pytest.raises(ValueError, match=switch):
            model.add_hook(name, nothing)
        with pytest.raises(ValueError, match=switch):
            model.run_with_cache(random_tokens(), names_filter=[name])
        assert name not in model.run_with_cache(random_tokens())[1]
    with pytest.raises(ValueError, match=r"Did you mean 'blocks\.0\.hook_resid_pre'"):
        model.add_hook("blocks.0.hook_resid_pr", nothing)
    model.set_use_attn_in(True)
    with pytest.raises(ValueError, match=r"call model\.set_use_attn_in\(False\) first"):
        model.set_use_split_qkv_input(True)
    assert not any(point.fwd_hooks for point in model.hook_points())


@pytest.fixture
def pair():
    """Clean and corrupted tokens that differ in one place, and a metric: a logit difference at the end."""
    clean = random_tokens(batch=1)
    corrupted = clean.clone()
    corrupted[0, 2] = (clean[0, 2] + 1) % TINY.d_vocab
    return clean, corrupted, lambda logits: logits[0, -1, 3] - logits[0, -1, 4]


@torch.no_grad()
def test_patching_agrees_with_patching_by_hand(model, pair):
    clean, corrupted, metric = pair
    _, cache = model.run_with_cache(clean)

    def by_hand(name, index):
        def patch(x, hook):
            x[index] = cache[name][index]
            return x

        return metric(model.run_with_hooks(corrupted, fwd_hooks=[(name, patch)]))

    every = slice(None)
    heads = patching.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, metric)
    patterns = patching.get_act_patch_attn_head_pattern_all_pos(model, corrupted, cache, metric)
    residuals = patching.get_act_patch_resid_mid(model, corrupted, cache, metric)
    for layer in range(2):
        for head in range(3):
            expected = by_hand(f"blocks.{layer}.attn.hook_z", (every, every, head))
            torch.testing.assert_close(heads[layer, head], expected)
            expected = by_hand(f"blocks.{layer}.attn.hook_pattern", (every, head))
            torch.testing.assert_close(patterns[layer, head], expected)
        for pos in range(7):
            torch.testing.assert_close(residuals[layer, pos], by_hand(f"blocks.{layer}.hook_resid_mid", (every, pos)))
    # Before the corrupted place nothing differs, and the whole residual stream restores the clean run.
    torch.testing.assert_close(residuals[:, 0], metric(model(corrupted)).expand(2))
    everything = [("blocks.0.hook_resid_mid", lambda x, hook: cache[hook.name])]
    restored = model.run_with_hooks(corrupted, fwd_hooks=everything)
    torch.testing.assert_close(metric(restored), metric(model(clean)))


@torch.no_grad()
def test_direct_paths_agree_with_a_patch_of_the_sum(model, pair):
    """The path from head 0.1 into the values of head 1.2 is exact: no other reader sees it."""
    clean, corrupted, metric = pair
    _, clean_cache = model.run_with_cache(clean)
    _, cache = model.run_with_cache(corrupted)
    found = patching.get_act_patch_direct_path(
        model, corrupted, clean_cache, cache, metric, src_layer=0, src_head=1, component="v", verbose=False
    )
    z = "blocks.0.attn.hook_z"
    write = (clean_cache[z] - cache[z])[:, :, 1] @ model.W_O[0, 1]
    resid = cache["blocks.1.hook_resid_pre"] + write
    block = model.blocks[1]
    v = block.ln1(resid) @ block.attn.W_V[2] + block.attn.b_V[2]

    def patch(x, hook):
        x[:, :, 2] = v
        return x

    expected = metric(model.run_with_hooks(corrupted, fwd_hooks=[("blocks.1.attn.hook_v", patch)]))
    torch.testing.assert_close(found[1, 2], expected)
    assert not model.cfg.use_split_qkv_input


@pytest.mark.parametrize("granularity", ["node", "edge"])
def test_attribution_is_the_first_order_of_patching(model, pair, granularity):
    clean, corrupted, metric = pair
    config = attribution.EdgeAttributionConfig(granularity=granularity)
    result = attribution.attribution_patch(model, clean, corrupted, metric, config)
    _, clean_cache = model.run_with_cache(clean)
    _, cache = model.run_with_cache(corrupted)
    step = 1e-2
    for node in [node for node in result.node_scores if node.position == 6 and node.kind != "embed"][:8]:
        name, index = node.hook_name, (0, node.position)
        if node.head is not None:
            index = (*index, node.head)
        delta = clean_cache[name][index] - cache[name][index]

        def shift(x, hook, index, amount):
            x = x.clone()
            x[index] = x[index] + amount
            return x

        ends = [
            metric(model.run_with_hooks(corrupted, fwd_hooks=[(name, partial(shift, index=index, amount=s * delta))]))
            for s in (-step, step)
        ]
        torch.testing.assert_close(
            result.node_scores[node], ((ends[1] - ends[0]) / (2 * step)).item(), atol=2e-3, rtol=2e-2
        )
    if granularity == "edge":
        assert result.edge_scores
        # Keeping every edge is the clean run.
        whole = attribution.faithfulness(model, clean, corrupted, metric, list(result.edge_scores))
        assert whole.recovered == pytest.approx(1.0, abs=1e-3)
    assert not any(vars(model.cfg)[f"use_{x}"] for x in ("attn_result", "split_qkv_input", "hook_mlp_in"))


def test_the_cache_decomposes_the_residual_stream(model):
    tokens = random_tokens()
    logits, cache = model.run_with_cache(tokens)
    final = cache["blocks.1.hook_resid_post"]
    for parts in (cache.decompose_resid(), cache.get_full_resid_decomposition(expand_neurons=False)):
        torch.testing.assert_close(parts.sum(0), final, atol=1e-5, rtol=1e-5)
    neurons = cache.get_full_resid_decomposition(layer=1, mlp_input=True, expand_neurons=True)
    torch.testing.assert_close(neurons.sum(0), cache["blocks.1.hook_resid_mid"], atol=1e-5, rtol=1e-5)
    direction = model.tokens_to_residual_directions(tokens)
    torch.testing.assert_close(direction, model.W_U.T[tokens])
    assert torch.equal(model.tokens_to_residual_directions(3), model.W_U[:, 3])
    # With b = 0, w = 1 the attributions of all parts sum to the logit.
    with torch.no_grad():
        model.ln_final.w.fill_(1.0)
        model.ln_final.b.fill_(0.0)
    logits, cache = model.run_with_cache(tokens)
    parts = cache.get_full_resid_decomposition(expand_neurons=False)
    attributed = cache.logit_attrs(parts, tokens=tokens).sum(0)
    torch.testing.assert_close(attributed, logits.gather(-1, tokens[..., None])[..., 0], atol=1e-4, rtol=1e-4)
    direct = direct_logit_attribution(model, tokens[:1], answer_tokens=3)
    torch.testing.assert_close(direct.attribution.sum(), logits[0, -1, 3], atol=1e-4, rtol=1e-4)


def test_logit_lens_ends_at_the_logits(model):
    tokens = random_tokens(batch=1)
    lens = logit_lens(model, tokens)
    torch.testing.assert_close(lens.values[-1], model(tokens)[:, -1], atol=1e-4, rtol=1e-4)


def test_a_previous_token_head_is_detected():
    """Positions as one-hot vectors, and a W_K that shifts them: each query finds the position before it."""
    config = ModelConfig(n_layers=1, n_heads=1, d_model=8, n_ctx=8, d_vocab=3)
    model = HookedTransformer(config, generator=stream(0))
    with torch.no_grad():
        model.flat.zero_()
        model.ln_final.w.fill_(1.0)
        model.blocks[0].ln1.w.fill_(1.0)
        model.pos_embed.W_pos.copy_(torch.eye(8))
        model.blocks[0].attn.W_Q[0] = 10 * torch.eye(8)
        model.blocks[0].attn.W_K[0] = 10 * torch.eye(8).roll(1, 1)
    tokens = torch.tensor([[0, 1, 2, 0, 1, 2]])
    _, cache = model.run_with_cache(tokens, remove_batch_dim=True)
    assert cache["pattern", 0].diagonal(-1, -2, -1).min() > 0.95
    assert detect_head(model, tokens, "previous_token_head").item() > 0.75  # the first query can only see itself


def test_stacked_weights_and_circuits(model):
    assert model.W_Q.shape == (2, 3, 12, 4)
    assert model.W_out.shape == (2, 48, 12)
    torch.testing.assert_close(model.OV.AB[1, 2], model.blocks[1].attn.W_V[2] @ model.blocks[1].attn.W_O[2])
    torch.testing.assert_close(model.QK.AB[0, 1], model.W_Q[0, 1] @ model.W_K[0, 1].T)
    assert torch.equal(model.b_U, torch.zeros(11))
    assert model.to_tokens([1, 2]).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="no tokenizer"):
        model.to_tokens("text")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"n_layers": 0}, "n_layers=0; n_layers must be at least 1"),
        ({"d_vocab": -1}, "d_vocab=-1"),
        ({"d_model": 13}, r"d_model=13 is no multiple of n_heads=3.*d_model=12"),
        ({"ln_eps": 0.0}, "ln_eps=0.0; ln_eps must be above 0"),
        ({"init_std": math.inf}, "init_std=inf; init_std must be above 0, and finite"),
        ({"d_mlp": 0}, "d_mlp=0"),
    ],
)
def test_configs_that_make_no_model_are_refused(change, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(TINY, **change)


def test_the_default_spelt_out_is_the_same_config():
    assert dataclasses.replace(TINY, d_mlp=48) == TINY
    assert (TINY.d_hidden, TINY.d_head) == (48, 4)
    assert dataclasses.replace(TINY, d_mlp=5).d_hidden == 5


def test_inputs_out_of_range_are_refused(model):
    with pytest.raises(ValueError, match="length 11 exceeds n_ctx=10"):
        model(random_tokens(length=11))
    with pytest.raises(ValueError, match=r"token ids from 0 to 11; ids must be in 0\.\.10"):
        model(torch.tensor([[0, 11]]))
    for bad in (-1, 2):
        with pytest.raises(ValueError, match=r"positions must be in 0\.\.1"):
            model(torch.tensor([[0, 1]]), torch.tensor([[bad]]))
    with pytest.raises(ValueError, match="without positions"):
        model(torch.tensor([[0, 1]]), torch.tensor([[1]]), return_type="loss")


def test_a_model_draws_from_its_generator_only():
    before = torch.get_rng_state()
    first, second = (HookedTransformer(TINY, generator=stream(3, "init")) for _ in range(2))
    other = HookedTransformer.from_seed(TINY, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.flat, second.flat)
    assert not torch.equal(first.flat, other.flat)
    assert not first.training


def test_fresh_weights_are_gpt2s():
    config = ModelConfig(n_layers=8, n_heads=2, d_model=64, n_ctx=50, d_vocab=100)
    for name, p in HookedTransformer.from_seed(config, 0).named_parameters():
        leaf = name.rpartition(".")[2]
        if leaf.startswith("W_"):
            std = 0.02 / 4 if leaf in ("W_O", "W_out") else 0.02
            assert p.std().item() == pytest.approx(std, rel=0.05)
            assert abs(p.mean().item()) < std / 10
        else:
            assert (p == (1.0 if leaf == "w" else 0.0)).all()


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 9),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_smaller_model_of_a_seed_is_a_prefix(small_ctx, more_ctx, small_vocab, more_vocab, d_model, tied):
    small = ModelConfig(n_layers=1, n_heads=1, d_model=d_model, n_ctx=small_ctx, d_vocab=small_vocab, tied=tied)
    large = dataclasses.replace(small, n_ctx=small_ctx + more_ctx, d_vocab=small_vocab + more_vocab, tied=False)
    a, b = HookedTransformer.from_seed(small, 7), HookedTransformer.from_seed(large, 7)
    assert torch.equal(a.W_E, b.W_E[:small_vocab])
    assert torch.equal(a.W_pos, b.W_pos[:small_ctx])
    assert tied or torch.equal(a.W_U, b.W_U[:, :small_vocab])
    assert torch.equal(a.W_in, b.W_in)
    assert torch.equal(a.W_Q, b.W_Q)


def test_labels_make_other_weights():
    assert not torch.equal(HookedTransformer.from_seed(TINY, 0).flat, HookedTransformer.from_seed(TINY, 1).flat)
    assert not torch.equal(HookedTransformer.from_seed(TINY, 0).flat, HookedTransformer.from_seed(TINY, 0, "x").flat)


def assert_bound(model: HookedTransformer) -> None:
    """Writing to the vector writes to every parameter, and backward passes write to the gradient vector."""
    assert list(model.slices) == [name for name, _ in model.named_parameters()]
    for name, p in model.named_parameters():
        offset, shape = model.slices[name]
        assert shape == p.shape
        assert p.untyped_storage().data_ptr() == model.flat.untyped_storage().data_ptr()
        assert p.storage_offset() == offset
        assert p.is_contiguous()
        assert p.grad is not None
        assert p.grad.storage_offset() == offset
    assert model.flat.numel() == model.flat_grad.numel() == sum(p.numel() for p in model.parameters())
    if model.config.tied:
        assert model.unembed.W_E is model.embed.W_E
    if model.flat.device.type == "meta":
        return
    model.zero_grad()
    model(random_tokens(), return_type="loss").backward()
    assert all(p.grad.norm() > 0 for name, p in model.named_parameters() if "b_K" not in name)
    total = sum(p.grad.square().sum() for p in model.parameters())
    torch.testing.assert_close(model.flat_grad.square().sum(), total)


def through_pickle(model):
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def loaded(model, assign):
    other = HookedTransformer(model.config, generator=torch.Generator())
    other.load_state_dict({name: tensor.clone() for name, tensor in model.state_dict().items()}, assign=assign)
    return other


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy,
        through_pickle,
        through_torch_save,
        lambda model: model.to("cpu", torch.float32),
        lambda model: model.double().float(),
        lambda model: loaded(model, assign=False),
        lambda model: loaded(model, assign=True),
    ],
    ids=["deepcopy", "pickle", "torch.save", "no-op to", "double", "load", "load assign"],
)
def test_the_flat_vector_survives(model, change):
    before, logits = model.flat.clone(), model(random_tokens())
    changed = change(model)
    assert torch.equal(changed.flat, before)
    torch.testing.assert_close(changed(random_tokens()), logits)
    assert_bound(changed)


def test_other_dtypes_and_devices(model):
    double = copy.deepcopy(model).double()
    assert double.flat.dtype == torch.float64
    assert_bound(double)
    assert double.cfg.dtype == torch.float64
    torch.testing.assert_close(double(random_tokens()).float(), model(random_tokens()), atol=1e-5, rtol=1e-5)
    assert_bound(copy.deepcopy(model).to("meta"))
    assert torch.equal(model.flat, model.flat)


def test_a_copy_shares_nothing(model):
    twin, before = copy.deepcopy(model), model.flat.clone()
    with torch.no_grad():
        twin.flat.zero_()
    assert torch.equal(model.flat, before)
    assert twin.blocks[0].attn.cfg is twin.cfg
    assert twin.cfg is not model.cfg


def test_gradients_are_zeroed_never_none(model):
    for set_to_none in (True, False):
        model(random_tokens(), return_type="loss").backward()
        assert model.flat_grad.norm() > 0
        model.zero_grad(set_to_none=set_to_none)
        assert model.flat_grad.norm() == 0
        assert_bound(model)
    # Torch's own optimisers set gradients to None: the vector is whole again when asked for.
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(random_tokens(), return_type="loss").backward()
    gradient = model.flat_grad.clone()
    optimiser.step()
    optimiser.zero_grad()
    assert model.flat_grad.norm() == 0
    assert_bound(model)
    assert gradient.norm() > 0


def test_an_optimiser_works_on_the_vector_as_on_the_parameters(model):
    twin = copy.deepcopy(model)
    flat = torch.nn.Parameter(twin.flat)
    flat.grad = twin.flat_grad
    assert flat.data_ptr() == twin.flat.data_ptr()
    for m, parameters in ((model, model.parameters()), (twin, [flat])):
        optimiser = torch.optim.AdamW(parameters, lr=0.01, foreach=False)
        for _ in range(3):
            m.zero_grad()
            m(random_tokens(), return_type="loss").backward()
            optimiser.step()
    torch.testing.assert_close(model.flat, twin.flat)
    assert_bound(twin)


def test_a_parameter_that_left_is_an_error(model):
    model.blocks[0].attn.W_Q = torch.nn.Parameter(torch.zeros(3, 12, 4))
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attn\.W_Q was replaced.*model\.bind\(\)"):
        _ = model.flat
    model.bind()
    assert_bound(model)
    model.blocks[1].mlp.double()
    with pytest.raises(RuntimeError, match=r"blocks\.1\.mlp\.W_in was replaced"):
        _ = model.flat
    model.bind()
    with pytest.raises(RuntimeError, match="several dtypes"):
        _ = model.flat
    model.float()
    assert_bound(model)
