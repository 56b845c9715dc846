"""Claims on real text: what they declare, that their verdicts can come out either way, and one of them whole."""

import dataclasses
import functools
import itertools

import pandas as pd
import pytest

from procpre_interp.claims.fairness import what_it_lacks
from procpre_interp.claims.judge import judge_contrasts
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.data.semantic.text import Text
from procpre_interp.engine.engines import Processes
from procpre_interp.store.store import RunStore
from procpre_interp.study.experiment import run
from procpre_interp.study.protocols import FRESH_SEED
from procpre_interp.study.text_protocol import LARGER, LEARNING_RATES, MODEL, TEXTS
from procpre_interp.study.until_decided import of_primary
from procpre_interp.sweep.fair_arms import Arm, Kind, arms_of
from tests.test_experiments import check_statement, script, without_secondary

NAMES = (
    "attention_for_code_mlp_for_language",
    "gain_survives_finetuning",
    "insertion_time",
    "length_matters",
    "mixtures_beat_single",
    "no_single_best_task",
    "noisier_text_gains_more",
    "procedural_beats_natural_warmup",
    "procedural_beats_other_text",
    "procedural_tokens_save_data",
    "scale_decides_on_text",
    "stack_not_queue",
    "structure_not_statistics",
    "unigrams_teach_nothing",
    "union_helps_larger_model",
    "union_helps_language",
    "union_helps_language_bpe",
    "union_helps_mathematics",
)
N = 40


@pytest.fixture(params=NAMES)
def experiment(request):
    return script(request.param).EXPERIMENT


@functools.cache
def arms(name: str) -> dict[str, Arm]:
    """The arms of a claim's sweep, by name."""
    return {arm.condition.name: arm for arm in arms_of(script(name).EXPERIMENT.sweep).arms}


def made_up(experiment, shift) -> pd.DataFrame:
    """A table of all arms, and of what is observed, that differ from 0 by what `shift` gives for each, and a bit by
    replicate, in the measure of the primary contrast."""
    draws = numpy_stream(5, "made up losses")
    known = {
        name: {"label": name, "arm": str(arm.kind), "control_of": arm.control_of, "fresh_arm": arm.fresh}
        for name, arm in arms(experiment.claim.name).items()
    }
    observed = experiment.observation.conditions if experiment.observation else {}
    known |= {name: {"label": label, "control_of": ""} for name, label in observed.items()}
    rows = [
        {"condition": name, "replicate": FRESH_SEED + i}
        | about
        | {experiment.claim.primary.measure: shift(name) + 0.005 * draws.standard_normal()}
        for i in range(N)
        for name, about in known.items()
    ]
    return pd.DataFrame(rows).assign(status="finished", phase1_learnt=True, accuracy=0.5, epochs=0.5)


def test_what_they_declare(experiment):
    claim, sweep = experiment.claim, experiment.sweep
    own = arms(claim.name)
    of_runs = set(own) | set(experiment.observation.conditions if experiment.observation else ())
    assert {name for contrast in claim.contrasts for name in contrast.weights} <= of_runs
    check_statement(claim)
    assert claim.name == sweep.name
    assert claim.page == "does_it_help_on_real_text"
    # A claim that is declared anew after what its seeds showed has seeds of its own.
    assert sweep.first_seed == {"scale_decides_on_text": 4000}.get(claim.name, FRESH_SEED)
    assert sweep.model == (LARGER if claim.name == "union_helps_larger_model" else MODEL)
    assert sweep.fair.learning_rates == LEARNING_RATES
    assert {gate.phase1 for gate in sweep.fair.gates} == {each.name for each in sweep.phase1}
    for arm in own.values():
        if arm.kind == Kind.TRANSFER:
            assert own[arm.fresh].condition.task in (arm.condition.task, None)
    for gate in sweep.fair.gates:
        assert f"{gate.phase1} {gate.accuracy:.0%}" in experiment.protocol


def test_their_verdicts_can_come_out_either_way(experiment):
    """Losses that are as the primary contrast predicts, or the other way round, decide it."""
    primary = experiment.claim.primary
    size = max(0.2, 4 * primary.margin) / sum(weight**2 for weight in primary.weights.values())

    def verdict(sign: float) -> str:
        table = made_up(experiment, lambda name: sign * size * primary.weights.get(name, 0))
        assert what_it_lacks(list(primary.weights), table) == ""
        return judge_contrasts(without_secondary(experiment.claim), table)[0].verdict

    if primary.predicted == "within":
        assert [verdict(sign) for sign in (0, 1, -1)] == ["supported", "refuted", "refuted"]
    else:
        below = primary.predicted == "below"
        assert [verdict(sign) for sign in (-1, 1)] == (["supported", "refuted"] if below else ["refuted", "supported"])


def test_what_is_observed_of_several_arms_needs_the_controls_of_all():
    """A lead is a condition of its own, which says nothing of the transfers that it is measured on."""
    table = made_up(script("no_single_best_task").EXPERIMENT, lambda name: 0.0)
    lead = table.loc[table["condition"] == "least lead"]
    assert lead["arm"].isna().all()
    for kind in ("scales", "natural text", "shuffled sequences"):
        rest = table.loc[~((table["control_of"] == "union full, code") & (table["arm"] == kind))]
        assert f"the arm '{kind}' of 'union full, code' is missing" in what_it_lacks(["least lead"], rest)
    missed = table["condition"] == "sort full, code"
    assert "phase 1 of 'sort full, code' missed its gate" in what_it_lacks(
        ["least lead"], table.assign(phase1_learnt=~missed)
    )


def test_they_share_their_arms(experiment):
    """What has one name is one arm, so that no claim trains what another has."""
    others = [
        *("union_helps_language", "attention_for_code_mlp_for_language", "scale_decides_on_text", "stack_not_queue"),
    ]
    for name, arm in arms(experiment.claim.name).items():
        for known in (arms(other).get(name) for other in others):
            if known is not None and arm.condition.task == known.condition.task:
                assert dataclasses.replace(arm.condition, label="") == dataclasses.replace(known.condition, label="")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(60):
        (folder / f"{i}.txt").write_text("\n".join(f"Line {i * j} of document {i}, and no more." for j in range(30)))
    return f"files:{folder}"


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """The first experiment as a smoke test, on another text."""
    store = RunStore(tmp_path_factory.mktemp("text claims") / "runs")
    experiment = script("union_helps_language").experiment(phase1_steps=30, text=Text(corpus=corpus, length=32))
    tiny = dataclasses.replace(MODEL, d_model=8)
    phase1 = tuple(dataclasses.replace(each, model=tiny) for each in experiment.sweep.phase1)
    sweep = dataclasses.replace(experiment.sweep, model=tiny, phase1=phase1)
    experiment = dataclasses.replace(experiment, sweep=sweep)
    with pytest.MonkeyPatch.context() as patch:
        from tests.serial import execute_here

        patch.setattr("procpre_interp.engine.engines.execute_all", execute_here)
        return store, *run(experiment, store, engine=Processes(), quick=True)


def test_one_of_them_whole(whole, corpus):
    store, table, judged = whole
    assert set(table["arm"]) == {str(kind) for kind in Kind}
    assert set(table["status"]) == {"finished"}
    assert {store.open(run).config["task"]["corpus"] for run in table["run"]} == {corpus}
    assert judged.verdict == "undecided"
    assert len(judged.contrasts) == 4
    losses = table.set_index("condition")["loss_nats"]
    assert judged.primary.estimate == pytest.approx(losses["union full"] - losses["none"])


def test_another_text_is_another_protocol(corpus):
    """Or its looks would be taken for those at the claim's own text."""
    for name in ("union_helps_language", "attention_for_code_mlp_for_language", "structure_not_statistics"):
        module = script(name)
        assert module.experiment(text=TEXTS["language"]).protocol == module.EXPERIMENT.protocol
        elsewhere = module.experiment(text=Text(corpus=corpus, length=32)).protocol
        assert elsewhere == f"On {corpus} in place of wikipedia-leads. {module.EXPERIMENT.protocol}".replace(
            "128", "32"
        )


def test_the_first_experiments_are_three_claims_with_one_budget_on_one_text(corpus, monkeypatch):
    module, given = script("first_experiments"), []
    monkeypatch.setattr(module, "run_all", lambda experiments, options: given.extend(experiments) or 0)
    assert module.first_experiments(module.FirstExperiments(phase1_steps=7, corpus=corpus)) == 0
    assert [each.claim.name for each in given] == list(module.CLAIMS)
    for each in given:
        assert each.sweep.task.corpus == corpus
        assert {recipe.train.steps for recipe in each.sweep.phase1 if recipe.task.name == "union"} == {7}
        assert each.protocol.startswith(f"On {corpus} in place of wikipedia-leads. ")
    given.clear()
    module.first_experiments(module.FirstExperiments())
    assert [each.protocol for each in given] == [script(name).EXPERIMENT.protocol for name in module.CLAIMS]


def test_subwords_are_another_protocol():
    experiment = script("union_helps_language_bpe").EXPERIMENT
    assert "16 windows of 64 tokens (bpe:1024) in a single pass" in experiment.protocol
    assert all(arm.condition.task in (experiment.sweep.task, None) for arm in arms(experiment.claim.name).values())


def test_text_of_another_domain_says_so():
    """Its arm has the name that English has in other claims, whose lists and looks it must not be taken for."""
    experiment = script("procedural_beats_other_text").EXPERIMENT
    labels = {name: arm.condition.label for name, arm in arms("procedural_beats_other_text").items()}
    assert labels["union full natural text"] == "natural text (python-stdlib) in place of union, full transfer"
    assert "(python-stdlib as natural text)" in experiment.protocol
    assert arms("union_helps_language")["union full natural text"].condition.label.startswith("natural text in place")
    noisy = script("noisier_text_gains_more").EXPERIMENT
    assert noisy.sweep.fair.natural_text.corpus == TEXTS["language"].corpus
    assert "as natural text" not in noisy.protocol


def test_savings_are_measured_on_runs(whole):
    store, table, _ = whole
    runs = table.set_index("condition")["run"]
    module = script("procedural_tokens_save_data")
    observation = module.EXPERIMENT.observation
    opened = {name: store.open(runs["none" if name.startswith("none") else "union full"]) for name in observation.needs}
    found = observation.measure(opened, store)
    assert set(found) == {name for name in observation.needs if not name.startswith("none")}
    first = found["sort full"]
    assert all(value == first for value in found.values())  # the same two runs under every name
    assert first["tokens_saved"] < first["semantic_saved"] <= 1  # phase 1 is counted
    alone = observation.measure({name: opened[name] for name in ("none", "sort full")}, store)
    assert alone == {"sort full": first}
    primary = of_primary(module.CLAIM, module.EXPERIMENT.sweep, observation)
    assert [each.name for each in primary.conditions] == ["sort full"]


def test_the_lead_on_two_texts_is_the_smaller_one(whole):
    store, table, _ = whole
    opened = [store.open(run) for run in table["run"]]
    module = script("no_single_best_task")
    for runs in itertools.permutations(opened, 4):
        union, sort, sort_code, union_code = (each.summary["loss_nats"] for each in runs)
        names = ("union full", "sort full", "sort full, code", "union full, code")
        found = module.measure(dict(zip(names, runs)), store)[module.LEAST]["lead_nats"]
        assert found == min(union - sort, sort_code - union_code)
