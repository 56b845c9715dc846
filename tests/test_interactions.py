"""Shapley interactions of transfer maps: against shapiq, the definition, and games whose interactions are known."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from procpre_interp.claims.text import map_interactions_table
from procpre_interp.stats.coalitions import Sampling, balanced_orders, coalitions, coverage, squares
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.interactions import are_known, interaction_table
from procpre_interp.stats.transfer_map import transfer_map
from procpre_interp.views.exhibits import pairs
from procpre_interp.views.plots.interactions import interaction_heatmap, short_names
from tests.figures import cells
from tests.test_transfer_map import games, random_games, subsets

EIGHT = [f"blocks.{layer}.attn.head.{head}" for layer in range(2) for head in range(4)]
SAMPLED = Sampling(interactions=True)

GOLDEN = {
    2: ([21.0, 42.0], [-54.0]),
    4: ([10.5, 21.0, -8.5, -17.0], [-54.0, -7.0, -14.0, -14.0, -28.0, -56.0]),
    6: (
        [8.9, 11.066666666666666, 8.666666666666668, 15.65, 24.566666666666663, 17.15],
        [
            *(-40.53333333333333, 6.4666666666666615, -17.366666666666664, -14.533333333333339, 7.966666666666669),
            *(-0.533333333333335, 19.133333333333336, -8.866666666666678, -31.20000000000002, -8.866666666666664),
            *(2.466666666666665, -8.533333333333335, 25.13333333333333, 19.966666666666665, -7.200000000000006),
        ],
    ),
}
"""Shapley values and interactions (players, then pairs in the order of `itertools.combinations`) of `golden_game`.

Made by shapiq 1.4.1: `ExactComputer(game, n)("SV", 1)` and `("SII", 2)`.
"""


def golden_game(players: list[str]) -> dict[frozenset, float]:
    """v(S) = (37 m^2 + 11 m) mod 101, where m has bit i for player i."""
    masks = {frozenset(some): sum(1 << players.index(player) for player in some) for some in subsets(players)}
    return {some: float((37 * mask * mask + 11 * mask) % 101) for some, mask in masks.items()}


def index_by_definition(v: dict[frozenset, float], players: list[str], pair: tuple[str, str]) -> float:
    total, n = 0.0, len(players)
    for some in subsets([player for player in players if player not in pair]):
        s = frozenset(some)
        weight = math.factorial(len(s)) * math.factorial(n - len(s) - 2) / math.factorial(n - 1)
        total += weight * (v[s | set(pair)] - v[s | {pair[0]}] - v[s | {pair[1]}] + v[s])
    return total


@pytest.mark.parametrize("n", GOLDEN)
def test_values_and_interactions_are_those_of_shapiq(n):
    players, exact = [f"p{i}" for i in range(n)], Sampling(exact_up_to=8)
    table = games({0: golden_game(players)}, players).rename(columns={"accuracy": "loss_nats"})
    values, interactions = GOLDEN[n]
    assert transfer_map(table, players, ["shapley"], "loss_nats", sampling=exact)["estimate"].tolist() == pytest.approx(
        values
    )
    found = interaction_table(table, players, "loss_nats", sampling=exact)
    assert list(zip(found["player"], found["other"])) == list(itertools.combinations(players, 2))
    assert found["estimate"].tolist() == pytest.approx(interactions)


def test_interactions_are_means_over_replicates_of_the_definition():
    players = EIGHT[:5]
    values = random_games(players, 3)
    found = interaction_table(games(values, players), players)
    wanted = [
        np.mean([index_by_definition(v, players, pair) for v in values.values()])
        for pair in itertools.combinations(players, 2)
    ]
    assert found["estimate"].tolist() == pytest.approx(wanted, abs=1e-12)


def test_two_players_by_hand():
    game = {frozenset(): 0.1, frozenset("a"): 0.4, frozenset("b"): 0.2, frozenset("ab"): 0.9}
    (row,) = interaction_table(games({0: game}, ["a", "b"]), ["a", "b"]).to_dict("records")
    assert (row["player"], row["other"], row["outcome"], row["n"]) == ("a", "b", "accuracy", 1)
    assert row["estimate"] == pytest.approx(0.9 - 0.4 - 0.2 + 0.1)
    assert row["decision"] == Decision.UNDECIDED


def test_parts_that_only_add_up_do_not_interact_and_a_pair_that_needs_one_another_does():
    players = EIGHT[:4]
    worth = dict(zip(players, [0.1, 0.2, 0.05, 0.3]))
    both = set(players[:2])
    values = {
        i: {frozenset(s): sum(worth[p] for p in s) + 0.25 * (both <= set(s)) for s in subsets(players)}
        for i in range(12)
    }
    found = interaction_table(games(values, players), players)
    assert found["estimate"].tolist() == pytest.approx([0.25, 0, 0, 0, 0, 0], abs=1e-12)
    assert (found["estimate"][1:] == 0).all(), "rounding errors have signs"
    assert Decision.SIGNIFICANT not in found["decision"].tolist()[1:]


@pytest.mark.parametrize("n", [6, 7, 8, 12])
def test_any_two_players_are_neighbours_once_a_round(n):
    players = [f"p{i}" for i in range(n)]
    n_orders = -(-n // 2)
    for times in (1, 2):
        lines = balanced_orders(players, replicate=5, n_orders=times * n_orders)
        assert all(sorted(filter(None, line)) == sorted(players) for line in lines)
        beside = [frozenset(two) for line in lines for two in itertools.pairwise(line) if None not in two]
        assert {pair: beside.count(pair) for pair in set(beside)} == dict.fromkeys(
            map(frozenset, itertools.combinations(players, 2)), times
        )
    assert balanced_orders(players, replicate=6, n_orders=n_orders) != lines[:n_orders]


def test_orders_that_cannot_be_balanced_are_refused():
    with pytest.raises(ValueError, match="interactions of 12 players need a multiple of 6 orders"):
        balanced_orders([f"p{i}" for i in range(12)], replicate=0, n_orders=4)


@pytest.mark.parametrize("n", [6, 7])
def test_sampled_interactions_and_values_have_no_bias(n):
    players, rounds = EIGHT[:n], Sampling(n_orders=-(-n // 2), interactions=True)
    (v,) = random_games(players, 1).values()
    drawn = dict.fromkeys(range(150), v)
    found = interaction_table(games(drawn, players), players, sampling=rounds)
    exact = [index_by_definition(v, players, pair) for pair in itertools.combinations(players, 2)]
    each = found.set_index(["player", "other"])
    assert found["n"].eq(150).all()
    spread = (each["high"] - each["low"]).to_numpy()
    assert (np.abs(found["estimate"].to_numpy() - exact) < 1.5 * spread).all()
    assert np.abs(found["estimate"].to_numpy() - exact).mean() < 0.09
    values = transfer_map(games(drawn, players), players, ["shapley"], sampling=rounds)["estimate"].to_numpy()
    true = transfer_map(games({0: v}, players), players, ["shapley"], sampling=Sampling(exact_up_to=n))["estimate"]
    assert np.abs(values - true.to_numpy()).max() < 0.09


def test_a_sampled_map_has_what_its_values_and_interactions_need_and_says_how_many():
    wanted = coalitions(EIGHT, ["shapley"], replicate=1000, sampling=SAMPLED)
    needed = {
        each
        for square in squares(EIGHT, replicate=1000, sampling=SAMPLED)
        for each in (square.both, square.first, square.second, square.neither)
    }
    assert needed <= set(wanted)
    assert len(wanted) == len(set(wanted)) <= 2 + 4 * 7 + 4 * 7
    said = coverage(EIGHT, ["shapley"], replicate=1000, sampling=SAMPLED)
    assert said.startswith(f"{len(wanted)} of 256 coalitions of 8 players per replicate")
    assert "4 random balanced orders" in said
    plain = coalitions(EIGHT, ["shapley"], replicate=1000)
    assert len(plain) <= 2 + 4 * 7
    assert coverage(EIGHT[:5], ["shapley"], replicate=0, sampling=Sampling()).startswith("All 32 coalitions")
    assert coverage(EIGHT, ["add_one_in"], replicate=0, sampling=Sampling()) == (
        "10 of 256 coalitions of 8 players per replicate."
    )


def test_all_coalitions_of_eight_players_can_be_asked_for():
    exact = Sampling(exact_up_to=8)
    assert len(coalitions(EIGHT, ["shapley"], replicate=0, sampling=exact)) == 256
    values = random_games(EIGHT, 2)
    effects = transfer_map(games(values, EIGHT), EIGHT, ["shapley"], sampling=exact)
    gain = np.mean([v[frozenset(EIGHT)] - v[frozenset()] for v in values.values()])
    assert effects["estimate"].sum() == pytest.approx(gain)


def test_which_maps_have_what_interactions_need():
    assert are_known(EIGHT[:5], ["shapley"], Sampling())
    assert not are_known(EIGHT[:5], ["add_one_in"], Sampling())
    assert not are_known(EIGHT, ["shapley"], Sampling())
    assert are_known(EIGHT, ["shapley"], SAMPLED)
    assert not are_known(EIGHT[:1], ["shapley"], Sampling())
    with pytest.raises(ValueError, match="an interaction needs two"):
        interaction_table(games(random_games(["a"], 2), ["a"]), ["a"])


def test_a_pair_without_its_coalitions_has_fewer_replicates_and_the_others_do_not():
    players = ["a", "b", "c"]
    table = games(random_games(players, 3), players)
    gone = (table["replicate"] == 1) & table["coalition"].map(lambda some: some == ("a", "b"))
    found = interaction_table(table[~gone], players).set_index(["player", "other"])["n"]
    assert found.to_dict() == {("a", "b"): 2, ("a", "c"): 2, ("b", "c"): 2}  # each needs all eight
    rounds = Sampling(n_orders=2, exact_up_to=2, interactions=True)
    (lines,) = {i: squares(players, replicate=i, sampling=rounds) for i in [1]}.values()
    missing = lines[0].both
    gone = (table["replicate"] == 1) & table["coalition"].map(lambda some: some == missing)
    sampled = interaction_table(table[~gone], players, sampling=rounds).set_index(["player", "other"])["n"]
    touched = {square.pair for square in lines if missing in (square.both, square.first, square.second, square.neither)}
    assert {pair for pair, n in sampled.items() if n == 2} == touched < set(sampled.index)
    lacking = table[table["coalition"].map(lambda some: some != ("a", "b"))]
    with pytest.raises(ValueError, match=r"none with all .* lacks the coalitions \{a, b\}"):
        interaction_table(lacking, players)


def test_the_heat_map_has_values_on_its_diagonal_and_pairs_on_both_sides():
    players = EIGHT[:3]
    table = games(random_games(players, 4), players)
    effects, found = transfer_map(table, players, ["add_one_in", "shapley"]), interaction_table(table, players)
    shown = cells(interaction_heatmap(found, effects)).to_numpy()
    values = 100 * effects.loc[effects["method"] == "shapley", "estimate"].to_numpy()
    np.testing.assert_allclose(np.diag(shown), values)
    np.testing.assert_allclose(shown[np.triu_indices(3, 1)], 100 * found["estimate"])
    np.testing.assert_allclose(shown, shown.T)
    assert np.isnan(np.diag(cells(interaction_heatmap(found, effects.iloc[:3])).to_numpy())).all()


def test_names_on_the_axes_are_short():
    assert short_names(["blocks.0.attn.head.2.W_V", "blocks.1.mlp", "blocks.1", "ln", "blocks.1.attn.W_Q"]) == [
        "0 attn 2 W_V",
        "1 mlp",
        "blocks.1",
        "ln",
        "1 attn W_Q",
    ]


def test_the_exhibit_says_which_pairs_are_decided_and_what_a_colour_means():
    players = ["attn", "mlp"]
    game = {frozenset(): 0.1, frozenset(["attn"]): 0.1, frozenset(["mlp"]): 0.1, frozenset(players): 0.9}
    table = games(dict.fromkeys(range(40), game), players)
    found, effects = interaction_table(table, players), transfer_map(table, players, ["shapley"])
    exhibit = pairs.heatmap(found, effects)
    assert exhibit.title.endswith("Decided: attn with mlp")
    assert "Blue: the two are worth more together" in exhibit.reading
    (line,) = map_interactions_table(found).to_dict("records")
    assert line["Pair"] == "attn with mlp"
    assert line["Interaction, accuracy, points"].startswith("+80.0 [")
    assert line["Decision"].startswith("significant")
    few = interaction_table(table.loc[table["replicate"] < 2], players)
    assert pairs.heatmap(few, effects).title.endswith("No pair is decided")
    loss = pd.DataFrame(found).assign(outcome="loss_nats")
    assert "Red: the two are worth more together" in pairs.heatmap(loss, effects).reading
