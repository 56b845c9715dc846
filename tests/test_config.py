import json
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import hypothesis.strategies as st
import pytest
from hypothesis import given

from procpre_interp.core.config import (
    ID_LENGTH,
    canonical_json,
    coerce,
    content_hash,
    from_dict,
    from_yaml,
    to_dict,
    to_yaml,
    unhashed,
)
from procpre_interp.data import TASKS, Task
from tests.test_task import EVERY_TASK, build


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    warmup: int = 0
    kind: Literal["constant", "cosine"] = "constant"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    version: ClassVar[int] = 3

    lr: float
    steps: int = 100
    tied: bool = False
    seeds: tuple[int, ...] = ()
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = None
    schedule: Schedule = field(default_factory=Schedule)
    task: Task | None = None
    out: str = unhashed("runs")


def test_one_and_one_point_zero_are_one_config():
    assert content_hash(Recipe(lr=1)) == content_hash(Recipe(lr=1.0)) == content_hash(from_dict(Recipe, {"lr": "1e0"}))
    assert content_hash(Recipe(lr=1.0, clip=2)) == content_hash(Recipe(lr=1.0, clip=2.0))
    assert content_hash(Recipe(lr=1.0)) != content_hash(Recipe(lr=1.5))


def test_the_hash_is_sixteen_hexadecimal_digits():
    name = content_hash(Recipe(lr=1.0))
    assert len(name) == ID_LENGTH == 16
    int(name, 16)


def test_fields_at_their_default_are_left_out():
    assert to_dict(Recipe(lr=0.5, steps=100)) == {"version": 3, "lr": 0.5}
    assert to_dict(Recipe(lr=0.5, steps=7))["steps"] == 7
    assert to_dict(Recipe(lr=0.5), defaults=True)["schedule"] == {"warmup": 0, "kind": "constant"}


def test_a_new_field_with_a_default_renames_no_run():
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Before:
        lr: float

    @dataclass(frozen=True, kw_only=True, slots=True)
    class After:
        lr: float
        momentum: float = 0.0

    assert content_hash(Before(lr=0.1)) == content_hash(After(lr=0.1)) != content_hash(After(lr=0.1, momentum=0.9))


def test_unhashed_fields_are_stored_but_do_not_name_the_run():
    moved = Recipe(lr=1.0, out="elsewhere")
    assert content_hash(moved) == content_hash(Recipe(lr=1.0))
    assert from_yaml(Recipe, to_yaml(moved)).out == "elsewhere"


def test_the_version_is_part_of_the_identity(monkeypatch):
    before = content_hash(Recipe(lr=1.0))
    stored = to_yaml(Recipe(lr=1.0))
    monkeypatch.setattr(Recipe, "version", 4)
    assert content_hash(Recipe(lr=1.0)) != before
    with pytest.raises(ValueError, match="version 3, but this code has 4"):
        from_yaml(Recipe, stored)


def test_canonical_json_is_sorted_and_dense():
    text = canonical_json(Recipe(steps=3, lr=1.0))
    assert text == '{"lr":1.0,"steps":3,"version":3}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(Recipe(lr=float("nan")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "missing lr"),
        ({"lr": "fast"}, "lr: 'fast' is not of type float"),
        ({"lr": True}, "lr: True is not of type float"),
        ({"lr": 1, "steps": 1.5}, "steps: 1.5 is not of type int"),
        ({"lr": 1, "steps": True}, "steps: True is not of type int"),
        ({"lr": 1, "tied": 1}, "tied: 1 is not a boolean"),
        (
            {"lr": 1, "tide": True},
            "unknown field of Recipe 'tide'. Did you mean 'tied'\\? There are: betas, clip",
        ),
        ({"lr": 1, "seeds": 3}, "seeds: 3 is not a list"),
        ({"lr": 1, "seeds": [1, "x"]}, "seeds\\[1\\]: 'x' is not of type int"),
        ({"lr": 1, "betas": [0.9]}, "has 1 entries, not 2"),
        ({"lr": 1, "clip": "no"}, "clip: 'no' is not of type float"),
        (
            {"lr": 1, "schedule": {"kind": "cosin"}},
            "schedule.kind: unknown choice 'cosin'. Did you mean 'cosine'",
        ),
        ({"lr": 1, "schedule": {"warmup": 0.5}}, "schedule.warmup: 0.5 is not of type int"),
        (
            {"lr": 1, "task": {"name": "dick"}},
            "unknown task 'dick'. Did you mean 'dyck'\\? There are: addition, ",
        ),
        ({"lr": 1, "task": {"k": 3}}, "task: give a name, one of: addition, "),
        ({"lr": 1, "task": {"name": "dyck", "kk": 3}}, "unknown field of dyck 'kk'. Did you mean 'k'"),
        ({"lr": 1, "task": {"name": "dyck", "version": 99}}, "version 99, but this code has 1"),
    ],
)
def test_what_does_not_fit_says_so(data, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Recipe, data)


@pytest.mark.parametrize("text", ["- 1\n- 2", "7", "", "a: [1"])
def test_what_is_no_mapping_is_refused(text):
    with pytest.raises(ValueError, match=r"here\.yaml"):
        from_yaml(Recipe, text, "here.yaml")


@given(value=st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False)))
def test_only_lossless_conversions_are_made(value):
    assert coerce(value, float) == float(value)
    if float(value).is_integer():
        assert coerce(value, int) == value
    else:
        with pytest.raises(ValueError, match="not of type int"):
            coerce(value, int)


@given(
    lr=st.floats(1e-9, 1e3),
    steps=st.integers(0, 10**9),
    tied=st.booleans(),
    seeds=st.lists(st.integers(0, 2**40)).map(tuple),
    clip=st.none() | st.floats(0.1, 10),
    warmup=st.integers(0, 100),
)
def test_yaml_gives_back_the_config(lr, steps, tied, seeds, clip, warmup):
    recipe = Recipe(lr=lr, steps=steps, tied=tied, seeds=seeds, clip=clip, schedule=Schedule(warmup=warmup))
    again = from_yaml(Recipe, to_yaml(recipe))
    assert again == recipe
    assert content_hash(again) == content_hash(recipe)
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe, defaults=True)))) == recipe


@pytest.mark.parametrize("name", EVERY_TASK)
def test_every_task_survives_yaml(name):
    task = build(name)
    assert from_yaml(Task, to_yaml(task)) == task
    nested = from_yaml(Recipe, to_yaml(Recipe(lr=1.0, task=task)))
    assert nested.task == task
    assert content_hash(nested) == content_hash(Recipe(lr=1.0, task=task))


def test_tasks_of_one_config_have_one_hash_and_others_another():
    assert content_hash(TASKS.build("dyck")) == content_hash(TASKS.build("dyck", k=16.0, length=128))
    hashes = {content_hash(build(name)) for name in EVERY_TASK} | {content_hash(TASKS.build("dyck", k=8))}
    assert len(hashes) == len(EVERY_TASK) + 1
