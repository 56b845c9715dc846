"""Closed-form initialisations: the weights of a fresh model written from a few numbers."""

from procpre_interp.train.closed_form.base import Initialisation, PerHead
from procpre_interp.train.closed_form.low_rank import LowRankIdentity
from procpre_interp.train.closed_form.mimetic import Mimetic, MimeticPaper
from procpre_interp.train.closed_form.positions import MeanEmbedding, PositionCode
from procpre_interp.train.closed_form.scale import SpectrumLaw, TensorScale

__all__ = [
    "Initialisation",
    "LowRankIdentity",
    "MeanEmbedding",
    "Mimetic",
    "MimeticPaper",
    "PerHead",
    "PositionCode",
    "SpectrumLaw",
    "TensorScale",
]
