"""No bundled verdict says more than a sign-flip test of its replicates would: none is called decided that it would not.

The test is exact, for differences that are symmetric about the margin, for up to 13 replicates; of more, 9,999 flips.
"""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from procpre_interp.claims.claim import Contrast
from procpre_interp.claims.compared import contrast_values
from procpre_interp.claims.files import read_claims

CLAIMS = Path(__file__).resolve().parents[1] / "experiments" / "results" / "claims"
DECIDED = {
    path.stem: stored["contrasts"][0]
    for path in sorted(CLAIMS.glob("*.json"))
    if (stored := json.loads(path.read_bytes()))["verdict"] != "undecided"
}


def sign_flip_p(values: np.ndarray, margin: float, alternative: str) -> float:
    """p of the sign-flip test that the mean is the margin."""
    found = scipy.stats.permutation_test(
        (values - margin,),
        np.mean,
        permutation_type="samples",
        alternative=alternative,
        n_resamples=9_999,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


@pytest.mark.parametrize("name", DECIDED)
def test_a_sign_flip_test_decides_what_is_called_decided(name: str):
    row = DECIDED[name]
    contrast = Contrast(name=name, weights=row["weights"], measure=row["measure"])
    values = contrast_values(contrast, pd.read_csv(CLAIMS / f"{name}.csv")).astype(float)
    assert len(values) == row["n"] >= 6
    margin, is_above = row["margin"], (row["predicted"] == "above") == (row["verdict"] == "supported")
    if row["predicted"] != "within":
        # Half of a two-sided 5 %, on the side that the verdict says.
        assert sign_flip_p(values, margin, "greater" if is_above else "less") <= 0.025
    elif row["verdict"] == "refuted":
        beyond = math.copysign(margin, values.mean())
        assert sign_flip_p(values, beyond, "greater" if beyond > 0 else "less") <= 0.025
    else:
        assert sign_flip_p(values, -margin, "greater") <= 0.05
        assert sign_flip_p(values, margin, "less") <= 0.05


def test_what_was_found_before_claims_were_judged_anew_can_be_read():
    """Sentences of experiments/README.md rest on it."""
    earlier = {found.name: found for found in read_claims(None, CLAIMS.parent / "earlier")}
    assert len(earlier) == 12
    assert {found.seeds[0] for found in earlier.values()} == {1000, 1003, 3000}
    ladder = earlier["shuffling_weights_destroys_it"].contrasts
    assert len(ladder) > 16
    assert min(row.n for row in ladder) >= 6
