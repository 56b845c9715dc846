"""Measures of a plateau, against plain loops and models that were made to repeat themselves."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.probe.plateau import commonest, mean_cosine, participation_ratio, plateau_table, repeated

TASK = TASKS.build("set", length=8, min_length=4)
CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=16, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)


def fresh() -> HookedTransformer:
    return HookedTransformer(CONFIG, generator=stream(0, "plateau"))


def values(table: pd.DataFrame, measure: str) -> list[float]:
    return table.loc[table["measure"] == measure, "value"].tolist()


def test_every_measure_is_what_a_loop_says():
    model, batch = fresh(), TASK.batch(30, generator=stream(1, "plateau"))
    table = plateau_table(model, batch)
    logits, cache = model.run_with_cache(batch.tokens)
    predicted, scored = logits.argmax(-1), batch.loss_mask
    neighbours = [(row, t) for row in range(30) for t in range(1, TASK.n_ctx) if scored[row, t] and scored[row, t - 1]]
    for tokens, column in ((predicted, "value"), (batch.targets, "reference")):
        of_output = table.set_index("measure")[column]
        assert of_output["repeated"] == pytest.approx(
            np.mean([tokens[r, t] == tokens[r, t - 1] for r, t in neighbours])
        )
        known = tokens[scored].tolist()
        assert of_output["commonest"] == pytest.approx(max(map(known.count, known)) / len(known))
    places = scored.nonzero().tolist()
    for layer, value in enumerate(values(table, "cosine")):
        x = cache[f"blocks.{layer}.hook_resid_post"]
        found = [
            torch.cosine_similarity(x[a, s], x[b, t], dim=0).item()
            for (a, s), (b, t) in itertools.combinations(places, 2)
            if a != b
        ]
        assert value == pytest.approx(np.mean(found), abs=1e-5)
    for (layer, head), value in zip(itertools.product(range(2), range(2)), values(table, "participation")):
        z = cache[f"blocks.{layer}.attn.hook_z"][:, :, head][scored]
        eigenvalues = np.linalg.eigvalsh(np.cov(z.numpy().T.astype(float)))
        assert value == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-4)
        assert 1 <= value <= CONFIG.d_head


def test_a_model_that_repeats_itself_is_seen_to():
    model, batch = fresh(), TASK.batch(30, generator=stream(1, "plateau"))
    with torch.no_grad():
        model.unembed.b_U[7] = 100.0  # always says 7
        model.blocks[1].mlp.b_out[0] = 1e4  # all states point one way
        model.blocks[0].attn.W_V.zero_()  # and a layer's heads write nothing
        model.blocks[0].attn.b_V.zero_()
    table = plateau_table(model, batch)
    assert values(table, "repeated") == values(table, "commonest") == [1.0]
    assert values(table, "cosine")[1] > 0.999 > 0.9 > values(table, "cosine")[0]
    assert [math.isnan(value) for value in values(table, "participation")] == [True, True, False, False]


def test_what_cannot_be_measured_is_not_a_number():
    haystack = TASKS.build("haystack").batch(5, generator=stream(0, "plateau"))
    assert math.isnan(repeated(haystack.targets, haystack.loss_mask))  # one scored token a sequence
    assert math.isnan(mean_cosine(torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)))
    assert mean_cosine(torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]), torch.tensor([0, 1, 2])) == pytest.approx(
        1 / 3
    )
    assert commonest(torch.tensor([[1, 1, 2]]), torch.tensor([[True, True, True]])) == pytest.approx(2 / 3)
    assert participation_ratio(torch.eye(4)) == pytest.approx(3)  # a simplex has one dimension less
    with pytest.raises(ValueError, match="nothing is scored"):
        plateau_table(fresh(), TASK.batch(2, generator=stream(0, "plateau"))[:0])
