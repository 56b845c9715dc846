"""The table of cells: its schema, checked when it is written and when it is read, and tables of older versions."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from procpre_interp.stats.transfer_map import OUTCOMES
from procpre_interp.store.about import About, StoredMap, about_table
from procpre_interp.store.cells import CELLS, check_cells, with_run_lists, with_run_text
from procpre_interp.store.store import RunStore
from tests.explorer import DEMO

ROWS = pd.DataFrame(
    {
        "condition": ["none", "assembly"],
        "label": ["no pretraining", "two parents"],
        "replicate": [1000, 1000],
        "phase1_run": [(), ("aaaa", "bbbb")],
        "run": ["cccc", "dddd"],
        "status": ["finished", "diverged"],
        "accuracy": [0.5, np.nan],
        "positions_carried": [False, None],
    }
)


def test_runs_are_lists_in_the_file_and_in_the_table(tmp_path):
    store = RunStore(tmp_path)
    store.write_table("mine", ROWS, {})
    stored = pq.read_table(tmp_path / "tables" / "mine.parquet")
    assert pa.types.is_list(stored.schema.field("phase1_run").type)
    assert stored["phase1_run"].to_pylist() == [[], ["aaaa", "bbbb"]]
    assert store.read_table("mine").frame["phase1_run"].tolist() == [(), ("aaaa", "bbbb")]


def test_a_table_of_an_older_version_has_text_and_reads_the_same(tmp_path):
    """A blank between two ids, and text or nothing where there is none."""
    store = RunStore(tmp_path)
    (tmp_path / "tables").mkdir()
    for name, none in (("text", ""), ("null", None)):
        path = tmp_path / "tables" / f"{name}.parquet"
        ROWS.assign(phase1_run=[none, "aaaa bbbb"]).to_parquet(path)
        path.with_suffix(".json").write_text("{}")  # where versions without checksums kept the metadata
        assert store.read_table(name).frame["phase1_run"].tolist() == [(), ("aaaa", "bbbb")]
    text = with_run_text(ROWS)
    assert text["phase1_run"].tolist() == ["", "aaaa bbbb"]
    assert with_run_lists(text)["phase1_run"].tolist() == ROWS["phase1_run"].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": ["high", 0.1]}, "its column accuracy holds 'high', not a number"),
        ({"label": ["a", 1]}, "its column label holds 1, not text"),
        ({"phase1_run": [(), ("a", 7)]}, "its column phase1_run holds .*, not a list of run ids"),
        ({"positions_carried": [True, "yes"]}, "its column positions_carried holds 'yes', not true or false"),
    ],
)
def test_what_a_column_may_not_hold_is_refused_when_written_and_when_read(tmp_path, change, message):
    wrong = ROWS.assign(**{name: pd.Series(values, dtype=object) for name, values in change.items()})
    with pytest.raises(ValueError, match=message):
        check_cells(wrong)
    with pytest.raises(ValueError, match=message):
        RunStore(tmp_path).write_table("mine", wrong, {})
    assert RunStore(tmp_path).tables() == []


def test_what_a_table_of_cells_must_have():
    check_cells(ROWS)
    with pytest.raises(ValueError, match=r"a table of cells lacks run, status; it has condition, label"):
        check_cells(ROWS.drop(columns=["run", "status"]))
    with pytest.raises(ValueError, match="a cell has the status 'lost', none of finished, diverged, failed"):
        check_cells(ROWS.assign(status="lost"))
    assert all(column.meaning for column in CELLS.values())


def test_a_damaged_column_is_noticed_when_it_is_read(tmp_path):
    (tmp_path / "tables").mkdir()
    path = tmp_path / "tables" / "odd.parquet"
    ROWS.assign(accuracy=["high", "low"]).to_parquet(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match="table odd is damaged: its column accuracy holds 'high', not a number"):
        RunStore(tmp_path).read_table("odd")


def test_the_tables_of_the_demo_are_tables_of_cells():
    """They were written by an older version."""
    store = RunStore(DEMO)
    for name in store.tables():
        frame = store.read_table(name).frame
        check_cells(frame)
        assert set(map(type, frame["phase1_run"])) == {tuple}


def test_what_is_known_about_a_table_comes_back():
    effects = pd.DataFrame({"method": ["shapley"], "player": ["attn"], "estimate": [0.5], "low": [0.1]})
    about = About(
        title="Mine",
        task="haystack",
        limit=5000,
        threshold=0.5,
        paper={"none": 0.1},
        cost={"runs": 3},
        maps=(StoredMap(title="Map", effects=effects), StoredMap(title="Other", effects=effects[:0], problem="none")),
    )
    again = about_table(about.plain())
    assert again.plain() == about_table(again.plain()).plain()
    assert (again.title, again.limit, again.paper, again.claim) == ("Mine", 5000, {"none": 0.1}, "")
    assert [each.problem for each in again.maps] == ["", "none"]
    assert again.maps[0].effects["estimate"].tolist() == [0.5]
    assert About().plain() == {}
    with pytest.raises(ValueError, match="limit is"):
        about_table({"limit": "soon"})


def test_an_outcome_says_which_way_is_better():
    lower = {name for name, outcome in OUTCOMES.items() if not outcome.higher_is_better}
    assert lower == {"loss_nats", "restricted_time_steps", "tokens_to_target"}


def test_arrow_holds_no_file_object_of_pythons(tmp_path, monkeypatch):
    """A thread of its own that let go of one while Python ends would abort the process."""
    given = []

    def read(source, read=pq.read_table, **options):
        given.append(source)
        return read(source, **options)

    monkeypatch.setattr(pq, "read_table", read)
    RunStore(tmp_path).write_table("mine", ROWS, {})
    RunStore(tmp_path).read_table("mine")
    demo = RunStore(DEMO)
    demo.open(demo.query()["run"].iloc[0]).history()
    assert len(given) == 2
    assert all(isinstance(source, pa.NativeFile) and not isinstance(source, pa.PythonFile) for source in given)
