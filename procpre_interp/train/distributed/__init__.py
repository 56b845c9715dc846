"""One run trained by several processes, which share every batch, and perhaps the weights."""

from procpre_interp.train.distributed.group import FailedElsewhere, Group, joined
from procpre_interp.train.distributed.sharded import ShardedTrainer
from procpre_interp.train.distributed.trainer import DistributedTrainer, refuse_distributed

__all__ = ["DistributedTrainer", "FailedElsewhere", "Group", "ShardedTrainer", "joined", "refuse_distributed"]
