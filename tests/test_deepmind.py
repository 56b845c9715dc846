"""The generator of deepmind-math: imports repaired, seeds scoped, limits of time, files made by processes."""

import dataclasses
import random
import sys
from pathlib import Path

import numpy as np
import pytest

from procpre_interp.core import checksums
from procpre_interp.data.corpus import build_corpus
from procpre_interp.data.semantic import deepmind, mathematics
from procpre_interp.data.semantic.mathematics import DeepMindMath
from tests.archives import make_wheel
from tests.documents import read_all

MODULES = """from __future__ import division
import six
from six.moves import range
from absl import logging
from mathematics_dataset.sample import polynomials
from mathematics_dataset.util import composition, probability
import collections, random
import numpy as np
from sympy.core.random import rng

Problem = collections.namedtuple('Problem', ('question', 'answer'))


def add():
  a, b = random.randint(0, 9), np.random.randint(10)
  letter = composition.pop()
  return Problem('What is {} + {}, {} + {}?'.format(a, b, letter, rng.randint(0, 99)), a + b)


def long():
  return Problem('x' * random.choice([160, 161]), 'y' * random.choice([30, 31]))


def stall():
  while random.random() < .7:
    pass
  while random.random() < .5:
    for i in range(10 ** 9):
      try:
        pass
      except Exception:
        pass
  return Problem('done', 1)


def train(entropy_fn):
  assert entropy_fn((3, 10)) == (3, 10)
  return {'algebra': {'add': add, 'long': long}, 'numbers': dict(six.iteritems({'stall': stall}))}
"""
POLYNOMIALS = """import numpy as np
from sympy.solvers.diophantine import base_solution_linear as solve
coeffs, index, value = np.zeros(3, dtype=np.object), 1, 7
coeffs.itemset(index, value)
expanded_coefficients, power = np.zeros(2), 0
coeffs = 5
expanded_coefficients.itemset(power, coeffs)
"""
COMPOSITION = """import random
import six
from absl import logging


@six.add_metaclass(type)
class Context(object):
  child_entities = ['b', 'a', 'b']


def pop(allowed=set('abcdefghijkl')):
  return random.choice(list(allowed))


def expand(context, maybe_entity):
  entities = set(context.child_entities)
  entities.add(maybe_entity)
  return list(entities)
"""
PROBABILITY = """import itertools
import sympy


def normalize_weights(weights):
  return {i: sympy.Rational(w, sum(weights.values())) for i, w in weights.items()}


class Space(object):
  def __init__(self, weights, n_samples):
    self._weights = normalize_weights(weights)
    self._n_samples = n_samples

  def probability(self):
    probability_sum = sum(self._weights.values()) / 3
    return probability_sum
"""
SOURCES = {
    "mathematics_dataset/__init__.py": "",
    "mathematics_dataset/sample/__init__.py": "",
    "mathematics_dataset/util/__init__.py": "",
    "mathematics_dataset/modules/__init__.py": "",
    "mathematics_dataset/modules/modules.py": MODULES,
    "mathematics_dataset/sample/polynomials.py": POLYNOMIALS,
    "mathematics_dataset/util/composition.py": COMPOSITION,
    "mathematics_dataset/util/probability.py": PROBABILITY,
    "mathematics_dataset/modules/modules_test.py": "raise SystemExit",
}
"""A package with the places that are repaired in the real one."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, source in SOURCES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    return tmp_path


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> str:
    """deepmind-math of the package above, with files of 5 questions."""
    contents = {name: source.encode() for name, source in SOURCES.items()}
    wheel = make_wheel(tmp_path / "registry", "mathematics-dataset", "1.0.1", contents)
    monkeypatch.setenv("PROCPRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "registry"))
    pinned = dataclasses.replace(DeepMindMath.package, sha256=checksums.sha256(wheel))
    monkeypatch.setattr(DeepMindMath, "package", pinned)
    monkeypatch.setattr(deepmind, "NAMES", ("algebra__add", "algebra__long"))
    monkeypatch.setattr(mathematics, "PER_FILE", 5)
    return "deepmind-math:10"


def test_what_no_longer_runs_is_repaired_at_import(folder):
    with deepmind.repaired(folder):
        from mathematics_dataset.sample import polynomials  # pyright: ignore[reportMissingImports]
        from mathematics_dataset.util import composition, probability  # pyright: ignore[reportMissingImports]

        assert polynomials.solve(3, 2, 1)
        assert polynomials.expanded_coefficients.tolist() == [5, 0]
        assert composition.expand(composition.Context, "c") == ["b", "a", "c"]
        (weight,) = {type(value).__name__ for value in probability.Space({0: 1, 1: 2}, 1)._weights.values()}
        assert weight == "Fraction"
        assert repr(probability.Space({0: 1, 1: 2}, 1).probability()) == "1/3"
        assert type(probability.Space({0: 1}, 1).probability()).__module__.startswith("sympy")
    assert not [name for name in sys.modules if name.startswith("mathematics_dataset")]
    assert not list(folder.rglob("*.pyc"))
    with pytest.raises(ModuleNotFoundError):
        import mathematics_dataset.modules.modules  # pyright: ignore[reportMissingImports]  # noqa: F401


def test_another_version_than_the_one_repaired_is_refused(folder):
    place = folder / "mathematics_dataset/sample/polynomials.py"
    place.write_text(POLYNOMIALS.replace("np.object", "object"))
    with pytest.raises(ImportError, match=r"polynomials has no 'np.object': it is not the version"):
        deepmind.load_modules(folder)


def test_a_question_follows_from_its_module_and_number_and_seeds_are_scoped(folder):
    add = deepmind.load_modules(folder)["algebra__add"]
    from sympy.core.random import rng

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    rng.seed(1)
    expected = random.random(), np.random.random(), rng.random()  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    rng.seed(1)
    first = [deepmind.question(add, "algebra__add", i) for i in range(20)]
    assert (random.random(), np.random.random(), rng.random()) == expected  # noqa: NPY002
    assert [deepmind.question(add, "algebra__add", i) for i in reversed(range(20))] == first[::-1]
    assert len(set(first)) == 20
    assert deepmind.question(add, "another", 0) != first[0]
    assert all(len(answer) <= 2 and asked.startswith("What is ") for asked, answer in first)


def test_long_questions_and_answers_are_drawn_again(folder):
    long = deepmind.load_modules(folder)["algebra__long"]
    drawn = {deepmind.question(long, "long", i) for i in range(30)}
    assert drawn == {("x" * 160, "y" * 30)}


def test_a_question_that_stalls_is_left_out(folder, monkeypatch):
    monkeypatch.setattr(deepmind, "QUESTION_SECONDS", 0.02)
    stall = deepmind.load_modules(folder)["numbers__stall"]
    path = folder / "out" / "00000.txt"
    left_out = deepmind.write_questions(stall, "stall", range(12), path)
    lines = path.read_text().splitlines()
    assert 0 < left_out < 12
    assert lines == ["done", "1"] * (12 - left_out)
    monkeypatch.setattr(deepmind, "FILE_SECONDS", 0.0)
    assert deepmind.write_questions(stall, "stall", range(12), path) == 12
    assert path.read_text() == ""


def test_questions_are_made_once_by_processes_and_a_larger_corpus_begins_with_a_smaller_one(corpus, capsys):
    assert build_corpus(corpus).state() == "to be fetched"
    small, _ = read_all(build_corpus("deepmind-math:5"))
    assert "making 10 questions by " in capsys.readouterr().err
    assert build_corpus(corpus).state() == "to be made"
    files = build_corpus(corpus).files()
    assert "making 10 questions by " in capsys.readouterr().err, "those that it lacks"
    names = ["algebra__add/00000.txt", "algebra__add/00001.txt", "algebra__long/00000.txt", "algebra__long/00001.txt"]
    assert [file.name for file in files] == names
    large, documents = read_all(build_corpus(corpus))
    assert capsys.readouterr().err == ""
    assert small.items() < large.items()
    assert len(documents) == 20
    assert all(text.count("\n") == 1 for text in documents)
    # Another process, with another order of sets, makes the same ones.
    modules = deepmind.load_modules(DeepMindMath.package.folder)
    asked, answer = deepmind.question(modules["algebra__add"], "algebra__add", 7)
    assert f"{asked}\n{answer}" in documents
    assert build_corpus(corpus).versions()["mathematics_dataset"] == "1.0.1"


def test_a_generator_that_fails_is_said_and_what_was_made_stays(corpus, monkeypatch):
    monkeypatch.setattr(deepmind, "NAMES", ("algebra__add", "algebra__unknown"))
    monkeypatch.setattr(mathematics, "usable_cores", lambda: 1)
    with pytest.raises(RuntimeError, match="the generator of deepmind-math failed: KeyError: 'algebra__unknown'"):
        build_corpus("deepmind-math:5").files()
    monkeypatch.setattr(deepmind, "NAMES", ("algebra__add",))
    assert build_corpus("deepmind-math:5").state() == "in the cache"


def test_the_names_are_those_of_the_package():
    assert len(set(deepmind.NAMES)) == 56
    assert {"algebra__linear_1d", "comparison__sort_composed", "probability__swr_p_level_set"} < set(deepmind.NAMES)
