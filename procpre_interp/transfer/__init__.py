"""Transfer of chosen components from phase-1 parents into a phase-2 model."""

from procpre_interp.transfer.embedding import EmbeddingStrategy, transfer_positions, transfer_rows
from procpre_interp.transfer.transplant import (
    Donor,
    TransferConfig,
    Weights,
    components,
    positions_carried,
    refuse_overlaps,
    transplant,
)

__all__ = [
    "Donor",
    "EmbeddingStrategy",
    "TransferConfig",
    "Weights",
    "components",
    "positions_carried",
    "refuse_overlaps",
    "transfer_positions",
    "transfer_rows",
    "transplant",
]
