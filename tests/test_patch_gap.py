"""Shares of the gap between two runs: there are some where they are told from chance over pairs, and none elsewhere."""

import math

import numpy as np
import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.patch import (
    Gap,
    Graph,
    activation_patching,
    circuit_curve,
    edge_attribution,
    edge_patching,
    gap_of,
    minimality,
    path_patching,
    top_edges,
)
from procpre_interp.views.exhibits import circuits
from procpre_interp.views.plots.circuit_graph import circuit_graph
from procpre_interp.views.plots.circuits import faithfulness_curve
from procpre_interp.views.plots.patching import gap_note, patch_heatmap
from tests.figures import subtitle
from tests.models import told_apart

TASK = TASKS.build("haystack", max_pairs=4)
CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)
PAIRS = circuits.pairs_of(TASK, "value", n=48)
FRESH = HookedTransformer.from_seed(CONFIG, 3)
"""A model at chance."""

SHARES = {
    "nodes": lambda pairs: activation_patching(FRESH, pairs, by_position=False)["share"],
    "noise": lambda pairs: activation_patching(FRESH, pairs, by_position=False, direction="noise")["share"],
    "loss": lambda pairs: activation_patching(FRESH, pairs, by_position=False, metric="loss")["share"],
    "probability": lambda pairs: activation_patching(FRESH, pairs, by_position=False, metric="probability")["share"],
    "edges": lambda pairs: edge_patching(FRESH, pairs, edges=Graph(CONFIG).edges[-5:])["share"],
    "path": lambda pairs: path_patching(FRESH, pairs, ["embed", "logits"])["share"],
    "faithfulness": lambda pairs: curve(pairs)["faithfulness"],
    "completeness": lambda pairs: curve(pairs)["completeness"],
    "minimality": lambda pairs: minimality(FRESH, pairs, Graph(CONFIG).edges[-3:], n_random=0)["loss"],
}
"""Every table with shares of a gap."""


def curve(pairs: Pairs):
    scores = edge_attribution(FRESH, pairs)
    return circuit_curve(FRESH, pairs, scores, sizes=[0, 5, 20], n_random=2, generator=stream(0, "random"))


@pytest.mark.parametrize("what", SHARES)
def test_a_model_at_chance_has_no_shares(what: str):
    assert SHARES[what](PAIRS).isna().all()
    assert SHARES[what](told_apart(FRESH, PAIRS)).notna().all()


@pytest.mark.parametrize("what", ["nodes", "edges", "path", "faithfulness"])
def test_a_single_pair_has_no_shares(what: str):
    pairs = told_apart(FRESH, PAIRS)
    assert SHARES[what](pairs[0:1]).isna().all()


def test_the_bounds_are_students():
    preferred = torch.tensor([True, True, False])
    gap = Gap.between("loss", torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 5.0]), preferred)
    reach = 4.302652729911275 / math.sqrt(3)  # t with 2 degrees of freedom, standard deviation 1
    assert (gap.estimate, gap.low, gap.high) == pytest.approx((2, 2 - reach, 2 + reach))
    bounds = {"gap": 2.0, "gap_low": gap.low, "gap_high": gap.high}
    chance = {"answer_preferred": pytest.approx(2 / 3), "gap_told": False}
    assert gap.columns() == {"metric": "loss", "n_pairs": 3, **bounds, **chance}
    assert gap.defined(torch.ones(2)).isnan().all()


@pytest.mark.parametrize("sign", [1, -1])
def test_gap_and_preference_must_both_be_told_from_chance(sign: int):
    clear, mixed = sign * torch.linspace(0.9, 1.1, 20), torch.linspace(-1, 1.1, 20)
    for change, n_preferred, told in ((clear, 20, True), (clear, 15, True), (clear, 14, False), (mixed, 20, False)):
        gap = Gap.between("loss", torch.zeros(20), change, torch.arange(20) < n_preferred)
        assert gap.told == told  # 2 P(at most 5 of 20) is .041, of 6 it is .115
        assert gap.defined(torch.ones(2)).isnan().tolist() == [not told] * 2
        assert not Gap.between("loss", torch.zeros(20), change, torch.arange(20) >= n_preferred).told


def test_six_pairs_are_needed():
    for n in range(1, 8):
        assert Gap.between("loss", torch.zeros(n), torch.ones(n), torch.ones(n) > 0).told == (n >= 6)


def test_a_swap_of_the_same_tokens_does_not_count_as_many_pairs():
    """Of fresh models: where all pairs swap the same few tokens, gaps alike in every pair are no knowledge."""
    task = TASKS.build("dyck", k=3, length=64)
    pairs = circuits.pairs_of(task, "type", n=64)
    config = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    gaps = [gap_of(HookedTransformer.from_seed(config, seed), pairs) for seed in range(40)]
    assert sum(gap.low > 0 or gap.high < 0 for gap in gaps) > 10
    assert sum(gap.told for gap in gaps) <= 2


def test_effects_stay_and_the_gap_is_that_of_the_two_runs():
    table, gap = activation_patching(FRESH, PAIRS, by_position=False), gap_of(FRESH, PAIRS)
    assert table["effect"].abs().gt(0).any()
    assert table["gap"].iloc[0] == pytest.approx(table["clean"].iloc[0] - table["corrupted"].iloc[0], abs=1e-6)
    row = table.iloc[0]
    assert tuple(row[["gap", "gap_low", "gap_high", "n_pairs"]]) == pytest.approx(
        (gap.estimate, gap.low, gap.high, 48), abs=1e-6
    )
    assert edge_patching(FRESH, PAIRS, edges=Graph(CONFIG).edges[:1])["gap_low"].iloc[0] == pytest.approx(
        gap.low, abs=1e-6
    )


def test_figures_show_effects_where_there_are_no_shares():
    at_chance, told = PAIRS, told_apart(FRESH, PAIRS)
    for pairs in (at_chance, told):
        table = activation_patching(FRESH, pairs, sites=["z"], by_position=False)
        figure = patch_heatmap(table, "z")
        shown = np.asarray(figure.data[0].z, dtype=float)
        column = "effect" if pairs is at_chance else "share"
        assert sorted(shown.flatten()) == pytest.approx(sorted(table[column]))
        assert ("not told from chance" in subtitle(figure)) == (pairs is at_chance)
        assert ("share" in figure.data[0].hovertext[0][0]) == (pairs is told)
        figure = faithfulness_curve(curve(pairs))
        assert ("not told from chance" in subtitle(figure)) == (pairs is at_chance)
        assert len({trace.xaxis for trace in figure.data}) == (1 if pairs is at_chance else 2)


@pytest.mark.parametrize("exhibit", [circuits.effects, circuits.graph, circuits.faithfulness])
def test_exhibits_say_that_a_model_is_at_chance(exhibit):
    found = exhibit(FRESH, TASK, "value")
    said = " ".join(found.notes)
    assert "At chance: over 64 pairs the two runs are" in said
    assert "so effects are in logit difference, not shares." in said
    assert "brings the whole clean answer back" not in found.reading


def test_one_pair_is_shown_in_logits():
    found = circuits.effects_on_pair(FRESH, TASK, "value", 1, "resid_pre")
    shown = np.asarray(found.figure.data[0].z, dtype=float)
    assert sorted(shown.flatten()) == pytest.approx(sorted(found.table["effect"]))
    assert f"{found.table['gap'].iloc[0]:+.3g}" in found.reading


def test_a_graph_of_edges_needs_no_gap():
    table = edge_attribution(FRESH, PAIRS)
    assert gap_note(table) == ""
    assert circuit_graph(table, n=3).data
    assert len(top_edges(table, 3)) == 3
