"""Damage done to weights, to learn which of their properties matter."""

from procpre_interp.ablate.ablation import ABLATIONS, Ablation
from procpre_interp.ablate.initialisation import LayerNormsOnly, NormsOnly, RowNormsOnly
from procpre_interp.ablate.key_value import KeysOnly, LowRankMlp, UnpairNeurons, ValuesOnly
from procpre_interp.ablate.ladder import LADDER
from procpre_interp.ablate.noise import Gaussian, Noise
from procpre_interp.ablate.shuffle import (
    ShuffleAcrossHeads,
    ShuffleWithinColumns,
    ShuffleWithinLayers,
    ShuffleWithinRows,
    ShuffleWithinTensors,
)
from procpre_interp.ablate.signs import MagnitudesOnly, SignFlips, SignsOnly
from procpre_interp.ablate.spectrum import (
    FlatSpectrum,
    LowRank,
    RandomSingularVectors,
    ReversedSpectrum,
    WithoutStrongest,
)
from procpre_interp.ablate.sweep import copy_labels, damaged_copies
from procpre_interp.ablate.symmetry import ShuffleHeads, ShuffleNeurons

__all__ = [
    "ABLATIONS",
    "LADDER",
    "Ablation",
    "FlatSpectrum",
    "Gaussian",
    "KeysOnly",
    "LayerNormsOnly",
    "LowRank",
    "LowRankMlp",
    "MagnitudesOnly",
    "Noise",
    "NormsOnly",
    "RandomSingularVectors",
    "ReversedSpectrum",
    "RowNormsOnly",
    "ShuffleAcrossHeads",
    "ShuffleHeads",
    "ShuffleNeurons",
    "ShuffleWithinColumns",
    "ShuffleWithinLayers",
    "ShuffleWithinRows",
    "ShuffleWithinTensors",
    "SignFlips",
    "SignsOnly",
    "UnpairNeurons",
    "ValuesOnly",
    "WithoutStrongest",
    "copy_labels",
    "damaged_copies",
]
