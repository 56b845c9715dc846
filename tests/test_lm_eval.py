"""Exported models under lm-eval, the field's harness: its scores of a local task are those of the model itself.

lm-eval brings some thirty packages, so it is no dependency: `pip install 'procpre_interp[evaluation]'`.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from procpre_interp.cli import main
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.token_file import find_token_file
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute, load_model, load_task
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig

pytest.importorskip("lm_eval", reason="pip install 'procpre_interp[evaluation]'")
pytestmark = pytest.mark.slow

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "an", "old", "dog", "slept", "beside", "it"]
DOCUMENTS = [" ".join(WORDS[(3 * i + j) % len(WORDS)] for j in range(9)) + "." for i in range(40)]

PERPLEXITY = """
task: local_text
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
- {metric: bits_per_byte}
"""
CHOICE = """
task: local_choice
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
target_delimiter: ""
metric_list:
- {metric: acc}
"""


@pytest.mark.parametrize("tokenizer", ["byte", "bpe:300"])
def test_scores_of_a_local_task_are_those_of_the_model(tokenizer: str, tmp_path: Path):
    text = tmp_path / "rows.jsonl"
    text.write_text("".join(json.dumps({"text": f"{each} {i}"}) + "\n" for i, each in enumerate(DOCUMENTS * 8)))
    task, store = Text(corpus=f"files:{text}", tokenizer=tokenizer, length=96), RunStore(tmp_path / "runs")
    train = TrainConfig(steps=60, batch_size=8, evaluate_every=60, evaluate_examples=8)
    run = execute(RunConfig(task=task, model=Architecture(n_layers=2, n_heads=2, d_model=16), train=train), store)
    assert main(["export", run.id, "--to", str(tmp_path / "model"), "--store", str(store.path)]) == 0

    model, known = load_model(run), load_task(run)
    assert isinstance(known, Text)
    tokens = find_token_file(known.corpus_hash, known.tokenizer)
    assert tokens is not None
    coder = tokens.tokenizer()

    def log_probability(words: str, after: str = "") -> float:
        """That of `words` after other ones, or after an end of document: what lm-eval gives a model to read."""
        start = coder.encode([after])[0].tolist() or [coder.end_of_document]
        ids = torch.tensor([start + coder.encode([words])[0].tolist()])
        found = model(ids).detach()[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return found[len(start) - 1 :].sum().item()

    questions = [
        {
            "question": " ".join(words[:4]),
            "choices": [f" {words[4]} {words[5]}", f" {words[5]} {words[4]}"],
            "answer": 0,
        }
        for words in map(str.split, DOCUMENTS)
    ]
    scores = evaluated(tmp_path, {"text": DOCUMENTS, "choice": questions})
    n_bytes = sum(len(each.encode()) for each in DOCUMENTS)
    bits = -sum(map(log_probability, DOCUMENTS)) / n_bytes / math.log(2)
    assert scores["local_text"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-4)
    right = [
        log_probability(each["choices"][0], each["question"]) > log_probability(each["choices"][1], each["question"])
        for each in questions
    ]
    assert scores["local_choice"]["acc,none"] == pytest.approx(sum(right) / len(right))


def evaluated(folder: Path, data: dict[str, list]) -> dict[str, dict[str, float]]:
    """What lm-eval finds of the exported model, by task, in a process that has no network and not this package."""
    rows = {"text": [{"text": each} for each in data["text"]], "choice": data["choice"]}
    for name, template in (("text", PERPLEXITY), ("choice", CHOICE)):
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in rows[name]))
        (folder / "tasks").mkdir(exist_ok=True)
        (folder / "tasks" / f"{name}.yaml").write_text(template.replace("DATA", json.dumps(str(path))))
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        "PYTHONPATH": "",
    }
    model = folder / "model"
    command = ["--model", "hf", "--model_args", f"pretrained={model},tokenizer={model}", "--device", "cpu"]
    tasks = ["--tasks", "local_text,local_choice", "--include_path", str(folder / "tasks")]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command, *tasks, "--batch_size", "4", "--output_path", str(folder / "out")],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (found,) = (folder / "out").rglob("results_*.json")
    return json.loads(found.read_text())["results"]
