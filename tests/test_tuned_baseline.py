"""The search of a baseline: successive halving by hand, what an option does to a fresh model, and the script whole."""

import dataclasses
import json
import math

import pandas as pd
import pytest

from experiments import search_baseline
from procpre_interp.pipeline.execute import fresh_model
from procpre_interp.stats.successive_halving import Halving, halving_from_plain, successive_halving
from procpre_interp.study.protocols import PROTOCOLS, haystack_sweep
from procpre_interp.study.tuned_baseline import (
    Baseline,
    Rung,
    TunedBaseline,
    grid,
    progress,
    read_baseline,
    write_baseline,
)
from procpre_interp.sweep.plan import plan
from procpre_interp.train.interventions.apply import change_initial_weights


def test_the_best_of_each_round_go_on_in_their_order():
    values = [{"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.0}, {"a": 0.0, "b": 5.0, "c": 6.0}, {"b": 1.0, "c": 1.0}]
    asked = []

    def score(options: list[str], round_: int) -> list[float]:
        asked.append(options)
        return [values[round_][option] for option in options]

    found = successive_halving(["a", "b", "c", "d"], score, kept=[2])
    assert asked == [["a", "b", "c", "d"], ["b", "c"]]
    assert found == Halving(best="c", rounds=[values[0], {"b": 5.0, "c": 6.0}])
    asked.clear()
    # Equal in the last round: the first of the options.
    assert successive_halving(["a", "c", "b", "d"], score, kept=[3, 2]).best == "c"
    assert asked[1:] == [["a", "c", "b"], ["c", "b"]]
    assert halving_from_plain(json.loads(json.dumps(dataclasses.asdict(found)))) == found


@pytest.mark.parametrize(("options", "kept"), [([], []), (["a", "a"], []), (["a", "b"], [2]), (["a", "b"], [0])])
def test_a_search_that_halves_nothing_is_refused(options, kept):
    with pytest.raises(ValueError, match="give at least one|fewer must go on"):
        successive_halving(options, lambda names, _: [0.0] * len(names), kept=kept)


def test_an_option_sets_learning_rate_and_sizes_of_a_fresh_model():
    asked = Baseline(learning_rate=3e-3, matrices=10.0, embeddings=3.0)
    assert asked.label == "lr 0.003, matrices x 10, embeddings x 3"
    condition = asked.condition("tuned", PROTOCOLS["paper"].phase2)
    planned = plan(haystack_sweep("s", (condition,), protocol=PROTOCOLS["paper"], replicates=1, first_seed=4))
    runs = {cell["condition"]: planned.configs[cell["run"]] for cell in planned.cells.to_dict("records")}
    assert dataclasses.replace(runs["tuned"].train, learning_rate=1e-3, interventions=()) == runs["none"].train
    assert runs["tuned"].train.learning_rate == 3e-3
    plain, scaled = fresh_model(runs["none"]), fresh_model(runs["tuned"])
    change_initial_weights(scaled, runs["tuned"].task, runs["tuned"].train, seed=4)
    for name, parameter in scaled.named_parameters():
        ratio = (parameter.norm() / plain.get_parameter(name).norm()).item()
        leaf = name.rpartition(".")[2]
        if name.startswith("blocks") and leaf.startswith("W_"):
            assert ratio == pytest.approx(10, rel=0.1), name
        elif leaf in ("W_E", "W_pos"):
            assert ratio == pytest.approx(3, rel=0.1), name
        else:
            assert parameter.equal(plain.get_parameter(name)), name
    assert Baseline(learning_rate=1e-3).interventions() == ()


def test_a_grid_has_every_combination():
    found = grid(learning_rate=(1e-3, 1e-2), matrices=(1.0, 3.0))
    assert list(found) == ["lr 0.001", "lr 0.001, matrices x 3", "lr 0.01", "lr 0.01, matrices x 3"]
    assert len(search_baseline.OPTIONS) == 48
    kept = [len(search_baseline.OPTIONS), *(rung.kept for rung in search_baseline.RUNGS)]
    assert kept == sorted(kept, reverse=True)
    assert kept[-1] == 1
    assert Rung(seeds=1, stop_after=2_000, kept=4).train(PROTOCOLS["paper"]).last_step == 2_000


def test_progress_is_the_mean_validation_loss_over_training():
    rows = [(0, "validation", 5.0), (10, "train", 9.0), (10, "validation", 3.0), (30, "validation", 1.0)]
    history = pd.DataFrame(rows, columns=["step", "split", "loss_nats"])
    assert progress(history, diverged=False) == pytest.approx(-(10 * 4 + 20 * 2) / 30)
    assert progress(history, diverged=True) == -math.log(256)


def test_a_stored_search_is_read_as_it_was_written(tmp_path):
    options = grid(learning_rate=(1e-3,), matrices=(1.0, 3.0))
    search = Halving(best="lr 0.001, matrices x 3", rounds=[{"lr 0.001, matrices x 3": -1.5, "lr 0.001": -2.0}])
    path = tmp_path / "found.json"
    assert read_baseline(path) is None
    write_baseline(TunedBaseline(options=options, search=search, about={"quick": True}), path)
    found = read_baseline(path)
    assert found is not None
    assert (found.best, found.search, found.about) == (options["lr 0.001, matrices x 3"], search, {"quick": True})
    path.write_text(path.read_text().replace("matrices x 3", "matrices x 9", 1))
    with pytest.raises(ValueError, match="holds no search of a baseline"):
        read_baseline(path)


def test_the_script_whole_and_again_from_what_is_there(tmp_path, capsys, runs_here):
    arguments = ["--quick", "--workers", "1", "--out", str(tmp_path)]
    assert search_baseline.main(arguments) == 0
    found = read_baseline(tmp_path / "tuned_baseline.json")
    assert found is not None
    assert [len(scores) for scores in found.search.rounds] == [4, 2]
    assert found.search.best in capsys.readouterr().out
    assert search_baseline.main(arguments) == 0
    again = read_baseline(tmp_path / "tuned_baseline.json")
    assert again is not None
    assert again.search == found.search
