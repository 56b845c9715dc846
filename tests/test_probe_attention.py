"""Attention entropy by hand and against a plain loop; heads ordered by it."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from procpre_interp.core.seeding import stream
from procpre_interp.core.selectors import head_terms, name_heads, orders_of, place
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.patch import edge_attribution
from procpre_interp.pipeline.config import RunConfig
from procpre_interp.pipeline.execute import execute, load_model, load_task
from procpre_interp.probe import attention_entropy, row_entropy_bits
from procpre_interp.store.store import RunStore
from procpre_interp.sweep.ranked_heads import by_lot_in_layers, ordered_heads
from procpre_interp.train import TrainConfig

CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=64, d_vocab=193, init_std=0.7)


def test_a_uniform_row_has_log2_k_bits():
    for k in (1, 2, 5, 64):
        row = torch.cat([torch.full((k,), 1 / k), torch.zeros(3)])
        assert row_entropy_bits(row).item() == pytest.approx(math.log2(k), abs=1e-6)
    assert row_entropy_bits(torch.tensor([0.0, 1.0, 0.0])).item() == 0


def test_a_model_that_attends_evenly_has_the_most_entropy():
    model = HookedTransformer(CONFIG, generator=stream(0, "even"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("W_Q", "b_Q")):
                parameter.zero_()
    batch = TASKS.build("haystack").batch(20, generator=stream(0, "batch"))
    table = attention_entropy(model, batch)
    assert table["entropy_relative"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    rows = [math.log2(i + 1) for length in batch.lengths.tolist() for i in range(length)]
    assert table["entropy_bits"].tolist() == pytest.approx([sum(rows) / len(rows)] * 4, rel=1e-5)
    assert set(table["n_rows"]) == {len(rows)}


def test_against_a_plain_loop_whatever_the_blocks():
    model = HookedTransformer(CONFIG, generator=stream(0, "model"))
    batch = TASKS.build("haystack").batch(7, generator=stream(1, "batch"))
    _, cache = model.run_with_cache(batch.tokens)
    bits, relative = {}, {}
    for layer in range(2):
        for head in range(2):
            rows, shares = [], []
            for i, length in enumerate(batch.lengths.tolist()):
                for t in range(length):
                    weights = cache["pattern", layer][i, head, t, : t + 1].tolist()
                    entropy = -sum(w * math.log2(w) for w in weights if w > 0)
                    rows.append(entropy)
                    if t:
                        shares.append(entropy / math.log2(t + 1))
            bits[layer, head] = sum(rows) / len(rows)
            relative[layer, head] = sum(shares) / len(shares)
    for size in (2, 64):
        table = attention_entropy(model, batch, max_sequences=size).set_index(["layer", "head"])
        for head in bits:
            assert table.loc[head, "entropy_bits"] == pytest.approx(bits[head], rel=1e-5)
            assert table.loc[head, "entropy_relative"] == pytest.approx(relative[head], rel=1e-5)


def test_heads_are_named_from_the_order():
    heads = ["blocks.1.attn.head.0", "blocks.0.attn.head.1", "blocks.0.attn.head.0"]
    orders = {"entropy": heads, "circuit": heads[::-1], "random": heads[1:] + heads[:1]}
    assert name_heads("ln + sharpest.2", orders.get) == "ln+blocks.0.attn.head.1+blocks.1.attn.head.0"
    assert name_heads("bluntest.1", orders.get) == "blocks.0.attn.head.0"
    assert name_heads("circuit.1+random.1", orders.get) == "blocks.0.attn.head.0+blocks.0.attn.head.1"
    assert name_heads("attn+ln", orders.get) == "attn+ln"
    assert orders_of("ln+sharpest.2+bluntest.1+random.3") == {"entropy", "random"}
    assert orders_of("attn+ln") == set()
    with pytest.raises(ValueError, match=r"sharpest.4: there are 3 heads"):
        name_heads("sharpest.4", orders.get)
    with pytest.raises(ValueError, match=r"takes sharpest.1 away"):
        name_heads("attn - sharpest.1", orders.get)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("store"))
    train = TrainConfig(steps=30, batch_size=16, learning_rate=3e-2, warmup_steps=2, evaluate_examples=16)
    return execute(RunConfig(task=TASKS.build("identity", min_length=4, length=6), train=train), store)


def test_the_sharpest_head_of_a_run_comes_first(run):
    order = ordered_heads(run, "entropy")
    assert len(order) == len(set(order)) == 8
    batch = load_task(run).batch(128, generator=stream(0, "head entropy"))
    table = attention_entropy(load_model(run), batch)
    named = {f"blocks.{row.layer}.attn.head.{row.head}": row.entropy_relative for row in table.itertuples()}
    values = [named[name] for name in order]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_the_strongest_head_of_the_circuit_comes_first(run):
    order = ordered_heads(run, "circuit")
    pairs = load_task(run).counterfactuals(128, generator=stream(0, "head circuit"))
    scores = edge_attribution(load_model(run), pairs, method="eap_ig_inputs")
    strength = [scores.loc[scores["writer"] == head, "score"].abs().sum() for head in order]
    assert len(set(order)) == 8
    assert strength == sorted(strength, reverse=True)
    assert strength[0] > strength[-1]
    assert name_heads("weakest.1", lambda _: order) == order[-1]


def test_heads_by_lot_are_those_of_the_seed(run):
    order = ordered_heads(run, "random")
    assert order == ordered_heads(run, "random")
    assert sorted(order) == sorted(ordered_heads(run, "entropy"))
    assert order != sorted(order)


def layers(heads):
    return sorted(place(head).layer for head in heads)


@given(st.permutations(head_terms(2, 4)), st.integers(0, 8), st.integers(0, 2**30))
def test_heads_by_lot_have_the_layers_of_the_strongest_and_are_others_wherever_there_are_any(ranked, k, seed):
    order = by_lot_in_layers(ranked, k, generator=stream(seed, "lot"))
    assert sorted(order) == sorted(ranked)
    assert layers(order[:k]) == layers(ranked[:k])
    for layer in (0, 1):
        strongest, drawn = ({head for head in heads[:k] if place(head).layer == layer} for heads in (ranked, order))
        assert len(drawn & strongest) == max(0, 2 * len(strongest) - 4)  # as few as four heads allow
    assert order == by_lot_in_layers(ranked, k, generator=stream(seed, "lot"))


def test_all_sets_of_these_layers_that_share_as_few_as_can_be_are_equally_likely():
    """One head of three in layer 0 and two of three in layer 1: one of two, and the other one with one of two."""
    ranked = ["blocks.0.attn.head.1", "blocks.1.attn.head.0", "blocks.1.attn.head.2"]
    ranked += [head for head in head_terms(2, 3) if head not in ranked]
    generator, n = stream(0, "lot"), 4000
    counts = Counter(frozenset(by_lot_in_layers(ranked, 3, generator=generator)[:3]) for _ in range(n))
    assert len(counts) == 4
    assert max(abs(count - n / 4) for count in counts.values()) < 5 * (n / 4 * 3 / 4) ** 0.5


def test_heads_by_lot_like_ranked_ones_are_those_of_the_seed(run):
    for word, end in (("sharpest", 1), ("bluntest", -1)):
        ranked = ordered_heads(run, "entropy")[::end]
        order = ordered_heads(run, f"random_like.{word}.3")
        assert order == ordered_heads(run, f"random_like.{word}.3")
        assert layers(order[:3]) == layers(ranked[:3])
        assert set(order[:3]) != set(ranked[:3])
    circuit = ordered_heads(run, "circuit")
    drawn = {tuple(by_lot_in_layers(circuit, 2, generator=stream(seed, "lot"))[:2]) for seed in range(20)}
    assert len(drawn) > 1
    assert layers(ordered_heads(run, "random_like.circuit.2")[:2]) == layers(circuit[:2])
