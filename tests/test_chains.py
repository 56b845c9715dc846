"""Sweeps whose phase 2 is followed by another, or has phase 1 in the middle: which runs they are, and their table."""

import dataclasses
import json
import math
from collections.abc import Iterator

import pytest
import torch

from procpre_interp.ablate import Noise
from procpre_interp.analysis.diagnosis import diagnose_all
from procpre_interp.claims.text import conditions_table
from procpre_interp.cli import main
from procpre_interp.core.config import from_dict, from_yaml, to_dict, to_yaml
from procpre_interp.data import TASKS
from procpre_interp.data.tokens import same_vocabulary
from procpre_interp.engine.time_left import work_of
from procpre_interp.pipeline.config import Architecture, Parent
from procpre_interp.pipeline.execute import execute, load_model
from procpre_interp.pipeline.lineage import at_stage
from procpre_interp.stats.summary import mean_curve
from procpre_interp.store.cells import with_run_lists, with_run_text
from procpre_interp.store.outcomes import cost_of
from procpre_interp.store.store import RunStore, load_histories
from procpre_interp.study.smoke_test import shortened
from procpre_interp.sweep.config import Condition, Grid, Pretraining, Source, Sweep
from procpre_interp.sweep.phases import Insertion, Phase
from procpre_interp.sweep.plan import plan, results, run_sweep
from procpre_interp.sweep.size import describe_size
from procpre_interp.sweep.stacked import stacked_sweep
from procpre_interp.train import Interrupted, TrainConfig
from procpre_interp.train.interventions import Rate, Rewind, Scaled
from procpre_interp.transfer import TransferConfig
from procpre_interp.views.exhibits.results import load_results
from procpre_interp.views.exhibits.run_progress import Writing
from procpre_interp.views.model_card import model_card

SHAPE = Architecture(n_layers=2, n_heads=2, d_model=8, n_ctx=64)
TRAIN = TrainConfig(steps=8, batch_size=4, learning_rate=1e-2, warmup_steps=2, evaluate_every=2, evaluate_examples=16)
DYCK = Pretraining(
    name="dyck",
    task=TASKS.build("dyck", k=2, length=32),
    model=dataclasses.replace(SHAPE, tied=True, n_ctx=None),
    train=dataclasses.replace(TRAIN, steps=3),
)
ALL = (Source(phase1="dyck"),)
FINE_TUNING = Phase(task=TASKS.build("haystack", max_pairs=4), train=dataclasses.replace(TRAIN, steps=2))


def tiny(**fields) -> Sweep:
    sweep = {"name": "tiny", "phase1": (DYCK,), "task": TASKS.build("haystack"), "model": SHAPE, "train": TRAIN}
    return Sweep(**{**sweep, "replicates": 1, **fields})


CONDITIONS = (
    Condition(name="before", sources=ALL, insert=Insertion(at=0.0)),
    Condition(name="middle", sources=ALL, insert=Insertion(at=0.5)),
    Condition(name="attention", sources=(Source(phase1="dyck", selector="attn"),), insert=Insertion(at=0.5)),
    Condition(name="interrupted", insert=Insertion(at=0.5)),
    Condition(name="reset", insert=Insertion(at=0.5, optimiser="fresh")),
)


@pytest.fixture(scope="module")
def inserted(tmp_path_factory) -> Iterator[tuple]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procpre_interp.data.stream.BLOCK_TOKENS", 2**12)
        patch.setattr("procpre_interp.pipeline.execute.TEST_EXAMPLES", 50)
        from tests.serial import execute_here

        patch.setattr("procpre_interp.engine.engines.execute_all", execute_here)
        store = RunStore(tmp_path_factory.mktemp("inserted"))
        planned, problems = run_sweep(tiny(conditions=CONDITIONS, then=(FINE_TUNING,)), store)
        assert not problems
        yield planned, store


def ends(planned, store) -> dict[str, torch.Tensor]:
    """The weights of each condition at the end of phase 2."""
    runs = planned.cells.set_index("condition")["phase2_run"]
    return {condition: load_model(store.open(run)).flat for condition, run in runs.items()}


def test_an_interruption_with_a_carried_optimiser_changes_no_bit(inserted):
    planned, store = inserted
    found = ends(planned, store)
    assert torch.equal(found["interrupted"], found["none"])
    for other in ("reset", "middle", "before", "attention"):
        assert not torch.equal(found[other], found["none"]), other


def test_a_chain_of_three_runs_and_a_phase_after_them(inserted):
    planned, store = inserted
    cell = planned.cells.set_index("condition").loc["middle"]
    first, phase1, rest, after = (planned.configs[run] for run in cell["chain"])
    assert (cell["phase1_run"], cell["phase2_run"], cell["run"]) == ((phase1.run_id,), rest.run_id, after.run_id)
    assert (first.parents, first.train.stop_after, first.train.steps) == ((), 4, 8)
    assert [parent.run for parent in phase1.parents] == [first.run_id]
    assert [parent.run for parent in rest.parents] == [first.run_id, phase1.run_id]
    assert (rest.train.start_at, rest.train.steps, rest.train.stop_after) == (4, 8, None)
    assert (phase1.optimiser, rest.optimiser, after.optimiser) == ("carried", "carried", "fresh")
    assert after.parents == (Parent(run=rest.run_id),)
    models = {run: load_model(store.open(run)) for run in (first.run_id, phase1.run_id)}
    start, before, through = load_model_at(store, rest, 4), models[first.run_id], models[phase1.run_id]
    for name in ("W_Q", "W_in", "W_pos"):
        assert torch.equal(getattr(start, name), getattr(through, name)), name
    for name in ("W_E", "W_U"):
        assert torch.equal(getattr(start, name), getattr(before, name)), name


def load_model_at(store, config, step):
    """The model with which a run begins, of a store that keeps only last steps."""
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpoints=2))
    return load_model(execute(config, store), step)


def test_parts_that_conditions_share_are_one_run(inserted):
    planned, _store = inserted
    chains = planned.cells.set_index("condition")["chain"]
    assert len({chains[name][0] for name in ("middle", "attention", "interrupted", "reset")}) == 1
    assert chains["middle"][1] == chains["attention"][1]
    first = planned.configs[chains["middle"][0]]
    assert first.train.keep_optimiser  # for those that carry it; `reset` does not
    assert list(planned.configs) == list(dict.fromkeys(run for chain in chains for run in chain))


def test_the_table_has_the_whole_of_each_chain(inserted):
    planned, store = inserted
    table = results(planned, store).set_index("condition")
    for condition, row in table.iterrows():
        chain = [store.open(run) for run in row["chain"]]
        assert row["accuracy"] == chain[-1].summary["accuracy"]
        assert row["phase2_accuracy"] == chain[-2].summary["accuracy"]
        assert row["total_tokens"] == sum(run.summary["tokens"] for run in chain), condition
        assert row["total_teraflops"] == pytest.approx(sum(run.summary["teraflops"] for run in chain))
        assert row["tokens"] == chain[-1].summary["tokens"]
    whole, middle = table.loc["none"], table.loc["middle"]
    phase1 = store.open(middle["phase1_run"][0]).summary["tokens"]
    assert middle["total_tokens"] == whole["total_tokens"] + phase1
    assert cost_of(planned.configs, store)["runs"] == len(planned.configs)
    assert with_run_lists(with_run_text(table))["chain"].tolist() == table["chain"].tolist()
    assert (planned.sweep.about.task, planned.sweep.about.limit) == ("haystack", 2)


def test_the_parts_of_phase_2_are_scored_as_one(inserted):
    planned, store = inserted
    without = plan(dataclasses.replace(planned.sweep, then=()))
    table = results(without, store).set_index("condition")
    assert len(table) == len(CONDITIONS) + 1
    whole, parts = table.loc["none"], table.loc["interrupted"]
    for name in ("tokens", "token_limit", "accuracy", "loss_nats", "area", "limit"):
        assert parts[name] == pytest.approx(whole[name]), name
    assert math.isnan(parts["phase2_accuracy"])
    assert parts["seconds"] == pytest.approx(sum(store.open(run).summary["seconds"] for run in parts["chain"]))


def test_a_breakthrough_before_the_insertion_counts(inserted, monkeypatch):
    planned, store = inserted
    table = plan(dataclasses.replace(planned.sweep, then=()))
    run = table.cells.set_index("condition").loc["middle", "chain"][0]
    first = store.open(run)
    summary = {**first.summary, "breakthrough_step": 2}
    real = RunStore.open

    def opened(self, run_id, *, verify=True):
        found = real(self, run_id, verify=verify)
        return dataclasses.replace(found, summary=summary) if run_id == run else found

    monkeypatch.setattr(RunStore, "open", opened)
    row = results(table, store).set_index("condition").loc["middle"]
    history = first.history().query("split == 'validation' and step == 2")
    assert (row["breakthrough_step"], row["tokens_to_target"]) == (2, history["tokens"].iloc[0])


def test_progress_and_size_say_which_phase_a_run_is(inserted):
    planned, store = inserted
    chain = planned.cells.set_index("condition").loc["middle", "chain"]
    assert [planned.labels[run] for run in chain] == [
        "seed 1000 phase 2: up to step 4",
        "seed 1000 phase 1: dyck at step 4, optimiser carried",
        "seed 1000 phase 2: middle",
        "seed 1000 phase 3: middle",
    ]
    work = work_of(planned.configs[chain[2]])
    assert [work.done(step) for step in (0, 4, 6, 8)] == [0, 0, 2, 4]
    said = describe_size(plan(planned.sweep), RunStore(store.path / "none")).splitlines()
    assert said[0].startswith("tiny: 1 replicates, 2 runs of phase 1, 7 of phase 2 and 6 of phase 3; 0 of them")
    assert said[2] == "To do in phase 2: 7 runs, at most 36 steps."


def test_a_sweep_goes_on_in_the_middle_of_an_inserted_phase(inserted, tmp_path, monkeypatch):
    planned, store = inserted
    sweep = dataclasses.replace(planned.sweep, conditions=CONDITIONS[1:2])
    steps: list[tuple[str, int]] = []
    other = RunStore(tmp_path)

    def interrupted(configs, store, *, workers, on_event=None, may_start=None, whole=()):
        for config in configs.values():
            execute(
                config,
                store,
                on_step=lambda state, train, name=config.task.name: steps.append((name, state.step)),
                should_stop=lambda: steps[-1:] == [("dyck", 2)] and steps.count(("dyck", 2)) == 1,
            )
        return {}

    monkeypatch.setattr("procpre_interp.engine.engines.execute_all", interrupted)
    with pytest.raises(Interrupted):
        run_sweep(sweep, other)
    assert steps[-1] == ("dyck", 2)
    again, _ = run_sweep(sweep, other)
    assert steps.count(("dyck", 2)) == steps.count(("dyck", 3)) == 1
    for run in again.configs:
        assert torch.equal(load_model(other.open(run)).flat, load_model(store.open(run)).flat)


def test_a_sweep_without_chains_is_planned_as_ever():
    planned = plan(tiny(conditions=(Condition(name="all", sources=ALL),)))
    assert {"chain", "phase2_run"}.isdisjoint(planned.cells)
    assert planned.labels == {
        run: f"seed 1000 {'phase 1: dyck' if not condition else f'phase 2: {condition}'}"
        for run, condition in zip(planned.configs, ["no pretraining", "", "all"])
    }


def test_a_grid_of_insertions():
    grid = Grid(
        phase1=("dyck",), insert=(None, *(Insertion(at=at, optimiser="fresh") for at in (0.0, 0.25, 0.5, 0.75)))
    )
    planned = plan(tiny(grids=(grid,)))
    stops = [config.train.stop_after for config in planned.configs.values() if config.train.stop_after]
    assert sorted(stops) == [2, 4, 6]
    assert "dyck all at=0.25, optimiser=fresh" in set(planned.cells["condition"])
    assert not any(config.train.keep_optimiser for config in planned.configs.values())


def test_embeddings_and_positions_as_asked():
    def rest(**fields):
        sweep = tiny(conditions=(Condition(name="a", sources=ALL, insert=Insertion(at=0.5, **fields)),))
        planned = plan(sweep)
        _, phase1, run = (planned.configs[run] for run in planned.cells.set_index("condition").loc["a", "chain"])
        return phase1.transfer, run.transfer

    first, then = rest()
    assert (first.token_embedding, first.positions) == ("fresh", "carry")
    assert (then.token_embedding, then.unembedding, then.positions_parent) == ("retain", "retain", 1)
    first, then = rest(positions="own", embeddings="fresh")
    assert (first.token_embedding, first.positions) == ("fresh", "fresh")
    assert (then.token_embedding, then.unembedding, then.positions, then.giver_of_positions) == (
        *("fresh", "fresh", "carry", 0),
    )


def test_a_phase_after_another_takes_over_what_fits():
    sorting = Phase(task=TASKS.build("sorting"), train=TRAIN, optimiser="carried")
    planned = plan(tiny(conditions=(Condition(name="other", then=(FINE_TUNING, sorting)),), then=(FINE_TUNING,)))
    chains = planned.cells.set_index("condition")["chain"]
    phase2, third, fourth = (planned.configs[run] for run in chains["other"])
    assert chains["none"] == chains["other"][:2]
    assert third.transfer == TransferConfig(token_embedding="retain", unembedding="retain")
    assert fourth.transfer == TransferConfig(token_embedding="fresh", unembedding="fresh")
    assert [run.model.n_ctx for run in (phase2, third, fourth)] == [64, 64, 64]
    assert [run.train.keep_optimiser for run in (phase2, third, fourth)] == [False, True, False]


def test_a_sweep_with_phases_is_yaml_and_back_and_can_be_stacked():
    sweep = tiny(conditions=CONDITIONS, then=(FINE_TUNING,))
    assert from_yaml(Sweep, to_yaml(sweep)) == sweep
    stacked = stacked_sweep(dataclasses.replace(sweep, conditions=(Condition(name="a", then=(FINE_TUNING,)),)))
    for phases in (stacked.then, stacked.conditions[0].then):
        assert phases is not None
        assert [phase.train.kernel for phase in phases] == ["stacked"]
    assert [phase.train.steps for phase in shortened(sweep).then] == [20]


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ({"insert": {"at": 1.1}}, "insert at=1.1, which is 110 % of phase 2; it is a share"),
        ({"insert": {"at": 1}}, "insert at=1, which is 100 % of phase 2"),
        ({"insert": {"at": 0.01}}, "insert at=0.01 of 8 steps is step 0; both parts"),
        ({"insert": {"at": 0.5}, "transfer": {"positions": "fresh"}}, "condition 'a': its insert says what happens"),
        (
            {"insert": {"at": 0.5}, "sources": [{"phase1": "dyck", "step": 2}]},
            "condition 'a': an optimiser's state belongs to final weights",
        ),
        (
            {"insert": {"at": 0.5}, "sources": [{"phase1": "wide"}]},
            "condition 'a': pretraining 'wide' has d_model=16 and phase 2 d_model=8",
        ),
        (
            {"insert": {"at": 0.5}, "sources": [{"phase1": "long"}]},
            "condition 'a': pretraining 'long' needs a context of 128 tokens, and phase 2, whose model it has, 64",
        ),
        ({"then": [{"task": {"name": "haystack"}}]}, "missing train"),
        ({"then": [{"name": "again"}]}, "unknown field of Phase 'name'"),
    ],
)
def test_a_mistake_is_one_line(condition, text):
    fields = to_dict(tiny())
    wide = dataclasses.replace(DYCK, name="wide", model=dataclasses.replace(DYCK.model, d_model=16))
    long = dataclasses.replace(DYCK, name="long", task=TASKS.build("dyck", k=2, length=128))
    fields["phase1"] = to_dict([DYCK, wide, long])
    with pytest.raises(ValueError, match=text):
        from_dict(Sweep, {**fields, "conditions": [{"name": "a", **condition}]})


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Condition(name="a", insert=Insertion(at=0.5), interventions=(Rewind(selector="attn", steps=(3,)),)), "rewind"),
        (
            Condition(name="a", then=(Phase(task=TASKS.build("dyck", k=2, length=128), train=TRAIN),)),
            "sequences of 128 tokens are longer than the context n_ctx=64",
        ),
    ],
)
def test_a_chain_that_cannot_be_is_a_failed_cell_and_no_more(condition, text):
    cells = plan(tiny(conditions=(condition,))).cells.set_index("condition")
    assert text in cells.loc["a", "problem"]
    assert cells.loc["none", "run"]


class Held(Scaled):
    """Initial weights that are scaled, and then do not move."""

    def rate(self, step: int) -> tuple[float, float]:
        return 0.0, 1.0


def test_an_intervention_that_no_part_of_phase_2_would_have_whole_is_refused():
    held = (Held(factor=2.0),)
    with pytest.raises(ValueError, match="condition 'a': scaled changes initial weights and acts in training"):
        tiny(conditions=(Condition(name="a", insert=Insertion(at=0.5), interventions=held),))
    tiny(conditions=(Condition(name="a", insert=Insertion(at=0.0), interventions=held),))


def test_embeddings_of_another_vocabulary_are_not_retained(tmp_path, runs_here):
    after = Phase(task=TASKS.build("sorting"), train=TRAIN, transfer=TransferConfig(token_embedding="retain"))
    planned, problems = run_sweep(tiny(phase1=(), then=(after,)), RunStore(tmp_path))
    (row,) = results(planned, RunStore(tmp_path), problems).to_dict("records")
    assert "retain keeps every embedding, but the parent has 256 token ids" in row["problem"]


def test_damage_done_to_an_inserted_phase():
    noisy = (Source(phase1="dyck", ablation=Noise(noise_std=1.0)),)
    planned = plan(tiny(conditions=(Condition(name="a", sources=noisy, insert=Insertion(at=0.5, optimiser="fresh")),)))
    rest = planned.configs[planned.cells.set_index("condition").loc["a", "run"]]
    assert [parent.ablation for parent in rest.parents] == [None, Noise(noise_std=1.0)]


def test_the_report_has_every_phase(inserted, tmp_path, capsys, monkeypatch):
    planned, store = inserted
    file = tmp_path / "tiny.yaml"
    file.write_text(to_yaml(planned.sweep))
    assert main(["sweep", str(file), "--out", str(store.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "phase 2 with phase 1 in the middle counts as one" in said
    assert "Phase 3: haystack, 2 steps of batch 4" in said
    found = load_results(store, planned.table_name)
    shown = conditions_table(found.summary, found.about).set_index("Condition")
    middle = found.table.set_index("condition").loc["middle"]
    assert shown.loc["middle", "After phase 2, %"] == f"{100 * middle['phase2_accuracy']:.1f}"
    assert shown.loc["middle", "Million tokens, all phases"] == f"{middle['total_tokens'] / 1e6:,.3g}"
    assert (store.path / "tiny.html").is_file()


def test_curves_of_a_phase_in_parts_are_whole(inserted):
    planned, store = inserted
    table = results(plan(dataclasses.replace(planned.sweep, then=())), store)
    histories, problems = load_histories(store, table)
    assert not problems
    seen = histories.query("split == 'validation'").groupby("condition")["step"].agg(list)
    assert seen["middle"] == seen["none"] == [0, 2, 4, 6, 8]
    curve = mean_curve(histories).query("condition == 'interrupted'")
    assert curve["mean"].tolist() == mean_curve(histories).query("condition == 'none'")["mean"].tolist()
    rows = histories.query("split == 'validation' and step >= 4").set_index(["condition", "step"])
    rest = store.open(table.set_index("condition").loc["middle", "run"]).history().query("split == 'validation'")
    assert rows.loc[("middle", 4), "loss_nats"] == rest["loss_nats"].iloc[0]  # after the insertion, not before
    assert rows.loc[("interrupted", 8), "tokens"] == rows.loc[("none", 8), "tokens"]


def test_a_training_goes_on_from_the_command_line(inserted, capsys):
    planned, store = inserted
    run = planned.cells.set_index("condition").loc["interrupted", "phase2_run"]
    config = store.path / "runs" / run / "config.yaml"
    assert main(["transfer", "--config", str(config), "--store", str(store.path)]) == 0
    said = capsys.readouterr().out
    assert f"run {run} " in said
    assert "finished after 4 steps from step 4 on" in said
    arguments = ["transfer", "--config", str(config), "--store", str(store.path), "--optimiser", "fresh"]
    assert main(arguments) == 0
    fresh = planned.cells.set_index("condition").loc["reset", "phase2_run"]
    assert f"run {fresh} " in capsys.readouterr().out
    assert main([*arguments, "--train.start-at", "3"]) == 2
    assert "start_at=3, but run" in capsys.readouterr().err


@pytest.fixture
def corpora(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    found = []
    for name, text in (
        ("numbers", "Document {} has its number in it: {}."),
        ("squares", "The square of {} is not {}."),
    ):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": text.format(i, i)}) + "\n" for i in range(200)))
        found.append(f"files:{path}")
    return found


def test_text_goes_on_where_it_stopped_and_is_followed_by_another_corpus(corpora, tmp_path, runs_here):
    one, other = (TASKS.build("text", corpus=corpus, length=16) for corpus in corpora)
    shape = dataclasses.replace(SHAPE, n_ctx=None)
    sweep = tiny(
        phase1=(Pretraining(name="sort", task=TASKS.build("sort", vocab=20, length=6), model=shape, train=DYCK.train),),
        model=shape,
        task=one,
        conditions=(
            Condition(name="interrupted", insert=Insertion(at=0.5)),
            Condition(name="sort", sources=(Source(phase1="sort"),), insert=Insertion(at=0.5)),
        ),
        then=(Phase(task=other, train=dataclasses.replace(TRAIN, steps=2), optimiser="carried"),),
    )
    store = RunStore(tmp_path / "store")
    planned, problems = run_sweep(sweep, store)
    assert not problems
    table = results(planned, store).set_index("condition")
    first, second = (load_model(store.open(table.loc[name, "run"])) for name in ("none", "interrupted"))
    assert torch.equal(first.flat, second.flat)
    # The windows of both parts are those of one walk through the text.
    halves = [store.open(run).summary["epochs"] for run in table.loc["interrupted", "chain"][:2]]
    assert sum(halves) == pytest.approx(store.open(table.loc["none", "phase2_run"]).summary["epochs"])
    after = planned.configs[table.loc["sort", "run"]]
    assert (after.transfer.token_embedding, after.optimiser, after.model.n_ctx) == ("retain", "carried", 16)
    assert table["phase2_loss_nats"].notna().all()


@pytest.mark.parametrize(("tokenizer", "same"), [("byte", True), ("bpe:270", False), ("characters", True)])
def test_ids_of_two_corpora_stand_for_the_same_where_their_tokenizer_is_one(corpora, tokenizer, same):
    one, other = (TASKS.build("text", corpus=corpus, tokenizer=tokenizer, length=16) for corpus in corpora)
    assert same_vocabulary(one, other) is same
    noisy = TASKS.build("noisy", task=one, share=0.1)
    assert same_vocabulary(one, noisy)
    assert same_vocabulary(noisy, other) is same


def test_ids_of_other_tasks_stand_for_the_same_where_their_names_are():
    short, sort = TASKS.build("haystack"), TASKS.build("sort")
    assert same_vocabulary(short, TASKS.build("haystack", max_pairs=4))
    assert same_vocabulary(sort, TASKS.build("reverse"))
    assert not same_vocabulary(short, sort)


def test_ids_of_mixtures_stand_for_the_same_where_those_of_their_parts_do():
    """A mixture names no token, so that any two of one size had passed for alike."""
    dyck, sort, reverse = (TASKS.build(name) for name in ("dyck", "sort", "reverse"))
    one = TASKS.build("mixture", tasks=(dyck, sort))
    assert same_vocabulary(one, TASKS.build("mixture", tasks=(dyck, reverse)))
    swapped = TASKS.build("mixture", tasks=(sort, dyck))
    assert swapped.d_vocab == one.d_vocab
    assert not same_vocabulary(one, swapped)
    assert not same_vocabulary(TASKS.build("noisy", task=one, share=0.1), swapped)


def test_the_list_of_runs_says_from_where_one_goes_on(inserted, capsys, monkeypatch):
    planned, store = inserted
    run = planned.cells.set_index("condition").loc["middle", "phase2_run"]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["runs", "--store", str(store.path), "--where", "start_at=4"]) == 0
    said = capsys.readouterr().out
    assert run in said
    assert "start_at" in said
    assert said.count("haystack") == len(store.query(start_at=4)) >= 4


def test_chains_can_be_diagnosed_and_have_a_model_card(inserted):
    planned, store = inserted
    chain = [store.open(run) for run in planned.cells.set_index("condition").loc["middle", "chain"]]
    assert {finding.run for finding in diagnose_all(chain, store)} == {run.id for run in chain}
    found = at_stage(chain[-1], store, "finished")
    card = model_card(found, found.model(store), store)
    assert all(run.id in card for run in chain)
    assert f"all of {chain[0].id}; all of {chain[1].id}, with the optimiser's state" in card
    assert "4 from step 4 on" in card


def test_a_run_being_written_is_as_far_as_its_own_steps():
    writing = Writing("a", "haystack", saved=6, steps=8, seconds=1.0, first=4)
    assert (writing.share, writing.seconds_left) == (0.5, 1.0)
    assert Writing("a", "haystack", saved=0, steps=8, first=4).share == 0


def test_a_window_may_be_in_either_part_of_phase_2(tmp_path, runs_here):
    """It is one of the whole training: that nothing happens in one part of it is no mistake."""
    windows = (Rate(selector="ln", learning_rate_factor=0.5, from_step=6), Rate(selector="mlp", to_step=2))
    late = Condition(name="late", sources=ALL, insert=Insertion(at=0.5, optimiser="fresh"), interventions=windows)
    planned, problems = run_sweep(tiny(conditions=(late,)), RunStore(tmp_path))
    assert not problems
    assert not planned.cells["problem"].any()
    too_late = dataclasses.replace(late, interventions=(Rate(selector="ln", from_step=8),))
    _, problems = run_sweep(tiny(conditions=(too_late,)), RunStore(tmp_path))
    assert any("from_step=8; the run has only 8 steps" in problem for problem in problems.values())


def test_a_checkpoint_of_step_0_has_no_optimiser_either():
    with pytest.raises(ValueError, match="no ablation and no step"):
        Condition(name="a", sources=(Source(phase1="dyck", step=0),), insert=Insertion(at=0.5, optimiser="carried"))
