"""Heads chosen by how sharply a finished run's model attends: the selector terms `sharpest.K` and `bluntest.K`."""

import re
from collections.abc import Sequence

from procpre_interp.pipeline import load_model, load_task
from procpre_interp.probe import attention_entropy
from procpre_interp.runs import Run
from procpre_interp.seeding import stream
from procpre_interp.train.process import run_threads

NEEDS_ORDER = re.compile(r"(?<![\w.])(sharpest|bluntest)\.(\d+)(?![\w.])")
"""Finds the terms."""
PROBE_SEQUENCES = 128
"""Sequences on which the entropy is measured."""


def sharpest_first(run: Run, step: int | None = None) -> list[str]:
    """Selectors of all heads, in the order of their mean attention entropy relative to the causal maximum.

    Measured on fresh sequences of the run's own task. Ties keep the order of layers and heads.
    Source: P1, transfer of the sharpest heads (without a definition of sharpness; this one is ours).
    """
    # Not `held_out`: no score is made of these, and telling splits apart takes seconds.
    generator = stream(int(run.config.get("seed", 0)), "head entropy")
    batch = load_task(run).batch(PROBE_SEQUENCES, generator=generator)
    with run_threads(1):  # whose number changes last bits, and so could exchange two heads
        table = attention_entropy(load_model(run, step), batch)
    table = table.sort_values("entropy_relative", kind="stable")
    return [f"blocks.{layer}.attn.head.{head}" for layer, head in table[["layer", "head"]].itertuples(index=False)]


def name_heads(selector: str, order: Sequence[str]) -> str:
    """The selector with its terms `sharpest.K` and `bluntest.K` replaced by the names of these heads.

    Raises `ValueError` unless K is at least 1 and at most the number of heads, or where such a term is subtracted,
    which a list of names cannot say.
    """

    def named(term: re.Match[str]) -> str:
        k = int(term[2])
        if not 1 <= k <= len(order):
            raise ValueError(f"{term[0]}: there are {len(order)} heads; give a number from 1 to {len(order)}")
        if selector[: term.start()].rstrip().endswith("-"):
            raise ValueError(f"selector {selector!r} takes {term[0]} away; add the heads that are to stay instead")
        chosen = order[:k] if term[1] == "sharpest" else order[len(order) - k :]
        return "+".join(sorted(chosen))

    return NEEDS_ORDER.sub(named, selector)
