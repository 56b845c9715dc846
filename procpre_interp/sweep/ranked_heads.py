"""Heads chosen by what they do in a finished run's model: the selector terms `sharpest.K`, `circuit.K` and others."""

import re
from collections.abc import Callable, Sequence

import torch

from procpre_interp.core.seeding import stream
from procpre_interp.patch.edges import edge_attribution
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.probe import attention_entropy
from procpre_interp.store.store import Run
from procpre_interp.train.process import run_threads

ORDERS = {"sharpest": ("entropy", 1), "bluntest": ("entropy", -1), "circuit": ("circuit", 1), "random": ("random", 1)}
"""Term -> which order of the heads, and from which end."""
NEEDS_ORDER = re.compile(rf"(?<![\w.])({'|'.join(ORDERS)})\.(\d+)(?![\w.])")
"""Finds the terms."""
PROBE_SEQUENCES = 128
"""Sequences, or pairs a cause, on which heads are measured."""


def orders_of(selector: str) -> set[str]:
    """The orders of heads that a selector asks for: entropy, circuit, random."""
    return {ORDERS[term[1]][0] for term in NEEDS_ORDER.finditer(selector)}


def ordered_heads(run: Run, order: str, step: int | None = None) -> list[str]:
    """Selectors of all heads of a run's model, measured on fresh sequences of its own task.

    - `entropy`: by mean attention entropy relative to the causal maximum, the sharpest first. (P1 transfers the
      sharpest heads and does not define sharpness; this is ours.)
    - `circuit`: by the summed |score| of the edges that leave them, EAP-IG over pairs of all the task's causes.
    - `random`: by lot, drawn from the run's seed; what a circuit's heads are compared with.

    Ties keep the order of layers and heads.
    """
    seed, model = run.seed, load_model(run, step)
    names = [f"blocks.{i}.attn.head.{j}" for i in range(model.config.n_layers) for j in range(model.config.n_heads)]
    if order == "random":
        return [names[i] for i in torch.randperm(len(names), generator=stream(seed, "random heads")).tolist()]
    # Not `held_out`: no score is made of these, and telling splits apart takes seconds.
    generator = stream(seed, "head entropy" if order == "entropy" else "head circuit")
    with run_threads(1):  # whose number changes last bits, and so could exchange two heads
        if order == "entropy":
            table = attention_entropy(model, load_task(run).batch(PROBE_SEQUENCES, generator=generator))
            values = dict(zip(names, table.sort_values(["layer", "head"])["entropy_relative"]))
        else:
            pairs = load_task(run).counterfactuals(PROBE_SEQUENCES, generator=generator)
            scores = edge_attribution(model, pairs, method="eap_ig_inputs")
            values = dict.fromkeys(names, 0.0)
            for writer, score in zip(scores["writer"], scores["score"]):
                if writer in values:
                    values[writer] -= abs(score)
    return sorted(names, key=lambda name: values[name])


def name_heads(selector: str, order_of: Callable[[str], Sequence[str]]) -> str:
    """The selector with its terms replaced by the names of these heads; `order_of` gives an order by its name.

    Raises `ValueError` unless K is at least 1 and at most the number of heads, or where such a term is subtracted,
    which a list of names cannot say.
    """

    def named(term: re.Match[str]) -> str:
        name, end = ORDERS[term[1]]
        order, k = list(order_of(name))[::end], int(term[2])
        if not 1 <= k <= len(order):
            raise ValueError(f"{term[0]}: there are {len(order)} heads; give a number from 1 to {len(order)}")
        if selector[: term.start()].rstrip().endswith("-"):
            raise ValueError(f"selector {selector!r} takes {term[0]} away; add the heads that are to stay instead")
        return "+".join(sorted(order[:k]))

    return NEEDS_ORDER.sub(named, selector)
