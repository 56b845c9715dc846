"""Claim: selective transfer beats full transfer, once embeddings and positions are treated alike.

    python experiments/selective_beats_full.py [--out runs] [--workers 2] [--minutes 90] [--quick]

In the paper full transfer sets every token embedding to one mean vector and carries positions; attention alone leaves
both fresh, and takes no LayerNorm. So the comparison is one of four factors. Here they are crossed: MLP transferred or
not x LN or not x embeddings averaged or fresh x positions carried or fresh, always with attention.
"""

import itertools
import sys

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.study.claim_figures import gains_figure
from procpre_interp.study.confirmation import confirmation, in_the_cheap_protocol
from procpre_interp.study.experiment import main, run
from procpre_interp.study.protocols import EFFECT_MARGIN, MARGIN_NOTE, dyck

__all__ = ["EXPERIMENT", "figure", "run"]

FACTORS = {"mlp": (0, 1), "ln": (0, 1), "embeddings": ("fresh", "average"), "positions": ("fresh", "carry")}
"""Levels of each factor, the lower one first."""
CELLS = {
    f"attn{'+mlp' * mlp}{'+ln' * ln}, {embeddings}, {positions}": (mlp, ln, embeddings, positions)
    for mlp, ln, embeddings, positions in itertools.product(*FACTORS.values())
}
"""Condition -> its level of each factor."""
SELECTORS = {(0, 0): "attn", (1, 0): "attn+mlp", (0, 1): "attn+ln", (1, 1): "all"}
"""(mlp, ln) -> what is transferred; `all` is everything but the embeddings."""


def main_effect(factor: int) -> dict[str, float]:
    """Weights of the mean over the cells with the upper level less that over those with the lower one."""
    upper = list(FACTORS.values())[factor][1]
    return {name: (1 if levels[factor] == upper else -1) / 8 for name, levels in CELLS.items()}


CLAIM = Claim(
    name="selective_beats_full",
    version=2,
    claim="Attention + LN beats full transfer when embeddings and positions are treated alike.",
    prediction="With averaged embeddings and carried positions, attention + LN is more accurate than attention + MLP + "
    "LN by more than the margin.",
    margin=MARGIN_NOTE,
    refuted_by="A mean difference whose interval lies wholly below the margin.",
    primary=Contrast(
        name="attention + LN over full, embeddings averaged, positions carried",
        weights={"attn+ln, average, carry": 1, "attn+mlp+ln, average, carry": -1},
        predicted="above",
        margin=EFFECT_MARGIN,
    ),
    secondary=(
        Contrast(
            name="the paper's comparison: attention alone, all else fresh, over full",
            weights={"attn, fresh, fresh": 1, "attn+mlp+ln, average, carry": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        Contrast(
            name="attention over attention + MLP, no LN, all else fresh",
            weights={"attn, fresh, fresh": 1, "attn+mlp, fresh, fresh": -1},
            predicted="above",
            margin=EFFECT_MARGIN,
        ),
        *(
            Contrast(name=f"main effect: {name}", weights=main_effect(index))
            for index, name in enumerate(
                ["MLP transferred", "LN transferred", "embeddings averaged", "positions carried"]
            )
        ),
    ),
)
figure = gains_figure
"""Every cell's gain over no pretraining."""

EXPERIMENT = confirmation(
    CLAIM,
    tuple(
        dyck(name, SELECTORS[mlp, ln], embeddings=embeddings, positions=positions)
        for name, (mlp, ln, embeddings, positions) in CELLS.items()
    ),
    figure,
    seen=in_the_cheap_protocol("10 of 10 broke through with attention + LN, 5 of 10 in full transfer."),
)

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
