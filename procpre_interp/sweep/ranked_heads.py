"""Heads ranked by what they do in a finished run's model: what the terms `sharpest.K` and `circuit.K` stand for."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Generator

from procpre_interp.core.seeding import stream
from procpre_interp.core.selectors import RANKED, head_terms, place, ranked_term
from procpre_interp.patch import head_strengths
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.probe import attention_entropy
from procpre_interp.store.store import Run
from procpre_interp.train.process import run_threads

PROBE_SEQUENCES = 128
"""Sequences, or pairs per cause, on which heads are measured."""


HeadOrders = dict[tuple[str, int | None, str], list[str]]
"""Heads of a run and step in one of the orders of `ordered_heads`."""


def ordered_heads(run: Run, order: str, step: int | None = None, orders: HeadOrders | None = None) -> list[str]:
    """Selectors of all heads of a run's model, measured on fresh sequences of its own task.

    What is in `orders` is not measured again, and what is measured is added to it.

    - `entropy`: by mean attention entropy relative to the causal maximum, the sharpest first. (P1 transfers the
      sharpest heads and does not define sharpness; this is ours.)
    - `circuit`: by the summed |score| of the edges that leave them, EAP-IG over pairs of all the task's causes
      (`head_strengths`), the strongest first.
    - `random`: by lot, drawn from the run's seed; what a circuit's heads are compared with.
    - `random_like.circuit.2`: heads by lot that have the layers of `circuit.2`, from the run's seed too, and then the
      others (`by_lot_in_layers`). Likewise for `sharpest`, `bluntest` and `weakest`.

    Ties keep the order of layers and heads.
    """
    orders, key = {} if orders is None else orders, (run.id, step, order)
    if key not in orders:
        wanted = ranked_term(order)
        if wanted is not None and wanted.like:
            ranking, end = RANKED[wanted.word]
            ranked = ordered_heads(run, ranking, step, orders)[::end]
            generator = stream(run.seed, "random heads like", wanted.word, wanted.k)
            orders[key] = by_lot_in_layers(ranked, wanted.k, generator=generator)
        else:
            orders[key] = _measured_order(run, order, step)
    return orders[key]


def _measured_order(run: Run, order: str, step: int | None) -> list[str]:
    seed, model = run.seed, load_model(run, step)
    names = head_terms(model.config.n_layers, model.config.n_heads)
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
            values = {name: -strength for name, strength in head_strengths(model, pairs).items()}
    return sorted(names, key=lambda name: values[name])


def by_lot_in_layers(ranked: Sequence[str], k: int, *, generator: Generator) -> list[str]:
    """The heads of a ranking, k by lot first: as many of each layer as are among its first k, then the others.

    In each layer none of the first k is drawn as long as there are others: of a layer whose others are too few, all of
    them are, and as many of the first k, by lot, as are missing. Where a layer gives all of its heads, there is no
    choice in it, and where that is so of every layer, the first k are the control as well.
    """
    strongest = set(ranked[:k])
    taken = Counter(place(head).layer for head in strongest)
    drawn = []
    for layer, wanted in sorted(taken.items()):
        heads = [head for head in sorted(ranked) if place(head).layer == layer]
        lot = [heads[i] for i in torch.randperm(len(heads), generator=generator).tolist()]
        drawn += sorted(lot, key=lambda head: head in strongest)[:wanted]
    return [*drawn, *(head for head in ranked if head not in drawn)]
