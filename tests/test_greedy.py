"""Greedy decoding against one sequence at a time, and its exact match against teacher forcing."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from procpre_interp.commands._run_one import print_outcome
from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.data.derived import Noisy
from procpre_interp.data.semantic.language import Files
from procpre_interp.data.semantic.mathematics import DeepMindMath
from procpre_interp.data.semantic.questions import question_batch
from procpre_interp.data.semantic.text import Text
from procpre_interp.data.tokenizer_files import opened
from procpre_interp.model import HookedTransformer, ModelConfig
from procpre_interp.pipeline.config import Architecture, RunConfig
from procpre_interp.pipeline.execute import execute
from procpre_interp.store.outcomes import scores
from procpre_interp.store.store import RunStore
from procpre_interp.train import TrainConfig, Trainer, decode_greedily, evaluate, greedy_scores
from procpre_interp.train.greedy import NOTHING, QUESTIONS
from tests.models import random_model

CONFIG = ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=12, d_vocab=5)
MODEL = random_model(CONFIG)

prompts = st.lists(st.tuples(st.integers(1, 8), st.integers(0, 4)), max_size=8)


@given(rows=prompts, padding=st.integers(0, 4), seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_each_row_is_decoded_as_if_it_stood_alone(rows, padding, seed):
    lengths = torch.tensor([length for length, _ in rows], dtype=torch.int64)
    n = torch.tensor([count for _, count in rows], dtype=torch.int64)
    tokens = torch.randint(5, (len(rows), 8 + padding), generator=stream(seed, "prompts"))
    found = decode_greedily(MODEL, tokens, lengths, n)
    for i, (length, count) in enumerate(rows):
        alone = MODEL.generate(tokens[i : i + 1, :length], count)[0, length:].tolist()
        assert found.tokens[i].tolist() == alone + [NOTHING] * (found.tokens.shape[1] - count)
    assert torch.equal(found.clear, found.tokens != NOTHING), "no two logits of a random model are equal"
    repadded = torch.where(torch.arange(8 + padding) < lengths[:, None], tokens, 4 - tokens)
    assert torch.equal(decode_greedily(MODEL, repadded, lengths, n).tokens, found.tokens), "padding is never read"


@pytest.mark.parametrize(("length", "n", "said"), [(0, 1, "empty prompt"), (8, 6, "6 tokens after 8; n_ctx=12")])
def test_what_cannot_be_decoded(length, n, said):
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    with pytest.raises(ValueError, match=said):
        decode_greedily(MODEL, tokens, torch.tensor([3, length]), torch.tensor([1, n]))
    fits = decode_greedily(MODEL, tokens, torch.tensor([8]).expand(2), torch.tensor([5, 5]))
    assert fits.tokens.shape == (2, 5)


def check_against_teacher_forcing(model: HookedTransformer, batch: Batch, **options: int) -> list[bool]:
    """Whole answers are right under greedy decoding exactly where every token is right under teacher forcing."""
    greedy, forced = greedy_scores(model, batch, **options), evaluate(model, batch)
    for column in ("example", "n_scored", "exact_match"):
        assert greedy[column].tolist() == forced[column].tolist(), column
    assert (greedy.n_written <= forced.n_correct).all(), "up to the first mistake both read the same"
    return greedy.exact_match.tolist()


FAMILIES = {
    "sort": {"vocab": 3, "length": 4, "min_length": 1},
    "union": {"vocab": 3, "length": 4},
    "stack": {"vocab": 3, "length": 4},
    "haystack": {"max_pairs": 5},
    "reversed_addition": {"digits": 2},
    "dyck": {"k": 1, "length": 8},
    "mixture": {
        "tasks": [
            {"name": "set", "vocab": 3, "length": 2},
            {"name": "identity", "vocab": 2, "length": 6, "min_length": 1},
        ]
    },
}


@pytest.mark.parametrize("name", FAMILIES)
def test_it_agrees_with_teacher_forcing_for_every_kind_of_task(name):
    task = TASKS.build(name, **FAMILIES[name])
    batch = task.batch(64, generator=stream(0, "greedy", name))
    config = dataclasses.replace(CONFIG, n_ctx=task.n_ctx, d_vocab=task.d_vocab)
    for seed in range(3):
        check_against_teacher_forcing(random_model(config, seed=seed), batch)


def test_it_agrees_with_teacher_forcing_where_some_answers_are_right_and_some_are_not():
    task = TASKS.build("identity", vocab=4, length=4, min_length=1)
    model = HookedTransformer.from_seed(
        ModelConfig(n_layers=2, n_heads=4, d_model=16, n_ctx=task.n_ctx, d_vocab=task.d_vocab), 0
    )
    train = TrainConfig(
        steps=60, batch_size=64, learning_rate=1e-2, warmup_steps=10, evaluate_every=60, kernel="torch", threads=1
    )
    Trainer(model, task, train, seed=0).run()
    batch = task.batch(200, generator=stream(1, "greedy"))
    right = check_against_teacher_forcing(model, batch, max_tokens=50)
    assert 20 < sum(right) < 180, "or the test would show little"


def test_ties_are_wrong_as_in_evaluation():
    model = random_model(CONFIG)
    with torch.no_grad():
        model.W_U.zero_()
    tokens = torch.zeros(3, 6, dtype=torch.int64)
    batch = Batch.from_sequences(tokens, torch.full((3,), 6), 2, pad=0)
    assert check_against_teacher_forcing(model, batch) == [False] * 3
    assert decode_greedily(model, tokens, torch.tensor([2, 2, 2]), torch.tensor([1, 1, 1])).tokens.tolist() == [[0]] * 3


def test_a_mistake_spoils_what_follows_and_is_counted():
    """The model repeats its last token: right under teacher forcing wherever the target repeats, by itself never again
    after the first mistake."""
    config = ModelConfig(n_layers=1, n_heads=1, d_model=8, n_ctx=12, d_vocab=5)
    model = HookedTransformer(config, generator=stream(0, "copy"))
    with torch.no_grad():
        model.flat.zero_()
        model.ln_final.w.fill_(1.0)
        model.embed.W_E[:, :5] = torch.eye(5)
        model.unembed.W_U[:5] = torch.eye(5)
    tokens = torch.tensor([[1, 2, 2, 2, 3, 3], [4, 4, 4, 4, 4, 4]])
    batch = Batch.from_sequences(tokens, torch.tensor([6, 5]), 1, pad=0)
    forced, greedy = evaluate(model, batch), greedy_scores(model, batch)
    assert forced.n_correct.tolist() == [3, 3]
    assert greedy.n_scored.tolist() == [4, 3]
    assert greedy.n_written.tolist() == [2, 3]
    assert greedy.exact_match.tolist() == [False, True]


def test_answers_in_two_pieces_are_refused_and_those_without_any_have_no_row():
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    batch = Batch.from_sequences(tokens, torch.tensor([6, 6]), torch.tensor([1, 5]), pad=0)
    assert greedy_scores(MODEL, batch).example.tolist() == [0]
    mask = batch.loss_mask.clone()
    mask[0, 2] = False
    with pytest.raises(ValueError, match="gaps"):
        greedy_scores(MODEL, dataclasses.replace(batch, loss_mask=mask))
    assert len(greedy_scores(MODEL, batch[1:])) == 0


@pytest.fixture(scope="module")
def documents() -> list[str]:
    asked = [f"What is {a} + {b}?\n{a + b}" for a in range(20) for b in range(20)]
    return [*asked, *(f"A text {n} of one line" for n in range(60)), *(f"three\n{n}\nlines" for n in range(60))]


@pytest.fixture(scope="module", params=["byte", "bpe:300"])
def task(request: pytest.FixtureRequest, documents: list[str], tmp_path_factory: pytest.TempPathFactory) -> Text:
    path: Path = tmp_path_factory.mktemp("questions") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return Text(corpus=f"files:{path}", tokenizer=request.param, length=24).resolve()


def test_questions_are_documents_of_two_lines(task, documents):
    batch = question_batch(opened(task), 24, 50, "test", generator=stream(0, "questions"))
    token_file = opened(task)
    tokenizer, seen = token_file.tokenizer(), token_file.tokenizer().decode(token_file.tokens("test").tolist())
    end = tokenizer.end_of_document
    for row, length, mask, targets in zip(batch.tokens, batch.lengths, batch.loss_mask, batch.targets):
        ids = row[:length].tolist()
        assert ids[0] == ids[-1] == end
        text = tokenizer.decode(ids[1:-1])
        question, answer = text.split("\n")
        assert text in documents
        assert f"{text}<|endoftext|>" in seen
        assert len(ids) <= 24
        given = row[: int(mask.int().argmax()) + 1].tolist()
        assert tokenizer.decode(given[1:]) == f"{question}\n"
        assert tokenizer.decode(targets[mask].tolist()[:-1]) == answer
        assert targets[mask].tolist()[-1] == end
    repeated = question_batch(opened(task), 24, 50, "test", generator=stream(0, "questions"))
    assert torch.equal(batch.tokens, repeated.tokens)


def test_questions_are_answered_by_greedy_decoding(task):
    batch = question_batch(opened(task), 24, 40, "validation", generator=stream(0, "questions"))
    check_against_teacher_forcing(random_model(dataclasses.replace(CONFIG, n_ctx=24, d_vocab=task.d_vocab)), batch)


def test_text_without_questions_is_refused(task, tmp_path):
    path = tmp_path / "prose.jsonl"
    path.write_text("".join(json.dumps({"text": f"a line, and nothing more {n}"}) + "\n" for n in range(200)))
    prose = Text(corpus=f"files:{path}", length=24)
    with pytest.raises(ValueError, match="no document of the test split is a question"):
        question_batch(opened(prose), 24, 3, "test", generator=stream(0, "questions"))
    with pytest.raises(ValueError, match="of at most 3 tokens"):
        question_batch(opened(task), 3, 3, "test", generator=stream(0, "questions"))


def test_a_run_on_text_that_asks_reports_its_answers(task, tmp_path, capsys):
    asks = dataclasses.replace(task, answers=True, corpus_hash="", tokenizer_hash="")
    train = TrainConfig(steps=2, batch_size=4, evaluate_every=2, evaluate_examples=8, kernel="torch")
    config = RunConfig(task=asks, model=Architecture(d_model=8), train=train)
    run = execute(config, RunStore(tmp_path))
    answers = run.answers()
    assert len(answers) == QUESTIONS
    assert run.summary["answers_right"] == answers["exact_match"].mean()
    assert {"perplexity", "bits_per_byte"} <= set(run.summary)
    cell = scores(run, [])
    assert (cell["answers_right"], cell["perplexity"]) == (run.summary["answers_right"], run.summary["perplexity"])
    print_outcome(run)
    assert "questions answered right, exact match by greedy decoding 0.0%" in capsys.readouterr().out
    silent = execute(dataclasses.replace(config, task=task), RunStore(tmp_path))
    assert "answers_right" not in silent.summary


def test_questions_of_a_task_and_of_noise(task):
    asked = dataclasses.replace(task, answers=True)
    batch = asked.questions(20, "test", generator=stream(0, "asked"))
    assert batch is not None
    assert len(batch) == 20
    assert task.questions(20, "test", generator=stream(0, "asked")) is None
    noisy = Noisy(task=asked).questions(20, "test", generator=stream(0, "asked"))
    assert noisy is not None
    assert torch.equal(noisy.tokens, batch.tokens)


def test_answers_are_wanted_of_text_that_has_none(task):
    with pytest.raises(ValueError, match=r"answers of corpus .* of at most 3 tokens"):
        dataclasses.replace(task, answers=True, length=3).prepare()


def test_a_corpus_of_questions_asks_by_itself_and_where_none_fits_it_does_not(task, monkeypatch):
    monkeypatch.setattr(Files, "asks", True)
    generator = stream(0, "asked")
    assert task.questions(5, "test", generator=generator) is not None
    assert dataclasses.replace(task, length=3).questions(5, "test", generator=generator) is None
    assert dataclasses.replace(task, answers=False).questions(5, "test", generator=generator) is None
    assert DeepMindMath.asks
