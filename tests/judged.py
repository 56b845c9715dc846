"""Judged claims for tests: only what a test is about has to be given."""

import math

import numpy as np
import pandas as pd

from procpre_interp.claims.claim import Contrast, Verdict
from procpre_interp.claims.judged import ContrastResult, StoredClaim
from procpre_interp.claims.measures import measure_of

NAN = math.nan
ABOVE = Contrast(name="gain", weights={"a": 1, "none": -1}, predicted="above", margin=0.2)
BELOW = Contrast(name="loss", weights={"a": 1, "none": -1}, predicted="below", margin=-0.2)
WITHIN = Contrast(name="as good", weights={"a": 1, "none": -1}, predicted="within", margin=0.2)
CLAIM_FIELDS = {"name": "a_helps", "claim": "A helps.", "prediction": "more", "margin": "a fifth", "refuted_by": "less"}
SMALL = np.linspace(-0.02, 0.02, 6)
MANY = np.linspace(-0.02, 0.02, 40)
"""Deviations of enough replicates for a sequence to decide."""


def gains_table(gains, *, none=0.1, condition="a", first=1000, **columns) -> pd.DataFrame:
    """A baseline and one condition, whose gains over it are given, one replicate each."""
    rows = []
    for i, gain in enumerate(gains):
        for name, accuracy in (("none", none), (condition, none + gain)):
            rows.append({"condition": name, "label": name, "replicate": first + i, "accuracy": accuracy})
    fixed = {"status": "finished", "breakthrough_step": NAN, "limit": 5000, "seconds": 1.0, "phase1_seconds": 0.0}
    return pd.DataFrame(rows).assign(**(fixed | columns))


def contrast_result(**fields) -> ContrastResult:
    """A contrast of accuracies over no pretraining, undecided, unless told."""
    known = {
        "contrast": "a over none",
        "formula": "a - none",
        "weights": {"a": 1, "none": -1},
        "measure": "accuracy",
        "predicted": "above",
        "margin": 0.2,
        "estimate": 0.3,
        "low": 0.1,
        "high": 0.5,
        "n": 6,
        "missing": "",
        "p": 0.1,
        "smallest_p": 0.03,
        "detectable": math.nan,
        "verdict": Verdict.UNDECIDED,
        "reason": "the 95 % interval crosses the margin",
        "primary": True,
    } | fields
    return ContrastResult(**{"about": measure_of(known["measure"])} | known)


def stored_claim(cells: pd.DataFrame, **fields) -> StoredClaim:
    """A claim of a store about these cells, undecided, unless told."""
    known = {
        "name": "a_claim",
        "claim": "A claim.",
        "prediction": "More.",
        "margin": "21.4 points.",
        "refuted_by": "Less.",
        "page": "do_the_claims_hold",
        "verdict": Verdict.UNDECIDED,
        "reason": "the 95 % interval crosses the margin",
        "quick": False,
        "created": "",
        "seeds": (0, 1),
        "contrasts": (contrast_result(),),
        "log_rank": None,
        "conditions": pd.DataFrame(),
        "effects": pd.DataFrame(),
        "source": "store",
    }
    return StoredClaim(cells=cells, **known | fields)
