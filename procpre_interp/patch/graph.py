"""The computational graph of a model: what writes the residual stream, and what reads it.

Writers are the embedding (of token and position together), every head and every MLP. Readers are every head's q, k
and v, every MLP, and the logits. The residual stream is a sum, so a reader's input is the sum of what its edges carry,
plus the biases b_O and b_out, which belong to no writer and reach every reader behind them. Positions are no part of
the graph: an edge is one writer into one reader at all of them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.selectors import head_term
from procpre_interp.model import ModelConfig

Edge = tuple[str, str]
"""Writer and reader: ("embed", "blocks.0.attn.head.1.q")."""


def node_of(reader: str) -> str:
    """The head or MLP that reads there, by its name as a writer; `logits` is a node that writes nothing."""
    return reader[:-2] if reader.endswith((".q", ".k", ".v")) else reader


@dataclass(frozen=True, slots=True)
class Stage:
    """Readers that run side by side: the q of all heads of a layer, then k, then v; or an MLP; or the logits."""

    readers: slice
    """Which of the graph's readers."""
    n_writers: int
    """All of them have these first writers of the graph before them; what they write themselves comes next."""
    edges: slice
    """Which of the graph's edges: [reader writer], flattened."""


class Graph:
    """Writers, readers and edges of a model of some shape, each in a fixed order: that of the computation.

    Edges are sorted by reader, then by writer. A set of edges, a circuit, is a tuple of them or a mask over `edges`.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        writers, readers, edges, stages = ["embed"], [], [], []

        def read(names: list[str]) -> None:
            pairs = [(writer, reader) for reader in names for writer in writers]
            ranges = [slice(len(old), len(old) + len(new)) for old, new in ((readers, names), (edges, pairs))]
            stages.append(Stage(ranges[0], len(writers), ranges[1]))
            readers.extend(names)
            edges.extend(pairs)

        for layer in range(config.n_layers):
            heads = [head_term(layer, head) for head in range(config.n_heads)]
            read([f"{head}.{letter}" for letter in "qkv" for head in heads])
            writers += heads
            read([f"blocks.{layer}.mlp"])
            writers.append(f"blocks.{layer}.mlp")
        read(["logits"])
        self.writers: tuple[str, ...] = tuple(writers)
        self.readers: tuple[str, ...] = tuple(readers)
        self.edges: tuple[Edge, ...] = tuple(edges)
        self.stages: tuple[Stage, ...] = tuple(stages)
        """Attention and MLP of each layer, then the logits."""
        self._index = {edge: i for i, edge in enumerate(edges)}

    @property
    def precedes(self) -> Bool[Tensor, "writer reader"]:
        """Which writer comes before which reader: the edges as a matrix."""
        matrix = torch.zeros(len(self.writers), len(self.readers), dtype=torch.bool)
        for stage in self.stages:
            matrix[: stage.n_writers, stage.readers] = True
        return matrix

    def mask(self, circuit: Iterable[Edge]) -> Bool[Tensor, " edge"]:
        """Which of `edges` are in a circuit. Raises `ValueError` for an edge that the graph does not have."""
        mask = torch.zeros(len(self.edges), dtype=torch.bool)
        for writer, reader in circuit:
            mask[self.index(writer, reader)] = True
        return mask

    def circuit(self, mask: Bool[Tensor, " edge"]) -> tuple[Edge, ...]:
        """The edges of a mask, in the graph's order."""
        return tuple(edge for edge, kept in zip(self.edges, mask.tolist()) if kept)

    def index(self, writer: str, reader: str) -> int:
        """Place of an edge in `edges`. Raises `ValueError` for one that the graph does not have."""
        if (writer, reader) in self._index:
            return self._index[writer, reader]
        for kind, name, names in (("writer", writer, self.writers), ("reader", reader, self.readers)):
            if name not in names:
                raise unknown_name(kind, name, list(names))
        raise ValueError(
            f"no edge from {writer} to {reader}; a reader sees the embedding, earlier layers and, as an MLP, its own "
            "layer's heads"
        )

    def stage_of(self, writer: str) -> int:
        """Index of the stage after which a writer is known, -1 for the embedding."""
        place = self.writers.index(writer)
        return sum(stage.n_writers <= place for stage in self.stages) - 1

    def effective(self, masks: Bool[Tensor, "circuit edge"]) -> Bool[Tensor, "circuit edge"]:
        """The circuit without the edges from which no path of kept edges leads to the logits: these change nothing."""
        masks = masks.clone()
        reaches = torch.zeros(len(masks), len(self.writers), dtype=torch.bool, device=masks.device)
        for stage in reversed(self.stages):
            kept = masks[:, stage.edges].unflatten(1, (-1, stage.n_writers))
            if stage is not self.stages[-1]:
                heads = self.config.n_heads if kept.shape[1] > 1 else 1
                nodes = reaches[:, stage.n_writers : stage.n_writers + heads]
                kept = kept & nodes.repeat(1, kept.shape[1] // heads).unsqueeze(2)
                masks[:, stage.edges] = kept.flatten(1)
            reaches[:, : stage.n_writers] |= kept.any(1)
        return masks


def edge_table(edges: Sequence[Edge], **columns: Float[Tensor, " edge"]) -> pd.DataFrame:
    named = {"writer": [writer for writer, _ in edges], "reader": [reader for _, reader in edges]}
    return pd.DataFrame({**named, **{name: column.numpy() for name, column in columns.items()}})
