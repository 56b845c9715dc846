"""Claim: what Dyck teaches of recall is still there after training on English.

    python experiments/recall_survives_english.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Three phases of the paper's diagnostic model: Dyck, then two million bytes of English, then haystack. From Dyck come
attention, LayerNorms and positions, all else is fresh. Haystack gets the whole model that English leaves but for its
token embeddings, and both arms learn English alike. `gain_survives_finetuning` asks the same of a second text.
"""

import dataclasses
import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.claim_figures import gains_figure
from procpre_interp.study.confirmation import REPLICATES
from procpre_interp.study.experiment import Experiment, main, run
from procpre_interp.study.protocols import (
    BREAKTHROUGH,
    EFFECT_MARGIN,
    FRESH_SEED,
    MARGIN_NOTE,
    dyck,
    haystack_sweep,
)
from procpre_interp.study.text_protocol import PHASE2, TEXTS
from procpre_interp.sweep.phases import Phase

__all__ = ["EXPERIMENT", "figure", "run"]

DYCK, SHUFFLED, FULL = "attn+ln", "shuffled sequences", "full"

CLAIM = Claim(
    name="recall_survives_english",
    claim="What Dyck's attention and LayerNorms teach of recall is still there after training on English.",
    prediction="After Dyck and English, haystack is answered better than after English alone, by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean gain whose interval lies wholly below the margin.",
    primary=Contrast(
        name="attention + LN over none, both after English",
        weights={DYCK: 1, "none": -1},
        predicted="above",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(name="full transfer over none, both after English", weights={FULL: 1, "none": -1}),
        Contrast(name="attention + LN over shuffled sequences, both after English", weights={DYCK: 1, SHUFFLED: -1}),
        Contrast(
            name="steps that attention + LN saves", weights={"none": 1, DYCK: -1}, measure="restricted_time_steps"
        ),
    ),
)
figure = gains_figure

_HAYSTACK = haystack_sweep(
    CLAIM.name,
    (
        dyck(DYCK, "attn+ln", label="Dyck, attention + LN", embeddings="fresh"),
        dataclasses.replace(dyck(FULL, label="Dyck, full transfer", embeddings="fresh"), replicates=6),
        dataclasses.replace(
            dyck(
                SHUFFLED,
                "attn+ln",
                label="shuffled sequences, attention + LN",
                phase1="shuffled",
                embeddings="fresh",
            ),
            replicates=6,
        ),
    ),
    protocol=BREAKTHROUGH,
    replicates=REPLICATES,
    first_seed=FRESH_SEED,
)

EXPERIMENT = Experiment(
    claim=CLAIM,
    sweep=dataclasses.replace(
        _HAYSTACK,
        task=TEXTS["language"],
        train=PHASE2,
        then=(Phase(task=_HAYSTACK.task, train=_HAYSTACK.train),),
    ),
    figure=figure,
    protocol="2 layers, 4 heads, d_model 16. Phase 1: 16-Dyck of length 128, 20,000 steps of batch 32, lr 2e-3 "
    "constant after 100 warm-up steps, decay .1 on everything, tied. Phase 2: English (wikipedia-leads), 1,000 steps "
    "of 16 windows of 128 bytes in a single pass, lr 4e-3 with a cosine after 100 warm-up steps, decay .1. Phase 3: "
    "haystack, 10,000 steps of batch 1000, lr 1e-3 with a cosine after 500 warm-up steps, decay 1e-3 on matrices; a "
    f"run ends at the first evaluation with a validation accuracy of {BREAKTHROUGH.phase2.target_accuracy:.0%}. Rates "
    "were not tuned, and are the same in all arms. Token embeddings are fresh in each phase, positions are carried "
    f"through all three. Seeds from {FRESH_SEED}, on which models without English had been seen: with averaged "
    "embeddings 14 of 15 broke through with attention + LN, 12 with full transfer and none without Dyck. Of no seed "
    "had a run of three phases been seen when the prediction was written.",
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
