"""Weights as exhibits: a model beside itself, and models that cannot be compared."""

import numpy as np
import pytest

from procpre_interp.data import TASKS
from procpre_interp.model import ModelConfig
from procpre_interp.views.exhibits import weights
from tests.models import TINY, random_model

TASK = TASKS.build("sort", vocab=9, length=4)
CONFIG = ModelConfig(n_layers=2, n_heads=3, d_model=12, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab)


def test_a_model_has_not_moved_from_itself_and_is_like_itself():
    model = random_model(CONFIG)
    assert weights.drift(model, model).table["relative_change"].abs().max() == 0
    table = weights.likeness(model, model, TASK).table
    same = table.loc[table["site"] == table["other"], "cka"].to_numpy()
    np.testing.assert_allclose(same, 1, atol=1e-5)


def test_a_doubled_model_moved_by_its_own_size():
    first, second = random_model(CONFIG), random_model(CONFIG)
    second.flat.data *= 2
    table = weights.drift(first, second).table
    # The products of two matrices have four times their size.
    expected = np.where(table["matrix"].isin(["QK", "OV"]), 3, 1)
    np.testing.assert_allclose(table["relative_change"], expected, rtol=1e-4)
    np.testing.assert_allclose(table["cosine"], 1, rtol=1e-4)


def test_spectra_are_those_of_the_matrices():
    model = random_model(CONFIG)
    table = weights.spectra(model, of="mine").table
    found = table.query("matrix == 'W_in' and layer == 1")["singular_value"].to_numpy()
    expected = np.linalg.svd(model.blocks[1].mlp.W_in.detach().numpy(), compute_uv=False)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_models_that_cannot_be_compared():
    model = random_model(CONFIG)
    with pytest.raises(ValueError, match="to compare them takes equal blocks"):
        weights.drift(model, random_model(ModelConfig(n_layers=1, n_heads=3, d_model=12, n_ctx=9, d_vocab=11)))
    with pytest.raises(ValueError, match="mine has no place for haystack"):
        weights.likeness(random_model(TINY), model, TASKS.build("haystack"), names=("mine", "yours"))


def test_embeddings_of_another_vocabulary_are_left_out_and_said():
    other = ModelConfig(n_layers=2, n_heads=3, d_model=12, n_ctx=TASK.n_ctx, d_vocab=TASK.d_vocab + 3)
    notes = weights.drift(random_model(CONFIG), random_model(other)).notes
    assert any(note.startswith("embed.W_E is left out") for note in notes)
