"""Names and roles of token ids, and typed sequences."""

import pytest

from procpre_interp.core.seeding import stream
from procpre_interp.data import TASKS
from procpre_interp.data.tokens import parse_tokens, token_names, token_roles, tokens_of
from tests.test_task import EVERY_TASK, build


@pytest.mark.parametrize("name", EVERY_TASK)
def test_every_id_has_a_name_of_its_own_and_reads_back(name):
    task = build(name)
    names = [token.name for token in tokens_of(task)]
    assert len(names) == task.d_vocab
    assert len(set(names)) == len(names)
    batch = task.batch(3, generator=stream(0, "names"))
    tokens = batch.tokens[0, : batch.lengths[0]]
    assert parse_tokens(task, " ".join(token_names(task, tokens.tolist()))).tolist() == tokens.tolist()
    assert len(token_roles(task, batch)) == batch.tokens.shape[1]


def test_names_by_hand():
    assert token_names(TASKS.build("haystack"), [135, 12, 165, 12, 0]) == ["k7", "12", "k7?", "12", "·"]
    assert token_names(TASKS.build("dyck", k=2), [0, 1, 3, 2, 4]) == ["(", "[", "]", ")", "·"]
    assert token_names(TASKS.build("dyck", k=16), [0, 15, 16, 31]) == ["(0", "(15", ")0", ")15"]
    assert token_names(TASKS.build("eca", bits=3, cells=3), [5]) == ["101"]
    assert token_names(TASKS.build("addition", digits=1), [7, 10, 8, 11, 25, 21, 30]) == [
        "7",
        "+",
        "8",
        "=",
        "5'",
        "1'",
        ".",
    ]
    assert token_names(TASKS.build("composed", vocab=10), [11, 13, 16, 7, 17]) == ["reverse", "set", "|", "7", "·"]
    assert token_names(TASKS.build("shuffled", task={"name": "sort"}), [7, 100, 101]) == ["7", "|", "·"]


def test_roles_tell_what_is_given_from_what_is_asked():
    task = TASKS.build("set", vocab=9, length=3)
    batch = task.batch(1, generator=stream(0, "roles"))
    roles = token_roles(task, batch)
    n = int(batch.lengths[0]) - 4
    assert roles[:4] == ["prompt symbol"] * 3 + ["separator"]
    assert roles[4:] == ["answer symbol"] * n + ["padding"] * (3 - n)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no tokens"), ("k1 nose", "no token 'nose'"), ("300", "no token '300'"), ("1 " * 101, "101 tokens")],
)
def test_mistakes(text, said):
    with pytest.raises(ValueError, match=said):
        parse_tokens(TASKS.build("haystack"), text)


def test_ids_and_names_may_be_mixed():
    task = TASKS.build("haystack")
    assert parse_tokens(task, "k7 12  165\n200").tolist() == [135, 12, 165, 200]
