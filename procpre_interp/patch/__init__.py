"""What carries an answer: interventions on activations, edges and circuits, measured on counterfactual pairs."""

from procpre_interp.patch.circuit import (
    circuit_curve,
    circuit_values,
    greedy_edges,
    minimality,
    random_edges,
    top_edges,
)
from procpre_interp.patch.edges import edge_attribution, edge_patching, path_patching
from procpre_interp.patch.graph import Graph
from procpre_interp.patch.metrics import METRICS
from procpre_interp.patch.nodes import activation_patching, patched_values

__all__ = [
    "METRICS",
    "Graph",
    "activation_patching",
    "circuit_curve",
    "circuit_values",
    "edge_attribution",
    "edge_patching",
    "greedy_edges",
    "minimality",
    "patched_values",
    "path_patching",
    "random_edges",
    "top_edges",
]
