"""Damage done to weights, to learn which of their properties matter."""

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.shuffle import ShuffleWithinTensors

__all__ = ["ABLATIONS", "Ablation", "ShuffleWithinTensors"]
