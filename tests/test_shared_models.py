"""Threads that share a model: each gets, to the last bit, what it would get alone."""

import copy
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pandas as pd
import pytest
import torch

from procpre_interp.core.seeding import stream
from procpre_interp.data import Batch
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.model import HookedTransformer
from procpre_interp.patch import (
    Graph,
    activation_patching,
    circuit_values,
    edge_attribution,
    edge_patching,
    mask_scores,
    path_patching,
    prune_heads,
)
from procpre_interp.probe import attention_pattern, attention_scores
from procpre_interp.probe.lens import direct_logit_attribution_table, logit_lens_table
from procpre_interp.probe.linear import linear_probe
from procpre_interp.probe.representation import cka, subspace_overlap
from procpre_interp.train.evaluate import evaluate
from procpre_interp.train.process import run_threads
from tests.models import TINY, random_model, random_tokens

TOKENS = random_tokens(batch=6, length=10)
PAIRS = Pairs(
    TOKENS,
    random_tokens(batch=6, length=10, seed=1),
    torch.tensor([9, 8, 9, 7, 5, 9]),
    torch.arange(6),
    torch.arange(6) + 1,
)
BATCH = Batch(TOKENS, random_tokens(batch=6, length=10, seed=2), TOKENS >= 0, torch.full((6,), 10))
MASKS = torch.tensor([[[True, False, True], [False, True, True]], [[False] * 3, [True] * 3]])
CIRCUITS = torch.rand(3, len(Graph(TINY).edges), generator=stream(0, "circuits")) < 0.5


def keep_everything(model: HookedTransformer) -> list[torch.Tensor]:
    """A user's own hooks, as upstream has them."""
    logits, cache = model.run_with_cache(TOKENS)
    return [logits, *(cache[name] for name in sorted(cache))]


def change_everything(model: HookedTransformer) -> list[torch.Tensor]:
    """A user's own hooks that change what passes."""
    with model.hooks(fwd_hooks=[(lambda name: "hook_z" in name or "hook_scale" in name, lambda x, hook: 2 * x)]):
        return [model(TOKENS), model(TOKENS[:2])]


MEASURES: dict[str, Callable[[HookedTransformer], Any]] = {
    "forward": lambda model: [model(TOKENS).detach(), model(TOKENS, PAIRS.positions[:, None]).detach()],
    "loss": lambda model: evaluate(model, BATCH),
    "run_with_cache": keep_everything,
    "hooks": change_everything,
    "pattern": lambda model: attention_pattern(model, TOKENS[0]),
    "scores": lambda model: attention_scores(model, BATCH),
    "lens": lambda model: logit_lens_table(model, PAIRS),
    "attribution": lambda model: direct_logit_attribution_table(model, PAIRS),
    "cka": lambda model: cka(model, model, BATCH),
    "subspaces": lambda model: subspace_overlap(model, model, BATCH, rank=2),
    "linear": lambda model: linear_probe(model, BATCH, TOKENS % 2, generator=stream(0, "probe"), max_iterations=3),
    "nodes": lambda model: activation_patching(model, PAIRS, sites=("resid_pre", "pattern", "mlp_out", "q")),
    "noise": lambda model: activation_patching(model, PAIRS, sites=("z",), direction="noise", by_position=False),
    "eap": lambda model: edge_attribution(model, PAIRS),
    "eap_ig_inputs": lambda model: edge_attribution(model, PAIRS, method="eap_ig_inputs", steps=2),
    "eap_ig_activations": lambda model: edge_attribution(model, PAIRS, method="eap_ig_activations", steps=2),
    "edges": lambda model: edge_patching(model, PAIRS, edges=Graph(TINY).edges[:8]),
    "path": lambda model: path_patching(model, PAIRS, ("embed", "blocks.0.attn.head.1.v", "logits")),
    "circuits": lambda model: circuit_values(model, PAIRS, CIRCUITS, replacement="mean"),
    "masks": lambda model: mask_scores(model, BATCH, MASKS),
    "pruning": lambda model: prune_heads(model, BATCH, generator=stream(0, "prune"), sparsities=(0.1,), steps=3),
}
"""What runs a model, with hooks or without."""


def same(found: Any, expected: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(expected, pd.DataFrame):
        return found.equals(expected)
    if isinstance(expected, torch.Tensor):
        return torch.equal(found, expected)
    return len(found) == len(expected) and all(map(same, found, expected))


@pytest.fixture
def _often_switched() -> Iterator[None]:
    """Python changes threads after 5 us instead of 5 ms."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def model() -> HookedTransformer:
    return random_model()


@pytest.fixture(scope="module")
def alone(model: HookedTransformer) -> dict[str, Any]:
    return {name: measure(model) for name, measure in MEASURES.items()}


@pytest.mark.usefixtures("_often_switched")
@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_beside_all_others(name: str, model: HookedTransformer, alone: dict[str, Any]):
    done = threading.Event()

    def others() -> list[str]:
        wrong = []
        while not done.is_set():
            for other in (name, *MEASURES):
                if not same(MEASURES[other](model), alone[other]):
                    wrong.append(other)
                if done.is_set():
                    break
        return wrong

    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(others)
        try:
            end, wrong, calls = time.monotonic() + 0.5, 0, 0
            while time.monotonic() < end:
                wrong += not same(MEASURES[name](model), alone[name])
                calls += 1
        finally:
            done.set()
        assert (wrong, beside.result()) == (0, []), f"{calls} calls"
    assert not any(point.hooked for point in model.hook_dict.values())
    assert model.context_level == 0


def test_hooks_of_another_thread_are_waited_for(model: HookedTransformer, alone: dict[str, Any]):
    ready, calls = threading.Event(), []

    def count(x: torch.Tensor, hook: object) -> None:
        calls.append(threading.get_ident())

    def hold() -> int:
        with model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", count)]):
            ready.set()
            time.sleep(0.1)  # the other thread comes to the point meanwhile
            model(TOKENS)
        return threading.get_ident()

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        assert ready.wait(10)
        assert same(MEASURES["forward"](model), alone["forward"])
        assert calls == [holder.result()]


@pytest.mark.parametrize("make", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_free_while_the_model_is_held(make, model: HookedTransformer, alone: dict[str, Any]):
    with model.hooks(fwd_hooks=[]):
        other = make(model)
        with ThreadPoolExecutor(1) as pool:
            assert same(pool.submit(keep_everything, other).result(10), alone["run_with_cache"])
    points = list(other.hook_dict.values())
    assert {id(point.lock) for point in points} == {id(points[0].lock)} != {id(model.hook_embed.lock)}


def test_a_failure_inside_frees_the_model(model: HookedTransformer, alone: dict[str, Any]):
    def fail(x: torch.Tensor, hook: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.hook_resid_mid", fail)])
    with ThreadPoolExecutor(1) as pool:
        assert same(pool.submit(MEASURES["pattern"], model).result(10), alone["pattern"])


def test_the_number_of_threads_is_put_back_whoever_ends_first():
    before = torch.get_num_threads()
    inside, seen = threading.Event(), []

    def first() -> None:
        with run_threads(1):
            inside.set()
            time.sleep(0.2)  # the second thread asks meanwhile
            seen.append(torch.get_num_threads())

    def second() -> None:
        assert inside.wait(10)
        with run_threads(3):
            time.sleep(0.4)  # beyond the end of the first
            seen.append(torch.get_num_threads())

    try:
        torch.set_num_threads(2)
        with ThreadPoolExecutor(2) as pool:
            for work in [pool.submit(first), pool.submit(second)]:
                work.result(20)
        assert seen == [1, 3]
        with ThreadPoolExecutor(1) as pool:  # a new thread has the number of the process
            assert pool.submit(torch.get_num_threads).result(10) == 2
    finally:
        torch.set_num_threads(before)
