"""Many runs of one shape trained as one computation, whose parameters have a leading axis for the run.

Each run keeps its own weights, data, seed, learning rate, freezing, interventions and files, and is the same run
whichever others share its stack: only the last bits of its numbers depend on how many do.
"""

from procpre_interp.train.stacked.trainer import StackedTrainer, stacking_key

__all__ = ["StackedTrainer", "stacking_key"]
