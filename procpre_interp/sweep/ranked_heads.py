"""Heads ranked by what they do in a finished run's model: what the terms `sharpest.K` and `circuit.K` stand for."""

import torch

from procpre_interp.core.seeding import stream
from procpre_interp.core.selectors import head_terms
from procpre_interp.patch.edge_attribution import edge_attribution
from procpre_interp.pipeline.execute import load_model, load_task
from procpre_interp.probe import attention_entropy
from procpre_interp.store.store import Run
from procpre_interp.train.process import run_threads

PROBE_SEQUENCES = 128
"""Sequences, or pairs per cause, on which heads are measured."""


def ordered_heads(run: Run, order: str, step: int | None = None) -> list[str]:
    """Selectors of all heads of a run's model, measured on fresh sequences of its own task.

    - `entropy`: by mean attention entropy relative to the causal maximum, the sharpest first. (P1 transfers the
      sharpest heads and does not define sharpness; this is ours.)
    - `circuit`: by the summed |score| of the edges that leave them, EAP-IG over pairs of all the task's causes.
    - `random`: by lot, drawn from the run's seed; what a circuit's heads are compared with.

    Ties keep the order of layers and heads.
    """
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
            scores = edge_attribution(model, pairs, method="eap_ig_inputs")
            values = dict.fromkeys(names, 0.0)
            for writer, score in zip(scores["writer"], scores["score"]):
                if writer in values:
                    values[writer] -= abs(score)
    return sorted(names, key=lambda name: values[name])
