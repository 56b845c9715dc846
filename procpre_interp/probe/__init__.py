"""What activations and weights say: tables of measurements on a model's attention, residual stream and matrices.

For notebooks alone, as no command calls it: `subspace_overlap` (do two models use the same directions?). One row per
neuron, of which the command line has means: `neuron_responses`.
"""

from procpre_interp.probe.attention import attention_entropy, attention_pattern, attention_scores, row_entropy_bits
from procpre_interp.probe.base import PROBES, Probe, Probed
from procpre_interp.probe.labels import LABELS, labels_for, position_labels
from procpre_interp.probe.lens import direct_logit_attribution_table, logit_lens_table
from procpre_interp.probe.linear import linear_probe
from procpre_interp.probe.neurons import neuron_responses, response_labels
from procpre_interp.probe.probes import MATRIX
from procpre_interp.probe.representation import cka, subspace_overlap
from procpre_interp.probe.targets import TARGETS, targets_of
from procpre_interp.probe.weights import composition_scores, drift, spectra, weight_table

__all__ = [
    "LABELS",
    "MATRIX",
    "PROBES",
    "TARGETS",
    "Probe",
    "Probed",
    "attention_entropy",
    "attention_pattern",
    "attention_scores",
    "cka",
    "composition_scores",
    "direct_logit_attribution_table",
    "drift",
    "labels_for",
    "linear_probe",
    "logit_lens_table",
    "neuron_responses",
    "position_labels",
    "response_labels",
    "row_entropy_bits",
    "spectra",
    "subspace_overlap",
    "targets_of",
    "weight_table",
]
