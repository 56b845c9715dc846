"""Properties of the tasks that stand next to the paper's: queue, multi-hop lookup, neural automata, linear RNNs.

That their sequences and pairs are the oracles' is tested with those of all tasks.
"""

import math
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.checks import check_batch
from procpre_interp.data.procedural.linear_rnn import linear_network
from procpre_interp.data.procedural.neural_automaton import rule_tables, update_network
from tests.checks import check_against_oracle, rows_of
from tests.oracles import next_token_chances

moderate = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**63)


def test_a_queue_pushes_when_a_stack_does():
    """Equal draws give equal pushes and pops, so that only what a pop takes differs."""
    drawn = [TASKS.build(name).batch(300, generator=stream(0, "rivals")) for name in ("stack", "queue")]
    assert torch.equal(drawn[0].tokens[:, :20] == 0, drawn[1].tokens[:, :20] == 0)
    assert torch.equal(drawn[0].lengths, drawn[1].lengths)
    assert not torch.equal(drawn[0].tokens, drawn[1].tokens)


def test_a_queue_by_hand():
    batch = TASKS.build("queue", vocab=10, length=5).batch(400, generator=stream(0, "hand"))
    for tokens in rows_of(batch):
        pushed = [operation for operation in tokens[:5] if operation]
        assert tokens[6:] == pushed[tokens[:5].count(0) :]


@moderate
@given(hops=st.tuples(st.integers(1, 4), st.integers(1, 4)).map(sorted), extra=st.integers(0, 6), seed=seeds)
def test_references_are_the_oracles(hops, extra, seed):
    least = 2 * hops[1]
    config = {"min_hops": hops[0], "hops": hops[1], "min_pairs": least, "pairs": least + extra, "vocab": 20}
    task = TASKS.build("multi_hop", **config)
    batch = task.batch(40, generator=stream(seed, "oracle"))
    check_batch(task, batch, 40)
    check_against_oracle(batch, task, **config)


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_no_place_and_no_shorter_chain_gives_the_answer_away(hops):
    """Copying any fixed position is right in 1 of `pairs`, another name than the query in 1 of pairs - 1."""
    n, pairs = 20_000, 8
    task = TASKS.build("multi_hop", pairs=pairs, hops=hops, vocab=12)
    tokens = task.batch(n, generator=stream(0, "copy")).tokens
    told, query, answer = tokens[:, : 2 * pairs], tokens[:, -3], tokens[:, -1]
    error = 5 * math.sqrt(1 / pairs / n)
    assert (((told == answer[:, None]).float().mean(0) - 1 / pairs).abs() < error).all()
    others = (told[:, ::2] != query[:, None]).sum(1)
    assert (others == pairs - 1).all()
    assert (answer != query).all()
    counts = answer.bincount(minlength=12) / n
    assert ((counts - 1 / 12).abs() < error).all()
    reached = query
    for _ in range(hops - 1):
        place = (told[:, ::2] == reached[:, None]).int().argmax(1, keepdim=True)
        reached = told[:, 1::2].gather(1, place)[:, 0]
        assert (reached != answer).all()
    # Where its reference stands tells nothing either.
    place = (told[:, ::2] == query[:, None]).int().argmax(1).bincount(minlength=pairs) / n
    assert ((place - 1 / pairs).abs() < error).all()


@moderate
@given(
    states=st.integers(2, 5),
    radius=st.integers(1, 2),
    group=st.integers(1, 3),
    per_row=st.integers(1, 5),
    rows=st.integers(2, 5),
    rules=st.integers(1, 3),
    rule_seed=st.integers(0, 2**40),
    seed=seeds,
)
def test_a_neural_automaton_follows_its_network(states, radius, group, per_row, rows, rules, rule_seed, seed):
    sizes = {"states": states, "radius": radius, "group": group, "cells": group * per_row, "rows": rows}
    config = {**sizes, "rules": rules, "rule_seed": rule_seed, "hidden": 7}
    task = TASKS.build("neural_ca", **config)
    batch = task.batch(5, generator=stream(seed, "oracle"))
    check_batch(task, batch, 5)
    check_against_oracle(batch, task, **config)


def test_each_of_several_rules_is_as_likely():
    task = TASKS.build("neural_ca", rules=3, rule_seed=10)
    alone = [TASKS.build("neural_ca", rule_seed=seed) for seed in (10, 11, 12)]
    generator = stream(0, "rules")
    rules = task.choose_rules(3000, generator=generator)
    first = task.first_rows(3000, generator=generator)
    found = task.history(first, rules).tokens
    assert torch.equal(found, task.batch(3000, generator=stream(0, "rules")).tokens)
    assert ((rules.bincount() - 1000).abs() < 150).all()
    for rule, one in enumerate(alone):
        rows = rules == rule
        assert torch.equal(found[rows], one.history(first[rows], torch.zeros_like(rules[rows])).tokens)


def test_equal_scores_go_to_the_smallest_state():
    """With one hidden unit, states of equal output weights tie."""
    size = {"n_states": 9, "radius": 1, "hidden": 1}
    for seed in range(200):
        network = update_network(seed, **size)
        table = rule_tables(seed, rules=1, **size)
        weights = network.W_out[:, 0].tolist()
        best = {weights.index(max(weights)), weights.index(min(weights)), 0}
        assert set(table.tolist()) <= best


# The linear recurrent network


def test_its_matrices():
    network = linear_network(3, n_symbols=40, d_state=24, radius=0.8)
    assert torch.allclose(network.A @ network.A.T, 0.64 * torch.eye(24).double(), atol=1e-3)
    assert abs(network.B.square().mean().item() - 1) < 0.1
    assert abs(network.C.square().mean().item() * 24 / (1 - 0.8**2) - 1) < 0.1
    for matrix in (network.A, network.B, network.C):
        assert torch.equal(matrix * 2**14, (matrix * 2**14).round())
    assert not torch.equal(network.A, linear_network(4, n_symbols=40, d_state=24, radius=0.8).A)


@moderate
@given(
    vocab=st.integers(2, 40),
    d_state=st.integers(1, 20),
    radius=st.floats(0, 0.99),
    temperature=st.floats(0.1, 4),
    network_seed=st.integers(0, 2**40),
    seed=seeds,
)
def test_each_token_is_the_one_whose_chances_hold_its_word(vocab, d_state, radius, temperature, network_seed, seed):
    """Chances in real numbers; a word closer to a boundary than the rounding of logits may fall on either side."""
    network = {"d_state": d_state, "radius": radius, "temperature": temperature, "network_seed": network_seed}
    task = TASKS.build("linear_rnn", vocab=vocab, length=12, **network)
    words = torch.empty(12, 4, dtype=torch.int32).random_(generator=stream(seed, "words"))
    drawn = task.sample(words)
    for tokens, row in zip(drawn.T.tolist(), words.T.tolist()):
        for token, word, chances in zip(tokens, row, next_token_chances(tokens, vocab, **network)):
            below = sum(chances[:token])
            assert below - 0.02 <= word / 2**31 <= below + chances[token] + 0.02


def test_the_draws_of_few_rows_are_those_of_many():
    """Rows are drawn in blocks of 512, one as another."""
    task = TASKS.build("linear_rnn", length=9)
    words = torch.empty(9, 700, dtype=torch.int32).random_(generator=stream(0, "blocks"))
    together = task.sample(words)
    assert torch.equal(together[:, 500:600], task.sample(words[:, 500:600]))
    generator = stream(0, "blocks")
    assert torch.equal(task.batch(700, generator=generator).tokens.T, together.long())


def test_its_likelihood_is_that_of_the_network():
    """The mean log-likelihood of tokens is minus the mean entropy of their chances; another network gives less."""
    task = TASKS.build("linear_rnn", length=40)
    log_likelihood, entropy, other, n = 0.0, 0.0, 0.0, 0
    for tokens in rows_of(task.batch(80, generator=stream(0, "likelihood"))):
        there = next_token_chances(tokens, 32, network_seed=1)
        for token, chances, wrong in zip(tokens, next_token_chances(tokens), there):
            log_likelihood += math.log(chances[token])
            entropy -= sum(p * math.log(p) for p in chances)
            other += math.log(wrong[token])
            n += 1
    assert abs(log_likelihood + entropy) / n < 4 / math.sqrt(n)
    assert entropy / n < math.log(32) - 0.5
    assert other / n < log_likelihood / n - 0.5


def test_first_tokens_are_uniform():
    """The state starts at zero, so that nothing is preferred."""
    tokens = TASKS.build("linear_rnn", vocab=5, length=2).batch(20_000, generator=stream(0, "first")).tokens
    assert ((tokens[:, 0].bincount(minlength=5) / 20_000 - 0.2).abs() < 0.015).all()


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("queue", {"vocab": 2}, "vocab=2 leaves one symbol to push, and an empty queue"),
        ("multi_hop", {"hops": 0}, "hops=0"),
        ("multi_hop", {"min_hops": 3}, "min_hops=3"),
        ("multi_hop", {"min_pairs": 17}, "min_pairs=17 exceeds pairs=16"),
        ("multi_hop", {"hops": 9}, "pairs=16 references for hops=9; pairs must be at least 18"),
        ("multi_hop", {"min_pairs": 3}, "min_pairs=3 references"),
        ("multi_hop", {"vocab": 15}, "vocab=15"),
        ("neural_ca", {"states": 1}, "states=1"),
        ("neural_ca", {"group": 0}, "group=0"),
        ("neural_ca", {"states": 30, "group": 3}, "more than 16384 symbols"),
        ("neural_ca", {"radius": 12}, "radius=12"),
        ("neural_ca", {"cells": 15}, "cells=15"),
        ("neural_ca", {"rows": 1}, "rows=1"),
        ("linear_rnn", {"vocab": 1}, "vocab=1"),
        ("linear_rnn", {"length": 1}, "length=1"),
        ("linear_rnn", {"d_state": 0}, "d_state=0"),
        ("linear_rnn", {"radius": 1.0}, "radius=1.0; a stable network"),
        ("linear_rnn", {"temperature": 0.0}, "temperature=0.0"),
    ],
)
def test_impossible_configurations_say_why(name, config, message):
    with pytest.raises(ValueError, match=message):
        TASKS.build(name, **config)


def test_examples_read_well():
    assert TASKS.build("multi_hop", vocab=9, pairs=4).example([7, 3, 3, 7, 7, 10, 7]) == "7>3 3>7 | 7 +2 7"
    assert TASKS.build("neural_ca", cells=4, rows=2).example([0, 1, 14, 11]) == "0001 3223"
    assert TASKS.build("neural_ca", states=3, cells=4, rows=2).example([0, 1, 5, 7]) == "...+ +##+"
    assert TASKS.build("linear_rnn").example([3, 0, 31]) == "3 0 31"


def test_rows_of_an_automaton_are_not_all_alike():
    """The default rule neither freezes nor forgets its first row."""
    task = TASKS.build("neural_ca")
    for tokens in rows_of(task.batch(50, generator=stream(0, "alive"))):
        rows = [tuple(tokens[start : start + 8]) for start in range(0, 128, 8)]
        assert sum(a != b for a, b in pairwise(rows)) >= 8
