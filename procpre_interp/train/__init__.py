"""Training and scoring, the same for both phases."""

from procpre_interp.train.evaluate import evaluate, summarise
from procpre_interp.train.loop import Interrupted, TrainConfig, Trainer, TrainState

__all__ = ["Interrupted", "TrainConfig", "TrainState", "Trainer", "evaluate", "summarise"]
