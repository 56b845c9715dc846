"""How much circuits share, and how much they would by the number of edges at each writer and reader alone.

Circuits of one model overlap in any case where both draw on its busy nodes, early MLPs or the logits, say. So the null
is a random circuit with the same number of edges at every writer and at every reader.
"""

import itertools
from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8

from procpre_interp.patch.graph import Edge, Graph

SWAPS_AN_EDGE = 20
"""Proposed swaps between the observed circuit and the hub, and between the hub and each draw, for every edge."""
CELLS_AT_ONCE = 2**25
"""Draws times pairs of writer and reader that are held at a time, one byte each."""


def overlap(first: Collection[Edge], second: Collection[Edge]) -> dict[str, int | float]:
    """What two circuits share: n_first, n_second, n_shared (edges), jaccard, share_of_first, share_of_second (0 to 1).

    jaccard = edges in both / edges in either; share_of_first = edges in both / edges in the first. 0 / 0 counts as 1:
    two empty circuits are identical, and all of an empty one is in any other.
    """
    a, b = set(first), set(second)
    n_shared = len(a & b)
    return {
        "n_first": len(a),
        "n_second": len(b),
        "n_shared": n_shared,
        "jaccard": float(_jaccard(n_shared, len(a), len(b))),
        "share_of_first": float(_ratio(n_shared, len(a))),
        "share_of_second": float(_ratio(n_shared, len(b))),
    }


def random_circuits(
    graph: Graph, circuit: Collection[Edge], *, generator: np.random.Generator, n_draws: int = 1000
) -> Bool[np.ndarray, "draw edge"]:
    """Random circuits with as many edges at every writer and at every reader as `circuit`, as masks over `graph.edges`.

    Two edges u -> v and x -> y are swapped to u -> y and x -> v where the graph has both of these and the circuit
    neither. A proposal takes two edges at random, and a refused one counts as a step, so that the stationary law is
    uniform over the circuits within reach; and as the readers of a later writer are among those of any earlier one,
    every circuit with these degrees is. From the observed circuit `SWAPS_AN_EDGE` proposals an edge lead to a hub, and
    from there as many, on their own, to each draw. So if the observed circuit is itself uniform, it and the draws are
    exchangeable however slowly the chain mixes, which makes ranks among them exact.

    A circuit that admits no swap is each of its draws.

    Raises:
        ValueError: an edge that the graph does not have, or fewer than 1 draw.
    Source:
        Besag and Clifford 1989, "Generalized Monte Carlo significance tests" (the hub); Rao, Jana and Bandyopadhyay
        1996 (swaps).
    """
    if n_draws < 1:
        raise ValueError(f"n_draws={n_draws}; draw at least 1 random circuit")
    allowed = graph.precedes.numpy()
    # Sorted by reader, then by writer, as the graph's edges are.
    reader_of, writer_of = np.nonzero(allowed.T)
    kept = np.flatnonzero(graph.mask(circuit).numpy())
    writers, readers = writer_of[kept], reader_of[kept]
    hub = _swapped(allowed, writers, readers[None], generator)
    at_once = max(1, CELLS_AT_ONCE // allowed.size)
    drawn = np.concatenate(
        [
            _swapped(allowed, writers, hub.repeat(min(at_once, n_draws - start), axis=0), generator)
            for start in range(0, n_draws, at_once)
        ]
    )
    place = np.zeros(allowed.shape, dtype=np.int64)
    place[writer_of, reader_of] = np.arange(len(graph.edges))
    masks = np.zeros((n_draws, len(graph.edges)), dtype=bool)
    np.put_along_axis(masks, place[writers, drawn], True, axis=1)
    return masks


def overlap_table(
    graph: Graph,
    circuits: Mapping[str, Collection[Edge]],
    *,
    generator: np.random.Generator,
    n_draws: int = 1000,
) -> pd.DataFrame:
    """Overlap of every two of some circuits beside that of random ones with their degrees; one row per pair.

    Columns: first, second (names), n_first, n_second, n_shared (edges), jaccard; null_mean, null_low and null_high (2.5
    and 97.5 %), the jaccard of two `random_circuits`, as both are replaced, so that the null does not depend on which
    comes first; p = (draws that share at least as much + 1) / (n_draws + 1), one-sided and exact; distinct_first and
    distinct_second, how many of the draws differ: 1 where a circuit admits no swap, a null that says nothing about it.
    The draws of a circuit are the same in all its pairs.

    Raises:
        ValueError: fewer than two circuits, or as `random_circuits`.
    """
    if len(circuits) < 2:
        raise ValueError(f"{len(circuits)} circuit; give at least 2, by name, to compare")
    drawn = {
        name: np.packbits(random_circuits(graph, circuit, generator=generator, n_draws=n_draws), axis=1)
        for name, circuit in circuits.items()
    }
    distinct = {name: len({row.tobytes() for row in rows}) for name, rows in drawn.items()}
    table = []
    for first, second in itertools.combinations(circuits, 2):
        found = overlap(circuits[first], circuits[second])
        n_shared = _n_shared(drawn[first], drawn[second])
        null = _jaccard(n_shared, len(set(circuits[first])), len(set(circuits[second])))
        low, high = np.quantile(null, [0.025, 0.975])
        table.append(
            {
                "first": first,
                "second": second,
                **{name: found[name] for name in ("n_first", "n_second", "n_shared", "jaccard")},
                "null_mean": null.mean(),
                "null_low": low,
                "null_high": high,
                "p": (int((n_shared >= found["n_shared"]).sum()) + 1) / (n_draws + 1),
                "distinct_first": distinct[first],
                "distinct_second": distinct[second],
            }
        )
    return pd.DataFrame(table)


def _swapped(
    allowed: Bool[np.ndarray, "writer reader"],
    writers: Int[np.ndarray, " edge"],
    readers: Int[np.ndarray, "chain edge"],
    generator: np.random.Generator,
) -> Int[np.ndarray, "chain edge"]:
    """The readers after `SWAPS_AN_EDGE` proposals an edge, of chains side by side; every edge keeps its writer."""
    n_chains, n_edges = readers.shape
    chains, readers = np.arange(n_chains), readers.copy()
    taken = np.broadcast_to(~allowed, (n_chains, *allowed.shape)).copy()  # what no edge may become
    taken[chains[:, None], writers, readers] = True
    for _ in range(SWAPS_AN_EDGE * n_edges):
        # One edge twice, or two with a writer or a reader in common, would become what is taken.
        i, j = generator.integers(n_edges, size=(2, n_chains))
        u, v, x, y = writers[i], readers[chains, i], writers[j], readers[chains, j]
        free = np.flatnonzero(~(taken[chains, u, y] | taken[chains, x, v]))
        i, j, u, v, x, y = (each[free] for each in (i, j, u, v, x, y))
        taken[free, u, v] = taken[free, x, y] = False
        taken[free, u, y] = taken[free, x, v] = True
        readers[free, i], readers[free, j] = y, v
    return readers


def _n_shared(
    first: UInt8[np.ndarray, "draw byte"], second: UInt8[np.ndarray, "draw byte"]
) -> Int[np.ndarray, " draw"]:
    """Edges in common, of masks with eight edges a byte."""
    return np.bitwise_count(first & second).sum(1, dtype=np.int64)


def _jaccard(n_shared: Int[np.ndarray, " draw"] | int, n_first: int, n_second: int) -> Float[np.ndarray, "*draw"]:
    """Edges in both circuits over edges in either."""
    return _ratio(n_shared, n_first + n_second - n_shared)


def _ratio(part: Int[np.ndarray, " draw"] | int, whole: Int[np.ndarray, " draw"] | int) -> Float[np.ndarray, "*draw"]:
    """Part over whole, and 1 for 0 / 0."""
    return np.where(np.equal(whole, 0), 1.0, part / np.maximum(whole, 1))
