"""Training and scoring, the same for both phases.

One run is trained by `Trainer`, with the kernel of its config; `stacked` trains many runs of one shape at once.
"""

from procpre_interp.train.closed_form import Initialisation
from procpre_interp.train.evaluate import evaluate, evaluate_copies, summarise
from procpre_interp.train.greedy import answered, decode_greedily, greedy_scores
from procpre_interp.train.loop import Trainer
from procpre_interp.train.loss import masked_loss
from procpre_interp.train.process import Interrupted
from procpre_interp.train.settings import TrainConfig
from procpre_interp.train.stacked import StackedTrainer
from procpre_interp.train.state import TrainState

__all__ = [
    "Initialisation",
    "Interrupted",
    "StackedTrainer",
    "TrainConfig",
    "TrainState",
    "Trainer",
    "answered",
    "decode_greedily",
    "evaluate",
    "evaluate_copies",
    "greedy_scores",
    "masked_loss",
    "summarise",
]
