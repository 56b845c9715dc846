"""Tables of text on stdout: the quick layout prints what rich would, and leaves to it what needs wrapping."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from procpre_interp.core.text_table import TextColumns, fitting, print_table, text_width

CELLS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12).map(str.strip)


def console(width: int, *, colours: bool = False) -> Console:
    system = "standard" if colours else None
    return Console(file=io.StringIO(), width=width, highlight=False, markup=False, color_system=system)


def printed(table: TextColumns, width: int, left: list[str], title: str = "", *, colours: bool = False) -> str:
    out = console(width, colours=colours)
    print_table(out, table, title, left=left)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def by_rich(table: TextColumns, width: int, left: list[str]) -> str:
    shown = Table(box=None, pad_edge=False)
    for column in table:
        shown.add_column(column, justify="left" if column in left else "right", overflow="fold")
    for row in zip(*table.values()):
        shown.add_row(*row)
    out = console(width)
    out.print(shown)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5),
    width=st.integers(20, 60),
    left=st.lists(st.sampled_from(["run", "steps", "a word"]), unique=True),
)
def test_the_quick_layout_is_that_of_rich(rows, width, left):
    table = {name: [row[i] for row in rows] for i, name in enumerate(("run", "steps", "a word"))}
    assert printed(table, width, left) == by_rich(table, width, left)


@pytest.mark.parametrize("cell", ["two\nlines", "wide 漢字", "tab\t.", "", "x" * 30])
def test_what_is_not_one_narrow_line_is_laid_out_by_rich(cell):
    table = {"run": [cell, "b"], "steps": ["1", "20"]}
    assert printed(table, 24, ["run"]) == by_rich(table, 24, ["run"])


def test_by_hand():
    table = {"run": ["abc", "d"], "steps": ["1", "20"]}
    assert printed(table, 80, ["run"]) == "run  steps\nabc      1\nd       20\n"
    assert printed(table, 80, ["run"], "Title").splitlines()[0].strip() == "Title"
    assert printed(table, 80, ["run"], colours=True) == "\x1b[1mrun  steps\x1b[0m\nabc      1\nd       20\n"


def test_columns_for_which_there_is_no_room_are_left_out_in_order():
    table = {"run": ["abc"], "steps": ["1"], "long": ["x" * 100]}
    assert text_width(table) == (3 + 2) + (5 + 2) + (40 + 2)  # a long cell is wrapped
    assert list(fitting(table, 52, ["steps", "long"])) == ["run", "steps", "long"]
    assert list(fitting(table, 51, ["steps", "long"])) == ["run", "long"]
    assert list(fitting(table, 20, ["steps", "long"])) == ["run"]
