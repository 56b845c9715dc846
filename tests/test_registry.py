import abc
from dataclasses import dataclass

import pytest

from procpre_interp.core.messages import unknown_name
from procpre_interp.core.registry import Registry


@pytest.fixture
def animals() -> Registry:
    registry: Registry = Registry("animal")

    @registry.register("cat")
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Cat:
        lives: float = 9.0

    @registry.register("ant")
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Ant:
        legs: int

    return registry


def test_classes_are_found_by_name_and_know_it(animals):
    assert list(animals) == ["ant", "cat"]
    assert len(animals) == 2
    assert "cat" in animals
    assert "dog" not in animals
    assert animals["cat"].name == "cat"


def test_building_coerces_to_the_declared_types(animals):
    cat = animals.build("cat", lives=7)
    assert isinstance(cat.lives, float)
    assert animals.build("ant", legs=6.0).legs == 6


def test_a_duplicate_name_is_an_error(animals):
    with pytest.raises(ValueError, match=r"animal 'cat' is registered already, by .*Cat"):
        animals.register("cat")(type("Other", (), {}))


def test_only_whole_classes_of_its_kind_are_entered():
    class Sound(abc.ABC):
        @abc.abstractmethod
        def play(self) -> str: ...

    registry: Registry[Sound] = Registry("sound", base=Sound)
    with pytest.raises(ValueError, match=r"sound 'hum': .*Hum is not derived from Sound"):
        registry.register("hum")(type("Hum", (), {}))
    with pytest.raises(ValueError, match=r"sound 'hum': .*Hum lacks play"):
        registry.register("hum")(type("Hum", (Sound,), {}))
    assert list(registry) == []


def test_an_unknown_name_lists_the_choices_and_the_closest(animals):
    with pytest.raises(ValueError, match=r"unknown animal 'bat'\. Did you mean 'cat'\? There are: ant, cat"):
        animals["bat"]
    with pytest.raises(ValueError, match="unknown animal 'bat'"):
        animals.build("bat")


def test_nothing_is_suggested_where_nothing_is_close():
    assert str(unknown_name("task", "zzz", ["dyck", "set"])) == "unknown task 'zzz'. There are: dyck, set"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "missing legs"),
        ({"legs": "six"}, "legs: 'six' is not of type int"),
        ({"legs": 6.5}, "legs: 6.5 is not of type int"),
        ({"leg": 6}, "unknown field of ant 'leg'. Did you mean 'legs'"),
    ],
)
def test_fields_that_do_not_fit_say_so(animals, params, message):
    with pytest.raises(ValueError, match=message):
        animals.build("ant", **params)
