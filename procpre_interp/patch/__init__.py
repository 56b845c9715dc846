"""What carries an answer: interventions on activations, edges, circuits and heads, measured on counterfactual pairs.

For notebooks alone, as no command calls them: `path_patching` (a single path through the model) and `minimality` (what
each edge of a circuit is worth).
"""

from procpre_interp.patch.circuit import (
    circuit_curve,
    circuit_values,
    greedy_edges,
    minimality,
    random_edges,
    top_edges,
)
from procpre_interp.patch.edge_attribution import edge_attribution, head_strengths
from procpre_interp.patch.edges import edge_patching, path_patching
from procpre_interp.patch.gap import Gap, gap_of, prefers_answer
from procpre_interp.patch.graph import Graph
from procpre_interp.patch.masking import mask_scores
from procpre_interp.patch.metrics import METRICS
from procpre_interp.patch.nodes import activation_patching, patched_values
from procpre_interp.patch.overlap import overlap_table
from procpre_interp.patch.pruning import head_test, prune_heads

__all__ = [
    "METRICS",
    "Gap",
    "Graph",
    "activation_patching",
    "circuit_curve",
    "circuit_values",
    "edge_attribution",
    "edge_patching",
    "gap_of",
    "greedy_edges",
    "head_strengths",
    "head_test",
    "mask_scores",
    "minimality",
    "overlap_table",
    "patched_values",
    "path_patching",
    "prefers_answer",
    "prune_heads",
    "random_edges",
    "top_edges",
]
