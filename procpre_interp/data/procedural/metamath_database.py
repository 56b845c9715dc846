"""Metamath databases: their axioms and theorems, and the formulas that the proof of a theorem goes through.

A proof is decompressed and checked as it is read: each step is an earlier axiom or theorem whose hypotheses must
become, under one substitution, the formulas that stand there, and whose variables must stay as distinct as it asks for.
Source: Norman Megill, David A. Wheeler, Metamath: A Computer Language for Mathematical Proofs (2019), chapter 4.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

Formula = tuple[str, ...]
"""Symbols; the first says what it is, such as |- for what is asserted, or wff."""
ASSERTED = "|-"
_COMMENT = re.compile(r"\$\(.*?\$\)", re.DOTALL)


class WrongProof(ValueError):
    """A proof that does not show what it should."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What an axiom or a theorem is given."""

    label: str
    formula: Formula
    is_essential: bool
    """A formula that must hold; otherwise the type of a variable."""


@dataclass(frozen=True, slots=True)
class Assertion:
    """An axiom or a theorem, with what belongs to it where it stands."""

    label: str
    formula: Formula
    hypotheses: tuple[Hypothesis, ...]
    """The mandatory ones, in order: types of the variables that occur, and essential ones."""
    distinct: frozenset[tuple[str, str]]
    """Pairs of variables, both ways around, whose substitutes may share no variable."""
    proof: tuple[str, ...] | None = None
    """None of an axiom."""
    may_be_taken_as_distinct: frozenset[tuple[str, str]] = frozenset()
    """The same of all variables that its proof may use."""

    @property
    def essential(self) -> tuple[Formula, ...]:
        """What is given, without types."""
        return tuple(each.formula for each in self.hypotheses if each.is_essential)


@dataclass(slots=True)
class Database:
    """What has been read so far: labels mean what they meant at the place of a proof, as none is used twice."""

    known: dict[str, Hypothesis | Assertion] = field(default_factory=dict)
    variables: set[str] = field(default_factory=set)
    kinds: dict[str, str] = field(default_factory=dict)
    """Type of each variable, such as wff."""


def read_theorems(text: str, where: str) -> Iterator[tuple[Assertion, Database]]:
    """The theorems of a database in its order, each with what stands before it.

    Raises `ValueError` where the text is no database, or includes other files.
    """
    database = Database()
    active: list[Hypothesis] = []
    distinct: list[tuple[str, str]] = []
    blocks: list[tuple[int, int]] = []
    label = ""
    words = iter(_COMMENT.sub(" ", text).split())

    def until(end: str) -> list[str]:
        found = []
        for word in words:
            if word == end:
                return found
            if "$" in word:
                break
            found.append(word)
        raise ValueError(f"{where}: {' '.join(found)[:60]!r} is not followed by {end}")

    for word in words:
        match word:
            case "$c":
                until("$.")
            case "$v":
                database.variables.update(until("$."))
            case "$d":
                distinct += itertools.permutations(until("$."), 2)
            case "${":
                blocks.append((len(active), len(distinct)))
            case "$}":
                if not blocks:
                    raise ValueError(f"{where}: a block ends that did not begin")
                n_active, n_distinct = blocks.pop()
                del active[n_active:], distinct[n_distinct:]
            case "$f" | "$e":
                hypothesis = Hypothesis(label, tuple(until("$.")), word == "$e")
                active.append(hypothesis)
                database.known[label] = hypothesis
                if word == "$f":
                    kind, variable = hypothesis.formula
                    database.kinds[variable] = kind
            case "$a":
                database.known[label] = _assertion(label, until("$."), active, distinct, database.variables)
            case "$p":
                formula = until("$=")
                theorem = _assertion(label, formula, active, distinct, database.variables, tuple(until("$.")))
                yield theorem, database
                database.known[label] = theorem
            case _ if "$" in word:
                raise ValueError(f"{where}: {word!r} is not understood; a database that includes others must be whole")
            case _:
                label = word
    if blocks:
        raise ValueError(f"{where}: it ends within a block: a part of it is missing")


def _assertion(
    label: str,
    formula: Sequence[str],
    active: Sequence[Hypothesis],
    distinct: Sequence[tuple[str, str]],
    variables: set[str],
    proof: tuple[str, ...] | None = None,
) -> Assertion:
    occurring = variables.intersection(formula)
    for each in active:
        if each.is_essential:
            occurring |= variables.intersection(each.formula)
    mandatory = tuple(each for each in active if each.is_essential or each.formula[1] in occurring)
    pairs = frozenset(distinct)
    kept = frozenset((x, y) for x, y in pairs if x in occurring and y in occurring)
    return Assertion(label, tuple(formula), mandatory, kept, proof, pairs if proof is not None else frozenset())


def derivation(theorem: Assertion, database: Database) -> tuple[Formula, ...]:
    """What is asserted in the proof of a theorem, step by step; the last formula is the theorem's.

    Types of formulas, formulas that are given and those that stood before are left out. Raises `WrongProof` for a
    proof that is incomplete or shows something else.
    """
    if theorem.proof is None:
        raise WrongProof(f"{theorem.label} is an axiom")
    shown: dict[Formula, None] = {}
    stack: list[Formula] = []
    saved: list[Formula] = []
    for step in _steps(theorem):
        if isinstance(step, int):
            if step >= len(saved):
                raise WrongProof(f"{theorem.label}: a step refers to one that was not marked")
            stack.append(saved[step])
        elif step == "Z":
            if not stack:
                raise WrongProof(f"{theorem.label}: nothing is there to be marked")
            saved.append(stack[-1])
        else:
            known = database.known.get(step)
            if known is None:
                raise WrongProof(f"{theorem.label}: {step} is not known there")
            if isinstance(known, Hypothesis):
                stack.append(known.formula)
                continue
            stack.append(formula := _apply(known, stack, theorem, database.variables))
            if formula[0] == ASSERTED:
                shown.setdefault(formula)
    if stack != [theorem.formula]:
        raise WrongProof(f"{theorem.label}: its proof ends with {' ; '.join(map(' '.join, stack))[:200]}")
    for given in (*theorem.essential, theorem.formula):
        shown.pop(given, None)
    return (*shown, theorem.formula)


def _steps(theorem: Assertion) -> Iterator[str | int]:
    """The steps of a proof: labels, "Z" for a formula that is marked, and the number of a marked one.

    A compressed proof has letters: A to T end a number, whose first digits are U to Y; the smallest numbers stand for
    the theorem's own hypotheses, the next for the labels in brackets, all others for marked formulas.
    """
    proof: tuple[str, ...] = theorem.proof or ()
    if any("?" in part for part in proof):
        raise WrongProof(f"{theorem.label}: its proof is incomplete")
    if not proof or proof[0] != "(":
        yield from proof
        return
    if ")" not in proof:
        raise WrongProof(f"{theorem.label}: its proof is cut off")
    end = proof.index(")")
    labels = [*(each.label for each in theorem.hypotheses), *proof[1:end]]
    number = 0
    for letter in "".join(proof[end + 1 :]):
        if letter == "Z":
            yield "Z"
        elif "U" <= letter <= "Y":
            number = 5 * number + ord(letter) - ord("U") + 1
        elif "A" <= letter <= "T":
            place = 20 * number + ord(letter) - ord("A")
            yield labels[place] if place < len(labels) else place - len(labels)
            number = 0
        else:
            raise WrongProof(f"{theorem.label}: {letter!r} in its proof")


def _apply(known: Assertion, stack: list[Formula], theorem: Assertion, variables: set[str]) -> Formula:
    """Take the hypotheses of an assertion from the stack, and return what it then asserts."""
    n = len(known.hypotheses)
    if len(stack) < n:
        raise WrongProof(f"{theorem.label}: {known.label} needs {n} formulas, and {len(stack)} are there")
    given = stack[len(stack) - n :]
    del stack[len(stack) - n :]
    substitute: dict[str, Formula] = {}
    for hypothesis, formula in zip(known.hypotheses, given):
        if hypothesis.is_essential:
            if _substituted(hypothesis.formula, substitute) != formula:
                raise WrongProof(f"{theorem.label}: {' '.join(formula)} is not what {known.label} needs")
        else:
            kind, variable = hypothesis.formula
            if formula[0] != kind:
                raise WrongProof(f"{theorem.label}: {known.label} needs a {kind} for {variable}, not a {formula[0]}")
            substitute[variable] = formula[1:]
    for x, y in sorted(known.distinct):
        ours = [sorted(variables.intersection(substitute[each])) for each in (x, y)]
        for pair in itertools.product(*ours):
            if pair not in theorem.may_be_taken_as_distinct:
                raise WrongProof(f"{theorem.label}: {known.label} needs {' and '.join(pair)} to be distinct")
    return _substituted(known.formula, substitute)


def _substituted(formula: Formula, substitute: Mapping[str, Formula]) -> Formula:
    found: list[str] = []
    for symbol in formula:
        found.extend(substitute.get(symbol, (symbol,)))
    return tuple(found)
