"""The gain by size: which sizes can be asked for, what a trend is made of, and the script whole."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from experiments import scale as script
from procpre_interp.core.seeding import numpy_stream
from procpre_interp.engine.engines import ONE_WORKER
from procpre_interp.pipeline.config import Architecture
from procpre_interp.store.store import RunStore
from procpre_interp.study import smoke_test
from procpre_interp.study.smoke_test import few_steps
from procpre_interp.sweep.fair_arms import Kind, arms_of

TINY = ("1x16", "2x16", "1x32", "2x32")


@pytest.mark.parametrize(
    ("size", "expected"),
    [("4x128", Architecture(n_layers=4, n_heads=4, d_model=128)), ("1x16", Architecture(n_layers=1, d_model=16))],
)
def test_a_size_is_layers_by_d_model(size, expected):
    assert script.architecture(size) == expected


@pytest.mark.parametrize("size", ["", "x", "2x", "x32", "2", "2x32x4", "-2x32", "2.5x32", "2 x 32", "large"])
def test_what_is_no_size_is_one_line(size):
    with pytest.raises(ValueError, match="give layers x d_model, such as 4x128"):
        script.architecture(size)


@pytest.mark.parametrize("sizes", [(), TINY[:3], (*TINY[:3], TINY[0]), (*TINY, TINY[0]), (*TINY, "02x16")])
def test_fewer_than_four_sizes_are_refused_before_anything_runs(sizes, tmp_path):
    with pytest.raises(ValueError, match="a trend wants 4 or more, all different"):
        script.main(script.Scale(sizes=sizes, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_size_that_no_model_has_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(ValueError, match="d_model=30 is no multiple of n_heads=4"):
        script.main(script.Scale(sizes=(*TINY, "2x30"), out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_a_size_has_the_arms_that_its_trends_compare():
    sweeps = [script.sweep_of(script.architecture(size), replicates=8) for size in script.SIZES]
    assert sorted(map(script.parameters_of, sweeps)) == [46_016, 71_424, 141_184, 478_976]
    for sweep in sweeps:
        found = arms_of(sweep)
        assert [arm.kind for arm in found.arms] == [Kind.FRESH, Kind.TRANSFER, Kind.SCALES]
        assert {arm.condition.name for arm in found.arms} == {script.TRANSFER, *script.MEASURES}
        assert [each.name for each in found.phase1] == ["sort"]


def cells(gain_per_decade: float) -> pd.DataFrame:
    """Losses of three arms at four sizes in five replicates: the fresh model loses more the larger it is."""
    noise, rows = numpy_stream(0, "scale script"), []
    for size in (1e4, 1e5, 1e6, 1e7):
        for replicate in range(5):
            shared = noise.normal()
            losses = {"none": gain_per_decade * np.log10(size), "sort full": 0.0, "sort full scales": 0.5}
            rows += [
                {
                    "n_parameters": size,
                    "replicate": replicate,
                    "condition": name,
                    "status": "finished",
                    "loss_nats": shared + loss,
                }
                for name, loss in losses.items()
            ]
    return pd.DataFrame(rows)


def test_gains_are_losses_of_the_other_less_that_of_the_transfer():
    table = cells(0.02)
    slopes = script.trends_of(table).query("kind == 'slope'").set_index("measure")
    assert slopes["estimate"].tolist() == pytest.approx([0.02, 0.0], abs=1e-12)
    assert list(slopes.index) == list(script.MEASURES.values())
    lost = (table["condition"] == "none") & (table["replicate"] == 3) & (table["n_parameters"] == 1e6)
    table.loc[lost, "status"] = "diverged"
    assert script.trends_of(table).query("kind == 'slope'")["n"].tolist() == [4, 5]


def test_the_script_from_nothing_to_its_report_and_on_again(tmp_path, monkeypatch, capsys, runs_here):
    fewest = {"steps": 3, "batch_size": 2, "evaluate_every": 2, "evaluate_examples": 8, "kernel": "torch"}
    monkeypatch.setattr(smoke_test, "few_steps", lambda train: dataclasses.replace(few_steps(train), **fewest))
    asked = script.Scale(quick=True, sizes=TINY, out=tmp_path, engine="serial")
    assert script.main(asked) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "A smoke test: these numbers mean nothing." in said
    assert "Nothing is said of models outside of these sizes." in said
    assert (tmp_path / "scale-quick.html").is_file()
    store = RunStore(tmp_path)
    before = set(store.query()["run"])
    assert script.main(asked) == 0
    assert set(store.query()["run"]) == before
    with pytest.raises(ValueError, match="a smoke test is not recorded"):
        script.main(dataclasses.replace(asked, record=True))


def test_what_is_not_tuned_yet_has_no_trend(tmp_path):
    sweeps = [script.sweep_of(script.architecture(size), replicates=1) for size in TINY]
    with pytest.raises(ValueError, match="0 of 4 sizes have replicates so far"):
        script.measure(sweeps, RunStore(tmp_path), engine=ONE_WORKER, may_start=lambda: False)
