"""A tie is no hit, whichever ids tie: at every place that counts right answers."""

from collections.abc import Callable

import pandas as pd
import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import Batch
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.model.hits import hits
from procpre_interp.patch import head_test, mask_scores
from procpre_interp.probe.lens import logit_lens_table
from procpre_interp.probe.linear import LogisticRegression, linear_probe
from procpre_interp.train.evaluate import evaluate, evaluate_copies, summarise
from procpre_interp.train.native import NativeStep
from tests.models import random_model, random_tokens

CONFIG = ModelConfig(n_layers=1, n_heads=4, d_model=16, n_ctx=8, d_vocab=5)
TOKENS = random_tokens(CONFIG, batch=6, length=8)
LOGITS = {
    "all equal": ([0.0] * 5, []),
    "two equal, the first of them token 0": ([3.0, 3.0, 0.0, 1.0, -1.0], []),
    "two equal, the last of them the last token": ([0.0, 3.0, 0.0, 1.0, 3.0], []),
    "the first alone": ([3.0, 2.0, 2.0, 2.0, 2.0], [0]),
    "the last alone": ([-1.0, -2.0, -2.0, -2.0, -0.5], [4]),
    "not a number": ([3.0, 2.0, float("nan"), 0.0, 0.0], []),
    "infinite": ([float("inf"), 2.0, 1.0, 0.0, 0.0], [0]),
}
"""Logits of every token, and the tokens whose prediction they make a hit."""


def constant_model(logits: list[float]) -> HookedTransformer:
    """A model that says the same of every sequence: these logits."""
    model = random_model(CONFIG)
    with torch.no_grad():
        model.ln_final.w.zero_()
        model.ln_final.b.copy_(torch.eye(16)[0])
        model.W_U.zero_()
        model.W_U[0] = torch.tensor(logits)
    return model


def batch_of(answer: int) -> Batch:
    mask = torch.zeros_like(TOKENS, dtype=torch.bool)
    mask[:, -2:] = True
    return Batch(TOKENS, torch.full_like(TOKENS, answer), mask, torch.full((6,), 8))


def lens(model: HookedTransformer, answer: int) -> float:
    answers = torch.full((6,), answer)
    table = logit_lens_table(model, Pairs(TOKENS, TOKENS, torch.full((6,), 7), answers, (answers + 1) % 5))
    assert table["accuracy"].nunique() == 1  # ln_final makes all sites alike
    return table["accuracy"].iloc[0]


def native(model: HookedTransformer, answer: int) -> float:
    return int(NativeStep(model, threads=1).score(batch_of(answer))[1].sum()) / 12


def copies(model: HookedTransformer, answer: int) -> float:
    return evaluate_copies(model.double(), [model.flat.clone()], batch_of(answer))["accuracy"][0]


def masks(model: HookedTransformer, answer: int) -> float:
    return mask_scores(model, batch_of(answer), torch.ones(1, 1, 4, dtype=torch.bool))["accuracy"][0]


def heads(model: HookedTransformer, answer: int) -> float:
    batch, generator = batch_of(answer), stream(0, "heads")
    found = head_test(model, batch, batch, generator=generator, sparsities=(0.1,), steps=1, n_random=1)
    return found["full_accuracy"].iloc[0]


def probe(model: HookedTransformer, answer: int) -> float:
    weights = torch.stack([torch.zeros(5), model.W_U[0].detach()]).double()
    return LogisticRegression(weights, True).accuracy(torch.ones(3, 1), torch.full((3,), answer))


PLACES: dict[str, Callable[[HookedTransformer, int], float]] = {
    "hits": lambda model, answer: float(hits(model.W_U[0].detach(), torch.tensor(answer))),
    "evaluate": lambda model, answer: summarise(evaluate(model, batch_of(answer)))["accuracy"],
    "exact match": lambda model, answer: summarise(evaluate(model, batch_of(answer)))["exact_match"],
    "copies": copies,
    "native": native,
    "masks": masks,
    "heads": heads,
    "lens": lens,
    "linear probe": probe,
}


@pytest.mark.usefixtures("a_compiler")
@pytest.mark.parametrize("case", LOGITS)
@pytest.mark.parametrize("place", PLACES)
def test_a_tie_is_no_hit(place: str, case: str):
    logits, right = LOGITS[case]
    if place == "heads" and case in ("not a number", "infinite"):
        pytest.skip("no gates can be learned where the loss is no number")
    found = {answer: PLACES[place](constant_model(logits), answer) for answer in range(5)}
    assert found == {answer: float(answer in right) for answer in range(5)}


def test_a_linear_probe_that_tells_nothing_apart_is_never_right():
    model, batch = constant_model([0.0] * 5), batch_of(0)
    with torch.no_grad():
        model.embed.W_E.zero_()
        model.pos_embed.W_pos.zero_()
    labels = torch.full_like(TOKENS, -1)
    labels[:, 0], labels[:, 1] = 0, 1  # as many of each
    table: pd.DataFrame = linear_probe(model, batch, labels, generator=stream(0, "probe"), sites=["resid_pre.0"])
    assert table["accuracy"].tolist() == [0.0]
