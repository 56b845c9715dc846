"""Claim: the gain is fragile: noise as large as the spread of the weights costs a good part of it.

    python experiments/noise_dose_response.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Gaussian noise, in units of each tensor's standard deviation, is added to Dyck's attention + LN before the transfer: to
both, to the attention alone, to the LayerNorms alone. The half-dose is where half of the gain is left. Beside it, the
same noise on the finished phase-2 models, which are only evaluated: what the solution itself tolerates.
"""

import sys

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.ablate import Noise
from procpre_interp.analysis.damaged_models import damage_table
from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.judged import JudgedClaim
from procpre_interp.claims.text import claim_title
from procpre_interp.stats.half_dose import dose_means, half_dose
from procpre_interp.store.store import RunStore
from procpre_interp.study.claim_tables import Tables
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck
from procpre_interp.views.exhibits.damage import doses
from procpre_interp.views.plots.ladder import dose_response

__all__ = ["EXPERIMENT", "figure", "run"]

DOSES = (0.25, 0.5, 1.0, 2.0)
"""Noise before phase 2, in standard deviations of each tensor."""
FINISHED_DOSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Noise on the finished model, which had no training to make up for it."""
DRAWS = 10
"""Draws of the noise a finished model and dose."""
PARTS = {"attn+ln": "attention + LN", "attn": "attention", "ln": "LN"}
"""Where the noise is."""


def named(part: str, dose: float) -> str:
    return f"{part} noise {dose:g}"


NOISED = pd.DataFrame(
    [(named(part, dose), name, dose) for part, name in PARTS.items() for dose in DOSES],
    columns=["condition", "component", "noise_std"],
)
"""Which conditions have how much noise, in standard deviations, and where."""

CLAIM = Claim(
    name="noise_dose_response",
    version=2,
    claim="Noise as large as the spread of the weights costs a quarter of the gain or more.",
    prediction="Attention + LN with noise of one standard deviation is less accurate than intact by more than the "
    "margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean loss whose interval lies wholly below the margin.",
    page="what_survives_damage",
    primary=Contrast(
        name="intact over noise of 1 std on attention + LN",
        weights={"intact": 1, named("attn+ln", 1.0): -1},
        predicted="above",
        margin=EFFECT_MARGIN,
    ),
    secondary=tuple(
        Contrast(
            name=f"intact over noise of {dose:g} std on {PARTS[part]}",
            weights={"intact": 1, named(part, dose): -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        )
        for part in PARTS
        for dose in DOSES
        if (part, dose) != ("attn+ln", 1.0)
    ),
)


def extra(table: pd.DataFrame, store: RunStore) -> Tables:
    """Half-doses before phase 2, and accuracies of the finished models with noise."""
    intact = table.loc[(table["condition"] == "intact") & (table["status"] == "finished")]
    noises = [Noise(noise_std=dose, selector="attn+ln") for dose in FINISHED_DOSES]
    damaged = pd.concat(
        [
            damage_table(store.open(run), noises, n_draws=DRAWS).assign(replicate=seed)
            for run, seed in intact[["run", "replicate"]].itertuples(index=False)
        ]
    )
    means = damaged.groupby(["replicate", "noise_std"], as_index=False).agg(value=("accuracy", "mean"))
    none = table.loc[table["condition"] == "none"].set_index("replicate")["accuracy"]
    finished = means.assign(component="finished model", baseline=means["replicate"].map(none))
    return {
        "noised": NOISED,
        "half_doses": half_dose(doses(table, NOISED)),
        "finished_doses": finished,
        "finished_half_dose": half_dose(finished),
    }


def figure(table: pd.DataFrame, judged: JudgedClaim) -> go.Figure:
    """Accuracy against noise before phase 2, with the fitted half-doses."""
    means = dose_means(doses(table, NOISED))
    return dose_response(means, judged.tables["half_doses"], title=claim_title(judged))


EXPERIMENT = confirmation(
    CLAIM,
    (
        dyck("intact", "attn+ln", label="attention + LN intact"),
        *(
            dyck(
                named(part, dose),
                "attn+ln",
                label=f"noise of {dose:g} std on {name}",
                ablation=Noise(noise_std=dose, selector=part),
            )
            for part, name in PARTS.items()
            for dose in DOSES
        ),
    ),
    figure,
    extra=extra,
    seen=in_the_cheap_protocol("10 of 10 broke through intact, 6 of 10 with noise of one standard deviation."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
