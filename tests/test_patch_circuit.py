"""A circuit known by hand; circuits against a plain loop and TransformerLens; searches, curves and minimality."""

import math

import pytest
import torch
from transformer_lens.tools.analysis import attribution_patching as upstream

from procpre_interp.core.seeding import stream
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.patch.circuit import (
    circuit_curve,
    circuit_values,
    greedy_edges,
    minimality,
    random_edges,
    top_edges,
)
from procpre_interp.patch.edge_attribution import edge_attribution
from procpre_interp.patch.edges import edge_patching, path_patching
from procpre_interp.patch.graph import Graph, node_of
from tests.models import TINY, random_model, told_apart

CONFIGS = {
    "two": TINY,
    "one": ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=10, d_vocab=11),
    "three": ModelConfig(n_layers=3, n_heads=2, d_model=8, n_ctx=10, d_vocab=11, tied=True),
}
COPY = (
    ("embed", "blocks.0.attn.head.1.v"),
    ("blocks.0.attn.head.1", "blocks.1.attn.head.0.v"),
    ("blocks.1.attn.head.0", "logits"),
)
"""The circuit of `copy_model`."""


def copy_model() -> HookedTransformer:
    """Two heads that look one token back, one after the other: the logits tell the token before the last but one.

    Coordinates: 0-1 the token (1, -1), (-1, 1) or nothing; 2-3 what layer 0 copies, 4-5 what layer 1 copies; from 6 on
    two a position, 1 and -1. So no residual vector has a mean, and both tokens give the same variance.
    """
    config = ModelConfig(n_layers=2, n_heads=2, d_model=14, n_ctx=4, d_vocab=3, ln_eps=1e-12)
    model = HookedTransformer(config, generator=stream(0, "overwritten")).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith(".w") else 0.0)
        model.embed.W_E[0, :2] = torch.tensor([1.0, -1.0])
        model.embed.W_E[1, :2] = torch.tensor([-1.0, 1.0])
        for t in range(4):
            model.pos_embed.W_pos[t, 6 + 2 * t : 8 + 2 * t] = torch.tensor([1.0, -1.0])
        for layer, head in ((0, 1), (1, 0)):
            attention = model.blocks[layer].attn
            for t in range(4):
                attention.W_Q[head, 6 + 2 * t, t] = 100
                attention.W_K[head, 6 + 2 * t, t + 1] = 100
            for i in range(2):
                attention.W_V[head, 2 * layer + i, i] = 1
                attention.W_O[head, i, 2 * layer + 2 + i] = 1
        model.unembed.W_U[4:6, :2] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    return model


COPY_PAIRS = Pairs(
    torch.tensor([[2, 0, 2, 2]] * 6), torch.tensor([[2, 1, 2, 2]] * 6), *(torch.tensor([i] * 6) for i in (3, 0, 1))
)
"""Six times the same: fewer pairs cannot be told from chance."""
COPY_DIFFERENCE = 4 * (7 / 3) / math.sqrt(116 / 126)
"""Layer 0 reads 1 / sqrt(4/14); layer 1 finds 2 + 2 (14/4) = 9 as its square and reads sqrt(14/4) / sqrt(9/14) = 7/3;
the logits see it over the root of (2 + 2 (7/3)^2) / 14, four times: two coordinates, two logits."""


def some_pairs(positions=(3, 8, 5, 0)) -> Pairs:
    """Unlike sequences, read at different positions, with tokens behind these."""
    n = len(positions)
    clean, corrupted = (torch.randint(11, (n, 10), generator=stream(i, "pairs")) for i in range(2))
    return Pairs(clean, corrupted, torch.tensor(positions), torch.arange(n), torch.arange(n) + 1)


def some_masks(config: ModelConfig, n: int = 5, seed: int = 0) -> torch.Tensor:
    n_edges = len(Graph(config).edges)
    return torch.rand(n, n_edges, generator=stream(seed, "masks")) < torch.linspace(0.2, 0.9, n)[:, None]


def test_the_circuit_that_was_built():
    model = copy_model()
    exact = edge_patching(model, COPY_PAIRS)
    assert exact["value"].max() == pytest.approx(COPY_DIFFERENCE)
    estimated = edge_attribution(model, COPY_PAIRS)
    for table, column in ((exact, "effect"), (estimated, "score")):
        needed = table[table[column].abs() > 1e-9]
        assert set(zip(needed["writer"], needed["reader"])) == set(COPY)
    # Each edge of a chain alone restores everything: what follows is computed again.
    assert exact.loc[exact["effect"].abs() > 1e-9, "effect"].tolist() == pytest.approx([2 * COPY_DIFFERENCE] * 3)
    assert exact["share"].max() == pytest.approx(1)
    assert set(top_edges(estimated, 3)) == set(COPY)
    assert greedy_edges(estimated, 3) == COPY[::-1]
    path = path_patching(model, COPY_PAIRS, ["embed", *(reader for _, reader in COPY)])
    assert path[["value", "share"]].iloc[0].tolist() == pytest.approx([COPY_DIFFERENCE, 1])
    other = path_patching(model, COPY_PAIRS, ["embed", "blocks.0.attn.head.1.k", *(reader for _, reader in COPY[1:])])
    assert other["effect"].iloc[0] == pytest.approx(0, abs=1e-9)


def test_the_circuit_that_was_built_is_faithful_complete_and_minimal():
    model, graph = copy_model(), Graph(copy_model().config)
    outside = ("embed", "logits")
    subsets = [graph.mask(COPY), *(graph.mask([edge for edge in COPY if edge != left]) for left in COPY)]
    values = circuit_values(model, COPY_PAIRS, torch.stack([*subsets, ~subsets[0]]))
    assert values[:, 0].tolist() == pytest.approx([COPY_DIFFERENCE] + [-COPY_DIFFERENCE] * 4)
    scores = edge_attribution(model, COPY_PAIRS)
    curve = circuit_curve(model, COPY_PAIRS, scores, sizes=[2, 3, len(graph.edges)], search="greedy", n_random=0)
    assert curve["faithfulness"].tolist() == pytest.approx([0, 1, 1], abs=1e-9)
    assert curve["completeness"].tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    table = minimality(model, COPY_PAIRS, [*COPY, outside], n_random=5, generator=stream(0, "outside"))
    losses = {(row.writer, row.reader): row.loss for row in table.itertuples() if row.kind == "inside"}
    assert losses == pytest.approx({**dict.fromkeys(COPY, 1.0), outside: 0.0}, abs=1e-9)
    null = table[table["kind"] == "outside"]
    assert null["loss"].tolist() == pytest.approx([0] * 5, abs=1e-9)
    assert not set(zip(null["writer"], null["reader"])) & {*COPY, outside}


def layer_norm(x, norm):
    centred = x - x.mean()
    return centred / torch.sqrt((centred**2).mean() + norm.eps) * norm.w + norm.b


def plain_run(model, tokens, circuit, replaced=None):
    """Logits at every position and the writers' values, one token, reader and edge after the other.

    `replaced`: writer -> [pos, d_model]; edges outside of `circuit` carry these.
    """
    n, config = len(tokens), model.config
    values = {"embed": model.W_E[tokens] + model.W_pos[:n]}
    bias = torch.zeros(config.d_model, dtype=model.W_E.dtype)

    def read(reader, t):
        parts = [v if replaced is None or (w, reader) in circuit else replaced[w] for w, v in values.items()]
        return sum(part[t] for part in parts) + bias

    for layer, block in enumerate(model.blocks):
        attention, new = block.attn, {}
        for head in range(config.n_heads):
            name = f"blocks.{layer}.attn.head.{head}"
            q, k, v = (
                [
                    layer_norm(read(f"{name}.{letter.lower()}", t), block.ln1) @ getattr(attention, f"W_{letter}")[head]
                    + getattr(attention, f"b_{letter}")[head]
                    for t in range(n)
                ]
                for letter in "QKV"
            )
            rows = []
            for t in range(n):
                weights = torch.stack([q[t] @ k[s] / math.sqrt(config.d_head) for s in range(t + 1)]).softmax(0)
                rows.append(sum(weights[s] * v[s] for s in range(t + 1)) @ attention.W_O[head])
            new[name] = torch.stack(rows)
        values |= new
        bias = bias + attention.b_O
        inputs = torch.stack([layer_norm(read(f"blocks.{layer}.mlp", t), block.ln2) for t in range(n)])
        hidden = torch.nn.functional.gelu(inputs @ block.mlp.W_in + block.mlp.b_in, approximate="tanh")
        values[f"blocks.{layer}.mlp"] = hidden @ block.mlp.W_out
        bias = bias + block.mlp.b_out
    final = torch.stack([layer_norm(read("logits", t), model.ln_final) for t in range(n)])
    return final @ model.W_U, values


@torch.no_grad()
def plain_circuits(model, pairs, masks, replaced_by):
    """The logit difference [circuit, pair]; `replaced_by(i)` gives the replaced values of pair i."""
    graph = Graph(model.config)
    found = torch.zeros(len(masks), len(pairs), dtype=torch.float64)
    for c, mask in enumerate(masks):
        for i in range(len(pairs)):
            logits, _ = plain_run(model, pairs.clean[i], set(graph.circuit(mask)), replaced_by(i))
            row = logits[pairs.positions[i]]
            found[c, i] = row[pairs.answers[i]] - row[pairs.wrong[i]]
    return found


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("replacement", ["corrupted", "zero"])
@torch.no_grad()
def test_circuits_against_a_plain_loop(config, replacement):
    model, pairs = random_model(config).double(), some_pairs()[:3]
    masks = some_masks(config, 4)
    others = [plain_run(model, tokens, ())[1] for tokens in pairs.corrupted]
    if replacement == "zero":
        others = [{writer: torch.zeros_like(value) for writer, value in other.items()} for other in others]
    expected = plain_circuits(model, pairs, masks, lambda i: others[i])
    assert expected.std(0).min() > 0.01  # circuits differ
    found = circuit_values(model, pairs, masks, replacement=replacement)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        circuit_values(model, pairs, masks, replacement=replacement, max_bytes=1), expected, rtol=0, atol=1e-9
    )


@torch.no_grad()
def test_means_are_over_the_pairs_that_reach_a_position():
    model, pairs, masks = random_model().double(), some_pairs((3, 6, 2)), some_masks(TINY, 3)
    runs = [plain_run(model, tokens, ())[1] for tokens in pairs.clean]
    positions = pairs.positions.tolist()

    def mean_at(i):
        """For pair i: means by position; of the last layer only the read position matters."""
        means = {}
        for writer, value in runs[0].items():
            means[writer] = torch.zeros_like(value)
            for t in range(max(positions) + 1):
                reaching = [run[writer][t] for run, position in zip(runs, positions) if t <= position]
                means[writer][t] = sum(reaching) / len(reaching)
            if writer.startswith("blocks.1."):
                means[writer][positions[i]] = sum(run[writer][p] for run, p in zip(runs, positions)) / len(runs)
        return means

    expected = plain_circuits(model, pairs, masks, mean_at)
    for max_bytes in (None, 1):
        found = circuit_values(model, pairs, masks, replacement="mean", max_bytes=max_bytes)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_resampled_values_are_those_of_one_other_pair():
    model, pairs, masks = random_model().double(), some_pairs(), some_masks(TINY, 3)
    empty = torch.zeros_like(masks[:1])
    found = circuit_values(
        model, pairs, torch.cat([masks, empty]), replacement="resample", generator=stream(0, "others")
    )
    rows = torch.arange(len(pairs))
    chosen = []
    for i in range(len(pairs)):
        logits = model(pairs.clean)[:, pairs.positions[i]]
        values = logits[rows, pairs.answers[i]] - logits[rows, pairs.wrong[i]]
        chosen.append(int((values - found[-1, i]).abs().argmin()))
        assert values[chosen[-1]].item() == pytest.approx(found[-1, i].item(), abs=1e-9)
    assert sorted(chosen) == rows.tolist()
    assert all(i != other for i, other in enumerate(chosen))
    as_corrupted = Pairs(pairs.clean, pairs.clean[chosen], pairs.positions, pairs.answers, pairs.wrong)
    torch.testing.assert_close(found[:-1], circuit_values(model, as_corrupted, masks), rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="give a generator"):
        circuit_values(model, pairs, masks, replacement="resample")
    with pytest.raises(ValueError, match="at least 2"):
        circuit_values(model, pairs[:1], masks, replacement="resample", generator=stream(0, "others"))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_circuits_agree_with_transformer_lens(config):
    model, pairs = random_model(config).double(), some_pairs((8,))
    graph, masks = Graph(config), some_masks(config, 3)
    answer, wrong, position = (int(x) for x in (pairs.answers, pairs.wrong, pairs.positions))
    values = circuit_values(model, pairs, torch.cat([masks, torch.zeros_like(masks[:1]), torch.ones_like(masks[:1])]))
    empty, full = values[-2].item(), values[-1].item()
    for mask, value in zip(masks, values[:, 0].tolist()):
        result = upstream.faithfulness(
            model,
            pairs.clean,
            pairs.corrupted,
            lambda logits: logits[0, position, answer] - logits[0, position, wrong],
            [(_node(w, t, config), _node(r, t, config, reads=True)) for w, r in graph.circuit(mask) for t in range(10)],
        )
        assert (result.full_metric, result.corrupt_metric) == pytest.approx((full, empty), abs=1e-9)
        assert result.recovered == pytest.approx((value - empty) / (full - empty), abs=1e-8)


def _node(name: str, position: int, config: ModelConfig, *, reads: bool = False) -> upstream.Node:
    if name == "embed":
        return upstream.Node("embed", position)
    if name == "logits":
        return upstream.Node("logits", position, config.n_layers - 1)
    parts = name.split(".")
    if parts[2] == "mlp":
        return upstream.Node("mlp_in" if reads else "mlp_out", position, int(parts[1]))
    kind = {"q": "q_input", "k": "k_input", "v": "v_input"}[parts[-1]] if reads else "attn_head_out"
    return upstream.Node(kind, position, int(parts[1]), int(parts[4]))  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", ["logit_difference", "probability", "loss"])
def test_the_full_circuit_is_the_clean_run_and_the_empty_one_the_corrupted(metric):
    model, pairs = random_model(), some_pairs()
    masks = torch.stack([torch.ones(75, dtype=torch.bool), torch.zeros(75, dtype=torch.bool)])
    assert masks.shape[1] == len(Graph(TINY).edges)
    rows = torch.arange(len(pairs))
    for values, tokens in zip(circuit_values(model, pairs, masks, metric=metric), (pairs.clean, pairs.corrupted)):
        logits = model(tokens)[rows, pairs.positions]
        probability = logits.softmax(-1)[rows, pairs.answers]
        expected = {
            "logit_difference": logits[rows, pairs.answers] - logits[rows, pairs.wrong],
            "probability": probability,
            "loss": -probability.log(),
        }[metric]
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_edges_that_lead_nowhere_change_nothing():
    graph = Graph(TINY)
    masks = torch.cat([some_masks(TINY, 8), torch.zeros(1, len(graph.edges), dtype=torch.bool)])
    effective = graph.effective(masks)
    for mask, kept in zip(masks, effective):
        edges = set(graph.circuit(mask))
        reached, expected, before = {"logits"}, set(), -1
        while len(expected) > before:
            before = len(expected)
            expected |= {edge for edge in edges if node_of(edge[1]) in reached}
            reached |= {writer for writer, _ in expected}
        assert set(graph.circuit(kept)) == expected
    assert effective.sum() < masks.sum()


def test_searches():
    graph, scores = Graph(TINY), edge_attribution(random_model(), some_pairs())
    named = {(row.writer, row.reader): abs(row.score) for row in scores.itertuples()}
    top = top_edges(scores, 10)
    assert [named[edge] for edge in top] == sorted(named.values(), reverse=True)[:10]
    grown = greedy_edges(scores, len(graph.edges))
    assert set(grown) == set(graph.edges)
    assert greedy_edges(scores, 7) == grown[:7]
    nodes = {"logits"}
    for i, edge in enumerate(grown):
        open_edges = {other for other in graph.edges if node_of(other[1]) in nodes} - set(grown[:i])
        assert named[edge] == max(named[other] for other in open_edges)
        nodes.add(edge[0])
    drawn = random_edges(graph, 30, generator=stream(0, "random"))
    assert len(set(drawn)) == 30
    assert set(drawn) <= set(graph.edges)
    assert drawn != random_edges(graph, 30, generator=stream(1, "random"))
    with pytest.raises(ValueError, match="a circuit of 76 edges; there are 75"):
        top_edges(scores, 76)
    with pytest.raises(ValueError, match="only 0 of n=1 edges lead to the logits"):
        greedy_edges(scores[scores["reader"] != "logits"], 1)


def test_a_curve_has_the_values_of_its_circuits():
    model, graph = random_model().double(), Graph(TINY)
    pairs = told_apart(model, some_pairs())
    scores = edge_attribution(model, pairs)
    table = circuit_curve(model, pairs, scores, sizes=[5, 0, 40, 75], n_random=2, generator=stream(0, "random"))
    assert table["search"].tolist() == ["top"] * 4 + ["random"] * 8
    assert table["n_edges"].tolist() == [0, 5, 40, 75] * 3
    assert table["draw"].isna().tolist() == [True] * 4 + [False] * 8
    assert table["draw"].dropna().tolist() == [0] * 4 + [1] * 4
    mask = graph.mask(top_edges(scores, 40))
    masks = torch.stack([mask, ~mask, torch.zeros_like(mask), torch.ones_like(mask)])
    value, complement, empty, full = circuit_values(model, pairs, masks).mean(1).tolist()
    row = table.iloc[2]
    assert row["value"] == pytest.approx(value)
    assert row["faithfulness"] == pytest.approx((value - empty) / (full - empty))
    assert row["completeness"] == pytest.approx((complement - empty) / (full - empty))
    for kind in ("faithfulness", "completeness"):
        ends = [0, 1] if kind == "faithfulness" else [1, 0]
        assert table.loc[table["n_edges"].isin([0, 75]), kind].tolist() == pytest.approx(ends * 3, abs=1e-9)
    assert table.loc[(table["draw"] == 0) & (table["n_edges"] == 40), "value"].item() != pytest.approx(
        table.loc[(table["draw"] == 1) & (table["n_edges"] == 40), "value"].item()
    )
    sizes = circuit_curve(model, pairs, scores, search="greedy", n_random=0)["n_edges"]
    assert (sizes.min(), sizes.max()) == (1, 75)


def test_losses_are_differences_of_faithfulness():
    model, graph = random_model().double(), Graph(TINY)
    pairs = told_apart(model, some_pairs())
    circuit = top_edges(edge_attribution(model, pairs), 30)
    table = minimality(model, pairs, circuit, n_random=3, generator=stream(0, "outside"))
    assert table["kind"].tolist() == ["inside"] * 30 + ["outside"] * 3
    mask = graph.mask(circuit)
    base, empty, full = (circuit_values(model, pairs, m[None]).mean().item() for m in (mask, mask & False, mask | True))
    for row in (table.iloc[4], table.iloc[-1]):
        changed = mask.clone()
        changed[graph.index(row["writer"], row["reader"])] ^= True
        other = circuit_values(model, pairs, changed[None]).mean().item()
        loss = (base - other if row["kind"] == "inside" else other - base) / (full - empty)
        assert row["loss"] == pytest.approx(loss, abs=1e-9)
    assert set(minimality(model, pairs, circuit, n_random=0)["kind"]) == {"inside"}


def test_what_cannot_be_asked():
    model, pairs = random_model(), some_pairs()
    scores = edge_attribution(model, pairs)
    with pytest.raises(ValueError, match="masks over 5 edges; this model's graph has 75"):
        circuit_values(model, pairs, torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="give a generator, or n_random=0"):
        circuit_curve(model, pairs, scores)
    with pytest.raises(ValueError, match="give a generator, or n_random=0"):
        minimality(model, pairs, COPY)
    same = Pairs(pairs.clean, pairs.clean, pairs.positions, pairs.answers, pairs.wrong)
    curve = circuit_curve(model, same, scores, sizes=[0, 5, 75], n_random=0)
    assert curve[["faithfulness", "completeness"]].isna().to_numpy().all()
    assert minimality(model, same, COPY, n_random=0)["loss"].isna().all()
