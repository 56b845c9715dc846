"""Models up to GPT-2 small by config: built and trained for a step within bounded memory."""

import json
import subprocess
import sys

import pytest

from procpre_interp.commands._text_defaults import with_training_defaults
from procpre_interp.data.semantic.text import Text
from procpre_interp.pipeline.config import Architecture, RunConfig, model_config
from procpre_interp.train import TrainConfig

SMALL = RunConfig(
    task=Text(corpus="docstrings", tokenizer="gpt2", length=1024),
    model=Architecture(n_layers=12, n_heads=12, d_model=768, tied=True),
    train=TrainConfig(steps=1, batch_size=2, evaluate_examples=2, recompute=True, kernel="torch"),
)
PARAMETERS = 124_439_808
"""Published size of GPT-2 small."""
MOST_GIGABYTES = 5.0
"""Weights, gradients, and Adam's two moments in float32 are 2.0; the rest is Python, and activations of a batch."""

STEP = """
import json, resource
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.model import HookedTransformer
from procpre_interp.pipeline.config import model_config
from procpre_interp.train.loop import Trainer
from tests.test_gpt2_small import SMALL, TRAIN

model = HookedTransformer(model_config(SMALL), generator=stream(0, "model"))
task = TASKS.build("sort", length=60)
state = Trainer(model, task, TRAIN, seed=0).run()
print(json.dumps([state.status, model.flat.numel(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))
"""

TRAIN = with_training_defaults(SMALL.train, SMALL.task, SMALL.model, given=())


def test_gpt2_small_is_a_config():
    config = model_config(SMALL)
    assert (config.n_ctx, config.d_vocab, config.d_hidden, config.d_head) == (1024, 50257, 3072, 64)
    assert (TRAIN.weight_decay, TRAIN.precision) == (0.1, "bfloat16")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures memory in Linux's unit")
def test_it_trains_within_bounded_memory():
    found = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stderr
    status, parameters, gigabytes = json.loads(found.stdout)
    assert (status, parameters) == ("finished", PARAMETERS)
    assert gigabytes < MOST_GIGABYTES
