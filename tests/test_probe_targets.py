"""Attention targets against plain loops, by hand and as TransformerLens has them; the scores that are made of them."""

import dataclasses
from functools import partial

import pytest
import torch
from transformer_lens import head_detector

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS, Batch
from procpre_interp.model import ModelConfig
from procpre_interp.probe import attention_entropy
from procpre_interp.probe.attention import attention_pattern, attention_scores
from procpre_interp.probe.targets import TARGETS, Target, register, targets_named, targets_of
from tests.models import random_model

GENERAL = ["previous_token", "duplicate_token", "induction", "first_token"]
HAYSTACK = TASKS.build("haystack", max_pairs=6)
DYCK = TASKS.build("dyck", k=3, length=24)
TASKS_HERE = [
    HAYSTACK,
    DYCK,
    TASKS.build("identity", vocab=8, min_length=4, length=9),
    TASKS.build("reverse", vocab=8, min_length=4, length=9),
    TASKS.build("ww", vocab=8, min_length=4, length=9),
    TASKS.build("stack", vocab=6, min_length=4, length=14),
    TASKS.build("queue", vocab=6, min_length=4, length=14),
    TASKS.build("union", vocab=8, length=8),
    TASKS.build("delete", vocab=8, length=8),
    TASKS.build("sorting"),
    TASKS.build("shuffled", task=DYCK),
    TASKS.build("mixture", tasks=(DYCK, HAYSTACK)),
    TASKS.build("dyck_shuffle", k=3, length=24),
    TASKS.build("addition", digits=3),
]
OWN = {
    "haystack": ["key", "value", "own_key"],
    "dyck": ["stack_top", "matching_bracket"],
    "identity": ["separator", "copy_source"],
    "reverse": ["separator", "copy_source"],
    "ww": ["copy_source"],
    "stack": ["separator", "copy_source"],
    "queue": ["separator", "copy_source"],
    "union": ["separator"],
    "delete": ["separator"],
    "sorting": ["separator"],
}
"""What each task has beyond the general targets."""

every_task = pytest.mark.parametrize("task", TASKS_HERE, ids=lambda task: task.name)
Pairs = set[tuple[int, int]]


def batch_of(task, n: int = 12, seed: int = 0) -> Batch:
    return task.batch(n, generator=stream(seed, "targets"))


def one_sequence(task, tokens: list[int], first_scored: int = 0, padding: int = 2) -> Batch:
    row = torch.tensor([tokens + [0] * padding])
    return Batch.from_sequences(row, torch.tensor([len(tokens)]), first_scored, 0)


def pairs_of(mask: torch.Tensor) -> Pairs:
    """(query, key) of one sequence."""
    return {(int(q), int(k)) for q, k in mask.nonzero()}


def brackets(tokens: list[int], k: int) -> tuple[list[list[int]], dict[int, int]]:
    """The stack of open positions after each token, and the partner of each close."""
    stacks, partner, stack = [], {}, []
    for t, token in enumerate(tokens):
        if token < k:
            stack = [*stack, t]
        else:
            partner[t] = stack[-1]
            stack = stack[:-1]
        stacks.append(stack)
    return stacks, partner


def expected(name: str, task, tokens: list[int], scored: list[int]) -> Pairs:
    """What a target must be: loops over one sequence without its padding."""
    n = len(tokens)
    if name == "previous_token":
        return {(q, q - 1) for q in range(1, n)}
    if name == "first_token":
        return {(q, 0) for q in range(1, n)}
    if name == "duplicate_token":
        return {(q, k) for q in range(n) for k in range(q) if tokens[k] == tokens[q]}
    if name == "induction":
        return {(q, k + 1) for q in range(n) for k in range(q) if tokens[k] == tokens[q]}
    if name in ("key", "value"):
        (query,) = scored
        place = tokens.index(tokens[query] - 30)
        return {(query, place + (name == "value"))}
    if name == "own_key":
        return {(q, q - 1) for q in range(1, n - 2, 2)}
    if name == "stack_top":
        stacks, _ = brackets(tokens, task.k)
        return {(q, stacks[q][-1]) for q in range(n - 1) if tokens[q + 1] >= task.k}
    if name == "matching_bracket":
        return set(brackets(tokens, task.k)[1].items())
    separators = [t for t in range(n) if task.n_separators and tokens[t] == task.vocab]
    if name == "separator":
        return {(q, separators[-1]) for q in scored}
    assert name == "copy_source"
    inputs = tokens[: scored[0] + 1 - task.n_separators]
    if task.name in ("stack", "queue"):
        stored: list[int] = []
        for t, operation in enumerate(inputs):
            stored = [*stored, t] if operation else stored[:-1] if task.name == "stack" else stored[1:]
        return set(zip(scored, reversed(stored) if task.name == "stack" else stored))
    places = range(len(inputs))
    return set(zip(scored, reversed(places) if task.name == "reverse" else places))


@every_task
@pytest.mark.parametrize("seed", [0, 1])
def test_each_target_against_a_plain_loop(task, seed: int):
    batch = batch_of(task, seed=seed)
    for name, target in targets_of(task).items():
        mask = target.mask(batch, task)
        for row, length in enumerate(batch.lengths.tolist()):
            tokens = batch.tokens[row, :length].tolist()
            scored = batch.loss_mask[row].nonzero()[:, 0].tolist()
            assert pairs_of(mask[row]) == expected(name, task, tokens, scored), (name, tokens)


@every_task
def test_which_targets_a_task_has(task):
    assert list(targets_of(task)) == [*GENERAL, *OWN.get(task.name, [])]


@every_task
def test_copied_tokens_are_those_that_come_next(task):
    """Wherever a head that looks there would do to predict the next token, what it finds is the next token."""
    batch = batch_of(task)
    for name in {"value", "copy_source"} & set(targets_of(task)):
        for row, query, key in targets_of(task)[name].mask(batch, task).nonzero().tolist():
            assert batch.tokens[row, key] == batch.targets[row, query]


def test_without_a_task_the_general_ones():
    assert list(targets_of(None)) == GENERAL
    assert [target.name for target in targets_named(None, None)] == GENERAL
    assert [target.name for target in targets_named(["key", "induction", "key"], HAYSTACK)] == ["key", "induction"]


def test_brackets_by_hand():
    """( [ ] { }, then ) and ( ): after `( [ ]` the innermost open bracket is the first again."""
    batch = one_sequence(DYCK, [0, 1, 4, 2, 5, 3, 0, 3])
    assert pairs_of(TARGETS["stack_top"].mask(batch, DYCK)[0]) == {(1, 1), (3, 3), (4, 0), (6, 6)}
    assert pairs_of(TARGETS["matching_bracket"].mask(batch, DYCK)[0]) == {(2, 1), (4, 3), (5, 0), (7, 6)}


def test_a_haystack_by_hand():
    """k0=5 k2=5 k1=7, then the twin of k2, and its value; 0 pads."""
    batch = one_sequence(HAYSTACK, [128, 5, 130, 5, 129, 7, 160, 5], first_scored=6)
    masks = {name: pairs_of(target.mask(batch, HAYSTACK)[0]) for name, target in targets_of(HAYSTACK).items()}
    assert masks["key"] == {(6, 2)}
    assert masks["value"] == {(6, 3)}
    assert masks["own_key"] == {(1, 0), (3, 2), (5, 4)}
    assert masks["duplicate_token"] == {(3, 1), (7, 1), (7, 3)}
    assert masks["induction"] == {(3, 2), (7, 2), (7, 4)}


@every_task
def test_as_transformer_lens_has_them(task):
    batch = batch_of(task)
    patterns = {
        "previous_token": head_detector.get_previous_token_head_detection_pattern,
        "duplicate_token": head_detector.get_duplicate_token_head_detection_pattern,
        "induction": head_detector.get_induction_head_detection_pattern,
    }
    for row, length in enumerate(batch.lengths.tolist()):
        for name, pattern in patterns.items():
            mask = TARGETS[name].mask(batch)[row, :length, :length]
            assert torch.equal(mask, pattern(batch.tokens[row : row + 1, :length]).bool())


def test_padding_changes_nothing():
    for task in TASKS_HERE:
        batch = batch_of(task)
        wider = Batch(
            *(
                torch.cat([getattr(batch, f.name), getattr(batch, f.name)[:, :3]], 1)
                for f in dataclasses.fields(Batch)[:2]
            ),
            loss_mask=torch.cat([batch.loss_mask, torch.zeros(12, 3, dtype=torch.bool)], 1),
            lengths=batch.lengths,
        )
        width = batch.tokens.shape[1]
        for target in targets_of(task).values():
            mask = target.mask(wider, task)
            assert torch.equal(mask[:, :width, :width], target.mask(batch, task))
            assert int(mask.sum()) == int(target.mask(batch, task).sum())


def test_what_a_task_does_not_have_is_refused():
    with pytest.raises(ValueError, match="target of dyck 'value'"):
        TARGETS["value"].mask(batch_of(DYCK), DYCK)
    with pytest.raises(ValueError, match="target without a task 'stack_top'"):
        targets_named(["stack_top"], None)
    with pytest.raises(ValueError, match="'separator'"):
        attention_scores(random_model(), batch_of(DYCK), TASKS.build("ww"), targets=["separator"])


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'induction' is registered already"):
        register("induction", "again")(lambda batch, task: batch.loss_mask)


def model_for(task, **fields):
    return random_model(
        ModelConfig(n_layers=2, n_heads=2, d_model=8, n_ctx=task.n_ctx, d_vocab=task.d_vocab, init_std=0.7, **fields)
    )


@pytest.mark.parametrize("task", TASKS_HERE[:6], ids=lambda task: task.name)
def test_scores_against_a_plain_loop_whatever_the_blocks(task):
    model, batch = model_for(task), batch_of(task, n=7)
    _, cache = model.run_with_cache(batch.tokens)
    tables = [
        attention_scores(model, batch, task, max_sequences=size).set_index(["layer", "head", "score"])
        for size in (2, 64)
    ]
    names = ["entropy_bits", "entropy_relative", "distance", *targets_of(task)]
    assert tables[0].index.tolist() == [(layer, head, name) for layer in (0, 1) for head in (0, 1) for name in names]
    for layer in range(2):
        for head in range(2):
            pattern = cache["pattern", layer][:, head].tolist()
            values = {name: [] for name in names[2:]}
            chances = {name: [] for name in names[2:]}
            for row, length in enumerate(batch.lengths.tolist()):
                weights = pattern[row]
                for q in range(length):
                    values["distance"].append(sum(weights[q][k] * (q - k) for k in range(q + 1)))
                    chances["distance"].append(sum(q - k for k in range(q + 1)) / (q + 1))
                tokens = batch.tokens[row, :length].tolist()
                scored = batch.loss_mask[row].nonzero()[:, 0].tolist()
                for name in targets_of(task):
                    keys: dict[int, list[int]] = {}
                    for q, k in expected(name, task, tokens, scored):
                        keys.setdefault(q, []).append(k)
                    values[name] += [sum(weights[q][k] for k in keys[q]) for q in keys]
                    chances[name] += [len(keys[q]) / (q + 1) for q in keys]
            for table in tables:
                for name in names[2:]:
                    found = table.loc[(layer, head, name)]
                    assert found["n_queries"] == len(values[name])
                    assert found["value"] == pytest.approx(sum(values[name]) / len(values[name]), rel=1e-5)
                    assert found["uniform"] == pytest.approx(sum(chances[name]) / len(values[name]), rel=1e-9)


def test_entropies_are_those_of_attention_entropy():
    model, batch = model_for(HAYSTACK), batch_of(HAYSTACK)
    entropies = attention_entropy(model, batch).set_index(["layer", "head"])
    assert entropies.columns.tolist() == ["entropy_bits", "entropy_relative", "n_rows"]
    table = attention_scores(model, batch)
    for row in table.loc[table["score"].isin(["entropy_bits", "entropy_relative"])].itertuples():
        assert row.value == entropies.loc[(row.layer, row.head), row.score]


@every_task
def test_an_even_head_scores_what_uniform_says(task):
    model, batch = model_for(task), batch_of(task)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("W_Q", "b_Q")):
                parameter.zero_()
    table = attention_scores(model, batch, task)
    assert table["value"].tolist() == pytest.approx(table["uniform"].tolist(), abs=1e-6)


@every_task
def test_a_head_that_does_the_job_scores_one(task):
    """Attention forced on a target's keys, and on the query itself where there is none."""
    model, batch = model_for(task), batch_of(task)
    for name, target in targets_of(task).items():
        mask = target.mask(batch, task)
        mask = mask | (torch.eye(mask.shape[1], dtype=torch.bool) & ~mask.any(-1, keepdim=True))
        forced = (mask / mask.sum(-1, keepdim=True))[:, None]
        force = partial(lambda pattern, hook, forced: forced.expand_as(pattern), forced=forced)
        with model.hooks(fwd_hooks=[("blocks.1.attn.hook_pattern", force)]):
            table = attention_scores(model, batch, task, targets=[name])
        of_target = table.loc[table["score"] == name].set_index(["layer", "head"])["value"]
        assert of_target.loc[1].tolist() == pytest.approx([1, 1])
        assert of_target.loc[0].max() < 0.999


def test_a_score_without_a_query_is_not_a_number():
    batch = one_sequence(HAYSTACK, [128, 5, 129, 7])
    table = attention_scores(model_for(HAYSTACK), batch, HAYSTACK, targets=["value", "own_key"])
    value = table.loc[table["score"] == "value"]
    assert value["n_queries"].tolist() == [0] * 4
    assert value[["value", "uniform"]].isna().to_numpy().all()
    assert table.loc[table["score"] == "own_key", "n_queries"].tolist() == [2] * 4


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="no sequences"):
        attention_scores(model_for(DYCK), batch_of(DYCK)[:0], DYCK)


def test_nothing_stays_hooked():
    model, batch = model_for(DYCK), batch_of(DYCK)
    before = model(batch.tokens)
    attention_scores(model, batch, DYCK)
    attention_pattern(model, batch.tokens[0])
    assert not any(point.fwd_hooks for point in model.hook_dict.values())
    assert torch.equal(model(batch.tokens), before)


def test_a_pattern_as_a_table():
    model, batch = model_for(DYCK), batch_of(DYCK)
    table = attention_pattern(model, batch.tokens[3, :9])
    assert table.columns.tolist() == ["layer", "head", "query", "key", "weight"]
    assert len(table) == 2 * 2 * 9 * 10 / 2
    _, cache = model.run_with_cache(batch.tokens[3:4, :9])
    for row in table.itertuples():
        weight = cache["pattern", row.layer][0, row.head, row.query, row.key].item()
        assert row.weight == pytest.approx(weight, rel=1e-4)
    assert table.groupby(["layer", "head", "query"])["weight"].sum().to_numpy() == pytest.approx(1)


def test_a_target_of_ones_own():
    target = Target(name="self", description="The query.", rule=lambda batch, task: torch.eye(24).bool()[None])
    assert pairs_of(target.mask(batch_of(DYCK, 1), DYCK)[0]) == {(t, t) for t in range(24)}
