"""No bundled verdict says more than an exact test on its replicates would: none is called decided that it would not."""

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
    """p of the sign-flip test that the mean is the margin: exact for up to 13 replicates."""
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
def test_an_exact_test_decides_what_is_called_decided(name: str):
    row = DECIDED[name]
    contrast = Contrast(name=name, weights=row["weights"], measure=row["measure"])
    values = contrast_values(contrast, pd.read_csv(CLAIMS / f"{name}.csv")).astype(float)
    assert len(values) == row["n"] >= 6
    margin = row["margin"]
    if row["predicted"] != "within":
        assert sign_flip_p(values, margin, "two-sided") <= 0.05
    elif row["verdict"] == "refuted":
        assert sign_flip_p(values, math.copysign(margin, values.mean()), "two-sided") <= 0.05
    else:
        assert sign_flip_p(values, -margin, "greater") <= 0.05
        assert sign_flip_p(values, margin, "less") <= 0.05


def test_what_was_found_before_claims_were_judged_anew_can_be_read():
    """Sentences of experiments/README.md rest on it."""
    earlier = {found.name: found for found in read_claims(None, CLAIMS.parent / "earlier")}
    assert len(earlier) == 11
    assert {found.seeds[0] for found in earlier.values()} == {1000, 1003, 3000}
    ladder = earlier["shuffling_weights_destroys_it"].contrasts
    assert len(ladder) > 16
    assert min(row.n for row in ladder) >= 6
