"""Generated sequences as exhibits: roles and scores by hand, depth by counting, the rule by its table."""

import itertools
from collections import Counter

import numpy as np
import pytest

from procpre_interp.data import TASKS
from procpre_interp.views.exhibits import sequences

PLAIN = [name for name in TASKS if name not in (*sequences.MADE_OF_OTHERS, "text")]


def test_haystack_scores_the_value_of_the_query_alone():
    table = sequences.tokens(TASKS.build("haystack", max_pairs=3, min_pairs=3), seed=1, n=2).table
    first = table.loc[table["sequence"] == 0]
    assert first["role"].tolist() == ["key", "value"] * 3 + ["query", "value", "padding"]
    assert first["scored"].tolist() == [False] * 7 + [True, False]


def test_dyck_scores_all_but_the_first_and_depth_ends_at_zero():
    task = TASKS.build("dyck", k=3, length=16)
    table = sequences.tokens(task, n=4).table
    assert table.loc[table["position"] == 0, "scored"].tolist() == [False] * 4
    assert table.loc[table["position"] > 0, "scored"].all()
    depth = sequences.depth(task, n=4).table
    for sequence, rows in table.groupby("sequence"):
        opened, expected = 0, []
        for role in rows["role"]:
            opened += 1 if role == "opens" else -1
            expected.append(opened)
        assert depth.loc[depth["sequence"] == sequence, "depth"].tolist() == expected
        assert expected[-1] == 0


def test_each_row_of_the_automaton_follows_from_the_one_above():
    task = TASKS.build("eca", rule=30, cells=12, bits=3, rows=6)
    cells = sequences.automaton(task, seed=4, example=2).table.to_numpy()
    assert cells.shape == (6, 12)
    for above, below in itertools.pairwise(cells):
        left, right = np.roll(above, 1), np.roll(above, -1)
        np.testing.assert_array_equal(below, 30 >> (4 * left + 2 * above + right) & 1)


@pytest.mark.parametrize("name", PLAIN)
def test_the_control_has_the_same_tokens_in_another_order(name):
    task = TASKS.build(name)
    original, shuffled = sequences.tokens(task, 3, 5).table, sequences.control(task, 3, 5).table
    changed = 0
    for sequence in range(5):
        rows = [table.loc[table["sequence"] == sequence, "id"].tolist() for table in (original, shuffled)]
        assert Counter(rows[0]) == Counter(rows[1])
        changed += rows[0] != rows[1]
    assert changed > 0


@pytest.mark.parametrize("name", PLAIN)
def test_fields_make_the_default_task(name):
    values = {field.name: field.default for field in sequences.fields(name)}
    assert sequences.build(name, **values) == TASKS.build(name)


def test_a_seed_is_a_figure():
    task = TASKS.build("set")
    first, again, other = (sequences.tokens(task, seed, 3).table for seed in (1, 1, 2))
    assert first.equals(again)
    assert not first.equals(other)
    assert sequences.tokens(task, 1, 3).figure.data[0].zmax == len({*first["role"]}) - 0.5


def test_parts():
    mixture = sequences.build("mixture", ["dyck", "set"])
    assert mixture.d_vocab == max(TASKS.build("dyck").d_vocab, TASKS.build("set").d_vocab) + 3
    assert sequences.facts(mixture)["Token ids"] == f"{mixture.d_vocab}"
    with pytest.raises(ValueError, match="choose some"):
        sequences.build("mixture", [])
    with pytest.raises(ValueError, match="no brackets"):
        sequences.depth(TASKS.build("set"))
    with pytest.raises(ValueError, match="no cellular automaton"):
        sequences.automaton(TASKS.build("set"))
    with pytest.raises(ValueError, match="already"):
        sequences.control(sequences.build("shuffled", ["set"]))
    with pytest.raises(ValueError, match="at least one"):
        sequences.draw(TASKS.build("set"), 0, 0)


def test_facts():
    found = sequences.facts(TASKS.build("haystack", max_pairs=2, min_pairs=2))
    assert found["Scored targets"] == "17%"
    assert found["Loss of a guess, nats"] == "5.55"


@pytest.mark.parametrize("name", ["dyck", "dyck_shuffle"])
def test_a_position_is_at_the_same_place_in_every_figure(name):
    task = TASKS.build(name)
    figures = [each(task, 0, 3).figure for each in (sequences.tokens, sequences.depth, sequences.control)]
    edges = {
        (f.layout.margin.l, f.layout.margin.r, f.layout.yaxis.automargin, tuple(f.layout.xaxis.range)) for f in figures
    }
    assert len(edges) == 1
    ((*_, automargin, (low, high)),) = edges
    assert (automargin, low, high) == (False, -0.5, task.n_ctx - 0.5)
