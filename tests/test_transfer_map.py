"""Transfer maps against games whose values are known, and the definition over all orders."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.core.selectors import place
from procpre_interp.stats import summary as stats
from procpre_interp.stats.betting import FRACTIONS, WEIGHTS
from procpre_interp.stats.confidence_sequence import Limits, sequence_interval, sequential_test
from procpre_interp.stats.decisions import Decision
from procpre_interp.stats.paper_comparison import SEQUENTIAL, effect_verdict
from procpre_interp.stats.resampling import IntervalMethod
from procpre_interp.stats.transfer_map import (
    MAX_EXACT_PLAYERS,
    OUTCOMES,
    Sampling,
    coalition_of,
    coalitions,
    orders,
    selector_grid,
    transfer_map,
)
from tests.results import NAN

moderate = settings(max_examples=25, deadline=None)
METHODS = ["add_one_in", "leave_one_out", "shapley"]
PLAYERS = ["attn", "mlp", "ln"]
SEVEN = [*PLAYERS, "pos", "embed", "blocks.0.attn.head.2", "unembed"]


def subsets(players: list[str]) -> list[tuple[str, ...]]:
    return [some for size in range(len(players) + 1) for some in itertools.combinations(players, size)]


def games(values: dict[int, dict[frozenset, float]], players: list[str], **columns) -> pd.DataFrame:
    """A results table from replicate -> coalition -> accuracy."""
    rows = [
        {"coalition": tuple(p for p in players if p in some), "replicate": replicate, "accuracy": value}
        for replicate, game in values.items()
        for some, value in game.items()
    ]
    return pd.DataFrame(rows).assign(status="finished", **columns)


def random_games(players: list[str], replicates: int, seed: int = 0) -> dict[int, dict[frozenset, float]]:
    generator = numpy_stream(seed, "games", len(players))
    return {i: {frozenset(s): float(generator.random()) for s in subsets(players)} for i in range(replicates)}


def shapley_by_definition(v: dict[frozenset, float], players: list[str]) -> list[float]:
    """Mean over all n! orders of what a player adds to those before it."""
    total = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        for index, player in enumerate(order):
            total[player] += v[frozenset(order[: index + 1])] - v[frozenset(order[:index])]
    return [total[player] / math.factorial(len(players)) for player in players]


def estimates(effects: pd.DataFrame, method: str) -> list[float]:
    return effects.loc[effects["method"] == method, "estimate"].tolist()


def test_coalitions_by_hand():
    assert coalition_of(["ln", "attn"], PLAYERS) == ("attn", "ln")
    assert coalition_of([], PLAYERS) == ()
    whole, single = ("attn", "mlp", "ln"), [("attn",), ("mlp",), ("ln",)]
    pairs = [("mlp", "ln"), ("attn", "ln"), ("attn", "mlp")]
    assert coalitions(PLAYERS, ["add_one_in"], replicate=3) == [(), whole, *single]
    assert coalitions(PLAYERS, ["leave_one_out"], replicate=3) == [(), whole, *pairs]
    assert coalitions(PLAYERS, METHODS, replicate=3) == [(), whole, *single, *pairs]
    assert coalitions(["attn"], METHODS, replicate=0) == [(), ("attn",)]


def test_many_players_need_the_prefixes_of_their_replicate_s_orders():
    five, six = SEVEN[:MAX_EXACT_PLAYERS], SEVEN[: MAX_EXACT_PLAYERS + 1]
    assert len(coalitions(five, ["shapley"], replicate=0)) == 2**5
    sampled = coalitions(six, ["shapley"], replicate=7, sampling=Sampling(n_orders=2))
    order, back = orders(six, replicate=7, n_orders=2)
    prefixes = {frozenset(some[:size]) for some in (order, back) for size in range(7)}
    assert set(map(frozenset, sampled)) == prefixes
    assert len(sampled) == len(set(sampled)) <= 2 * 5 + 2
    assert sampled[:2] == [(), tuple(six)]


def test_orders_come_in_pairs_and_belong_to_the_replicate():
    drawn = orders(SEVEN, replicate=5, n_orders=4)
    assert [order[::-1] for order in drawn[::2]] == drawn[1::2]
    assert all(sorted(order) == sorted(SEVEN) for order in drawn)
    assert orders(SEVEN, replicate=5, n_orders=8)[:4] == drawn
    assert len({orders(SEVEN, replicate=i, n_orders=2)[0] for i in range(8)}) > 6
    # Over replicates, each player is first as often as any other.
    first = [orders(PLAYERS, replicate=i, n_orders=2)[0][0] for i in range(600)]
    assert all(abs(first.count(player) - 200) < 60 for player in PLAYERS)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_exact_shapley_values_are_means_over_all_orders(n: int):
    players = SEVEN[:n]
    values = random_games(players, 3, seed=n)
    expected = np.mean([shapley_by_definition(v, players) for v in values.values()], axis=0)
    found = transfer_map(games(values, players), players, ["shapley"])
    assert found["estimate"].to_numpy() == pytest.approx(expected, abs=1e-12)


def test_sampled_shapley_values_are_means_over_the_replicate_s_orders():
    values = random_games(SEVEN, 4)
    sums = dict.fromkeys(SEVEN, 0.0)
    for replicate, v in values.items():
        for order in orders(SEVEN, replicate=replicate, n_orders=6):
            for index, player in enumerate(order):
                sums[player] += v[frozenset(order[: index + 1])] - v[frozenset(order[:index])]
    found = transfer_map(games(values, SEVEN), SEVEN, ["shapley"], sampling=Sampling(n_orders=6))
    assert found["estimate"].tolist() == pytest.approx([sums[player] / 24 for player in SEVEN], abs=1e-12)


def test_one_in_and_one_out_by_hand():
    none, both = frozenset(), frozenset(["a", "b"])
    game = {none: 0.1, frozenset("a"): 0.4, frozenset("b"): 0.2, both: 0.9}
    other = {none: 0.2, frozenset("a"): 0.4, frozenset("b"): 0.2, both: 0.8}
    effects = transfer_map(games({0: game, 1: other}, ["a", "b"]), ["a", "b"], METHODS)
    assert effects["method"].tolist() == ["add_one_in"] * 2 + ["leave_one_out"] * 2 + ["shapley"] * 2
    assert effects["player"].tolist() == ["a", "b"] * 3
    assert estimates(effects, "add_one_in") == pytest.approx([(0.3 + 0.2) / 2, (0.1 + 0.0) / 2])
    assert estimates(effects, "leave_one_out") == pytest.approx([(0.7 + 0.6) / 2, (0.5 + 0.4) / 2])
    assert estimates(effects, "shapley") == pytest.approx([(0.5 + 0.4) / 2, (0.3 + 0.2) / 2])
    # Two replicates leave most of the range from -1 to 1.
    interval = sequence_interval(np.array([0.3, 0.2]), Limits(low=-1, high=1))
    assert effects[["low", "high"]].to_numpy()[0] == pytest.approx([interval.low, interval.high])
    assert interval.low < -0.8
    assert set(effects["interval"]) == {IntervalMethod.BETTING}
    assert effects["n"].tolist() == [2] * 6
    assert effects["p"].tolist()[0] == pytest.approx(sequential_test(np.array([0.3, 0.2]), 0, Limits(low=-1, high=1)).p)
    assert set(effects["outcome"]) == {"accuracy"}
    assert set(effects["decision"]) == {Decision.UNDECIDED}
    assert all(reason.startswith("n = 2 can give no ") for reason in effects["undecided_reason"])


@pytest.mark.parametrize("players", [PLAYERS, SEVEN])
def test_an_additive_game_has_its_addends_by_every_method(players: list[str]):
    generator = numpy_stream(1, "addends")
    worth = {i: dict(zip(players, generator.random(len(players)))) for i in range(4)}
    values = {i: {frozenset(s): 0.05 * i + sum(w[p] for p in s) for s in subsets(players)} for i, w in worth.items()}
    effects = transfer_map(games(values, players), players, METHODS)
    mean = pd.DataFrame(worth).mean(axis=1).tolist()
    for method in METHODS:
        assert estimates(effects, method) == pytest.approx(mean, abs=1e-12)
    bounds = effects.set_index(["method", "player"])[["low", "high"]]
    for method in METHODS[1:]:
        assert bounds.loc[method].to_numpy() == pytest.approx(bounds.loc["add_one_in"].to_numpy(), abs=1e-9)


@moderate
@given(n=st.integers(2, 7), seed=st.integers(0, 10**6), n_orders=st.sampled_from([2, 4]))
def test_shapley_values_sum_to_the_gain(n: int, seed: int, n_orders: int):
    players = SEVEN[:n]
    values = random_games(players, 2, seed)
    effects = transfer_map(games(values, players), players, ["shapley"], sampling=Sampling(n_orders=n_orders))
    gain = np.mean([v[frozenset(players)] - v[frozenset()] for v in values.values()])
    assert effects["estimate"].sum() == pytest.approx(gain, abs=1e-12)


@moderate
@given(n=st.integers(3, 7), seed=st.integers(0, 10**6))
def test_a_player_that_adds_nothing_has_no_effect(n: int, seed: int):
    players = SEVEN[:n]
    idle = players[seed % n]
    values = random_games(players, 2, seed)
    values = {i: {s: v[s - {idle}] for s in v} for i, v in values.items()}
    effects = transfer_map(games(values, players), players, METHODS).set_index("player")
    assert effects.loc[[idle], "estimate"].tolist() == [0, 0, 0]
    assert effects.loc[[idle], "p"].tolist() == [1, 1, 1]
    assert (effects.loc[effects.index != idle, "estimate"] != 0).any()


@moderate
@given(n=st.integers(2, 5), seed=st.integers(0, 10**6))
def test_players_that_can_be_exchanged_have_the_same_shapley_value(n: int, seed: int):
    players = SEVEN[:n]
    a, b = players[0], players[-1]
    swap = {a: b, b: a}
    values = {
        i: {s: (v[s] + v[frozenset(swap.get(p, p) for p in s)]) / 2 for s in v}
        for i, v in random_games(players, 2, seed).items()
    }
    effects = transfer_map(games(values, players), players, ["shapley"]).set_index("player")["estimate"]
    assert effects[a] == pytest.approx(effects[b], abs=1e-12)


def test_an_empty_sequence_decides_nothing():
    """The first twenty replicates say -1 and forty more 0: no mean is left, and a small p decides nothing."""
    rows = [
        {"condition": name, "coalition": coalition, "replicate": replicate, "status": "finished", "limit": 10}
        | {"accuracy": float(not coalition or replicate >= 20), "breakthrough_step": 1.0}
        for replicate in range(60)
        for name, coalition in (("nothing", ()), ("a", ("a",)))
    ]
    (effect,) = transfer_map(pd.DataFrame(rows), ["a"], ["add_one_in"]).to_dict("records")
    assert (effect["decision"], effect["p_holm"], math.isnan(effect["low"])) == ("not significant", 1.0, True)
    assert effect_verdict(0.6, 0.1, 60, 0.8, margin=0.2, rule=SEQUENTIAL) == "undecided"


def test_rounding_errors_are_no_effect():
    # 0.3 - 0.1 and 0.4 - 0.6 do not cancel in floating point.
    game = {frozenset(): 0.1, frozenset("a"): 0.3, frozenset("b"): 0.6, frozenset("ab"): 0.4}
    effects = transfer_map(games(dict.fromkeys(range(6), game), ["a", "b"]), ["a", "b"], ["shapley"])
    assert (0.3 - 0.1) + (0.4 - 0.6) != 0
    assert effects["estimate"].tolist()[0] == 0
    assert effects["p"].tolist()[0] == 1


def smallest_p(n: int) -> float:
    """Two-sided, where the outcome is at its limit in all replicates: each fraction of the capital grows by 1 + it."""
    return 2 / float(WEIGHTS @ (1 + FRACTIONS) ** n)


def test_holm_adjusts_within_a_method():
    effects = transfer_map(games(random_games(PLAYERS, 10), PLAYERS), PLAYERS, METHODS)
    for _, rows in effects.groupby("method"):
        np.testing.assert_allclose(rows["p_holm"], stats.holm(rows["p"].to_numpy()))
        np.testing.assert_allclose(rows["smallest_p_holm"], 3 * smallest_p(10))
    for _, row in effects.iterrows():
        assert row["smallest_p"] == pytest.approx(smallest_p(10))
        assert row["decision"] == (Decision.SIGNIFICANT if row["p_holm"] <= 0.05 else Decision.NOT_SIGNIFICANT)
        assert row["undecided_reason"] == ""


def test_replicates_without_a_coalition_are_left_out_where_it_is_needed():
    values = random_games(PLAYERS, 4)
    table = games(values, PLAYERS)
    gone = (table["replicate"] == 2) & table["coalition"].map(lambda chosen: chosen == ("mlp",))
    found = {
        name: transfer_map(some, PLAYERS, METHODS)
        for name, some in {
            "absent": table[~gone],
            "diverged": table.assign(status=np.where(gone, "diverged", "finished")),
            "failed": table.assign(status=np.where(gone, "failed", "finished")),
        }.items()
    }
    for effects in found.values():
        assert effects["n"].tolist() == [4, 3, 4, 4, 4, 4, 3, 3, 3]
        complete = [v for replicate, v in values.items() if replicate != 2]
        alone = np.mean([v[frozenset(["mlp"])] - v[frozenset()] for v in complete])
        assert effects["estimate"][1] == pytest.approx(alone)
        gain = np.mean([v[frozenset(PLAYERS)] - v[frozenset()] for v in complete])
        assert sum(estimates(effects, "shapley")) == pytest.approx(gain, abs=1e-12)


def test_a_row_without_a_complete_replicate_is_not_tested():
    table = games(random_games(PLAYERS, 6), PLAYERS)
    effects = transfer_map(
        table[table["coalition"].map(lambda chosen: chosen != ("mlp",))], PLAYERS, METHODS
    ).set_index(["method", "player"])
    empty = effects.loc[("add_one_in", "mlp")]
    assert empty["n"] == 0
    assert empty[["estimate", "low", "high", "p", "smallest_p", "p_holm"]].isna().all()
    assert empty["decision"] == Decision.UNDECIDED
    assert empty["undecided_reason"] == "no complete replicate"
    # The family has two tests, then.
    np.testing.assert_allclose(effects.loc[("add_one_in", "attn"), "smallest_p_holm"], 2 * smallest_p(6))
    assert effects.loc["shapley", "n"].tolist() == [0, 0, 0]
    # What is left out of one row changes no other.
    whole = transfer_map(table, PLAYERS, METHODS).set_index(["method", "player"])
    columns = ["estimate", "low", "high", "n", "p"]
    pd.testing.assert_frame_equal(effects.loc["leave_one_out", columns], whole.loc["leave_one_out", columns])


def test_one_replicate_has_no_interval():
    effects = transfer_map(games(random_games(PLAYERS, 1), PLAYERS), PLAYERS, METHODS)
    assert effects[["low", "high"]].isna().to_numpy().all()
    assert effects["n"].eq(1).all()
    assert not effects["constant"].any()


def outcomes_table() -> pd.DataFrame:
    """One player, two replicates: nothing never broke through; the transfer at 1000 steps, and once it diverged."""
    return pd.DataFrame(
        {
            "coalition": [(), ("attn",), (), ("attn",), ("attn", "mlp")],
            "replicate": [0, 0, 1, 1, 1],
            "status": ["finished", "finished", "finished", "diverged", "failed"],
            "accuracy": [0.1, 0.9, 0.2, 0.5, NAN],
            "loss_nats": [3.0, 1.0, 3.0, 99.0, NAN],
            "area": [0.1, 0.6, 0.1, 0.7, NAN],
            "breakthrough_step": [3500, 1000, NAN, 200, NAN],
            "limit": [4000, 3000, 4000, 4000, NAN],
            "tokens_to_target": [3500e3, 1000e3, NAN, 200e3, NAN],
            "token_limit": [4000e3, 3000e3, 4000e3, 250e3, NAN],
        }
    )


@pytest.mark.parametrize(
    ("outcome", "expected", "n"),
    [
        ("accuracy", 0.8, 1),
        ("loss_nats", -2.0, 1),
        ("area", 0.5, 1),
        # Up to 3000 steps: 3000 -> 1000, and the diverged run counts the limit, as 3000 -> 3000.
        ("restricted_time_steps", (-2000 + 0) / 2, 2),
        ("breakthrough_share", (1 + 0) / 2, 2),
        # The tokens at which a run diverged are no limit of the others.
        ("tokens_to_target", (-2000e3 + 0) / 2, 2),
    ],
)
def test_outcomes_by_hand(outcome: str, expected: float, n: int):
    effect = transfer_map(outcomes_table(), ["attn"], ["add_one_in"], outcome).loc[0]
    assert (effect["estimate"], effect["n"], effect["outcome"]) == (pytest.approx(expected), n, outcome)


def test_outcomes_are_described():
    assert list(OUTCOMES) == [
        "accuracy",
        "loss_nats",
        "area",
        "restricted_time_steps",
        "breakthrough_share",
        "tokens_to_target",
    ]
    assert all(outcome.description and outcome.unit for outcome in OUTCOMES.values())


def test_effects_that_all_agree_are_no_certainty():
    n = 7
    table = pd.DataFrame(
        {
            "coalition": [(), ("attn",)] * n,
            "replicate": np.repeat(np.arange(n), 2),
            "status": "finished",
            "breakthrough_step": [NAN, 1000.0] * n,
            "limit": 4000,
            "loss_nats": [3.0, 1.0] * n,
        }
    )
    share = transfer_map(table, ["attn"], ["add_one_in"], "breakthrough_share").loc[0]
    assert share["constant"]
    assert (share["estimate"], share["high"]) == pytest.approx((1, 1))
    # Those that bet all have multiplied it by 1 / m, which is enough for a mean of m.
    capital = (WEIGHTS @ (1 - FRACTIONS + 2 * FRACTIONS / (1 + share["low"])) ** n).item()
    assert capital == pytest.approx(1 / 0.025, rel=1e-5)
    time = transfer_map(table, ["attn"], ["add_one_in"], "restricted_time_steps").loc[0]
    assert -4000 < time["low"] < -3000 < time["high"] < 4000
    loss = transfer_map(table, ["attn"], ["add_one_in"], "loss_nats").loc[0]
    assert (loss["constant"], loss["interval"], loss["estimate"]) == (True, IntervalMethod.T_MIXTURE, -2)
    assert np.isnan(loss["low"])
    assert (loss["p"], loss["decision"]) == (1, Decision.NOT_SIGNIFICANT)
    varied = transfer_map(table.assign(accuracy=np.linspace(0, 1, 2 * n) ** 2), ["attn"], ["add_one_in"]).loc[0]
    assert not varied["constant"]


def test_a_loss_that_varies_is_decided_by_a_t_mixture():
    table = pd.DataFrame({"coalition": [(), ("attn",)] * 8, "replicate": np.repeat(np.arange(8), 2)})
    noise = numpy_stream(3, "loss").normal(0, 0.05, 16)
    table = table.assign(status="finished", loss_nats=np.tile([3.0, 2.5], 8) + noise)
    found = transfer_map(table, ["attn"], ["add_one_in"], "loss_nats").loc[0]
    assert (found["interval"], found["decision"]) == (IntervalMethod.T_MIXTURE, Decision.SIGNIFICANT)
    assert found["low"] < -0.5 < found["high"] < 0


TABLE = games(random_games(PLAYERS, 2), PLAYERS)


@pytest.mark.parametrize(
    ("table", "players", "methods", "outcome", "message"),
    [
        (TABLE, PLAYERS, ["shaply"], "accuracy", "unknown method 'shaply'. Did you mean 'shapley'?"),
        (TABLE, PLAYERS, [], "accuracy", "no methods"),
        (TABLE, PLAYERS, METHODS, "acuracy", "Did you mean 'accuracy'?"),
        (TABLE, ["attn", "attn"], METHODS, "accuracy", "none twice"),
        (TABLE, [], METHODS, "accuracy", "give one or more names"),
        (TABLE.assign(coalition="attn"), PLAYERS, METHODS, "accuracy", "give each as a tuple of its players"),
        (TABLE, PLAYERS, METHODS, "area", "a table without area"),
        (TABLE, ["pos"], ["add_one_in"], "accuracy", r"2 replicates, none with all.*lacks the coalitions \{pos\}"),
        (TABLE.assign(accuracy=NAN), PLAYERS, METHODS, "accuracy", "none with all that one effect on accuracy needs;"),
        (TABLE.assign(status="failed"), PLAYERS, METHODS, "accuracy", "8 rows|16 rows, none of them"),
        (pd.concat([TABLE, TABLE]), PLAYERS, METHODS, "accuracy", "more than one row"),
        (outcomes_table().assign(limit=0), ["attn"], ["add_one_in"], "breakthrough_share", "a limit above 0"),
    ],
)
def test_maps_that_are_refused(table: pd.DataFrame, players: list[str], methods: list[str], outcome: str, message: str):
    with pytest.raises(ValueError, match=message):
        transfer_map(table, players, methods, outcome)


def test_names_and_orders_that_are_refused():
    with pytest.raises(ValueError, match="unknown player 'mpl'. Did you mean 'mlp'?"):
        coalition_of(["mpl"], PLAYERS)
    for n_orders in (0, 3):
        with pytest.raises(ValueError, match="an even number"):
            orders(SEVEN, replicate=0, n_orders=n_orders)


@pytest.mark.parametrize(
    ("player", "layer", "component", "head", "matrix"),
    [
        ("attn", None, "attn", None, None),
        ("blocks.1", 1, None, None, None),
        ("blocks.12.attn", 12, "attn", None, None),
        ("blocks.0.attn.head.2", 0, "attn", 2, None),
        ("blocks.0.attn.head.2.W_V", 0, "attn", 2, "W_V"),
        ("attn.head.3", None, "attn", 3, None),
        ("blocks.1.mlp.W_in", 1, "mlp", None, "W_in"),
        ("attn.W_V", None, "attn", None, "W_V"),
        ("ln_final", None, "ln_final", None, None),
        ("blocks.0.ln1.w", 0, "ln1", None, "w"),
        ("pos", None, "pos", None, None),
        ("pos_embed.W_pos", None, "pos", None, "W_pos"),
        ("embed", None, "embed", None, None),
        ("blocks.0.attn + pos", None, None, None, None),
        ("all-mlp", None, None, None, None),
    ],
)
def test_places(player: str, layer: int | None, component: str | None, head: int | None, matrix: str | None):
    assert place(player) == (layer, component, head, matrix)


def test_grids_by_hand():
    assert selector_grid("component", 2, 2) == ["attn", "mlp", "ln", "pos", "embed"]
    assert selector_grid("layer", 3, 2) == ["blocks.0", "blocks.1", "blocks.2"]
    assert selector_grid("layer_component", 2, 4) == ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp"]
    assert selector_grid("head", 1, 2) == ["blocks.0.attn.head.0", "blocks.0.attn.head.1"]
    assert selector_grid("matrix", 1, 2) == [
        *(f"blocks.0.attn.{matrix}" for matrix in ("W_Q", "W_K", "W_V", "W_O")),
        "blocks.0.mlp.W_in",
        "blocks.0.mlp.W_out",
    ]
    assert selector_grid("key_value", 1, 2) == ["blocks.0.mlp.keys", "blocks.0.mlp.values"]
    assert selector_grid("head_matrix", 2, 3)[-1] == "blocks.1.attn.head.2.W_O"
    assert len(selector_grid("head_matrix", 2, 3)) == 2 * 3 * 4
    with pytest.raises(ValueError, match="unknown grain 'heads'. Did you mean 'head'?"):
        selector_grid("heads", 2, 2)
    with pytest.raises(ValueError, match="at least 1 of each"):
        selector_grid("head", 2, 0)


@pytest.mark.parametrize(
    "grain", ["component", "layer", "layer_component", "head", "key_value", "matrix", "head_matrix"]
)
def test_the_map_knows_every_player_of_a_grid(grain: str):
    from procpre_interp.model import ModelConfig
    from procpre_interp.model.components import select

    config = ModelConfig(n_layers=2, n_heads=3, d_model=6, n_ctx=4, d_vocab=5)
    for player in selector_grid(grain, 2, 3):
        (part, *_) = select(config, player)
        where = place(player)
        assert where.head is None or part.index == (where.head,)
        assert where.layer is None or part.parameter.startswith(f"blocks.{where.layer}.")
        written = {"keys": "W_in", "values": "W_out"}.get(where.matrix or "", where.matrix)
        assert where.matrix is None or part.parameter.endswith(f".{written}")
