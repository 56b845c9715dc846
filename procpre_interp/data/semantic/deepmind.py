"""Questions of DeepMind's mathematics_dataset: its import repaired, its seeding scoped, made by processes side by side.

A question is a function of its module and its number alone, so that files of them can be made in any order, by any
number of processes, and more of them added later. This file is also the script that those processes run; it imports
nothing large, since there is one per core.
"""

import gc
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import random
import re
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from procpre_interp.core import atomic_files

PACKAGE = "mathematics_dataset"
LONGEST_QUESTION, LONGEST_ANSWER = 160, 30
"""Characters, as in the published data set."""
QUESTION_SECONDS = 5.0
"""Limit of a question in CPU time, so that other work does not count; it is then left out, since a few can stall."""
FILE_SECONDS = 60.0
"""The same for a file; the questions that it still lacks are left out."""

MODULES = {
    "algebra": "linear_1d linear_1d_composed linear_2d linear_2d_composed polynomial_roots polynomial_roots_composed "
    "sequence_next_term sequence_nth_term",
    "arithmetic": "add_or_sub add_or_sub_in_base add_sub_multiple div mixed mul mul_div_multiple nearest_integer_root "
    "simplify_surd",
    "calculus": "differentiate differentiate_composed",
    "comparison": "closest closest_composed kth_biggest kth_biggest_composed pair pair_composed sort sort_composed",
    "measurement": "conversion time",
    "numbers": "base_conversion div_remainder div_remainder_composed gcd gcd_composed is_factor is_factor_composed "
    "is_prime is_prime_composed lcm lcm_composed list_prime_factors list_prime_factors_composed place_value "
    "place_value_composed round_number round_number_composed",
    "polynomials": "add coefficient_named collect compose evaluate evaluate_composed expand simplify_power",
    "probability": "swr_p_level_set swr_p_sequence",
}
NAMES = tuple(f"{area}__{module}" for area, modules in MODULES.items() for module in modules.split())
"""The modules of its training set, as it names them."""

REPAIRS: Mapping[str, Mapping[str, str]] = {
    f"{PACKAGE}.sample.polynomials": {
        # sympy 1.6 moved it, numpy 1.24 and 2.0 removed the others.
        "from sympy.solvers.diophantine import": "from sympy.solvers.diophantine.diophantine import",
        "np.object": "object",
        "coeffs.itemset(index, value)": "coeffs[index] = value",
        "expanded_coefficients.itemset(power, coeffs)": "expanded_coefficients[power] = coeffs",
    },
    f"{PACKAGE}.util.composition": {
        # The order of a set of strings, and of objects, differs between processes: seeds alone gave others each time.
        "random.choice(list(allowed))": "random.choice(sorted(allowed))",
        "entities = set(context.child_entities)": "entities = dict.fromkeys(context.child_entities)",
        "entities.add(maybe_entity)": "entities[maybe_entity] = None",
    },
    f"{PACKAGE}.util.probability": {
        # The same sum of thousands of terms in Python's fractions, which took a third of all time.
        "import itertools\n": "import fractions\nimport itertools\n",
        "    self._weights = normalize_weights(weights)\n    self._n_samples": (
            "    self._weights = {i: fractions.Fraction(int(w.p), int(w.q)) "
            "for i, w in normalize_weights(weights).items()}\n    self._n_samples"
        ),
        "    return probability_sum": "    return sympy.sympify(probability_sum)",
    },
}
"""Module -> text in its source -> what to read instead. Replacing attributes would not do: an array is a C type."""

_SIX_IMPORT = re.compile(r"^(import six|from six\.moves import \w+)$", re.MULTILINE)
"""Its bridge to Python 2, a package that need not be installed: the five names used are given instead."""
_ABSL_IMPORT = re.compile(r"^from absl import logging$", re.MULTILINE)
"""Another package that need not be installed, where Python's own `logging` does."""


class TimeLimit(BaseException):
    """Out of time; no Exception, which the code that is interrupted may catch."""


def _add_metaclass(metaclass: type) -> Callable[[type], type]:
    def made(cls: type) -> type:
        body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        return metaclass(cls.__name__, cls.__bases__, body)

    return made


_SIX = types.SimpleNamespace(
    iteritems=lambda mapping: iter(mapping.items()),
    iterkeys=lambda mapping: iter(mapping.keys()),
    itervalues=lambda mapping: iter(mapping.values()),
    integer_types=(int,),
    add_metaclass=_add_metaclass,
)


class _RepairedModule(importlib.abc.InspectLoader):
    """Loads a module with its source repaired; writes no bytecode."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_package(self, fullname: str) -> bool:
        return self.path.name == "__init__.py"

    def get_source(self, fullname: str) -> str:
        source = _ABSL_IMPORT.sub("import logging", _SIX_IMPORT.sub("", self.path.read_text(encoding="utf-8")))
        for old, new in REPAIRS.get(fullname, {}).items():
            if old not in source:
                raise ImportError(f"{fullname} has no {old!r}: it is not the version that is repaired here")
            source = source.replace(old, new)
        return source

    def exec_module(self, module: types.ModuleType) -> None:
        vars(module)["six"] = _SIX
        super().exec_module(module)


class RepairingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of mathematics_dataset below a folder, and no others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] != PACKAGE:
            return None
        place = self.folder.joinpath(*fullname.split("."))
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return importlib.util.spec_from_loader(fullname, _RepairedModule(file), origin=str(file))
        return None


@contextmanager
def repaired(folder: Path) -> Iterator[None]:
    """mathematics_dataset is imported from below `folder` in the block; afterwards it is not imported."""
    finder = RepairingFinder(folder)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]


def load_modules(folder: Path) -> dict[str, Callable[[], Any]]:
    """What makes a problem, by module; in every module, all of its range of difficulty."""
    with repaired(folder):
        areas = importlib.import_module(f"{PACKAGE}.modules.modules").train(lambda difficulty: difficulty)
    return dict(_flat(areas))


def _flat(modules: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Callable[[], Any]]]:
    for name, module in modules.items():
        if isinstance(module, Mapping):
            yield from _flat(module, f"{prefix}{name}__")
        else:
            yield f"{prefix}{name}", module


def question(module: Callable[[], Any], name: str, number: int) -> tuple[str, str]:
    """Question and answer, each on a line, the same ones for the same name and number."""
    with _seeded(f"deepmind-math {name} {number}"):
        while True:
            problem = module()
            asked, answer = (" ".join(str(text).split("\n")) for text in (problem.question, problem.answer))
            if len(asked) <= LONGEST_QUESTION and len(answer) <= LONGEST_ANSWER:
                return asked, answer


@contextmanager
def _seeded(label: str) -> Iterator[None]:
    """The global generators, which the package draws from, are seeded, and afterwards as before: sympy has its own."""
    from sympy.core.random import rng

    seeds = hashlib.sha256(label.encode()).digest()
    before = random.getstate(), np.random.get_state(), rng.getstate()  # noqa: NPY002
    random.seed(seeds)
    rng.seed(seeds)
    np.random.seed(np.frombuffer(seeds, "<u4"))  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        rng.setstate(before[2])


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def write_questions(module: Callable[[], Any], name: str, numbers: range, path: Path) -> int:
    """Write the questions to a file, a line each and its answer below; how many were left out for lack of time."""
    lines: list[str] = []
    end = time.process_time() + FILE_SECONDS
    for number in numbers:
        left = min(QUESTION_SECONDS, end - time.process_time())
        if left <= 0:
            break
        try:
            with _time_limit(left):
                lines += question(module, name, number)
        except TimeLimit:
            continue
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.write_text(path, "".join(f"{line}\n" for line in lines))
    return len(numbers) - len(lines) // 2


def work(folder: Path) -> None:
    """Make the files that lines on stdin ask for, and answer each with a line."""
    modules = load_modules(folder)
    gc.set_threshold(100_000)  # expressions are many and live short: a tenth of the time went into looking for circles
    for line in sys.stdin:
        name, start, stop, path = json.loads(line)
        left_out = write_questions(modules[name], name, range(start, stop), Path(path))
        print(json.dumps(left_out), flush=True)


if __name__ == "__main__":
    work(Path(sys.argv[1]))
