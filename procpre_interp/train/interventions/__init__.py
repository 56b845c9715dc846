"""What can be done to a run while it trains, as configs: part of its identity, resumable bit for bit."""

from procpre_interp.train.interventions.base import INTERVENTIONS, Initial, Intervention
from procpre_interp.train.interventions.entropy import EntropyPenalty, MatchedEntropy
from procpre_interp.train.interventions.rate import Rate
from procpre_interp.train.interventions.rescaled import Rescaled
from procpre_interp.train.interventions.rewind import Rewind
from procpre_interp.train.interventions.scaled import Scaled

__all__ = [
    "INTERVENTIONS",
    "EntropyPenalty",
    "Initial",
    "Intervention",
    "MatchedEntropy",
    "Rate",
    "Rescaled",
    "Rewind",
    "Scaled",
]
