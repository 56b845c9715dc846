"""The page "What survives damage?" on the demo and on a store whose claim is damaged."""

from procpre_interp.ablate import ABLATIONS
from procpre_interp.store.store import RunStore
from tests.explorer import charts, check, open_page, said, title
from tests.results import TABLE, fill

PAGE = "questions/what_survives_damage.py"


def test_the_ladder_of_the_package_shows_where_there_is_no_other(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert len(charts(app)) == 2
    assert "From results that come with the package" in said(app)
    assert title(app, 0) == "Claim: Shuffling the weights of each layer destroys the gain - supported"
    assert "Margin: the smallest gain that counts" in said(app)
    kept, earlier = (each.value for each in app.table)
    assert kept.loc["shuffle within layers", "Keeps"] == ABLATIONS["shuffle_within_layers"].keeps
    # The whole ladder was climbed before the claim was judged anew.
    assert "Judged anew since. This is what was measured before: undecided by version 1 of the rule" in said(app)
    assert len(earlier) > 10 > len(kept)


def test_noise_before_and_after(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Noise")
    assert len(charts(app)) == 4
    assert "a single dose" not in title(app, 2)
    assert title(app, 0).endswith("Attention + LN: a single dose, of which there is no curve")
    assert title(app, 1).endswith("Finished model: 0.064")


def test_failures_by_condition(monkeypatch, tmp_path):
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Why transfers fail", condition="Dyck, MLP + LN")
    assert app.selectbox(key="condition").value == "Dyck, MLP + LN"
    assert len(app.expander) == 5
    assert all("no gain" in each.label for each in app.expander)
    table = app.dataframe[0].value
    assert list(table) == ["Condition", "What is seen", "Runs", "Score", "Without pretraining", "Gain"]
    assert "baseline_accuracy" not in said(app)
    for name in table["What is seen"]:
        assert all(f"\n{part}: " in said(app) for part in name.split(": "))
    check(app.selectbox(key="condition").set_value("Dyck, attention + LN").run())
    assert all("no gain" not in each.label for each in app.expander)


def test_runs_that_are_gone_are_counted(monkeypatch, tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=2)
    table = store.read_table(store.tables("reproduce-")[0]).frame
    for run in table.loc[table["phase1_run"].map(bool), "run"].iloc[:1]:
        store.delete(run)
    app = open_page(monkeypatch, tmp_path, PAGE, tab="Why transfers fail")
    assert "cannot be opened: 1 runs" in said(app)


def test_a_damaged_claim_gives_way_to_the_one_that_comes_with_the_package(monkeypatch, tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=2)
    (tmp_path / "tables" / "claim-shuffling_weights_destroys_it.parquet").write_bytes(b"no table")
    (tmp_path / "tables" / "claim-shuffling_weights_destroys_it.json").write_text("{}")
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert len(charts(app)) == 2
    assert "come with the package" in said(app)
    (warning,) = app.warning
    assert "claim-shuffling_weights_destroys_it cannot be read" in warning.value


def test_a_stored_sweep_with_damage_has_its_ladder_below(monkeypatch, tmp_path):
    store = RunStore(tmp_path)
    fill(store, replicates=3)
    stored = store.read_table(TABLE)
    about = stored.metadata | {"title": "My damage", "config": "grids:\n- {ablation: [{noise: 1}]}"}
    store.write_table("mine-12345678", stored.frame, about)
    app = open_page(monkeypatch, tmp_path, PAGE)
    assert app.selectbox(key="sweep").options == ["mine-12345678"]
    assert title(app, 2).startswith("My damage: what is left of the gain? ")
