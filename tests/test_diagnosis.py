"""Failure signatures on hand-made stores: each where it must be seen, and where it must not."""

import dataclasses
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from procpre_interp.analysis.diagnosis import (
    NO_SIGNATURE,
    Finding,
    diagnose,
    diagnose_all,
    diagnosis_by_condition,
    diagnosis_table,
)
from procpre_interp.analysis.diagnosis.evidence import DEFAULTS, HARMLESS
from procpre_interp.cli import main
from procpre_interp.store.store import Run, RunStore, environment
from procpre_interp.transfer import TransferConfig
from procpre_interp.views.html_report import conditions_report, runs_report
from tests.results import TABLE, fill
from tests.test_report import Page

FLAT = [3.0, *[1.0] * 20]
FALLING = np.linspace(3.0, 1.0, 21).tolist()


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def add(
    store: RunStore,
    run_id: str,
    accuracy: float | None = 0.1,
    *,
    seed: int = 1000,
    task: str | dict = "haystack",
    parents: tuple[dict, ...] = (),
    transfer: dict | None = None,
    train: dict | None = None,
    losses: list[float] = FLAT,
    n_ctx: int = 100,
    kept: tuple[int, ...] = (5000,),
    draw: int = 0,
    **summary: Any,
) -> Run:
    """One finished run; without an accuracy a diverged one."""
    task = {"name": task, "version": 1} if isinstance(task, str) else task
    config: dict[str, Any] = {"version": 1, "task": task, "seed": seed, "train": {"steps": 5000} | (train or {})}
    config |= {"parents": list(parents)} if parents else {}
    config |= {"transfer": transfer} if transfer else {}
    config |= {"draw": draw} if draw else {}
    steps = np.linspace(0, 5000, len(losses)).astype(int)
    history = {"step": steps, "tokens": steps * 100, "split": "validation", "loss_nats": losses, "accuracy": 0.3}
    values = {
        "status": "finished" if accuracy is not None else "diverged",
        "stop_reason": "step limit" if accuracy is not None else "training loss nan at step 700",
        "task": task["name"],
        "seed": seed,
        "parents": ", ".join(parent["run"] for parent in parents) or None,
        "components": ", ".join(parent.get("selector", "all") for parent in parents) or None,
        "n_layers": 2,
        "d_model": 16,
        "steps": 5000 if accuracy is not None else 700,
        "accuracy": accuracy,
        "loss_nats": 1.0,
        "breakthrough_step": 1000 if (accuracy or 0) >= 0.5 else None,
        "breakthrough_limit": 5000,
        "positions_carried": bool(parents),
        "tokens": 500_000,
        "seconds": 1.0,
    }
    header = json.dumps({"pos_embed.W_pos": {"dtype": "F32", "shape": [n_ctx, 16]}}).encode()
    with store.claim(run_id) as partial:
        assert partial is not None
        partial.write_config(yaml.safe_dump(config))
        partial.write_json("environment.json", environment(threads=1))
        partial.write_table("history", pd.DataFrame(history))
        for step in kept:
            partial.weights_path(step).write_bytes(len(header).to_bytes(8, "little") + header)
        return partial.finish(values | summary)


def replicate(store: RunStore, seed: int = 1000, *, dyck: float = 0.45) -> None:
    """A baseline and a Dyck phase 1 of one seed."""
    add(store, f"none{seed}", 0.1, seed=seed)
    add(store, f"dyck{seed}", dyck, seed=seed, task="dyck", n_ctx=128)


def from_dyck(seed: int = 1000, **parent: Any) -> tuple[dict, ...]:
    return ({"run": f"dyck{seed}"} | parent,)


def found(run: Run, store: RunStore) -> dict[str, Finding]:
    findings = {finding.signature: finding for finding in diagnose(run, store)}
    assert all(finding.run == run.id for finding in findings.values())
    assert all(not isinstance(v, float) or math.isfinite(v) for f in findings.values() for v in f.numbers.values())
    return findings


def test_the_defaults_are_those_of_a_transfer():
    assert {name: getattr(TransferConfig(), name) for name in DEFAULTS} == DEFAULTS
    assert set(DEFAULTS) == {field.name for field in dataclasses.fields(TransferConfig)}


def test_a_gain_is_no_failure(store: RunStore):
    replicate(store)
    run = add(store, "child", 0.9, parents=from_dyck())
    (finding,) = diagnose(run, store)
    assert finding.signature == NO_SIGNATURE
    assert "Accuracy 90.0 %, without pretraining 10.0 % (run none1000): +80.0 points" in finding.sentence
    assert "at step 1,000; without pretraining: none in 5,000 steps" in finding.sentence
    assert "One replicate: an observation, not a result" in finding.sentence
    assert "no retrieval" not in finding.sentence
    assert finding.numbers["gain"] == pytest.approx(0.8)
    assert (finding.numbers["baseline_run"], finding.numbers["n"]) == ("none1000", 1)


def test_a_sooner_breakthrough_is_a_gain_at_the_same_accuracy(store: RunStore):
    add(store, "none", 0.9, breakthrough_step=3000)
    add(store, "dyck1000", 0.45, task="dyck")
    sooner = add(store, "sooner", 0.9, parents=from_dyck(), breakthrough_step=2000)
    same = add(store, "same", 0.9, parents=from_dyck(selector="attn+ln"), breakthrough_step=2900)
    worse = add(store, "worse", 0.8, parents=from_dyck(selector="mlp+ln"), breakthrough_step=1000)
    assert list(found(sooner, store)) == [NO_SIGNATURE]
    assert list(found(same, store)) == ["no gain"]
    assert list(found(worse, store)) == ["below baseline"]


def test_a_run_without_parents_has_nothing_to_judge(store: RunStore):
    (finding,) = diagnose(add(store, "none"), store)
    assert finding.signature == NO_SIGNATURE
    assert "no transfer to judge" in finding.sentence


@pytest.mark.parametrize(
    ("ablation", "told"),
    [
        ({"name": "noise", "version": 1, "noise_std": 0.5}, "dyck1000 were damaged by noise (noise_std=0.5)"),
        ({"name": "shuffle_within_tensors", "version": 1}, "dyck1000 were damaged by shuffle_within_tensors."),
    ],
)
def test_damaged_weights_at_baseline(store: RunStore, ablation: dict, told: str):
    replicate(store)
    add(store, "intact", 0.9, parents=from_dyck())
    finding = found(add(store, "child", 0.12, parents=from_dyck(ablation=ablation)), store)
    assert list(finding) == ["at baseline: shuffled or noised lineage"]
    first = finding["at baseline: shuffled or noised lineage"]
    assert told in first.sentence
    assert "about 13.3 %: no retrieval formed" in first.sentence
    assert first.remedy == "The same transfer without the damage reaches 90.0 % (run intact)."


def test_damage_that_does_nothing_and_damage_that_does_not_matter(store: RunStore):
    replicate(store)
    harmless = [{"name": name, "version": 1} for name in HARMLESS]
    for i, ablation in enumerate([*harmless, {"name": "noise", "version": 1, "noise_std": 0}]):
        run = add(store, f"child{i}", 0.1, parents=from_dyck(ablation=ablation))
        assert list(found(run, store)) == ["no gain"]
    gained = add(store, "gained", 0.9, parents=from_dyck(ablation={"name": "gaussian", "version": 1}))
    (finding,) = diagnose(gained, store)
    assert finding.signature == NO_SIGNATURE
    assert "damaged by gaussian" in finding.sentence
    assert "does not take the gain away" in finding.remedy


def test_shuffled_sequences_anywhere_in_the_lineage(store: RunStore):
    replicate(store)
    dyck = {"name": "dyck", "version": 1}
    shuffled = {"name": "shuffled", "version": 1, "task": dyck}
    add(store, "intact", 0.12, parents=from_dyck())
    add(store, "shuffled", 0.04, task=shuffled)
    add(store, "mixed", 0.04, task={"name": "mixture", "version": 1, "tasks": [dict(dyck), shuffled]})
    add(store, "between", 0.04, task="dyck", parents=({"run": "shuffled"},))
    for parent, source in (("shuffled", "shuffled"), ("mixed", "mixed"), ("between", "shuffled")):
        finding = found(add(store, f"from_{parent}", 0.08, parents=({"run": parent},)), store)
        first = finding["at baseline: shuffled or noised lineage"]
        assert f"{source} was trained on shuffled sequences" in first.sentence
        known = "reaches 12.0 % (run intact): in this replicate the damage need not be the cause"
        assert (known in first.remedy) == (parent == "shuffled")
        assert ("it is not in the store" in first.remedy) == (parent != "shuffled")


def test_damage_below_the_baseline_is_called_so(store: RunStore):
    add(store, "none", 0.6)
    add(store, "dyck1000", 0.45, task="dyck")
    run = add(store, "child", 0.1, parents=from_dyck(ablation={"name": "gaussian", "version": 1}))
    assert list(found(run, store)) == ["below baseline: shuffled or noised lineage"]


def test_full_below_selective(store: RunStore):
    replicate(store)
    full = add(store, "full", 0.5, parents=from_dyck())
    add(store, "attn", 0.54, parents=from_dyck(selector="attn"))
    assert list(found(full, store)) == [NO_SIGNATURE]
    add(store, "head", 0.99, parents=from_dyck(selector="attn.head.1"))
    add(store, "early", 0.99, parents=from_dyck(selector="attn+ln", step=500))
    assert list(found(full, store)) == [NO_SIGNATURE]
    add(store, "attn_ln", 0.7, parents=from_dyck(selector="attn+ln"))
    finding = found(full, store)["full below selective: domain mismatch"]
    assert "Full transfer reaches 50.0 %, attn+ln from the same parent 70.0 % (run attn_ln): +20.0" in finding.sentence
    assert (finding.numbers["compared"], finding.numbers["n"]) == (2, 1)
    assert "The best of 2 selective runs was chosen" in finding.remedy
    fresh = {"version": 1, "token_embedding": "fresh"}
    add(store, "attn_fresh", 0.9, parents=from_dyck(selector="attn"), transfer=fresh)
    assert list(found(full, store)) == ["full below selective: domain mismatch"]  # the clean comparison comes first
    selective = add(store, "selective", 0.2, parents=from_dyck(selector="mlp"))
    assert list(found(selective, store)) == [NO_SIGNATURE]


def test_full_below_selective_may_be_confounded(store: RunStore):
    replicate(store)
    full = add(store, "full", 0.5, parents=from_dyck())
    fresh = {"version": 1, "token_embedding": "fresh", "positions": "fresh"}
    add(store, "attn", 0.9, parents=from_dyck(selector="attn"), transfer=fresh)
    finding = found(full, store)["full below selective: confounded"]
    assert "positions (carry here, fresh there), token_embedding (average here, fresh there)" in finding.sentence
    assert finding.numbers["confounded_by"] == "positions, token_embedding"


def test_a_lead_in_one_replicate_only(store: RunStore):
    for seed, full, selective in ((1000, 0.1, 0.9), (1001, 0.9, 0.1)):
        replicate(store, seed)
        add(store, f"full{seed}", full, seed=seed, parents=from_dyck(seed))
        add(store, f"attn{seed}", selective, seed=seed, parents=from_dyck(seed, selector="attn+ln"))
    finding = found(store.open("full1000"), store)["full below selective: this replicate only"]
    assert "Mean lead +0.0 points [-80.0, +80.0], n = 2 replicates" in finding.sentence
    assert "Of 2 each, 1 full and 1 selective ones broke through" in finding.sentence
    assert list(found(store.open("full1001"), store)) == [NO_SIGNATURE]


def test_no_gain_with_phase_1_below_what_haystack_needs(store: RunStore):
    replicate(store, dyck=0.40)
    replicate(store, 1001, dyck=0.42)
    findings = found(add(store, "child", 0.1, parents=from_dyck()), store)
    assert list(findings) == ["no gain", "no gain: phase 1 under-trained"]
    reason = findings["no gain: phase 1 under-trained"]
    assert "Phase 1 (dyck, 5,000 steps) reached 40.0 % next-token accuracy" in reason.sentence
    assert "from about 41.0 % on" in reason.sentence
    assert (reason.numbers["phase1_accuracy"], reason.numbers["needed_accuracy"]) == (0.40, 0.41)
    enough = found(add(store, "other", 0.1, seed=1001, parents=from_dyck(1001)), store)
    assert list(enough) == ["no gain"]
    assert "Not the reason here: phase 1 reached 42.0 %" in enough["no gain"].remedy
    assert enough["no gain"].remedy.startswith("None of the known reasons is seen.")
    checkpoint = found(add(store, "early", 0.1, seed=1001, parents=from_dyck(1001, step=2500)), store)
    assert checkpoint["no gain: phase 1 under-trained"].numbers["phase1_accuracy"] == 0.3  # of its history at 2,500


@pytest.mark.parametrize(
    ("losses", "told"),
    [(FALLING, "22 % of the whole fall"), (FLAT, None), (FALLING[::-1], None), (FALLING[:9], None)],
)
def test_no_gain_with_phase_1_still_learning(store: RunStore, losses: list[float], told: str | None):
    add(store, "none", 0.1)
    add(store, "set", 0.95, task="set", losses=losses, n_ctx=41)
    findings = found(add(store, "child", 0.1, parents=({"run": "set"},)), store)
    reason = findings.get("no gain: phase 1 under-trained")
    assert (reason is not None) == (told is not None)
    if reason is not None and told is not None:
        assert told in reason.sentence
        assert reason.numbers["late_fall"] == pytest.approx((1.55 - 1.15) / (3.0 - 1.15))
    elif losses is FLAT:
        assert "its loss no longer fell" in findings["no gain"].remedy
    else:
        assert "cannot be told whether" in findings["no gain"].remedy


def test_no_gain_with_phase_1_over_trained(store: RunStore):
    replicate(store)
    late = add(store, "late", 0.1, parents=from_dyck())
    remedy = found(late, store)["no gain"].remedy
    assert "Over-training cannot be judged: no run after a shorter phase 1 in the store" in remedy
    assert "Phase 1 had 1 times the tokens of phase 2" in remedy
    assert "kept no earlier weights" in remedy
    add(store, "early", 0.12, parents=from_dyck(step=2500))
    assert (
        "Not the reason here: over-training, since 2,500 phase-1 steps give 12.0 %"
        in found(late, store)["no gain"].remedy
    )
    add(store, "earlier", 0.8, parents=from_dyck(step=1000))
    reason = found(late, store)["no gain: phase 1 over-trained"]
    assert "after 1,000 instead of 5,000 phase-1 steps (100,000 instead of 500,000 tokens) reaches 80.0 %" in (
        reason.sentence
    )
    assert reason.numbers["phase1_tokens_per_token"] == 1.0
    assert reason.numbers["earlier_run"] == "earlier"
    assert list(found(store.open("early"), store))[:2] == ["no gain", "no gain: phase 1 under-trained"]


def test_over_training_is_also_seen_from_a_shorter_phase_1(store: RunStore):
    replicate(store)
    add(store, "short", 0.45, task="dyck", train={"steps": 500}, steps=500, tokens=50_000)
    add(store, "other", 0.45, task="dyck", train={"steps": 500, "learning_rate": 0.1}, steps=500)
    late = add(store, "late", 0.1, parents=from_dyck())
    add(store, "from_other", 0.9, parents=({"run": "other"},))
    assert "no gain: phase 1 over-trained" not in found(late, store)
    add(store, "from_short", 0.8, parents=({"run": "short"},))
    assert found(late, store)["no gain: phase 1 over-trained"].numbers["earlier_step"] == 500


def test_the_command_for_an_earlier_checkpoint(store: RunStore):
    add(store, "none", 0.1)
    add(store, "dyck1000", 0.45, task="dyck", kept=(1000, 3000, 5000))
    remedy = found(add(store, "late", 0.1, parents=from_dyck()), store)["no gain"].remedy
    assert "--parent dyck1000@3000 --store" in remedy


def test_no_gain_without_positions(store: RunStore):
    add(store, "none", 0.1)
    add(store, "set", 0.95, task="set", n_ctx=41)
    short = add(store, "short", 0.1, parents=({"run": "set"},), positions_carried=False)
    reason = found(short, store)["no gain: positions not carried"]
    assert "the shorter one: 41 positions, the model's 100 positions" in reason.sentence
    assert (reason.numbers["parent_n_ctx"], reason.numbers["n_ctx"]) == (41, 100)
    assert "is open: no run that differs in this alone" in reason.sentence


def test_contexts_that_are_not_stored_are_unknown(store: RunStore):
    add(store, "none", 0.1)
    add(store, "set", 0.95, task="set", kept=())
    short = add(store, "short", 0.1, parents=({"run": "set"},), positions_carried=False, kept=())
    reason = found(short, store)["no gain: positions not carried"]
    assert "of unknown length, the model's of unknown length" in reason.sentence
    assert reason.numbers == {}


def test_a_reason_is_ruled_out_or_supported_by_the_run_that_differs_in_it_alone(store: RunStore):
    replicate(store)
    fresh = {"version": 1, "positions": "fresh"}
    run = add(store, "child", 0.1, parents=from_dyck(), transfer=fresh, positions_carried=False)
    assert "the transfer asked for that" in found(run, store)["no gain: positions not carried"].sentence
    add(store, "both", 0.9, parents=from_dyck(selector="attn+ln"))  # differs in more than the positions
    assert "is open" in found(run, store)["no gain: positions not carried"].sentence
    store.delete("both")
    add(store, "carried", 0.1, parents=from_dyck())
    findings = found(run, store)
    assert list(findings) == ["no gain"]
    assert (
        "Not the reason here: positions not carried, since with this changed run carried" in findings["no gain"].remedy
    )
    store.delete("carried")
    add(store, "carried", 0.9, parents=from_dyck())
    reason = found(run, store)["no gain: positions not carried"]
    assert "Run carried, which differs in this alone, reaches 90.0 %" in reason.sentence
    assert reason.numbers["changed_gain"] == pytest.approx(0.8)


def test_no_gain_with_fresh_embeddings(store: RunStore):
    replicate(store)
    fresh = {"version": 1, "unembedding": "fresh"}
    run = add(store, "child", 0.1, parents=from_dyck(), transfer=fresh)
    reason = found(run, store)["no gain: embeddings fresh"]
    assert reason.numbers == {"fresh": "unembedding"}
    assert "--transfer.unembedding average" in reason.remedy
    add(store, "averaged", 0.1, parents=from_dyck())
    assert list(found(run, store)) == ["no gain"]


@pytest.mark.parametrize(
    ("selector", "lacks"),
    [
        ("attn", True),
        ("attn+mlp", True),
        ("blocks.0.attn.head.2", True),
        ("all-ln", True),
        ("attn+ln", False),
        ("blocks.1", False),
        ("all-blocks.0", False),
        ("ln", False),
        ("none", False),
    ],
)
def test_no_gain_without_layer_norms(store: RunStore, selector: str, lacks: bool):
    replicate(store)
    findings = found(add(store, "child", 0.1, parents=from_dyck(selector=selector)), store)
    assert ("no gain: LayerNorms not selected" in findings) == lacks
    if lacks:
        assert f"--components {selector}+ln." in findings["no gain: LayerNorms not selected"].remedy


def test_layer_norms_that_would_have_helped(store: RunStore):
    replicate(store)
    run = add(store, "child", 0.1, parents=from_dyck(selector="attn"))
    add(store, "with_ln", 0.8, parents=from_dyck(selector="attn+ln"))
    assert "Run with_ln, which differs in this alone" in found(run, store)["no gain: LayerNorms not selected"].sentence


def test_a_diverged_run(store: RunStore):
    replicate(store)
    (finding,) = diagnose(add(store, "child", None, parents=from_dyck(), train={"learning_rate": 0.1}), store)
    assert finding.signature == "no gain: diverged"
    assert finding.sentence == "Diverged at step 700 of 5,000: training loss nan at step 700."
    assert finding.numbers == {"status": "diverged", "stop_reason": "training loss nan at step 700", "step": 700}
    assert "now 0.1" in finding.remedy


def test_comparisons_that_do_not_count(store: RunStore):
    """Another seed, other training, another task and another shape are no baseline; how it was computed matters not."""
    add(store, "dyck1000", 0.45, task="dyck")
    run = add(store, "child", 0.1, parents=from_dyck(), train={"kernel": "native"})
    add(store, "seed", 0.1, seed=1001)
    add(store, "training", 0.1, train={"learning_rate": 0.1})
    add(store, "task", 0.1, task={"name": "haystack", "version": 1, "max_pairs": 5})
    add(store, "shape", 0.1, n_layers=3)
    (finding,) = diagnose(run, store)
    assert finding.signature == "no baseline"
    assert "no baseline run with seed 1000" in finding.sentence
    assert "damaged" not in finding.sentence
    assert "no retrieval formed" in finding.sentence
    add(store, "baseline", 0.1, train={"kernel": "torch", "threads": 2})
    assert found(run, store)["no gain"].numbers["baseline_run"] == "baseline"


def test_text_after_text_has_a_baseline(store: RunStore):
    """Its fresh weights are another draw than the first phase began with, which is that of the baseline as well."""
    add(store, "dyck1000", 0.45, train={"steps": 400})
    run = add(store, "child", 0.9, parents=from_dyck(), draw=1)
    add(store, "baseline", 0.1)
    (finding,) = diagnose(run, store)
    assert finding.numbers["baseline_run"] == "baseline"
    add(store, "dyck1001", 0.45, seed=1001, train={"steps": 400})
    add(store, "child1001", 0.9, seed=1001, parents=from_dyck(1001), draw=1)
    add(store, "baseline1001", 0.1, seed=1001)
    (finding,) = diagnose(run, store)
    assert finding.numbers["n"] == 2


def test_no_command_is_made_of_what_options_cannot_say(store: RunStore):
    rescaled = {"name": "rescaled", "version": 1, "selector": "all", "relative_step": "transferred"}
    add(store, "dyck1000", 0.45, task="dyck")
    run = add(store, "child", 0.1, parents=from_dyck(), train={"interventions": [rescaled]})
    remedy = found(run, store)["no baseline"].remedy
    assert "config.yaml without its parents" in remedy
    assert "procpre-interp train" not in remedy


def test_a_damaged_or_diverged_baseline_is_not_used(store: RunStore):
    replicate(store)
    run = add(store, "child", 0.9, parents=from_dyck())
    assert list(found(run, store)) == [NO_SIGNATURE]
    (store.path / "runs" / "none1000" / "summary.json").write_text("{}")
    finding = found(run, store)["no baseline"]
    assert finding.numbers["damaged_runs"] == 1
    assert "Damaged runs, 1 of them, were not used" in finding.sentence
    store.delete("none1000")
    add(store, "none1000", None)
    assert "the baseline run none1000 diverged" in found(run, store)["no baseline"].sentence


def test_a_damaged_parent_is_said_not_guessed(store: RunStore):
    replicate(store)
    run = add(store, "child", 0.1, parents=from_dyck())
    config = store.path / "runs" / "dyck1000" / "config.yaml"
    config.write_text(config.read_text().replace("dyck", "kcyd"))  # of the same size
    finding = found(run, store)
    assert list(finding) == ["no gain"]
    assert "Parent dyck1000 is missing or damaged" in finding["no gain"].remedy
    assert "phase1_tokens_per_token" not in finding["no gain"].numbers


def test_a_damaged_history_of_the_parent_tells_nothing(store: RunStore):
    add(store, "none", 0.1)
    add(store, "set", 0.95, task="set", losses=FALLING)
    history = store.path / "runs" / "set" / "history.parquet"
    history.write_bytes(bytes(len(history.read_bytes())))
    findings = found(add(store, "child", 0.1, parents=({"run": "set"},)), store)
    assert list(findings) == ["no gain"]
    assert "cannot be told whether" in findings["no gain"].remedy


def test_replicates_are_aggregated(store: RunStore):
    accuracies = {1000: 0.1, 1001: 0.9, 1002: 0.8, 1003: 0.1, 1004: None}
    for seed, accuracy in accuracies.items():
        replicate(store, seed)
        add(store, f"full{seed}", accuracy, seed=seed, parents=from_dyck(seed))
    add(store, "other", 0.9, seed=1005, parents=from_dyck(1000))  # the same parent under another seed: no replicate
    add(store, "none1005", 0.1, seed=1005)
    finding = found(store.open("full1000"), store)["no gain"]
    assert "Mean gain +37.5 points [" in finding.sentence
    assert "n = 4 replicates" in finding.sentence
    assert "Gained: 2 of 4." in finding.sentence
    assert "share one phase 1" not in finding.sentence
    assert (finding.numbers["n"], finding.numbers["gained"]) == (4, 2)
    assert finding.numbers["mean_gain"] == pytest.approx(0.375)
    assert "Other replicates did gain" in finding.remedy
    assert "n = 4 replicates" in found(store.open("full1001"), store)[NO_SIGNATURE].sentence


def test_seeds_of_phase_2_alone_are_called_so(store: RunStore):
    replicate(store, 7)
    for seed in (1000, 1001):
        add(store, f"none{seed}", 0.1, seed=seed)
        add(store, f"full{seed}", 0.9, seed=seed, parents=from_dyck(7))
    (finding,) = diagnose(store.open("full1000"), store)
    assert "n = 2 replicates" in finding.sentence
    assert "All share one phase 1, whose seed was not varied" in finding.sentence


def test_text_is_judged_by_its_loss(store: RunStore):
    add(store, "none", 0.30, task="language", loss_nats=4.00, perplexity=54.6)
    add(store, "set", 0.95, task="set")
    for name, loss, signature in (("a", 3.95, NO_SIGNATURE), ("b", 3.99, "no gain"), ("c", 4.10, "below baseline")):
        selector = "attn+ln" if name == "a" else f"blocks.{'bc'.index(name)}"
        parents = ({"run": "set", "selector": selector},)
        run = add(store, name, 0.31, task="language", parents=parents, loss_nats=loss, perplexity=math.exp(loss))
        assert list(found(run, store)) == [signature]
    sentence = found(store.open("a"), store)[NO_SIGNATURE].sentence
    assert "Loss 3.950 nats, without pretraining 4.000 nats (run none): +0.050 nats gained" in sentence


def test_tables(store: RunStore):
    for seed, accuracy in ((1000, 0.1), (1001, 0.9), (1002, 0.12)):
        replicate(store, seed)
        add(store, f"full{seed}", accuracy, seed=seed, parents=from_dyck(seed))
    runs = [store.open(f"full{seed}") for seed in (1000, 1001, 1002)]
    findings = diagnose_all(runs, store)
    table = diagnosis_table(findings)
    assert list(table) == ["run", "signature", "finding", "numbers"]
    assert table["run"].tolist() == [run.id for run in runs]
    assert table["numbers"].iloc[1].startswith("accuracy 90.0 %, baseline accuracy 10.0 %, gain +80.0 points, ")
    cells = pd.DataFrame({"label": "Dyck, full", "run": [run.id for run in runs]})
    assert diagnosis_by_condition(findings, cells).to_numpy().tolist() == [
        ["Dyck, full", "no gain", "2 of 3", "11.0 %", "10.0 %", "+1.0 points"],
        ["Dyck, full", NO_SIGNATURE, "1 of 3", "90.0 %", "10.0 %", "+80.0 points"],
    ]
    assert diagnosis_by_condition([], cells).empty
    assert diagnosis_table([]).empty


def test_the_command(store: RunStore, capsys: pytest.CaptureFixture[str]):
    replicate(store)
    run = add(store, "child", 0.1, parents=from_dyck(selector="attn"))
    where = ["--store", str(store.path)]
    assert main(["diagnose", "chi", "dyck1000", "child", *where]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run child: haystack, seed 1000, components: attn, accuracy 10.0 %"
    assert lines[1].startswith("  no gain: Accuracy 10.0 %")
    assert lines[2].startswith("    ")
    assert lines[3].startswith("  no gain: LayerNorms not selected: ")
    assert sum(line.startswith("run ") for line in lines) == 2
    add(store, "broken", None, parents=from_dyck(), train={"learning_rate": 0.1})
    assert main(["diagnose", "broken", *where]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("components: all, diverged"), "it has no accuracy"
    assert main(["diagnose", "child", "--format", "json", *where]) == 0
    assert json.loads(capsys.readouterr().out) == [dataclasses.asdict(each) for each in diagnose(run, store)]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [([], "wants a RUN"), (["nosuchrun"], "no run 'nosuchrun'"), (["../x"], "is no name of a run")],
)
def test_mistakes_are_one_line(store: RunStore, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]):
    replicate(store)
    assert main(["diagnose", *arguments, "--store", str(store.path)]) == 2
    text = capsys.readouterr().err
    assert problem in text
    assert text.count("\n") == 1


def test_the_commands_that_make_what_is_missing_do_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    where = ["--store", str(tmp_path / "a store")]
    tiny = (
        "--train.steps 2 --train.batch-size 4 --train.evaluate-examples 8 --train.warmup-steps 1 --train.kernel torch"
    )
    tiny += " --model.d-model 8 --model.n-heads 2"
    assert (
        main(
            [
                "train",
                "--task",
                "dyck",
                "--task.length",
                "100",
                "--model.tied",
                "--train.checkpoints",
                "2",
                *tiny.split(),
                *where,
            ]
        )
        == 0
    )
    assert main(["transfer", "--parent", "latest", "--seed", "3", *tiny.split(), *where]) == 0
    store = RunStore(tmp_path / "a store")
    child = store.open("latest")
    (finding,) = diagnose(child, store)
    assert finding.signature == "no baseline"
    command = shlex.split(finding.remedy.split("`")[1])
    assert command[0] == "procpre-interp"
    assert main(command[1:]) == 0
    remedy = found(child, store)["no gain"].remedy
    assert "cannot be judged" in remedy
    assert main(shlex.split(remedy.split("`")[1])[1:]) == 0
    assert "Not the reason here: over-training, since 1 phase-1 steps give" in found(child, store)["no gain"].remedy
    capsys.readouterr()


def test_both_reports_have_the_diagnosis(tmp_path: Path):
    store = RunStore(tmp_path / "runs")
    fill(store, replicates=2)
    text = Page(conditions_report(store, TABLE, tmp_path / "reproduce.html")).text
    section = text.split("Diagnosis")[1].split("Protocol")[0]
    assert "no failure signature2 of 2" in section
    assert "no failure signature: the transfer gained" in section
    assert "`" not in text
    assert "weights <shuffled> within each tensor" in section
    assert "no pretraining" not in section
    replicate(store)
    run = add(store, "child", 0.1, parents=from_dyck(selector="attn"))
    text = Page(runs_report(store, [run], tmp_path / "runs.html")).text
    section = text.split("Diagnosis")[1].split("Lineage")[0]
    assert "child, no gain: LayerNorms not selected: attn came without the LayerNorms" in section
