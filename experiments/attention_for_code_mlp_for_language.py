"""Claim: of union, MLPs fare better against attention before language than before code.

    python experiments/attention_for_code_mlp_for_language.py [--out runs] [--workers 2] [--minutes 90] [--quick]

The second of the experiments that the paper suggests, with what makes it one contrast: on each text the MLPs alone and
the attention alone are transferred, without LayerNorms, as the paper has it, and the difference between them is
compared across the texts. A difference on one text alone would say which part is better there, not that the domain
decides.

The interaction says that the text moves how far one part leads the other, not which leads on either text, nor
that either carries a gain: union costs .16 nats on English in full (`union_helps_language`, known before any run of a
part of union), and where both parts cost something the better one is that which costs less. Those are contrasts of
their own: each text alone, each part beside a fresh model, and beside full transfer, which the paper suggests to end
above MLPs alone on English and above attention alone on code.
"""

import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.data import Task
from procpre_interp.study.experiment import Experiment, main, run
from procpre_interp.study.text_protocol import (
    MARGIN,
    MARGIN_NOTE,
    PHASE1,
    TEXTS,
    Domain,
    fresh_on,
    loss_figure,
    name_in,
    on_text,
    text_experiment,
)

__all__ = ["EXPERIMENT", "experiment", "figure", "run"]

DOMAINS: tuple[Domain, ...] = ("language", "code")
LOWEST: dict[str, Domain] = {"union MLP": "language", "union attention": "code"}
"""Where the paper suggests that a part alone ends lowest."""
PARTS = {"union full": "all", "union attention": "attn", "union MLP": "mlp"}


def mlp_over_attention(domain: Domain) -> dict[str, float]:
    """MLP alone minus attention alone: below 0 where the MLPs are the better part."""
    return {name_in(domain, "union MLP"): 1, name_in(domain, "union attention"): -1}


CLAIM = Claim(
    name="attention_for_code_mlp_for_language",
    claim="Of union, MLPs fare better against attention before English than before Python.",
    prediction="The loss with MLPs alone minus that with attention alone is lower on English than on Python, by more "
    "than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean interaction whose interval lies wholly above -0.02 nats.",
    page="does_it_help_on_real_text",
    primary=Contrast(
        name="MLP over attention, on English over Python",
        weights=mlp_over_attention("language") | {k: -v for k, v in mlp_over_attention("code").items()},
        predicted="below",
        margin=-MARGIN,
        measure="loss_nats",
    ),
    secondary=(
        Contrast(
            name="MLP over attention, on English",
            weights=mlp_over_attention("language"),
            predicted="below",
            measure="loss_nats",
        ),
        Contrast(
            name="MLP over attention, on Python",
            weights=mlp_over_attention("code"),
            predicted="above",
            measure="loss_nats",
        ),
        *(
            Contrast(
                name=f"{part.removeprefix('union ')} alone over full, {domain}",
                weights={name_in(domain, part): 1, name_in(domain, "union full"): -1},
                predicted="below",
                measure="loss_nats",
            )
            for part, domain in LOWEST.items()
        ),
        *(
            Contrast(
                name=f"{part.removeprefix('union ')} over none, {domain}",
                weights={name_in(domain, part): 1, name_in(domain, "none"): -1},
                measure="loss_nats",
            )
            for domain in DOMAINS
            for part in PARTS
        ),
    ),
)
figure = loss_figure


def experiment(phase1_steps: int = PHASE1.steps, text: Task = TEXTS["language"]) -> Experiment:
    """The claim with this budget of phase 1, and this text as the language."""
    transfers = [
        on_text(name_in(domain, name), "union", selector, label=name_in(domain, f"union, {selector}"), domain=domain)
        for domain in DOMAINS
        for name, selector in PARTS.items()
    ]
    return text_experiment(
        CLAIM,
        (fresh_on("code"), *transfers),
        phase1_steps=phase1_steps,
        text=text,
        seen="Seeds from 3000, of which no run of a part of union had been seen when the prediction was written; union "
        "in full had, .16 nats above no pretraining on English and .14 on Python.",
    )


EXPERIMENT = experiment()

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
