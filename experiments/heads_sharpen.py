"""Claim: pretraining on Dyck sharpens attention, and what is transferred is sharp before it has seen the new task.

    python experiments/heads_sharpen.py [--out runs] [--workers 2] [--minutes 90] [--quick]

Entropy of each attention row over log2 of its choices, mean over rows and heads: 1 where attention is even, 0 where it
looks at one token. Measured on 128 fresh sequences of the task that a model is trained on, or about to be. Embeddings
are averaged in the transfer, so that before phase 2 all tokens are alike and attention can depend on positions alone.
Whether the sharpest heads are what carries the gain is another question, asked by two transfers: LN with the four
sharpest of the parent's eight heads, or with the four bluntest. Source: P1, mechanism (sharpening), whose measure is
not given.
"""

import sys
from collections.abc import Mapping

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.core.seeding import stream
from procpre_interp.pipeline.lineage import STAGES, Subject, at_stage, stages
from procpre_interp.probe import attention_entropy
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.claim_figures import measure_figure
from procpre_interp.study.claim_tables import layers_of_heads
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.observation import Measured, Observation
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck
from procpre_interp.sweep.ranked_heads import PROBE_SEQUENCES

__all__ = ["EXPERIMENT", "figure", "run"]

MEASURE = "entropy_relative"
MARGIN = 0.1

CLAIM = Claim(
    name="heads_sharpen",
    version=2,
    claim="Pretraining on Dyck sharpens attention: transplanted heads attend more sharply to haystack than fresh ones.",
    prediction="Before phase 2, entropy over its maximum is lower with Dyck's attention and LN by more than 0.1.",
    margin=f"0.1 of the largest entropy that causal attention can have, for entropies; for accuracies {MARGIN_NOTE}",
    refuted_by="A mean difference whose interval lies wholly above -0.1.",
    primary=Contrast(
        name="transplanted over fresh, on haystack",
        weights={"transplanted": 1, "fresh": -1},
        predicted="below",
        margin=-MARGIN,
        measure=MEASURE,
    ),
    secondary=(
        Contrast(
            name="after phase 1 over before, on Dyck",
            weights={"phase1": 1, "phase1_fresh": -1},
            predicted="below",
            margin=-MARGIN,
            measure=MEASURE,
        ),
        Contrast(
            name="after phase 2, attention + LN over none",
            weights={"attn+ln": 1, "none": -1},
            predicted="below",
            margin=-MARGIN,
            measure=MEASURE,
        ),
        Contrast(
            name="four sharpest heads over four bluntest",
            weights={"sharpest": 1, "bluntest": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
    ),
)


def entropy(subject: Subject, seed: int) -> dict[str, float]:
    """Mean relative entropy over all heads of a model, on its task."""
    batch = subject.task.batch(PROBE_SEQUENCES, generator=stream(seed, "head entropy"))
    return {MEASURE: attention_entropy(subject.model, batch)["entropy_relative"].to_numpy().mean().item()}


def measure(runs: Mapping[str, Run], store: RunStore) -> Measured:
    """Entropy at every stage of the transfer, and after phase 2 without one."""
    seed = runs["none"].seed
    found = {name: entropy(moment.load(store), seed) for name, moment in stages(runs["attn+ln"], store).items()}
    found["attn+ln"] = found.pop("finished")
    return found | {"none": entropy(at_stage(runs["none"], store, "finished").load(store), seed)}


figure = measure_figure(MEASURE, "Attention entropy over the causal maximum, mean of all heads")

EXPERIMENT = confirmation(
    CLAIM,
    (
        dyck("attn+ln", "attn+ln", label="attention + LN"),
        dyck("sharpest", "ln+sharpest.4", label="LN + four sharpest heads"),
        dyck("bluntest", "ln+bluntest.4", label="LN + four bluntest heads"),
    ),
    figure,
    few=None,
    observation=Observation(
        needs=("none", "attn+ln"),
        conditions={name: text for name, text in STAGES.items() if name != "finished"},
        measure=measure,
    ),
    extra=layers_of_heads,
    seen=in_the_cheap_protocol("the entropy of transplanted heads was 0.04 below that of fresh ones."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
