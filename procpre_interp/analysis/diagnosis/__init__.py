"""Why a transfer failed: failure signatures of runs, named with the numbers that say so."""

from procpre_interp.analysis.diagnosis.diagnose import (
    NO_BASELINE,
    NO_SIGNATURE,
    diagnose,
    diagnose_all,
    diagnosis_by_condition,
    diagnosis_table,
    explain_signatures,
)
from procpre_interp.analysis.diagnosis.signatures import Finding

__all__ = [
    "NO_BASELINE",
    "NO_SIGNATURE",
    "Finding",
    "diagnose",
    "diagnose_all",
    "diagnosis_by_condition",
    "diagnosis_table",
    "explain_signatures",
]
