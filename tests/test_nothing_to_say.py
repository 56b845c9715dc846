"""What is said where numbers are missing: a model that diverged, a run without a baseline, a label of one class."""

import math

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from procpre_interp.analysis.diagnosis import NO_BASELINE, NO_SIGNATURE
from procpre_interp.commands._models import Columns, means_over_runs
from procpre_interp.data import TASKS
from procpre_interp.data.samples import sample
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.probe import PROBES
from procpre_interp.probe.base import Probed
from procpre_interp.probe.plateau import plateau_table
from procpre_interp.views.exhibits import inside
from procpre_interp.views.exhibits.damage import failures_answer
from procpre_interp.views.exhibits.exhibit import Exhibit
from tests.models import random_model


def exhibit(rows: list[dict]) -> Exhibit:
    return Exhibit(name="x", figure=go.Figure(), reading="", table=pd.DataFrame(rows))


DIVERGED = {
    "strongest_head": lambda: inside.strongest_head(
        exhibit([{"score": "entropy", "value": math.nan, "layer": 0, "head": 0}]), "entropy", "m"
    ),
    "strongest_patch": lambda: inside.strongest_patch(exhibit([{"effect": math.nan, "metric": "x", "n_pairs": 1}])),
    "strongest_edge": lambda: inside.strongest_edge(exhibit([{"score": math.nan, "writer": "a", "reader": "b"}])),
    "steepest": lambda: inside.steepest(exhibit([{"name": "W", "singular_value": math.nan}]), "m"),
    "likeness": lambda: inside.likeness(exhibit([{"site": "a", "other": "a", "cka": math.nan}])),
}


@pytest.mark.parametrize("name", DIVERGED)
def test_a_model_that_diverged_has_an_answer(name: str):
    assert DIVERGED[name]() == inside.NOTHING


def test_without_a_behaviour_there_is_no_circuit_of_it():
    rows = [{"search": "greedy", "n_edges": n, "faithfulness": math.nan} for n in (2, 4)]
    assert "does not tell these pairs apart" in inside.smallest_circuit(exhibit(rows)).text


def test_a_run_without_a_baseline_has_not_failed():
    rows = [("a", NO_BASELINE), ("a", "diverged"), ("b", NO_SIGNATURE), ("c", "embeddings fresh")]
    said = failures_answer(pd.DataFrame(rows, columns=["run", "signature"])).text
    assert said.startswith("1 of 2 runs with pretraining show a failure. 1 more have no baseline")
    assert "in 1 of them: embeddings fresh" in said


def test_padding_is_no_token_to_be_predicted():
    rows = [("a", False), ("b", True), ("padding", False)]
    exhibit_of = exhibit([{"role": role, "scored": scored} for role, scored in rows])
    assert inside.scored(exhibit_of).text == "1 of 2 tokens are to be predicted: b."


def test_a_mean_says_of_how_many_runs_it_is():
    values = [0.8, 0.9, math.nan, math.nan]
    table = pd.DataFrame({"run": list("abcd"), "site": "x", "share": values, "effect": [1.0, 2.0, 3.0, 4.0]})
    (row,) = means_over_runs(table, Columns(("site",), ("share", "effect"))).to_dict("records")
    assert row["share"].endswith("] of 2")
    assert row["n"] == "4"
    assert "of" not in row["effect"]
    one = means_over_runs(table.assign(share=[0.8, *[math.nan] * 3]), Columns(("site",), ("share",)))
    assert one["share"].item() == "0.8 of 1"


def probed(task, model: HookedTransformer, sequences: int = 32) -> Probed:
    return Probed(model=model, task=task, reference=None, sequences=sequences, seed=0)


def test_one_layer_has_no_pairs_of_layers():
    task = TASKS.build("haystack", max_pairs=4)
    config = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab)
    probe = PROBES["composition"]()
    table = probe.measure(probed(task, random_model(config)))
    probe.check(table)
    assert table.empty


def test_a_label_of_one_class_leaves_the_others():
    task = TASKS.build("dyck", k=1, length=16)
    config = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab)
    labels = set(PROBES["linear"]().measure(probed(task, random_model(config)))["label"])
    assert "stack_depth" in labels
    assert "top_type" not in labels


def test_where_logits_tie_nothing_is_predicted():
    task = TASKS.build("dyck", k=2, length=8)
    config = ModelConfig(n_layers=1, n_heads=2, d_model=8, n_ctx=task.model_n_ctx, d_vocab=task.d_vocab)
    model, batch = random_model(config), sample(task, 0, 16)
    values = plateau_table(model, batch).set_index("measure")["value"]
    assert values[["repeated", "commonest"]].notna().all()
    with torch.no_grad():
        model.unembed.W_U.copy_(model.unembed.W_U.mean(1, keepdim=True).expand_as(model.unembed.W_U))
        model.unembed.b_U.zero_()
    values = plateau_table(model, batch).set_index("measure")["value"]
    assert values[["repeated", "commonest"]].isna().all()


@pytest.mark.parametrize("wrap", ["", "noisy", "shuffled", "mixture"])
def test_on_text_models_are_measured_on_documents_that_they_did_not_see(tmp_path, wrap: str):
    """Each document is of a letter of its own, so that a window tells where it comes from."""
    folder = tmp_path / "documents"
    folder.mkdir()
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    for i, letter in enumerate(letters):
        (folder / f"{i}.txt").write_text(letter * 400)
    text = TASKS.build("text", corpus=f"files:{folder}", length=16).resolve()
    wrapped = {
        "": text,
        "noisy": TASKS.build("noisy", task=text, share=0.5),
        "shuffled": TASKS.build("shuffled", task=text),
        "mixture": TASKS.build("mixture", tasks=(text,)),
    }[wrap]
    generator = torch.Generator().manual_seed(0)
    trained, held = (
        set(text.split_batch(2_000, split, generator=generator).tokens.unique().tolist())
        for split in ("train", "validation")
    )
    alphabet = {*letters.encode()}
    assert held & alphabet - trained
    found = set(sample(wrapped, 0, 500).tokens.unique().tolist()) & alphabet
    assert found
    assert found <= held
