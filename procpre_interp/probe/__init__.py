"""What activations and weights say: tables of measurements on a model's attention, residual stream and matrices."""

from procpre_interp.probe.attention import attention_entropy, attention_pattern, attention_scores, row_entropy_bits
from procpre_interp.probe.targets import TARGETS, targets_of

__all__ = [
    "TARGETS",
    "attention_entropy",
    "attention_pattern",
    "attention_scores",
    "row_entropy_bits",
    "targets_of",
]
