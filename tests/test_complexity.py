"""Measured complexity of tasks: what is stored with the package, and how it is measured and shown."""

import dataclasses
import json
import math

import pytest

from procpre_interp.analysis.loss_area import TRAINING, loss_area_nats
from procpre_interp.cli import main
from procpre_interp.core.config import content_hash
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, complexity
from procpre_interp.data.complexity import (
    Complexity,
    StoredComplexity,
    measure_complexity,
    store_complexities,
    stored_complexities,
    stored_complexity,
)
from procpre_interp.data.estimators import entropy_rate_bits, gzip_ratio
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.train import Trainer
from procpre_interp.views.exhibits import sequences

OWN_DATA = [name for name in TASKS if name not in ("mixture", "noisy", "shuffled", "text")]
"""Tasks with default fields that read no file."""


def test_every_task_has_stored_measures_of_its_version():
    """Otherwise run experiments/measure_tasks.py for it."""
    stale = [name for name in OWN_DATA if stored_complexity(TASKS.build(name)) is None]
    assert stale == []
    for name in OWN_DATA:
        found = stored_complexities()[name]
        assert found.guess_nats == pytest.approx(math.log(TASKS.build(name).d_vocab), abs=1e-3)
        assert len(found.loss_areas_nats) >= 2
        assert 0 < found.mean_loss_area < 1.1
        assert found.loss_area_std < 0.1


@pytest.mark.parametrize("name", ["dyck", "haystack", "queue", "multi_hop", "neural_ca", "linear_rnn"])
def test_stored_measures_are_those_of_the_sample(name: str):
    found, stored = measure_complexity(TASKS.build(name)), stored_complexities()[name].sample
    assert found.tokens == stored.tokens
    assert found.entropy_bits == pytest.approx(stored.entropy_bits, abs=0.01)
    # Versions of zlib compress differently, by little.
    assert found.gzip_ratio == pytest.approx(stored.gzip_ratio, abs=0.03)
    assert found.shuffled_gzip_ratio == pytest.approx(stored.shuffled_gzip_ratio, abs=0.03)


def test_padding_is_no_part_of_the_sample(monkeypatch):
    monkeypatch.setattr(complexity, "SAMPLE_TOKENS", 1000)
    task = TASKS.build("haystack")
    batch = task.batch(16, generator=stream(0, "complexity", "haystack"))
    rows = [row[:length] for row, length in zip(batch.tokens.numpy(), batch.lengths)]
    tokens = [int(token) for row in rows for token in row]
    found = measure_complexity(task)
    assert 0 not in tokens
    assert found.tokens == len(tokens)
    flat = batch.tokens.numpy()[batch.tokens.numpy() != 0]
    assert found.gzip_ratio == gzip_ratio(flat, 256)
    assert found.entropy_bits == entropy_rate_bits(flat, batch.lengths.numpy(), 256)
    assert measure_complexity(task, seed=1) != found


def test_what_is_stored_reads_back(tmp_path, monkeypatch):
    task = TASKS.build("set")
    sample = Complexity(gzip_ratio=0.25, shuffled_gzip_ratio=0.5, entropy_bits=1.23456, tokens=70)
    found = StoredComplexity(task=content_hash(task), sample=sample, loss_areas_nats=(2.0, 3.0), guess_nats=4.0)
    path = tmp_path / "complexity.json"
    store_complexities({"set": found}, path)
    assert json.loads(path.read_text())["set"]["sample"]["entropy_bits"] == 1.2346
    monkeypatch.setattr(complexity, "STORED", path)
    stored_complexities.cache_clear()
    try:
        rounded = dataclasses.replace(found, sample=dataclasses.replace(sample, entropy_bits=1.2346))
        assert stored_complexities() == {"set": rounded}
        assert stored_complexity(task) == rounded
        assert stored_complexity(TASKS.build("set", length=9)) is None
        assert stored_complexity(TASKS.build("dyck")) is None
    finally:
        stored_complexities.cache_clear()
    assert found.mean_loss_area == 2.5 / 4
    assert found.loss_area_std == pytest.approx(math.sqrt(0.5) / 4)


def test_the_area_is_the_mean_of_the_losses_of_all_steps():
    task = TASKS.build("dyck", k=2, length=8)
    config = dataclasses.replace(TRAINING, steps=7, evaluate_every=3, warmup_steps=2)
    shape = ModelConfig(n_layers=2, n_heads=4, d_model=32, n_ctx=8, d_vocab=5)
    trainer = Trainer(HookedTransformer.from_seed(shape, 4, "loss area"), task, config, seed=4)
    for _ in range(7):
        trainer.take_step()
    area = loss_area_nats(task, 4, config)
    assert area == pytest.approx(trainer.state.train_loss / 7, rel=1e-6)
    assert area == loss_area_nats(task, 4, config) != loss_area_nats(task, 5, config)


def test_a_run_that_diverges_has_no_area():
    config = dataclasses.replace(
        TRAINING, steps=40, evaluate_every=2, warmup_steps=0, learning_rate=1e3, clip_norm=None
    )
    with pytest.raises(ValueError, match="dyck, seed 0: .*loss"):
        loss_area_nats(TASKS.build("dyck", k=2, length=8), 0, config)


def test_the_command_shows_a_table_of_at_most_100_characters(capsys):
    assert main(["tasks", "--examples", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Task "))
    table = lines[start:]
    assert max(map(len, table)) <= 100
    for name in OWN_DATA:
        (row,) = [line for line in table if line.split()[:1] == [name]]
        found = stored_complexities()[name]
        assert row.split()[3:6] == [
            f"{found.sample.gzip_ratio:.1%}",
            f"{found.sample.shuffled_gzip_ratio:.1%}",
            f"{found.sample.entropy_bits:.2f}",
        ]


def test_the_command_on_one_task(capsys):
    assert main(["tasks", "--name", "queue"]) == 0
    text = capsys.readouterr().out
    found = stored_complexities()["queue"]
    assert f"gzip: {found.sample.gzip_ratio:.1%} of the bytes" in text
    assert f"at most {found.sample.entropy_bits:.2f} bits per token; a guess has 6.67" in text
    assert f"{found.mean_loss_area:.1%}" in text
    assert main(["tasks", "--name", "shuffled"]) == 0
    assert "gzip" not in capsys.readouterr().out


def test_the_playground_measures_what_is_not_stored(monkeypatch):
    monkeypatch.setattr(complexity, "SAMPLE_TOKENS", 1000)
    task = TASKS.build("set", length=6, vocab=9)
    found, shown = measure_complexity(task), sequences.complexity(task)
    assert shown["Compressed by gzip"] == f"{found.gzip_ratio:.1%}"
    assert shown["Entropy, bits per token"] == f"≤ {found.entropy_bits:.2f}"
    assert shown["Loss area, of a guess"] == "not measured"
    stored = sequences.complexity(TASKS.build("set"))
    assert "±" in stored["Loss area, of a guess"]
