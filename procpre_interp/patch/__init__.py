"""What carries an answer: interventions on activations, edges and circuits, measured on counterfactual pairs."""

from procpre_interp.patch.metrics import METRICS
from procpre_interp.patch.nodes import activation_patching, patched_values

__all__ = ["METRICS", "activation_patching", "patched_values"]
