"""What activations say: tables of measurements on a model's attention and residual stream."""

from procpre_interp.probe.attention import attention_entropy, row_entropy_bits

__all__ = ["attention_entropy", "row_entropy_bits"]
