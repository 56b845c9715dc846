"""Replicates until a claim is decided: which seeds and conditions are computed, what is looked at, and what is kept."""

import dataclasses
import json
import re
from collections.abc import Callable
from functools import partial

import pandas as pd
import pytest

from procpre_interp.claims.claim import Claim, Contrast, Verdict
from procpre_interp.claims.claim_json import claim_from_json, claim_to_json
from procpre_interp.claims.contrast_text import why
from procpre_interp.claims.fairness import CONTROLS
from procpre_interp.claims.files import claim_scripts, find_claims, write_claim
from procpre_interp.claims.judge import judge
from procpre_interp.claims.looks import LOOK, past, sequence_of, with_looks
from procpre_interp.claims.text import describe_claim
from procpre_interp.cli import main
from procpre_interp.core.terminal import beside_package
from procpre_interp.data import TASKS
from procpre_interp.engine.engines import Processes, Serial
from procpre_interp.pipeline.config import Architecture
from procpre_interp.stats.resampling import IntervalMethod
from procpre_interp.store.store import Run, RunStore
from procpre_interp.study.claim_figures import gains_figure
from procpre_interp.study.experiment import Experiment, Options, compute, run, run_all, run_until_decided
from procpre_interp.study.observation import Observation, remembered
from procpre_interp.study.scripts import load_script
from procpre_interp.study.until_decided import Computed, Needs, looks_at, of_primary, with_counts
from procpre_interp.sweep.config import Condition, Pretraining, Source, Sweep
from procpre_interp.sweep.fair_arms import Arm, Kind
from procpre_interp.sweep.maps import Map
from procpre_interp.sweep.plan import plan, say_nothing
from procpre_interp.train import Interrupted, TrainConfig
from procpre_interp.views.exhibits.claims import contrasts
from tests.judged import CLAIM_FIELDS, MANY, NAN
from tests.judged import gains_table as table

FIRST = 3000
TRAIN = TrainConfig(steps=2, batch_size=4, warmup_steps=1, evaluate_every=2, evaluate_examples=8)
PRIMARY = Contrast(name="full over none", weights={"full": 1, "none": -1}, predicted="above", margin=0.2)
SOON = Contrast(name="soon over none", weights={"soon": 1, "none": -1}, predicted="above", margin=-0.5)
OPEN = Contrast(name="open over none", weights={"open": 1, "none": -1}, predicted="above", margin=0.2)
SHOWN = Contrast(name="shown over none", weights={"shown": 1, "none": -1})
CLAIM = Claim(**{**CLAIM_FIELDS, "name": "small"}, primary=PRIMARY, secondary=(SOON, OPEN, SHOWN))


def small_sweep(*names: str, **fields) -> Sweep:
    """Conditions that differ in their learning rate alone, and take no time."""
    conditions = [
        Condition(name=name, train=dataclasses.replace(TRAIN, learning_rate=0.01 * (i + 1)), replicates=2)
        for i, name in enumerate(names)
    ]
    shape = Architecture(n_layers=1, n_heads=2, d_model=8)
    task = TASKS.build("sort", length=3, vocab=8)
    options = {"replicates": 3, "first_seed": FIRST} | fields
    return Sweep(name="small", task=task, model=shape, train=TRAIN, conditions=tuple(conditions), **options)


CLAIM_OF_PAIR = Claim(**CLAIM_FIELDS, primary=dataclasses.replace(PRIMARY, name="gain", weights={"a": 1, "none": -1}))
SWEEP = small_sweep("full", "soon", "open", "shown")
Accuracy = Callable[[str, int], float | None]


def outcome(gain: float) -> Accuracy:
    """Gains over none: of full as given, of soon always, of open as often as not."""
    of = {"none": 0.0, "full": gain, "soon": 0.5, "shown": 0.3}
    return lambda condition, index: 0.1 + (0.4 * (index % 2) if condition == "open" else of[condition])


@dataclasses.dataclass
class Fake:
    """Computes sweeps without training: accuracies by condition and replicate; None for a run that is not there."""

    accuracy: Accuracy
    sweeps: list[Sweep] = dataclasses.field(default_factory=list)

    def __call__(self, sweep: Sweep) -> Computed:
        self.sweeps.append(sweep)
        planned = plan(sweep)
        rows = []
        for cell in planned.cells.to_dict("records"):
            accuracy = self.accuracy(cell["condition"], cell["replicate"] - FIRST)
            status = "diverged" if accuracy == -1 else "finished"
            if accuracy is not None:
                rows.append({**cell, "status": status, "accuracy": accuracy, "breakthrough_step": NAN, "limit": 100})
        return Computed(planned=planned, cells=planned.cells, table=pd.DataFrame(rows))

    @property
    def counts(self) -> dict[str, int]:
        """Replicates of each condition in the last sweep."""
        return self.sweeps[-1] and plan(self.sweeps[-1]).cells.groupby("condition").size().to_dict()


def look(fake: Fake, **options) -> list:
    return list(looks_at(CLAIM, SWEEP, fake, **options))


def test_seeds_are_added_until_the_primary_contrast_is_decided():
    fake = Fake(outcome(0.84))
    found = look(fake)
    assert [each.n for each in found] == list(range(1, 11))
    assert [each.contrasts[0].verdict for each in found] == ["undecided"] * 9 + ["supported"]
    assert [sweep.replicates for sweep in fake.sweeps] == [6, 7, 8, 9, 10]
    assert {sweep.first_seed for sweep in fake.sweeps} == {FIRST}
    assert found[-1].contrasts == judge_all(found[-1].computed)
    # Decided with six, so that its condition was in no later round; the open one went on; the other is as planned.
    assert fake.counts == {"none": 10, "full": 10, "soon": 6, "open": 10, "shown": 2}
    assert [row.verdict for row in found[-1].contrasts[1:]] == ["supported", "undecided", None]


def test_looks_end_where_a_finished_run_has_no_number():
    """It is none of those that failed: without it the others would be chosen by what came out."""
    of = outcome(0.84)
    found = look(Fake(lambda condition, index: NAN if (condition, index) == ("full", 2) else of(condition, index)))
    assert [each.n for each in found] == [1, 2, 3]
    assert found[-1].contrasts[0].missing == "2 of 3 planned replicates are complete"
    # One that only a secondary contrast needs does not stop the others.
    found = look(Fake(lambda condition, index: NAN if (condition, index) == ("open", 2) else of(condition, index)))
    assert found[-1].contrasts[0].verdict == "supported"


def judge_all(computed: Computed):
    return judge(CLAIM, computed.table, planned=computed.cells).contrasts


@pytest.mark.parametrize(("premise", "verdict"), [(0.95, "supported"), (0.5, "undecided"), (0.05, "refuted")])
def test_a_claim_is_decided_where_its_premise_holds(premise: float, verdict: str):
    """Without it replicates are added as ever, and where it is refuted no more of them."""
    granted = dataclasses.replace(SHOWN, predicted="above")
    claim = dataclasses.replace(CLAIM, secondary=(granted,), premise=granted.name)
    fake = Fake(lambda condition, index: {"none": 0.5, "full": 0.95, "shown": premise}[condition])
    looks = list(looks_at(claim, small_sweep("full", "shown"), fake, most_replicates=30))
    primary, found = looks[-1].contrasts
    assert (found.contrast, found.verdict) == (granted.name, verdict)
    if verdict == "supported":
        assert primary.verdict == "supported"
    else:
        assert primary.verdict == "undecided"
        assert (looks[-1].n == 30) == (verdict == "undecided")
    if verdict == "undecided":  # its interval alone would support it
        assert primary.low > primary.margin
        assert why(primary) == primary.reason == "its premise, shown over none, is undecided"


def test_a_premise_is_a_secondary_contrast_that_predicts():
    for name in (SHOWN.name, PRIMARY.name, "another"):
        with pytest.raises(ValueError, match=f"premise='{name}' is no secondary contrast that predicts"):
            dataclasses.replace(CLAIM, premise=name)


def test_the_limit_leaves_it_undecided():
    fake = Fake(outcome(0.25))
    found = look(fake, most_replicates=9)
    assert (len(found), found[-1].contrasts[0].verdict) == (9, "undecided")
    assert fake.counts["full"] == 9
    assert [each.n for each in look(Fake(outcome(0.84)), most_replicates=4)] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="most_replicates=0; there must be at least 1"):
        look(fake, most_replicates=0)


def test_a_round_of_several_workers_is_looked_at_seed_by_seed():
    fake = Fake(outcome(0.84))
    found = look(fake, workers=3)
    assert [sweep.replicates for sweep in fake.sweeps] == [6, 9, 12]
    assert (found[-1].n, set(found[-1].computed.table["replicate"])) == (10, set(range(FIRST, FIRST + 10)))
    assert max(len(look(Fake(outcome(0.84)), workers=workers)) for workers in (1, 64)) == 10


def test_only_the_primary_contrast_may_have_more_replicates_than_planned():
    fake = Fake(outcome(0.84))
    look(fake, primary_only=True)
    assert fake.counts == {"none": 10, "full": 10, "soon": 2, "open": 2, "shown": 2}


def test_of_a_sweep_only_what_decides_is_left():
    assert [each.name for each in of_primary(CLAIM, SWEEP).of_replicate(FIRST)] == ["none", "full"]
    with_premise = dataclasses.replace(CLAIM, premise=SOON.name)
    assert [each.name for each in of_primary(with_premise, SWEEP).conditions] == ["full", "soon"]
    observation = Observation(needs=("open",), conditions={"before": "before"}, measure=lambda runs, store: {})
    of_before = dataclasses.replace(CLAIM, primary=dataclasses.replace(PRIMARY, measure="grip", weights={"before": 1}))
    assert [each.name for each in of_primary(of_before, SWEEP, observation).conditions] == ["open"]
    mapped = dataclasses.replace(
        SWEEP,
        phase1=(Pretraining(name="dyck", task=TASKS.build("dyck", k=2, length=4), model=SWEEP.model, train=TRAIN),),
        maps=(Map(phase1="dyck", grain="component"),),
    )
    assert of_primary(CLAIM, mapped) == mapped


def test_only_what_decides_is_trained(tmp_path):
    experiment = Experiment(claim=CLAIM, sweep=SWEEP, figure=gains_figure, protocol="tiny")
    table, judged = run_until_decided(
        experiment, RunStore(tmp_path), engine=Serial(), most_replicates=2, primary_only=True
    )
    assert table.groupby("condition").size().to_dict() == {"none": 2, "full": 2}
    assert [row.n for row in judged.contrasts] == [2, 0, 0, 0]


def test_no_pretraining_is_not_trained_where_nothing_that_decides_needs_it(tmp_path):
    """Though it may be the dearest of all, as where it never breaks through."""
    pair = dataclasses.replace(PRIMARY, weights={"full": 1, "open": -1})
    experiment = Experiment(
        claim=dataclasses.replace(CLAIM, primary=pair), sweep=SWEEP, figure=gains_figure, protocol="tiny"
    )
    table, judged = run_until_decided(
        experiment, RunStore(tmp_path), engine=Serial(), most_replicates=2, primary_only=True
    )
    assert table.groupby("condition").size().to_dict() == {"full": 2, "open": 2}
    assert [row.n for row in judged.contrasts] == [2, 0, 0, 0]
    options = Options(out=tmp_path, until_decided=True, most_replicates=2, primary_only=True, engine="serial")
    assert run_all([experiment], options) == 0
    assert "No figure yet: no finished run of none, shown, soon." in (tmp_path / "claim-small.html").read_text("utf-8")


def test_no_pretraining_stays_where_the_page_shows_gains_over_it(tmp_path):
    pair = dataclasses.replace(PRIMARY, weights={"full": 1, "open": -1})
    shown = dataclasses.replace(CLAIM, primary=pair, page="can_anything_cheaper")
    experiment = Experiment(claim=shown, sweep=SWEEP, figure=gains_figure, protocol="tiny")
    table, _ = run_until_decided(experiment, RunStore(tmp_path), engine=Serial(), most_replicates=2, primary_only=True)
    assert set(table["condition"]) == {"none", "full", "open"}
    # On the page of all claims it is not missed.
    store = RunStore(tmp_path / "other")
    of_pair = dataclasses.replace(experiment, claim=dataclasses.replace(CLAIM, primary=pair))
    table, judged = run_until_decided(of_pair, store, engine=Serial(), most_replicates=2, primary_only=True)
    write_claim(store, judged, table)
    known, _ = find_claims(store, None)
    assert contrasts(known["small"]).table["contrast"].tolist()[0] == pair.name
    assert describe_claim(known["small"]).startswith("small: UNDECIDED.")


def test_looks_end_where_a_seed_is_not_complete():
    """As when the time is up: what comes after it does not count, though it may be there."""
    whole = outcome(0.84)
    fake = Fake(lambda condition, index: None if (condition, index) == ("full", 6) else whole(condition, index))
    assert [each.n for each in look(fake, workers=4)] == [1, 2, 3, 4, 5, 6]
    assert look(Fake(lambda condition, index: None if condition == "full" else 0.1)) == []


def test_a_run_that_diverged_ends_it_and_is_named():
    whole = outcome(0.84)
    found = look(Fake(lambda condition, index: -1 if (condition, index) == ("full", 3) else whole(condition, index)))
    assert [each.n for each in found] == [1, 2, 3, 4]
    assert found[-1].contrasts[0].reason == "3 of 4 planned replicates are complete (1 runs diverged)"


def test_what_is_measured_needs_the_runs_that_it_is_measured_on():
    observation = Observation(needs=("none", "full"), conditions={"before": "before"}, measure=lambda runs, store: {})
    needs = Needs(sweep=SWEEP, observation=observation)
    assert needs.of(PRIMARY) == {"full", "none"}
    assert needs.of(dataclasses.replace(OPEN, measure="grip")) == {"open", "none", "full"}
    assert needs.of(Contrast(name="x", weights={"before": 1})) == {"none", "full"}
    assert needs.of(dataclasses.replace(OPEN, measure="restricted_time_steps")) == {"open", "none"}


def test_what_is_measured_by_parts_needs_the_runs_of_its_own_alone():
    parts = {"open": ("open", "none"), "soon": ("soon", "none")}
    observation = Observation(
        needs=("none", "open", "soon"), conditions={}, measure=lambda runs, store: {}, parts=parts, reads_models=False
    )
    needs = Needs(sweep=SWEEP, observation=observation)
    assert needs.of(Contrast(name="x", weights={"open": 1}, measure="grip")) == {"open", "none"}
    assert needs.of(Contrast(name="x", weights={"full": 1}, measure="grip")) == {"full", "none", "open", "soon"}
    assert observation.can_measure(["none", "soon"])
    assert not observation.can_measure(["none", "full"])
    of_open = dataclasses.replace(CLAIM, primary=dataclasses.replace(PRIMARY, measure="grip", weights={"open": 1}))
    assert [each.name for each in of_primary(of_open, SWEEP, observation).conditions] == ["open"]


def test_a_transfer_on_text_needs_its_controls_and_the_fresh_arm_of_its_text():
    kinds = {"none": Kind.FRESH, "fresh code": Kind.FRESH, "full": Kind.TRANSFER, "soon": Kind.SCALES}
    arms = tuple(
        Arm(
            condition=Condition(name=name),
            kind=kind,
            fresh="fresh code" if name == "open" else "none",
            control_of="full" if kind == Kind.SCALES else "",
        )
        for name, kind in (kinds | {"open": Kind.TRANSFER}).items()
    )
    needs = Needs(sweep=SWEEP, arms=arms)
    assert needs.of(Contrast(name="x", weights={"full": 1})) == {"full", "soon", "none"}
    assert needs.of(Contrast(name="x", weights={"soon": 1})) == {"full", "soon", "none"}
    assert needs.of(Contrast(name="x", weights={"open": 1})) == {"open"}  # the other is no condition of this sweep
    assert needs.of(Contrast(name="x", weights={"none": 1})) == {"none"}


def test_runs_are_measured_once(tmp_path):
    calls = []
    observation = remembered(
        Observation(needs=("a",), conditions={}, measure=lambda runs, store: calls.append(1) or {"a": {"grip": 1.0}})
    )

    for run_id in ("x", "y", "x"):
        nothing = {"config": {}, "summary": {}, "environment": {}, "manifest": {}}
        measured = Run(id=run_id, folder=tmp_path, verified=True, **nothing)
        assert observation.measure({"a": measured}, RunStore(tmp_path)) == {"a": {"grip": 1.0}}
    assert len(calls) == 2


def test_numbers_of_replicates_change_no_run():
    """The baseline may be one that the sweep does not list."""
    counted = with_counts(SWEEP, {"none": 3, "full": 3, "soon": 1, "open": 2, "shown": 0})
    assert plan(counted).cells.groupby("condition").size().to_dict() == {"none": 3, "full": 3, "soon": 1, "open": 2}
    runs = plan(counted).cells.set_index(["condition", "replicate"])["run"]
    as_planned = plan(SWEEP).cells.set_index(["condition", "replicate"])["run"]
    both = runs.index.intersection(as_planned.index)
    assert len(both) == 8
    assert runs[both].equals(as_planned[both])


def test_looks_keep_their_time_and_are_taken_once():
    judged = judge(CLAIM_OF_PAIR, table(0.5 + MANY))
    looks = with_looks(pd.DataFrame(), judged.contrasts, "monday")
    assert looks[["contrast", "n", "verdict", "time"]].values.tolist() == [["gain", 40, "supported", "monday"]]
    stored = claim_from_json(json.loads(json.dumps(claim_to_json(dataclasses.replace(judged, looks=looks)))))
    again = with_looks(stored.looks, judged.contrasts, "tuesday")
    assert again["time"].tolist() == ["monday"]
    other = with_looks(again, judge(CLAIM_OF_PAIR, table(0.4 + MANY)).contrasts, "wednesday")
    assert other["time"].tolist() == ["monday", "wednesday"]
    assert list(other) == [*LOOK, "time"]


def test_a_sequence_ends_with_the_interval_of_its_contrast():
    cells = table([0.84] * 9 + [0.0] * 3)
    row = judge(CLAIM_OF_PAIR, cells).primary
    steps = sequence_of(row, cells)
    assert steps["n"].tolist() == list(range(1, 13))
    assert steps["replicate"].tolist() == list(range(1000, 1012))
    assert tuple(steps.iloc[-1][["estimate", "low", "high"]]) == pytest.approx((row.estimate, row.low, row.high))
    assert sequence_of(dataclasses.replace(row, interval=IntervalMethod.BOOTSTRAP), cells).empty


def test_a_verdict_of_another_rule_or_protocol_is_kept(tmp_path):
    cells = table(0.5 + MANY, run="r", phase1_run="p")
    judged = dataclasses.replace(judge(CLAIM_OF_PAIR, cells), protocol="cheap")
    old = dataclasses.replace(judged, rule_version=1, verdict=Verdict.UNDECIDED)
    store = RunStore(tmp_path)
    write_claim(store, old, cells)
    (found,) = find_claims(store, None)[0].values()
    assert (found.rule_version, found.looks.empty, found.earlier) == (1, True, ())
    (earlier,) = past(found, "cheap", 1).earlier
    assert (earlier.rule_version, earlier.verdict, earlier.n, earlier.interval) == (1, "undecided", 40, "bootstrap")
    looks = with_looks(pd.DataFrame(), judged.contrasts, "monday")
    write_claim(store, dataclasses.replace(judged, looks=looks, earlier=(earlier,)), cells)
    (found,) = find_claims(store, None)[0].values()
    same = past(found, "cheap", 1)
    assert (same.earlier, same.looks["time"].tolist()) == ((earlier,), ["monday"])
    assert [each.protocol for each in past(found, "paper", 1).earlier] == ["cheap", "cheap"]
    assert past(found, "paper", 1).looks.empty
    assert past(None, "paper", 1).earlier == ()


@pytest.fixture
def experiment() -> Experiment:
    """Two conditions of two steps: nothing is learnt, so that a gain of 20 points is refuted, or not."""
    claim = Claim(
        **{**CLAIM_FIELDS, "name": "small"},
        primary=dataclasses.replace(PRIMARY, margin=0.45),
        secondary=(dataclasses.replace(SOON, margin=0.6),),
    )
    return Experiment(claim=claim, sweep=small_sweep("full", "soon"), figure=gains_figure, protocol="tiny")


def test_a_claim_is_decided_by_real_runs_after_an_interruption(experiment, tmp_path, runs_here, capsys):
    store = RunStore(tmp_path / "runs")
    started = []

    def show(planned):
        started.append(planned.sweep.replicates)
        if len(started) == 2:
            raise Interrupted
        return say_nothing(planned)

    with pytest.raises(Interrupted):
        run_until_decided(experiment, store, engine=Processes(), show=show)
    half = find_claims(store, None)[0]["small"]
    assert half.verdict == "undecided"
    assert half.looks.groupby("contrast").size().to_dict() == {"full over none": 6, "soon over none": 6}
    options = Options(out=store.path, workers=1, until_decided=True, results=tmp_path / "results")
    assert run_all([experiment], options) == 0
    printed = capsys.readouterr().out
    assert "REFUTED" in printed
    assert re.search(r"^n = 7: [+-]\d.* \[.*\] points, (undecided|refuted)$", printed, re.MULTILINE)
    assert "n = 6:" not in printed, "it was looked at before"
    claim = find_claims(store, None)[0]["small"]
    n = claim.primary.n
    assert 6 < n < 20
    assert claim.seeds == tuple(range(FIRST, FIRST + n))
    looks = claim.looks.loc[claim.looks["contrast"] == "full over none"]
    assert looks["n"].tolist() == list(range(1, n + 1))
    assert looks["verdict"].tolist() == ["undecided"] * (n - 1) + ["refuted"]
    assert looks["time"].tolist()[:6] == half.looks.loc[half.looks["contrast"] == "full over none", "time"].tolist()
    assert json.loads((tmp_path / "results" / "small.json").read_text())["looks"] == claim_to_json(claim)["looks"]
    report = (store.path / "claim-small.html").read_text()
    assert "betting confidence sequence" in report
    assert "Looks" in report
    # All is there: nothing is run, looked at or decided anew.
    before = len(claim.looks)
    _, again = run_until_decided(experiment, store, engine=Processes())
    assert (len(again.looks), again.verdict, again.primary) == (before, "refuted", claim.primary)
    # Judged at once, or with a smaller limit, it keeps the seeds that decided, and the looks: six would leave it open.
    assert experiment.sweep.replicates < n
    for judge_once in (run, partial(run_until_decided, most_replicates=6)):
        cells, at_once = judge_once(experiment, store, engine=Processes())
        assert (at_once.verdict, at_once.primary.n) == ("refuted", n)
        assert at_once.primary.low == pytest.approx(claim.primary.low)
        assert len(at_once.looks) >= before
        write_claim(store, at_once, cells)


def test_no_time_leaves_what_is_there(experiment, tmp_path, runs_here):
    with pytest.raises(ValueError, match="no run is finished; the same command goes on from here"):
        run_until_decided(experiment, RunStore(tmp_path), engine=Processes(), may_start=lambda: False)


def test_options_that_contradict_one_another_are_refused(tmp_path, capsys):
    """Before anything is computed, by the command and by a script alike; none of them is passed over in silence."""

    def refused(call: str, text: str):
        assert main(["claims", "structure_not_statistics", *call.split(), "--store", str(tmp_path / "store")]) == 2
        printed = capsys.readouterr()
        assert text in printed.err
        assert printed.out == ""

    how = ("--until-decided", "--quick", "--primary-only", "--minutes 1", "--most-replicates 3")
    for option in how:
        refused(option, f"{option.split()[0]} says how runs are added; give --run as well")
    for option in how[2:3] + how[4:]:
        refused(f"--run {option}", f"{option.split()[0]} says how --until-decided adds runs; give that as well")
    refused("--run --quick --until-decided", "leave out --quick or --until-decided")
    refused("--run --until-decided --most-replicates 0", "most_replicates=0; there must be at least 1")
    refused("--run --judge-again", "leave out --judge-again")
    refused("--run --format json", "leave out --format")
    refused(f"--results {tmp_path}", "give one of them as well")
    assert not (tmp_path / "store").exists()
    script = load_script(beside_package("experiments") / "structure_not_statistics.py")
    with pytest.raises(ValueError, match="most_replicates=-5"):
        run_all([script.EXPERIMENT], Options(out=tmp_path / "store", until_decided=True, most_replicates=-5))


def test_a_claim_without_a_verdict_is_no_unknown_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = beside_package("experiments")
    judged = {path.stem for path in (folder / "results" / "claims").glob("*.json")}
    without = sorted(set(claim_scripts(folder)) - judged)
    store = str(tmp_path / "store")
    for name in without:
        assert main(["claims", name, "--store", store]) == 2
        assert f"{name} is not judged yet; `procpre-interp claims {name} --run`" in capsys.readouterr().err
    assert main(["claims", "--store", store]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert ("Not judged yet: " + ", ".join(without) in said) == bool(without)
    assert main(["claims", "no_such_claim", "--store", store]) == 2
    assert "unknown claim 'no_such_claim'" in capsys.readouterr().err


def test_looks_without_bounds_are_taken_once():
    """As those at losses with fewer than six replicates, which have none."""
    losses = dataclasses.replace(PRIMARY, name="loss", weights={"a": 1, "none": -1}, measure="loss_nats")
    claim = Claim(**CLAIM_FIELDS, primary=losses, secondary=(dataclasses.replace(OPEN, measure="grip"),))
    looks = pd.DataFrame()
    cells = table(0.5 + MANY[:8]).assign(loss_nats=lambda rows: rows["accuracy"], grip=NAN)
    cells = pd.concat([cells, cells.loc[cells["condition"] == "a"].assign(condition="open")])
    for time in ("monday", "tuesday"):
        for n in range(1, 9):
            part = cells.loc[cells["replicate"] < 1000 + n]
            looks = with_looks(looks, judge(claim, part).contrasts, time)
        judged = judge(claim, cells)
        stored = claim_from_json(json.loads(json.dumps(claim_to_json(dataclasses.replace(judged, looks=looks)))))
        looks = stored.looks
    assert set(looks["time"]) == {"monday"}
    assert looks.loc[looks["contrast"] == "loss", "n"].tolist() == list(range(1, 9))
    assert looks.loc[looks["contrast"] == "open over none", "n"].tolist() == [0]


def test_cells_that_rank_heads_are_planned_before_they_have_a_run(tmp_path, runs_here):
    """Else a contrast of them would be judged on what is there, as if nothing were missing."""
    parent = Pretraining(name="p", task=SWEEP.task, model=SWEEP.model, train=dataclasses.replace(TRAIN, steps=3))
    ranked = Condition(name="full", sources=(Source(phase1="p", selector="sharpest.1"),))
    sweep = dataclasses.replace(small_sweep(), phase1=(parent,), conditions=(ranked,), replicates=3)
    claim = dataclasses.replace(CLAIM, secondary=())
    ranking = Experiment(claim=claim, sweep=sweep, figure=gains_figure, protocol="tiny")
    starts = iter([True] * 3)
    given = {"engine": Serial(), "may_start": lambda: next(starts, False)}
    computed = compute(ranking, sweep, RunStore(tmp_path / "runs"), show=say_nothing, **given)
    assert computed.planned.deferred > 0
    reason = judge(claim, computed.table, planned=computed.cells).reason
    assert re.fullmatch("[01] of 3 planned replicates are complete", reason)


TWO = {name: arm for t in ("full", "soon") for name, arm in [(t, "transfer"), *((f"{t} {c}", c) for c in CONTROLS)]}


def transfer_of(arm: str) -> str:
    """The transfer that an arm of `TWO` is a control of; empty for the others."""
    return arm.split()[0] if " " in arm else ""


def on_text(missed: str, gain: float = 0.84) -> Callable[[Sweep], Computed]:
    """Computes two transfers on text with all their arms, of which one missed its gate at the third seed."""

    def compute(sweep: Sweep) -> Computed:
        of = {"full": gain, "soon": 0.84}
        rows = Fake(lambda condition, index: 0.1 + of.get(condition, 0.0))(sweep)
        conditions = rows.table["condition"]
        table = rows.table.assign(
            arm=conditions.map({"none": "fresh", **TWO}),
            control_of=conditions.map(transfer_of),
            phase1_learnt=(conditions != missed) | (rows.table["replicate"] != FIRST + 2),
            epochs=1.0,
        )
        return dataclasses.replace(rows, table=table)

    return compute


def looks_on_text(missed: str, **fields) -> list:
    claim = dataclasses.replace(CLAIM, secondary=(dataclasses.replace(SOON, margin=0.2),), **fields)
    sweep = small_sweep(*TWO)
    arms = tuple(
        Arm(condition=each, kind=Kind(TWO[each.name]), fresh="none", control_of=transfer_of(each.name))
        for each in sweep.conditions
    )
    gain = 0.84 if fields else 0.25
    return list(looks_at(claim, sweep, on_text(missed, gain), needs=Needs(sweep=sweep, arms=arms), most_replicates=12))


@pytest.mark.parametrize(("missed", "premise"), [("full", None), ("soon", SOON.name)])
def test_looks_end_where_phase_1_was_not_learnt(missed, premise):
    """On text nothing can be decided then, however many follow: that of the claim, or of its premise."""
    found = looks_on_text(missed, premise=premise)
    assert [each.n for each in found] == [1, 2, 3]
    assert found[-1].contrasts[0].verdict == "undecided"


def test_a_secondary_contrast_that_cannot_be_decided_gets_no_more_runs():
    last = looks_on_text("soon")[-1]
    counts = last.computed.planned.cells.groupby("condition").size()
    assert (last.n, counts["full"], counts["full scales"]) == (12, 12, 12)
    assert (counts["soon"], counts["soon scales"]) == (6, 6)
    assert last.contrasts[1].verdict == "undecided"


def test_a_claim_that_is_declared_anew_keeps_its_verdict_and_begins_its_looks_again(tmp_path):
    cells = table(0.5 + MANY, run="r", phase1_run="p")
    judged = dataclasses.replace(judge(CLAIM_OF_PAIR, cells), protocol="cheap", version=2)
    store = RunStore(tmp_path)
    write_claim(store, dataclasses.replace(judged, looks=with_looks(pd.DataFrame(), judged.contrasts, "monday")), cells)
    (found,) = find_claims(store, None)[0].values()
    assert len(past(found, "cheap", 2).looks) == 1
    anew = past(found, "cheap", 3)
    assert anew.looks.empty
    (earlier,) = anew.earlier
    assert (earlier.version, earlier.verdict, earlier.protocol) == (2, "supported", "cheap")
    write_claim(store, dataclasses.replace(judged, version=3, earlier=anew.earlier), cells)
    assert find_claims(store, None)[0][judged.name].earlier == anew.earlier
