"""Overlap of circuits by hand; the degree-preserving null against an enumeration, and its ranks under the null."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.core.seeding import numpy_stream
from procpre_interp.model import ModelConfig
from procpre_interp.patch.graph import Edge, Graph
from procpre_interp.patch.overlap import overlap, overlap_table, random_circuits

GRAPH = Graph(ModelConfig(n_layers=2, n_heads=2, d_model=4, n_ctx=5, d_vocab=5))


def some_edges(n: int, *labels: str | int) -> set[Edge]:
    chosen = numpy_stream(0, "edges", *labels).choice(len(GRAPH.edges), n, replace=False)
    return {GRAPH.edges[i] for i in chosen}


def degrees(circuit: set[Edge]) -> tuple[Counter, Counter]:
    return Counter(writer for writer, _ in circuit), Counter(reader for _, reader in circuit)


def drawn_circuits(masks: np.ndarray) -> list[set[Edge]]:
    return [{edge for edge, kept in zip(GRAPH.edges, row) if kept} for row in masks.tolist()]


def test_overlap_by_hand():
    first = [("embed", "logits"), ("embed", "blocks.0.mlp"), ("blocks.0.mlp", "logits")]
    second = [("embed", "logits"), ("blocks.1.mlp", "logits")]
    assert overlap(first, second) == {
        "n_first": 3,
        "n_second": 2,
        "n_shared": 1,
        "jaccard": 1 / 4,
        "share_of_first": 1 / 3,
        "share_of_second": 1 / 2,
    }
    assert overlap(first, first)["jaccard"] == 1
    assert overlap(first[:1], first[1:])["jaccard"] == 0
    assert overlap([*first, *first], second) == overlap(first, second)


def test_an_empty_circuit():
    empty = overlap(set(), some_edges(3))
    assert (empty["jaccard"], empty["share_of_first"], empty["share_of_second"]) == (0, 1, 0)
    assert overlap(set(), set())["jaccard"] == 1
    circuits = {"empty": set(), "some": some_edges(3), "empty too": set()}
    table = overlap_table(GRAPH, circuits, generator=numpy_stream(0, "null"), n_draws=9)
    assert table["jaccard"].tolist() == table["null_mean"].tolist() == [0, 1, 0]
    assert table["p"].tolist() == [1, 1, 1]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(0, len(GRAPH.edges)), seed=st.integers(0, 99))
def test_degrees_are_kept_and_edges_exist(n: int, seed: int):
    circuit = some_edges(n, seed)
    masks = random_circuits(GRAPH, circuit, generator=numpy_stream(seed, "null"), n_draws=5)
    for drawn in drawn_circuits(masks):
        assert degrees(drawn) == degrees(circuit)
        assert all(edge in GRAPH.edges for edge in drawn)


def test_every_circuit_with_these_degrees_is_equally_likely():
    # These admit 3 to 8 swaps each, so a chain that did not count refused ones would visit them unevenly.
    circuit = some_edges(8, "even", 13)
    readers = sorted({reader for _, reader in circuit})
    writers = sorted({writer for writer, _ in circuit})
    choices = [
        [chosen for chosen in itertools.combinations(writers, n) if all((w, reader) in GRAPH.edges for w in chosen)]
        for reader, n in ((reader, degrees(circuit)[1][reader]) for reader in readers)
    ]
    same = {
        frozenset((writer, reader) for reader, chosen in zip(readers, each) for writer in chosen)
        for each in itertools.product(*choices)
    }
    same = {each for each in same if degrees(set(each)) == degrees(circuit)}
    assert len(same) == 11
    n_draws = 300 * len(same)
    masks = random_circuits(GRAPH, circuit, generator=numpy_stream(1, "null"), n_draws=n_draws)
    counts = Counter(frozenset(drawn) for drawn in drawn_circuits(masks))
    assert set(counts) == same
    assert chi_square(counts, n_draws) < len(same) - 1 + 4 * (2 * (len(same) - 1)) ** 0.5


def chi_square(counts: Counter, n_draws: int) -> float:
    """Of equal frequencies; its mean is the number of outcomes less one, its variance twice that."""
    expected = n_draws / len(counts)
    return sum((n - expected) ** 2 / expected for n in counts.values())


def test_a_circuit_without_a_swap_is_its_own_null():
    everything = set(GRAPH.edges)
    single = {("embed", "logits")}
    circuits = {"all": everything, "single": single, "other": some_edges(12, "other")}
    table = overlap_table(GRAPH, circuits, generator=numpy_stream(0, "null"), n_draws=50)
    table = table.set_index(["first", "second"])
    rigid = table.loc[("all", "single")]
    assert (rigid["distinct_first"], rigid["distinct_second"], rigid["p"]) == (1, 1, 1)
    assert rigid["null_low"] == rigid["null_high"] == rigid["jaccard"] == 1 / len(everything)
    assert table.loc[("all", "other"), "distinct_second"] > 25


def test_the_table_is_the_overlap_of_the_draws():
    first, second = some_edges(12, "first"), some_edges(15, "second")
    table = overlap_table(GRAPH, {"a": first, "b": second}, generator=numpy_stream(0, "null"), n_draws=40)
    generator = numpy_stream(0, "null")
    masks = [random_circuits(GRAPH, circuit, generator=generator, n_draws=40) for circuit in (first, second)]
    draws = list(zip(*(drawn_circuits(each) for each in masks)))
    null = [overlap(a, b) for a, b in draws]
    row = table.iloc[0]
    assert len(table) == 1
    assert (row["first"], row["second"], row["n_first"], row["n_second"]) == ("a", "b", 12, 15)
    assert row["jaccard"] == overlap(first, second)["jaccard"]
    assert row["null_mean"] == pytest.approx(np.mean([each["jaccard"] for each in null]))
    as_large = sum(each["n_shared"] >= row["n_shared"] for each in null)
    assert row["p"] == pytest.approx((as_large + 1) / 41)
    bounds = np.quantile([each["jaccard"] for each in null], [0.025, 0.975])
    assert [row["null_low"], row["null_high"]] == pytest.approx(bounds)


def test_identical_circuits_are_found_and_random_ones_are_not():
    circuit = some_edges(20)
    circuits = {"once": circuit, "again": set(circuit)}
    found = overlap_table(GRAPH, circuits, generator=numpy_stream(0, "null"), n_draws=199).iloc[0]
    assert found["jaccard"] == 1
    assert found["p"] == 1 / 200
    assert found["null_high"] < 1
    # Circuits that are themselves draws of the null: p is uniform, or larger because of ties.
    masks = random_circuits(GRAPH, circuit, generator=numpy_stream(0, "circuits"), n_draws=24)
    drawn = {str(i): each for i, each in enumerate(drawn_circuits(masks))}
    table = overlap_table(GRAPH, drawn, generator=numpy_stream(1, "null"), n_draws=99)
    assert len(table) == 24 * 23 / 2
    assert (table["p"] <= 0.2).mean() == pytest.approx(0.15, abs=0.08)
    assert table["p"].mean() == pytest.approx(0.55, abs=0.08)


def test_blocks_of_draws_and_the_generator(monkeypatch: pytest.MonkeyPatch):
    circuit = some_edges(10)
    draw = [random_circuits(GRAPH, circuit, generator=numpy_stream(0, "null"), n_draws=7) for _ in range(2)]
    assert (draw[0] == draw[1]).all()
    other = random_circuits(GRAPH, circuit, generator=numpy_stream(1, "null"), n_draws=7)
    assert (draw[0] != other).any()
    monkeypatch.setattr("procpre_interp.patch.overlap.CELLS_AT_ONCE", 1)
    masks = random_circuits(GRAPH, circuit, generator=numpy_stream(0, "null"), n_draws=7)
    assert masks.shape == (7, len(GRAPH.edges))
    assert all(degrees(drawn) == degrees(circuit) for drawn in drawn_circuits(masks))


def test_errors():
    with pytest.raises(ValueError, match="n_draws=0"):
        random_circuits(GRAPH, some_edges(3), generator=numpy_stream(0), n_draws=0)
    with pytest.raises(ValueError, match=r"no edge from blocks.1.mlp to blocks.0.mlp"):
        random_circuits(GRAPH, {("blocks.1.mlp", "blocks.0.mlp")}, generator=numpy_stream(0))
    with pytest.raises(ValueError, match="1 circuit; give at least 2"):
        overlap_table(GRAPH, {"alone": some_edges(3)}, generator=numpy_stream(0))
