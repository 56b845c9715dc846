"""Fair sweeps: their arms, that all of them are tuned alike and on seeds of their own, and the command."""

import dataclasses
from collections.abc import Mapping

import pandas as pd
import pytest
import torch

from procpre_interp.claims.claim import Claim, Contrast
from procpre_interp.claims.fairness import what_it_lacks
from procpre_interp.cli import main
from procpre_interp.core.config import from_dict, from_yaml, to_yaml
from procpre_interp.data import TASKS
from procpre_interp.data.documents import corpus_hash
from procpre_interp.data.semantic import text
from procpre_interp.engine.engines import Processes
from procpre_interp.pipeline.config import Architecture, Parent, RunConfig
from procpre_interp.pipeline.execute import execute, fresh_model, load_model, run_config
from procpre_interp.pipeline.lineage import starting_model
from procpre_interp.store.about import about_table
from procpre_interp.store.outcomes import scores
from procpre_interp.store.store import RunStore, load_histories
from procpre_interp.study.claim_figures import measure_figure
from procpre_interp.study.experiment import Experiment, run
from procpre_interp.study.until_decided import of_primary
from procpre_interp.sweep.chains import pretraining_run
from procpre_interp.sweep.config import Condition, Grid, Pretraining, Source, Sweep
from procpre_interp.sweep.fair import choices, confirming_sweep, run_fair, trials_of, tuned_by, tuning_sweep, with_arms
from procpre_interp.sweep.fair_arms import Kind, arms_of
from procpre_interp.sweep.fair_config import Fair, Gate
from procpre_interp.sweep.maps import Map
from procpre_interp.sweep.phases import Insertion, Phase, context_of
from procpre_interp.sweep.plan import plan, results, run_sweep
from procpre_interp.train import TrainConfig
from procpre_interp.train.interventions import EntropyPenalty, Rescaled, Scaled
from procpre_interp.transfer import TransferConfig
from tests.judged import CLAIM_FIELDS
from tests.serial import execute_here

SHAPE = Architecture(n_layers=1, n_heads=2, d_model=8)
TRAIN = TrainConfig(
    steps=4,
    batch_size=4,
    learning_rate=5e-3,
    warmup_steps=1,
    weight_decay=0.1,
    evaluate_every=2,
    evaluate_examples=8,
    kernel="torch",
)
SORT = Pretraining(name="sort", task=TASKS.build("sort", length=8), model=SHAPE, train=TRAIN)
FRESH = TransferConfig(token_embedding="fresh", unembedding="fresh", positions="fresh")
ATTENTION = Condition(
    name="attention", label="sort, attention", sources=(Source(phase1="sort", selector="attn"),), transfer=FRESH
)
FAIR = Fair(
    learning_rates=(1e-3, 1e-2),
    initial_scales=(3.0,),
    tuning_replicates=1,
    gates=(Gate(phase1="sort", accuracy=1.0),),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A few documents of this project's own source."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(60):
        lines = [f"def f{i}_{j}(x):\n    return x + {i * j}\n" for j in range(20)]
        (folder / f"{i}.py").write_text("\n".join(lines))
    return f"files:{folder}"


@pytest.fixture(scope="module")
def sweep(corpus) -> Sweep:
    task = TASKS.build("text", corpus=corpus, length=24)
    return Sweep(
        name="tiny",
        title="Does sorting help?",
        phase1=(SORT,),
        task=task,
        model=SHAPE,
        train=TRAIN,
        conditions=(ATTENTION,),
        replicates=2,
        fair=FAIR,
    )


@pytest.fixture(scope="module")
def done(sweep, tmp_path_factory):
    store = RunStore(tmp_path_factory.mktemp("fair") / "runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procpre_interp.engine.engines.execute_all", execute_here)
        return store, run_fair(sweep, store)


def test_every_transfer_has_its_controls(sweep):
    recipe = dataclasses.replace(SORT, train=dataclasses.replace(TRAIN, checkpoints=3))
    grid = Grid(phase1=("sort",), selector=("mlp",), step=(None, 2))
    found = arms_of(dataclasses.replace(sweep, phase1=(recipe,), grids=(grid,)))
    kinds = [Kind.TRANSFER, Kind.SCALES, Kind.NATURAL_TEXT, Kind.SHUFFLED]
    assert [arm.kind for arm in found.arms] == [Kind.FRESH, *3 * kinds]
    assert [arm.control_of for arm in found.arms[1:5]] == ["", *3 * ["attention"]]
    assert found.arms[9].condition.name == "sort mlp step 2"
    _, transfer, scales, natural, shuffled = (arm.condition for arm in found.arms[:5])
    assert transfer == ATTENTION
    assert scales.sources == ATTENTION.sources
    assert scales.interventions == (Rescaled(selector="all", relative_step="transferred"),)
    recipes = {each.name: each for each in found.phase1}
    for each, task in ((natural, "text"), (shuffled, "shuffled")):
        assert each.transfer == FRESH
        (source,) = each.sources
        assert source.selector == "attn"
        assert recipes[source.phase1].task.name == task
        assert recipes[source.phase1].model == SHAPE
        assert recipes[source.phase1].train.steps == TRAIN.steps


@pytest.mark.parametrize(
    ("controls", "pretrained"),
    [(("scales",), []), (("natural text",), ["sort natural text"]), (("shuffled sequences",), ["sort shuffled"])],
)
def test_only_the_controls_that_are_asked_for_are_there(sweep, controls, pretrained):
    found = arms_of(dataclasses.replace(sweep, fair=dataclasses.replace(FAIR, controls=controls)))
    assert [arm.kind for arm in found.arms] == [Kind.FRESH, Kind.TRANSFER, *controls]
    assert [each.name for each in found.phase1] == ["sort", *pretrained]
    everything = {arm.condition.name: arm for arm in arms_of(sweep).arms}
    assert all(everything[arm.condition.name] == arm for arm in found.arms)


@pytest.fixture(scope="module")
def two_texts(sweep) -> Sweep:
    """The same transfer on a second text, of shorter windows."""
    own = {"task": dataclasses.replace(sweep.task, length=20)}
    second = (
        Condition(name="none, second", **own),
        dataclasses.replace(ATTENTION, name="attention, second", **own),
    )
    return dataclasses.replace(sweep, conditions=(ATTENTION, *second), replicates=1)


def test_each_text_has_its_own_fresh_arm_and_its_own_natural_text(two_texts, tmp_path, runs_here):
    second = two_texts.conditions[1].task
    found = arms_of(two_texts)
    by_name = {arm.condition.name: arm for arm in found.arms}
    assert len(by_name) == 2 * 5
    assert {name: arm.fresh for name, arm in by_name.items() if arm.kind == Kind.TRANSFER} == {
        "attention": "none",
        "attention, second": "none, second",
    }
    natural = by_name["attention, second natural text"]
    assert (natural.fresh, natural.condition.task) == ("none, second", second)
    (source,) = natural.condition.sources
    assert source.phase1 == f"sort natural text, {second.corpus}" != "sort natural text"
    recipes = {each.name: each.task for each in found.phase1}
    assert recipes[source.phase1].order == recipes["sort natural text"].order == "uniform"
    assert len(recipes) == 4  # its shuffled sequences are the same ones

    store = RunStore(tmp_path / "runs")
    table = run_fair(two_texts, store).table.set_index("condition")
    lengths = {name: store.open(run).config["task"]["length"] for name, run in table["run"].items()}
    assert lengths == {name: 20 if "second" in name else 24 for name in by_name}
    learnt = table.reset_index().assign(phase1_learnt=True)
    assert what_it_lacks(["attention", "attention, second"], learnt) == ""
    without = learnt.loc[learnt["condition"] != "none, second"]
    assert what_it_lacks(["attention"], without) == ""
    assert what_it_lacks(["attention, second"], without) == (
        "the arm 'fresh' of 'attention, second' is missing in 1 of 1 replicates"
    )


def drawn_again(configs: Mapping[str, RunConfig]) -> set[str]:
    """Runs whose fresh weights are those that an ancestor began with, other than the rest of a training."""
    found = set()
    for child, config in configs.items():
        names = [parent.run for parent in config.parents]
        for name in names:
            names += [parent.run for parent in configs[name].parents]
        draws = {(configs[name].seed, configs[name].fresh_labels) for name in names}
        if (config.seed, config.fresh_labels) in draws and not config.train.start_at:
            found.add(child)
    return found


def test_natural_text_begins_phase_2_with_weights_that_it_was_not_trained_from(sweep, done):
    """Text after text, of one seed: the same draw would give phase 2, as fresh, what phase 1 began with."""
    _, found = done
    assert found.planned is not None
    configs = found.planned.configs
    assert drawn_again(configs) == set()
    assert drawn_again({run: dataclasses.replace(config, draw=0) for run, config in configs.items()})
    # A procedural phase 1 draws by another name, and all other arms begin with the fresh weights of no pretraining.
    cells = found.planned.cells
    assert {cell.condition for cell in cells.itertuples() if configs[cell.run].draw} == {"attention natural text"}
    cell = next(cell for cell in cells.itertuples() if configs[cell.run].draw)
    phase1, phase2 = (dict(fresh_model(configs[run]).named_parameters()) for run in (*cell.phase1_run, cell.run))
    for name in ("embed.W_E", "blocks.0.attn.W_Q", "blocks.0.mlp.W_in"):
        assert not torch.equal(phase1[name], phase2[name]), name


HALF = Insertion(at=0.5, optimiser="fresh", positions="own")


@pytest.fixture(scope="module")
def inserted(sweep) -> Sweep:
    """Attention before phase 2 and in the middle of it, which a fresh model is interrupted in as well."""
    conditions = (
        ATTENTION,
        Condition(name="interrupted", insert=HALF),
        Condition(name="at half", sources=ATTENTION.sources, insert=HALF),
    )
    return dataclasses.replace(sweep, conditions=conditions, replicates=1)


def test_phase_1_in_the_middle_of_phase_2_has_controls_of_its_own(inserted, tmp_path, runs_here):
    found = {arm.condition.name: arm for arm in arms_of(inserted).arms}
    assert {name: arm.fresh for name, arm in found.items() if arm.kind == Kind.TRANSFER} == {
        "attention": "none",
        "at half": "interrupted",
    }
    store = RunStore(tmp_path / "runs")
    done = run_fair(inserted, store)
    assert set(done.table["status"]) == {"finished"}
    assert done.planned is not None
    assert drawn_again(done.planned.configs) == set()
    table = done.table.set_index("condition")
    assert set(table.index) == set(found)
    assert done.tuned.confirming is not None
    scale = FAIR.initial_scales[0]
    begun = {}
    for name in ("interrupted", "at half", "at half scales"):
        run = store.open(table.loc[name, "run"])
        config = run_config(run)
        first = store.open(config.parents[0].run)
        assert config.train.start_at == 2 == first.summary["steps"]
        assert [each.factor for each in run_config(first).train.interventions] == [scale]  # once, at the very start
        assert not [each for each in config.train.interventions if isinstance(each, Scaled)]
        begun[name] = starting_model(run, store), load_model(first)
    # The weights that phase 2 had come to, as they were, and each tensor as large as phase 1 left it.
    assert torch.equal(begun["interrupted"][0].flat, begun["interrupted"][1].flat)
    starts = {name: dict(start.named_parameters()) for name, (start, _) in begun.items()}
    scaled, own = starts["at half scales"], dict(begun["at half scales"][1].named_parameters())
    # Each arm was tuned by itself, so the sizes are those of its own phase 1.
    run = store.open(table.loc["at half scales", "run"])
    inside = dict(load_model(store.open(run_config(run).parents[1].run)).named_parameters())
    weight = "blocks.0.attn.W_Q"
    torch.testing.assert_close(scaled[weight], own[weight] * inside[weight].norm() / own[weight].norm())
    assert not torch.equal(scaled[weight], own[weight])
    assert torch.equal(scaled["embed.W_E"], own["embed.W_E"])
    assert torch.equal(scaled["pos_embed.W_pos"], own["pos_embed.W_pos"])


def test_the_cost_of_a_fair_sweep_is_that_of_all_phases(inserted, tmp_path, runs_here):
    """And its note says what its columns are of; savings, which count two phases, refuse a third."""
    path, store = tmp_path / "sweep.yaml", RunStore(tmp_path / "runs")
    path.write_text(to_yaml(dataclasses.replace(inserted, then=(Phase(task=inserted.task, train=TRAIN),))))
    assert main(["sweep", str(path), "--out", str(store.path), "--workers", "1"]) == 0
    (name,) = [name for name in store.tables("tiny-") if "tuning" not in name]
    about = about_table(store.read_table(name).metadata)
    assert about.cost["runs"] == len(store.query())
    assert about.cost["tokens"] == store.query()["tokens"].sum()
    assert about.note.startswith("Accuracy, gain and breakthrough are those of the last phase")
    assert main(["savings", name, "--store", str(store.path)]) != 0


def test_arms_are_tuned_on_the_same_seeds_however_many_replicates_they_have(sweep):
    few = tuple(dataclasses.replace(each, replicates=1) for each in sweep.conditions)
    two = dataclasses.replace(sweep, conditions=few, fair=dataclasses.replace(FAIR, tuning_replicates=2))
    assert set(plan(tuning_sweep(two)).cells.groupby("condition").size()) == {2}


def test_the_gate_counts_for_phase_1_wherever_it_is(inserted, tmp_path, runs_here):
    store = RunStore(tmp_path / "runs")
    table = run_fair(inserted, store).table.set_index("condition")
    gated = ["attention", "attention scales", "at half", "at half scales"]
    assert set(table.index[~table["phase1_learnt"]]) == set(gated)
    passed = dataclasses.replace(FAIR, gates=(Gate(phase1="sort", accuracy=1e-6),))
    table = run_fair(dataclasses.replace(inserted, fair=passed), store).table
    assert table["phase1_learnt"].all()
    assert what_it_lacks(["at half", "interrupted"], table) == ""
    without = table.loc[table["condition"] != "interrupted"]
    assert "the arm 'fresh' of 'at half' is missing" in what_it_lacks(["at half", "none"], without)


def test_a_trial_that_diverges_before_phase_1_loses_and_holds_up_no_other(inserted, tmp_path, runs_here):
    wild = dataclasses.replace(FAIR, learning_rates=(1e-3, 1e30), initial_scales=(1.0,))
    unclipped = dataclasses.replace(TRAIN, clip_norm=None)
    done = run_fair(dataclasses.replace(inserted, fair=wild, train=unclipped), RunStore(tmp_path / "runs"))
    assert set(choices(done.tuned.trials)["learning_rate"]) == {1e-3}
    of_half = done.tuned.trials.set_index("label").loc["at half, lr 1e+30, scale 1"]
    assert (of_half["status"], of_half["validation_loss_nats"]) == ("diverged", float("inf"))
    assert set(done.table["status"]) == {"finished"}


def test_the_gate_counts_for_the_phase_1_of_a_control(inserted, tmp_path, runs_here):
    passed = dataclasses.replace(FAIR, gates=(Gate(phase1="sort", accuracy=1e-6),))
    table = run_fair(dataclasses.replace(inserted, fair=passed), RunStore(tmp_path / "runs")).table
    missed = table.assign(phase1_learnt=table["condition"] != "at half scales")
    assert "phase 1 of 'at half' missed its gate in 1 of 1" in what_it_lacks(["at half", "interrupted"], missed)
    assert what_it_lacks(["attention", "none"], missed) == ""


@pytest.mark.parametrize(("length", "batch_size", "windows"), [(8, 4, (3, 23)), (2, 2, (1, 10)), (64, 4, (22, 23))])
def test_natural_text_has_the_budget_of_phase_1(sweep, length, batch_size, windows):
    """As many steps, and in each about as many tokens, in windows that are no longer than those of phase 2."""
    recipe = dataclasses.replace(
        SORT, task=TASKS.build("sort", length=length), train=dataclasses.replace(TRAIN, batch_size=batch_size)
    )
    recipes = arms_of(dataclasses.replace(sweep, phase1=(recipe,))).phase1
    found = next(each for each in recipes if each.name == "sort natural text")
    assert (found.train.batch_size, found.task.n_ctx) == windows
    tokens = batch_size * recipe.task.n_ctx  # all of its sequences are as long
    assert found.train.batch_size * found.task.n_ctx == pytest.approx(tokens, rel=0.05)
    assert found.train.steps == recipe.train.steps


@pytest.mark.parametrize(
    ("length", "batch_size", "window"),
    [(64, 4, 24), (4, 16, 24), (13, 3, 20)],
    ids=["both have them", "natural text alone", "sort alone"],
)
def test_positions_are_carried_from_natural_text_just_where_they_are_from_the_task(sweep, length, batch_size, window):
    """Their windows differ in length, so that one of them alone may be long enough for phase 2."""
    recipe = dataclasses.replace(
        SORT, task=TASKS.build("sort", length=length), train=dataclasses.replace(TRAIN, batch_size=batch_size)
    )
    transfer = dataclasses.replace(ATTENTION, transfer=TransferConfig(token_embedding="fresh", unembedding="fresh"))
    found = arms_of(
        dataclasses.replace(
            sweep,
            task=dataclasses.replace(sweep.task, length=window),
            phase1=(recipe,),
            conditions=(transfer,),
        )
    )
    recipes = {each.name: each for each in found.phase1}

    def carries(arm) -> bool:
        giver = recipes[arm.condition.sources[0].phase1]
        enough = context_of(giver.task, giver.model) >= context_of(arm.condition.task or sweep.task, sweep.model)
        return enough and arm.condition.transfer.positions == "carry"

    by_kind = {arm.kind: carries(arm) for arm in found.arms if arm.condition.sources}
    assert len({*by_kind.values()}) == 1, by_kind
    assert by_kind[Kind.TRANSFER] == (length > 4)


def test_natural_text_is_in_the_order_that_phase_2_has_not(sweep):
    def order(task):
        return arms_of(dataclasses.replace(sweep, task=task)).phase1[1].task.walks

    assert sweep.task.walks
    assert not order(sweep.task)
    assert order(dataclasses.replace(sweep.task, order="uniform"))
    other = dataclasses.replace(FAIR, natural_text=TASKS.build("text", corpus="python-stdlib", length=16))
    haystack = dataclasses.replace(sweep, task=TASKS.build("haystack"), fair=other)
    assert arms_of(haystack).phase1[1].task.corpus == "python-stdlib"


def test_all_arms_have_the_same_trials_on_tuning_seeds_alone(sweep):
    sweep = dataclasses.replace(sweep, fair=dataclasses.replace(FAIR, initial_scales=(1.0, 3.0)))
    planned = plan(tuning_sweep(sweep))
    assert len(planned.cells) == 5 * 4
    assert set(planned.cells["replicate"]) == {0}
    for name, trial in trials_of(sweep).items():
        (run,) = planned.cells.loc[planned.cells["condition"] == name, "run"]
        train = planned.configs[run].train
        assert train.learning_rate == trial.learning_rate
        scales = [each.factor for each in train.interventions if isinstance(each, Scaled)]
        assert scales == ([] if trial.initial_scale == 1 else [trial.initial_scale])
    counts = pd.Series([trial.arm.condition.name for trial in trials_of(sweep).values()]).value_counts()
    assert counts.to_dict() == dict.fromkeys([arm.condition.name for arm in arms_of(sweep).arms], 4)


def test_a_plan_reads_a_corpus_once_and_the_next_plan_again(sweep, tmp_path, monkeypatch):
    (tmp_path / "some.py").write_text("".join(f"def f{i}(x):\n    return x + {i}\n\n" for i in range(3000)))
    read, task = [], TASKS.build("text", corpus=f"files:{tmp_path}", length=24)
    plain = dataclasses.replace(sweep, task=task, fair=None)
    monkeypatch.setattr(text, "corpus_hash", lambda corpus: read.append(corpus) or corpus_hash(corpus))
    before = plan(plain).configs
    assert len(before) > len(read) == 1
    assert plan(plain).configs.keys() == before.keys()
    (tmp_path / "more.py").write_text("print('hello')\n")
    after = plan(plain).configs
    assert len(read) == 3
    of_text = {run for run, config in after.items() if config.task.name == "text"}
    assert len(of_text) > 1
    assert of_text.isdisjoint(before)


def test_runs_are_those_that_a_plain_sweep_has(sweep):
    for name, condition in {"none, lr 0.01, scale 1": None, "attention, lr 0.01, scale 1": ATTENTION}.items():
        one = dataclasses.replace(FAIR, learning_rates=(1e-2,), initial_scales=(1.0,))
        planned = plan(tuning_sweep(dataclasses.replace(sweep, fair=one)))
        plain = dataclasses.replace(
            sweep,
            train=dataclasses.replace(TRAIN, learning_rate=1e-2),
            conditions=(condition,) if condition else (),
            replicates=1,
            first_seed=0,
            fair=None,
        )
        (run,) = planned.cells.loc[planned.cells["condition"] == name, "run"]
        assert run == plan(plain).cells["run"].iloc[-1]


def test_a_scale_comes_behind_what_the_condition_does_itself(sweep):
    own = dataclasses.replace(ATTENTION, interventions=(EntropyPenalty(),))
    trials = trials_of(dataclasses.replace(sweep, conditions=(own,)))
    trial = trials["attention scales, lr 0.01, scale 3"]
    rescaled, penalty, scaled = trial.condition(sweep, "a", "a").interventions
    assert [type(each) for each in (rescaled, penalty, scaled)] == [Rescaled, EntropyPenalty, Scaled]


def test_arms_go_on_with_the_lowest_validation_loss(sweep, done):
    store, found = done
    trials = found.tuned.trials
    assert len(trials) == 10
    assert trials.groupby("arm")["chosen"].sum().to_dict() == dict.fromkeys(trials["arm"], 1)
    for _, of_arm in trials.groupby("arm"):
        best = of_arm.loc[of_arm["validation_loss_nats"].idxmin()]
        assert best["chosen"]
        history = store.open(best["run"]).history()
        assert best["validation_loss_nats"] == history.loc[history["split"] == "validation", "loss_nats"].iloc[-1]
    chosen = choices(trials).set_index("arm")
    for cell in found.planned.cells.to_dict("records"):
        train = found.planned.configs[cell["run"]].train
        assert cell["replicate"] in (1000, 1001)
        assert train.learning_rate == chosen.loc[cell["condition"], "learning_rate"]
        factor = next((each.factor for each in train.interventions if isinstance(each, Scaled)), 1)
        assert factor == chosen.loc[cell["condition"], "initial_scale"]
    # Of two, both are at the edge; the one scale was not searched.
    assert set(chosen["at_edge"]) == {"learning_rate"}
    assert store.read_table(found.tuned.table_name).frame["chosen"].sum() == 5


def test_the_mean_over_tuning_seeds_decides(sweep, done):
    """And a diverged run is never chosen, whatever its other seeds gave."""
    store, found = done
    assert found.tuned.confirming == confirming_sweep(sweep, chosen_trials(sweep, found.tuned.trials))
    two = dataclasses.replace(sweep, fair=dataclasses.replace(FAIR, tuning_replicates=2))
    tuned = tuned_by(two, plan(tuning_sweep(two)), store, {})
    assert tuned.confirming is None
    assert len(tuned.trials) == 10
    assert not tuned.trials["chosen"].any()


def test_where_phase_1_diverges_all_trials_of_its_arm_do(sweep, tmp_path, runs_here):
    """They have no run of phase 2, and would be waited for without end."""
    wild = dataclasses.replace(SORT, train=dataclasses.replace(TRAIN, learning_rate=1e30, clip_norm=None))
    store, waiting = RunStore(tmp_path / "runs"), dataclasses.replace(sweep, phase1=(wild,))
    with pytest.raises(ValueError, match="every trial of 'attention' diverged, or its phase 1 did"):
        run_fair(waiting, store)
    assert "diverged" in set(store.query()["status"])


def test_a_trial_whose_phase_2_diverges_before_another_phase_loses(sweep, tmp_path, runs_here):
    """It has no run of that phase, and would be waited for without end."""
    wild = dataclasses.replace(FAIR, learning_rates=(1e-3, 1e30), initial_scales=(1.0,))
    unclipped = dataclasses.replace(TRAIN, clip_norm=None)
    after = (Phase(task=sweep.task, train=TRAIN),)
    done = run_fair(dataclasses.replace(sweep, fair=wild, train=unclipped, then=after), RunStore(tmp_path / "runs"))
    assert set(choices(done.tuned.trials)["learning_rate"]) == {1e-3}
    lost = done.tuned.trials.loc[done.tuned.trials["learning_rate"] == 1e30]
    assert set(zip(lost["status"], lost["validation_loss_nats"])) == {("diverged", float("inf"))}
    assert set(done.table["status"]) == {"finished"}


def chosen_trials(sweep, trials):
    labels = trials.loc[trials["chosen"], ["arm", "label"]].itertuples(index=False, name=None)
    return {arm: trials_of(sweep)[label] for arm, label in labels}


def test_the_table_has_all_arms_and_their_gate(sweep, done):
    store, found = done
    table = found.table
    assert set(table["arm"]) == {str(kind) for kind in Kind}
    assert table.groupby("arm")["control_of"].first()["scales"] == "attention"
    # Sorting is not learnt in four steps; shuffled sequences and natural text have no gate.
    learnt = table.groupby("condition")["phase1_learnt"].all().to_dict()
    assert learnt == {
        "none": True,
        "attention": False,
        "attention scales": False,
        "attention natural text": True,
        "attention shuffled sequences": True,
    }
    run = pretraining_run(SORT, 1000).run_id
    assert store.open(run).summary["accuracy"] < 1
    # Where there is nothing to learn the gate is at 0, which any accuracy passes.
    ungated = dataclasses.replace(sweep.fair, gates=(dataclasses.replace(sweep.fair.gates[0], accuracy=0.0),))
    open_to_all = dataclasses.replace(found.tuned, sweep=dataclasses.replace(sweep, fair=ungated))
    assert with_arms(table, open_to_all, store)["phase1_learnt"].all()


def test_a_second_call_computes_nothing(sweep, done, runs_here):
    store, found = done
    before = len(store.query())
    again = run_fair(sweep, store, may_start=lambda: False)
    assert len(store.query()) == before
    pd.testing.assert_frame_equal(again.table, found.table)


def test_without_all_trials_nothing_is_confirmed(sweep, tmp_path, runs_here):
    found = run_fair(sweep, RunStore(tmp_path / "runs"), may_start=lambda: False)
    assert found.planned is None
    assert found.table.empty


def test_the_command_tunes_confirms_and_reports(sweep, done, capsys, tmp_path, runs_here):
    store, _ = done
    path = tmp_path / "fair.yaml"
    path.write_text(to_yaml(sweep))
    assert from_yaml(Sweep, path.read_text()) == sweep
    assert main(["sweep", str(path), "--count", "--out", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    assert "Each has 2 trials on each of 1 tuning seeds." in said
    assert "tiny-tuning: 1 replicates, 3 runs of phase 1 and 10 of phase 2; 0 of them are finished." in said
    assert "tiny: 2 replicates, 6 runs of phase 1 and 10 of phase 2; 0 of them are finished." in said
    assert main(["sweep", str(path), "--out", str(tmp_path / "none"), "--minutes", "0"]) == 1
    assert "tuning: 0 of 10 trials are finished; the same command goes on from here" in capsys.readouterr().out
    assert main(["sweep", str(path), "--out", str(store.path), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "What each arm was tuned to" in said
    assert "Phase 1 missed its gate in 2 runs of sort, attention" in said
    (name,) = [name for name in store.tables("tiny-") if "tuning" not in name]
    about = about_table(store.read_table(name).metadata)
    assert from_yaml(Sweep, about.config) == sweep
    assert about.cost["runs"] == 6 + 10 + 3 + 10
    html = (store.path / "tiny.html").read_text()
    assert "Budgets" in html
    assert "tokens of both phases" in html
    assert main(["sweep", str(path), "--count", "--out", str(store.path)]) == 0
    assert (
        "tiny: 2 replicates, 6 runs of phase 1 and 10 of phase 2; 16 of them are finished." in capsys.readouterr().out
    )


def test_the_savings_of_a_table(done, capsys):
    store, found = done
    assert main(["sweep", "tiny.yaml", "--out", str(store.path)]) == 1  # no such file
    capsys.readouterr()
    store.write_table(found.planned.table_name, found.table, {"title": "Does sorting help?"})
    assert main(["savings", "tiny", "--store", str(store.path)]) == 0
    said = capsys.readouterr().out
    assert "What phase 1 saves: Does sorting help?" in said
    assert "sort, attention" in said
    assert "bootstrap interval" in said
    assert (store.path / f"savings-{found.planned.table_name}.html").is_file()
    assert main(["savings", "tiny", "--store", str(store.path), "--baseline", "non"]) == 2
    assert "Did you mean 'none'" in capsys.readouterr().err
    assert main(["savings", "other", "--store", str(store.path)]) == 2


def test_tokens_and_compute_of_phase_1_up_to_a_checkpoint(sweep, tmp_path, runs_here):
    store = RunStore(tmp_path / "runs")
    recipe = dataclasses.replace(SORT, train=dataclasses.replace(TRAIN, checkpoints=3))
    grid = Grid(phase1=("sort",), selector=("attn",), step=(2, None), transfer=(FRESH,))
    one = dataclasses.replace(sweep, phase1=(recipe,), conditions=(), grids=(grid,), replicates=1, fair=None)
    planned, problems = run_sweep(one, store)
    assert problems == {}
    table = results(planned, store)
    table.index = pd.Index(["none", "early", "whole"])
    early, whole = table.loc["early"], table.loc["whole"]
    assert "step 2" in early["condition"]
    assert whole["phase1_tokens"] == TRAIN.steps * TRAIN.batch_size * SORT.task.n_ctx
    assert early["phase1_tokens"] == whole["phase1_tokens"] / 2
    assert early["phase1_teraflops"] == pytest.approx(whole["phase1_teraflops"] / 2)
    assert table.loc["none", "phase1_tokens"] == 0


def test_tokens_up_to_a_checkpoint_of_a_curriculum_are_those_of_its_history(tmp_path, monkeypatch):
    """Its first sequences are short, so that steps are not alike."""
    monkeypatch.setattr("procpre_interp.train.loop.CURRICULUM_ACCURACY", 0.0)  # each evaluation makes them longer
    store = RunStore(tmp_path / "runs")
    train = dataclasses.replace(
        TRAIN, steps=12, checkpoints=12, evaluate_every=4, curriculum=True, evaluate_examples=8, batch_size=4
    )
    task = TASKS.build("identity", min_length=2, length=16)
    parent = execute(RunConfig(task=task, train=train, model=SORT.model), store)
    child = RunConfig(
        task=task, train=dataclasses.replace(TRAIN, steps=1), model=SORT.model, parents=(Parent(run=parent.id, step=4),)
    )
    seen = parent.history().drop_duplicates("step").set_index("step")["tokens"]
    assert seen[4] < seen.max() / 4, "a third of the steps"
    found = scores(execute(child, store), [parent])
    assert found["phase1_tokens"] == seen[4]
    # Nor are evaluations of short sequences drawn as if they were of the task.
    assert parent.history()["task_length"].notna().any()
    cell = pd.DataFrame([{"condition": "none", "label": "", "replicate": 0, "run": parent.id}])
    curves, problems = load_histories(store, cell)
    assert (problems, curves["task_length"].notna().any()) == ([], False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"first_seed": 0}, "seed 0 is to tune .* and to confirm too"),
        ({"conditions": ()}, "no condition takes weights from a phase 1"),
        ({"maps": (Map(phase1="sort", players=("attn", "mlp")),)}, "transfer maps are not tuned"),
        (
            {"conditions": (dataclasses.replace(ATTENTION, task=TASKS.build("haystack")),)},
            "condition 'attention' has a task of its own, and no fresh model is trained on that",
        ),
        (
            {"conditions": (Condition(name="at half", sources=ATTENTION.sources, insert=HALF),)},
            "condition 'at half' inserts phase 1, and no fresh model is interrupted alike",
        ),
        (
            {
                "conditions": (
                    Condition(name="at half", sources=ATTENTION.sources, insert=HALF),
                    Condition(name="shorter", insert=HALF, train=dataclasses.replace(TRAIN, steps=2)),
                )
            },
            "condition 'at half' inserts phase 1, and no fresh model is interrupted alike",
        ),
        (
            {"conditions": (Condition(name="at half", sources=ATTENTION.sources, insert=Insertion(at=0.5)),)},
            "condition 'at half' inserts phase 1 with its optimiser carried",
        ),
        ({"task": TASKS.build("haystack")}, "phase 2 is 'haystack', no text of its own"),
        (
            {"phase1": (dataclasses.replace(SORT, train=dataclasses.replace(TRAIN, patience=3)),)},
            "phase 1 'sort' may end early",
        ),
        ({"fair": dataclasses.replace(FAIR, gates=(Gate(phase1="stort", accuracy=0.5),))}, "Did you mean 'sort'"),
        (
            {
                "phase1": (SORT, dataclasses.replace(SORT, name="set")),
                "fair": dataclasses.replace(FAIR, gates=(Gate(phase1="set", accuracy=0.5),)),
            },
            "phase 1 'sort' has no gate; say from which accuracy on it is learnt",
        ),
        ({"fair": dataclasses.replace(FAIR, natural_text=TASKS.build("sort"))}, "natural_text is the task 'sort'"),
    ],
)
def test_what_cannot_be_fair_is_one_line(sweep, fields, said):
    with pytest.raises(ValueError, match=said) as problem:
        arms_of(dataclasses.replace(sweep, **fields))
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"learning_rates": []}, "learning_rates is empty"),
        ({"learning_rates": [1e-3, 1e-3]}, "one entry twice"),
        ({"initial_scales": [0]}, "each must be a positive number"),
        ({"tuning_replicates": 0}, "tuning_replicates=0"),
        ({"gates": [{"phase1": "sort"}]}, r"fair.gates\[0\]: missing accuracy"),
        ({"gates": [{"phase1": "sort", "accuracy": 90}]}, "it is a share"),
        ({"gates": []}, "gates is empty"),
        ({"controls": ["scales", "scales"]}, "controls has one entry twice"),
        ({"controls": ["shuffled"]}, "controls"),
    ],
)
def test_a_mistake_in_the_block_is_named(fields, said):
    known = {"learning_rates": [1e-3], "initial_scales": [1], "tuning_replicates": 1}
    known["gates"] = [{"phase1": "sort", "accuracy": 0.9}]
    with pytest.raises(ValueError, match=said):
        from_dict(Fair, known | fields, "fair")


def test_a_fair_sweep_is_not_planned_as_if_it_were_none(sweep):
    with pytest.raises(ValueError, match="its arms are tuned first"):
        plan(sweep)


def test_where_every_trial_diverges_no_arm_is_chosen(sweep, tmp_path, runs_here):
    wild = dataclasses.replace(FAIR, learning_rates=(1e30,), initial_scales=(1.0,))
    unclipped = dataclasses.replace(TRAIN, clip_norm=None)
    with pytest.raises(ValueError, match="every trial of 'none' diverged"):
        run_fair(dataclasses.replace(sweep, fair=wild, train=unclipped), RunStore(tmp_path / "runs"))


def test_arms_that_no_primary_contrast_needs_are_not_tuned(sweep):
    others = (dataclasses.replace(ATTENTION, name="other", sources=(Source(phase1="sort", selector="mlp"),)),)
    loss = {"predicted": "below", "measure": "loss_nats"}
    claim = Claim(**CLAIM_FIELDS, primary=Contrast(name="x", weights={"attention scales": 1, "none": -1}, **loss))
    wide = dataclasses.replace(sweep, conditions=(*sweep.conditions, *others))
    narrow = of_primary(claim, wide)
    assert narrow == sweep
    assert plan(tuning_sweep(narrow)).configs.keys() < plan(tuning_sweep(wide)).configs.keys()


def test_a_claim_with_a_fair_sweep_is_tuned_and_judged(sweep, tmp_path, runs_here):
    """And left undecided, since phase 1 missed its gate."""
    claim = Claim(
        **CLAIM_FIELDS,
        primary=Contrast(
            name="loss", weights={"attention": 1, "none": -1}, predicted="below", margin=-1e-9, measure="loss_nats"
        ),
    )
    experiment = Experiment(claim=claim, sweep=sweep, figure=measure_figure("loss_nats", "loss"), protocol="tiny")
    store = RunStore(tmp_path / "runs")
    with pytest.raises(ValueError, match="tuning: 0 of 10 trials are finished"):
        run(experiment, store, engine=Processes(), may_start=lambda: False)
    table, judged = run(experiment, store, engine=Processes(), quick=True)
    assert set(table["arm"]) == {str(kind) for kind in Kind}
    assert judged.task == "text"
    assert judged.cost["runs"] == 3 + 5 + 3 + 5
    assert what_it_lacks(["attention"], table) == "phase 1 of 'attention' missed its gate in 1 of 1 replicates"
