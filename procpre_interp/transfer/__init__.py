"""Transfer of chosen components from phase-1 parents into a phase-2 model."""

from procpre_interp.transfer.embedding import EmbeddingStrategy, transfer_positions, transfer_rows
from procpre_interp.transfer.reshape import LAYERS, WIDTHS, LayerStrategy, WidthStrategy, reshaped
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
    "LAYERS",
    "WIDTHS",
    "Donor",
    "EmbeddingStrategy",
    "LayerStrategy",
    "TransferConfig",
    "Weights",
    "WidthStrategy",
    "components",
    "positions_carried",
    "refuse_overlaps",
    "reshaped",
    "transfer_positions",
    "transfer_rows",
    "transplant",
]
