"""The grammar of selectors: spelling, places, ranked heads, and that no stored run was renamed by it."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procpre_interp.claims.files import claim_scripts
from procpre_interp.core.selectors import (
    NOTHING,
    Place,
    Term,
    added_terms,
    canonical_selector,
    head_terms,
    name_heads,
    orders_of,
    parse_selector,
    place,
    removed_terms,
    union,
    with_all_heads,
)
from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.semantic.packages import FetchError
from procpre_interp.model import ModelConfig, select
from procpre_interp.study.protocols import FRESH_SEED
from procpre_interp.study.scripts import load_experiment
from procpre_interp.sweep.config import Sweep
from procpre_interp.sweep.fair import confirming_sweep, trials_of
from procpre_interp.sweep.plan import plan
from procpre_interp.train import native
from tests.earlier_claims import earlier_sweep

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
CONFIG = ModelConfig(n_layers=2, n_heads=3, d_model=12, n_ctx=8, d_vocab=16)
TERMS = ["all", "attn", "mlp", "ln", "pos", "blocks.1", "attn.W_Q", "attn.W_O", "blocks.0.attn.head.2", "ln_final"]
"""Terms of `CONFIG`."""


def test_terms_from_left_to_right():
    assert parse_selector(" attn + mlp,ln - blocks.0 ") == [
        Term("+", "attn"),
        Term("+", "mlp"),
        Term("+", "ln"),
        Term("-", "blocks.0"),
    ]
    assert added_terms("attn+mlp-blocks.0") == {"attn", "mlp"}
    assert removed_terms("attn+mlp-blocks.0") == {"blocks.0"}


def test_a_number_of_thousands_of_digits_is_no_place():
    digits = "9" * 5_000
    for selector in (f"blocks.{digits}", f"attn.head.{digits}", f"sharpest.{digits}"):
        assert place(selector).layer is place(selector).head is None
        with pytest.raises(ValueError, match="unknown component") as raised:
            select(CONFIG, name_heads(selector, lambda _: head_terms(2, 3)))
        assert len(str(raised.value)) < 600


@pytest.mark.parametrize("selector", ["", "+", "attn+", "-attn", "attn,,mlp"])
def test_a_missing_term_is_refused(selector: str):
    with pytest.raises(ValueError, match="lacks a term"):
        parse_selector(selector)


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ("ln, attn", "attn+ln"),
        ("ln+mlp + attn", "attn+mlp+ln"),
        ("attn+attn", "attn"),
        ("attn.W_O+attn.W_V+attn.W_K+attn.W_Q", "attn.W_Q+attn.W_K+attn.W_V+attn.W_O"),
        ("blocks.1.attn.head.0+ln+blocks.0.attn.head.3", "ln+blocks.0.attn.head.3+blocks.1.attn.head.0"),
        ("attn+pos", "pos+attn"),
        ("ln - attn + mlp", "ln-attn+mlp"),
        (NOTHING, NOTHING),
    ],
)
def test_one_spelling(spelt: str, canonical: str):
    assert canonical_selector(spelt) == canonical
    assert canonical_selector(canonical) == canonical


@given(st.lists(st.tuples(st.sampled_from("+-"), st.sampled_from(TERMS)), min_size=1, max_size=5))
def test_the_canonical_spelling_selects_the_same(terms: list[tuple[str, str]]):
    selector = "".join(sign + name for sign, name in [("+", "all"), *terms])[1:]
    canonical = canonical_selector(selector)
    assert canonical_selector(canonical) == canonical
    try:
        wanted = select(CONFIG, selector)
    except ValueError:  # its differences leave nothing
        with pytest.raises(ValueError, match="selects nothing"):
            select(CONFIG, canonical)
    else:
        assert select(CONFIG, canonical) == wanted


@given(st.permutations(TERMS), st.integers(1, len(TERMS)))
def test_the_order_of_a_union_means_nothing(terms: list[str], n: int):
    assert canonical_selector("+".join(terms[:n])) == canonical_selector("+".join(sorted(terms[:n])))


def test_a_union_of_nothing_is_nothing():
    assert union([]) == NOTHING
    assert union(["attn", "ln"]) == "attn+ln"


@pytest.mark.parametrize(
    ("term", "where"),
    [
        ("attn", Place(component="attn")),
        ("blocks.1", Place(layer=1)),
        ("blocks.0.attn.head.2", Place(0, "attn", 2)),
        ("blocks.0.attn.head.2.W_V", Place(0, "attn", 2, "W_V")),
        ("blocks.0.attn.head.2.q", Place(0, "attn", 2, "q")),
        ("mlp.W_in", Place(component="mlp", matrix="W_in")),
        ("pos_embed.W_pos", Place(component="pos", matrix="W_pos")),
        ("attn+mlp", Place()),
        ("attn-mlp", Place()),
    ],
)
def test_places(term: str, where: Place):
    assert place(term) == where


def test_heads_by_rank():
    order = head_terms(2, 2)
    assert orders_of("ln+sharpest.2 + random.1") == {"entropy", "random"}
    assert orders_of("ln.w+attn") == set()
    assert name_heads("ln+sharpest.3", lambda _: order[::-1]) == f"ln+{order[1]}+{order[2]}+{order[3]}"
    assert name_heads("bluntest.1", lambda _: order) == order[-1]
    assert name_heads("attn + ln", lambda _: order) == "attn + ln"
    with pytest.raises(ValueError, match="there are 4 heads"):
        name_heads("ln+circuit.5", lambda _: order)
    with pytest.raises(ValueError, match="random_like.circuit.5: there are 4 heads"):
        name_heads("ln+random_like.circuit.5", lambda _: order)
    with pytest.raises(ValueError, match="takes sharpest.1 away"):
        name_heads("attn-sharpest.1", lambda _: order)


def test_heads_by_lot_in_the_layers_of_ranked_ones_have_an_order_of_their_own():
    asked = "ln + random_like.circuit.2 + circuit.2+random_like.bluntest.02"
    assert orders_of(asked) == {"circuit", "random_like.circuit.2", "random_like.bluntest.2"}
    order = head_terms(2, 2)
    orders = {"circuit": order, "random_like.circuit.2": order[::-1], "random_like.bluntest.2": order[1:] + order[:1]}
    assert name_heads("ln+random_like.circuit.2", orders.get) == f"ln+{order[2]}+{order[3]}"
    # From the front: which end of the ranking they are like is part of the order.
    assert name_heads("random_like.bluntest.2", orders.get) == f"{order[1]}+{order[2]}"
    assert with_all_heads("ln+random_like.sharpest.1") == "ln+attn"
    assert canonical_selector("random_like.circuit.2, ln") == "ln+random_like.circuit.2"
    for other in ("random_like.random.2", "random_like.circuit", "random_like.attn.2"):
        assert orders_of(other) == set()


READS_INSTALLED_PACKAGES = {"length_matters"}
"""Claims whose corpus, and so whose run ids, depend on the versions of installed packages."""

HAS_CORPORA = {
    "attention_for_code_mlp_for_language",
    "gain_survives_finetuning",
    "insertion_time",
    "mixtures_beat_single",
    "no_single_best_task",
    "noisier_text_gains_more",
    "procedural_beats_natural_warmup",
    "procedural_beats_other_text",
    "procedural_tokens_save_data",
    "recall_survives_english",
    "scale_decides_on_text",
    "stack_not_queue",
    "structure_not_statistics",
    "unigrams_teach_nothing",
    "union_helps_language",
    "union_helps_language_bpe",
    "union_helps_larger_model",
    "union_helps_mathematics",
}
"""Claims on corpora that have to be fetched; nor are the arms of a fair sweep known before they were tuned."""


MADE_ANEW = {"init_plus_entropy_replicates"}
"""Claims whose runs on seeds before 3000 were made anew by the present kernel, until they were decided."""


JUDGED = {path.stem for path in (EXPERIMENTS / "results" / "claims").glob("*.csv")}
"""Claims that have stored runs."""


def test_every_judged_claim_has_its_script():
    assert set(claim_scripts(EXPERIMENTS)) >= JUDGED


def judged_sweep(name: str) -> Sweep:
    """What the stored verdict is of: the claim as it is declared, or as it was."""
    stored = json.loads((EXPERIMENTS / "results" / "claims" / f"{name}.json").read_bytes())
    experiment, version = load_experiment(EXPERIMENTS / f"{name}.py"), stored.get("version", 1)
    return experiment.sweep if version == experiment.claim.version else earlier_sweep(experiment, version)


def with_any_heads(sweep: Sweep) -> set[str]:
    """Runs of the first replicate with some set of heads: those by rank are planned once their parents are finished."""
    one = dataclasses.replace(sweep, replicates=1)
    parents, all_heads, possible = plan(one).configs, head_terms(2, 4), {""}
    selectors = [source.selector for condition in one.conditions for source in condition.sources]
    names = {"entropy", "circuit", "random"}.union(*map(orders_of, selectors))
    counts = {int(n) for selector in selectors for n in re.findall(r"(?:circuit|sharpest|random)\.(\d)", selector)}
    for heads in itertools.chain(*(itertools.combinations(all_heads, count) for count in counts)):
        ranked = [*heads, *(head for head in all_heads if head not in heads)]
        orders = {(run, None, order): ranked for run in parents for order in names}
        possible |= set(plan(one, orders=orders).cells["run"])
    return possible


@pytest.mark.parametrize("name", sorted(JUDGED - READS_INSTALLED_PACKAGES - HAS_CORPORA))
def test_stored_claims_have_the_runs_that_they_plan(monkeypatch, name: str):
    """No run was renamed: by the grammar of selectors, a moved class, or a default that changed.

    Other verdicts on seeds before 3000 are of runs of version 1 of the native kernel, which only did narrow models.
    """
    sweep = judged_sweep(name)
    cells = pd.read_csv(EXPERIMENTS / "results" / "claims" / f"{name}.csv", keep_default_na=False)
    # Replicates were added until it was decided, and some conditions may be left out.
    if sweep.first_seed >= FRESH_SEED or name in MADE_ANEW:
        own = tuple(dataclasses.replace(each, replicates=None) for each in sweep.conditions)
        whole = plan(dataclasses.replace(sweep, conditions=own, replicates=cells["replicate"].nunique()))
        ranked = (whole.deferred > 0) & ~cells["condition"].isin(whole.cells["condition"])
        if whole.deferred:
            assert set(cells.loc[ranked & (cells["replicate"] == sweep.first_seed), "run"]) <= with_any_heads(sweep)
        assert {"", *cells.loc[~ranked, "run"]} <= {"", *whole.cells["run"]}
        assert set(" ".join(cells["phase1_run"]).split()) <= set(whole.configs)
        return
    monkeypatch.setattr(native, "VERSION", None)
    monkeypatch.setattr(native.step, "WIDTHS", (16, 32))
    planned = plan(sweep)
    assert set(planned.cells["run"]) <= set(cells["run"])
    if not planned.deferred:
        assert set(cells["run"]) <= set(planned.cells["run"]) | {""}
        assert set(" ".join(cells["phase1_run"]).split()) <= set(planned.configs)
        return
    assert set(cells.loc[cells["replicate"] == sweep.first_seed, "run"]) <= with_any_heads(sweep)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["structure_not_statistics", "union_helps_language"])
def test_stored_claims_on_english_have_the_runs_that_they_plan(name: str):
    """The corpus is fetched, one for all machines; the arms are trained as the stored trials chose."""
    try:
        build_corpus("wikipedia-leads").files()
    except FetchError as problem:
        pytest.skip(str(problem))
    stored = json.loads((EXPERIMENTS / "results" / "claims" / f"{name}.json").read_bytes())
    taken = {(row["arm"], row["learning_rate"], row["initial_scale"]) for row in stored["tables"]["tuning"]}
    trials = {
        (each.arm.condition.name, each.learning_rate, each.initial_scale): each
        for each in trials_of(judged_sweep(name)).values()
    }
    confirming = confirming_sweep(judged_sweep(name), {arm: trials[arm, *values] for arm, *values in taken})
    cells = pd.read_csv(EXPERIMENTS / "results" / "claims" / f"{name}.csv", keep_default_na=False)
    planned = plan(dataclasses.replace(confirming, replicates=cells["replicate"].nunique()))
    assert set(cells["run"]) == set(planned.cells["run"])
