"""Judged claims as plain values for JSON, and back."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TypeVar, get_args, get_type_hints

import pandas as pd

from procpre_interp.claims.claim import Page, Predicted, Verdict
from procpre_interp.claims.judged import ContrastResult, EarlierVerdict, JudgedClaim, LogRank
from procpre_interp.claims.measures import Measure, measure_of
from procpre_interp.core.atomic_files import plain
from procpre_interp.core.schema import shown
from procpre_interp.stats.breakthroughs import BreakthroughCount
from procpre_interp.stats.decisions import stored_decision
from procpre_interp.stats.resampling import LEVEL, TWO_TESTS_LEVEL, IntervalMethod

T = TypeVar("T")

CELLS_HASH = "cells_sha256"
"""Entry of a claim's JSON file: the hash of the CSV file next to it."""
SINCE_VERSION_2 = {
    *("rule_version", "looks", "earlier"),
    *("interval", "range_low", "range_high", "breakthroughs", "breakthrough_p"),
}
"""What claims, and their contrasts, did not have under version 1 of the rule."""


def claim_to_json(judged: JudgedClaim) -> dict[str, object]:
    """Plain values: what is not a number is null, what was not predicted "", and each measure stands once.

    Version 1 of a declaration and the usual level of an interval are not written, as older files do not say them.
    """
    tables = {"conditions", "effects", "looks"}
    found: dict[str, object] = {}
    for name in (field.name for field in dataclasses.fields(JudgedClaim)):
        if (judged.rule_version == 1 and name in SINCE_VERSION_2) or (name == "version" and judged.version == 1):
            continue
        value = getattr(judged, name)
        if name in tables:
            found[name] = value.to_dict("records")
        elif name == "contrasts":
            found["measures"] = {row.measure: dataclasses.asdict(row.about) for row in judged.contrasts}
            found[name] = [_contrast_to_json(row, judged.rule_version) for row in judged.contrasts]
        elif name == "tables":
            found[name] = {title: table.to_dict("records") for title, table in judged.tables.items()}
        elif name == "earlier":
            found[name] = [_earlier_to_json(each) for each in value]
        else:
            found[name] = dataclasses.asdict(value) if isinstance(value, LogRank) else value
    return plain(found)


def claim_from_json(found: object, like: JudgedClaim | None = None) -> JudgedClaim:
    """The claim that such values describe. Raises `ValueError` for what `claim_to_json` does not write.

    Files of older versions have no page and no measures, for which those of `like` stand in; decision and reason in one
    text; and their other tables next to everything else.
    """
    fields = _mapping(found, "claim")
    measures = {} if like is None else {row.measure: row.about for row in like.contrasts}
    for name, declared in _mapping(fields.get("measures", {}), "measures").items():
        measures[name] = _read(Measure, declared, "measure")
    contrasts = [_contrast_from_json(row, measures) for row in _sequence(fields, "contrasts")]
    if not contrasts:
        raise ValueError("it has no contrasts")
    known = {*_fields_of(JudgedClaim), "measures", "created", CELLS_HASH}
    tables = {name: _table(rows, name) for name, rows in _mapping(fields.get("tables", {}), "tables").items()}
    tables |= {name: _older_table(value) for name, value in fields.items() if name not in known}
    judged = {
        "page": _one_of(fields.get("page", like.page if like else "do_the_claims_hold"), get_args(Page), "page"),
        "verdict": Verdict(_one_of(fields.get("verdict"), tuple(Verdict), "verdict")),
        "seeds": _seeds(fields.get("seeds")),
        "contrasts": tuple(contrasts),
        "log_rank": None if fields.get("log_rank") is None else _read(LogRank, fields["log_rank"], "log-rank test"),
        "conditions": _table(fields.get("conditions", []), "conditions"),
        "effects": _table(fields.get("effects", []), "effects"),
        "cost": _numbers(fields.get("cost") or {}, "cost"),
        "tables": tables,
        "looks": _table(fields.get("looks", []), "looks"),
        "earlier": tuple(_earlier_from_json(each) for each in _sequence({"earlier": [], **fields}, "earlier")),
    }
    return _read(JudgedClaim, {"created": "", **fields}, "claim", **judged)


def _contrast_to_json(row: ContrastResult, rule_version: int) -> dict[str, object]:
    usual = {"about"} | ({"level"} if row.level == _usual_level(row.predicted, row.verdict, row.n) else set())
    names = [field.name for field in dataclasses.fields(row) if field.name not in usual]
    found = {name: getattr(row, name) for name in names if rule_version > 1 or name not in SINCE_VERSION_2}
    if row.breakthroughs:
        found["breakthroughs"] = [dataclasses.asdict(each) for each in row.breakthroughs]
    return found | {"predicted": row.predicted or "", "verdict": row.verdict or ""}


def _usual_level(predicted: object, verdict: object, n: object) -> float:
    """Level of the interval of a contrast of n replicates whose file does not say it."""
    return TWO_TESTS_LEVEL if predicted == "within" and verdict != Verdict.REFUTED and n else LEVEL


def _earlier_to_json(each: EarlierVerdict) -> dict[str, object]:
    found = dataclasses.asdict(each)
    return {name: value for name, value in found.items() if name != "version" or value > 1}


def _earlier_from_json(found: object) -> EarlierVerdict:
    row = _mapping(found, "earlier verdict")
    verdict = Verdict(_one_of(row.get("verdict"), tuple(Verdict), "earlier verdict"))
    return _read(EarlierVerdict, row, "earlier verdict", verdict=verdict, interval=_method(row))


def _method(row: Mapping[str, object]) -> IntervalMethod:
    """How an interval was made; files that do not say have the bootstrap."""
    return IntervalMethod(_one_of(row.get("interval", IntervalMethod.BOOTSTRAP), tuple(IntervalMethod), "interval"))


def _contrast_from_json(found: object, measures: Mapping[str, Measure]) -> ContrastResult:
    row = _mapping(found, "contrast")
    decision, reason = stored_decision(_text_or_none(row, "decision"), _text_or_none(row, "undecided_reason"))
    weights = _numbers(row.get("weights", {}), "weights")
    if "weights" in row and not weights:
        raise ValueError(f"contrast {shown(row.get('contrast'))} has no weights")
    verdict = _one_of(row.get("verdict"), ("", *Verdict), "verdict of a contrast")
    name = str(row.get("measure"))
    return _read(
        ContrastResult,
        {"level": _usual_level(row.get("predicted"), verdict, row.get("n")), **row},
        "contrast",
        weights=weights,
        about=measures.get(name) or measure_of(name),
        predicted=_one_of(row.get("predicted"), ("", *get_args(Predicted)), "prediction of a contrast") or None,
        verdict=Verdict(verdict) if verdict else None,
        decision=decision,
        undecided_reason=reason,
        interval=_method(row),
        breakthroughs=tuple(
            _read(BreakthroughCount, each, "count of breakthroughs")
            for each in _sequence({"breakthroughs": [], **row}, "breakthroughs")
        ),
    )


def _fields_of(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def _read(kind: type[T], found: object, what: str, **given: object) -> T:
    """A dataclass of text, numbers and booleans; `given` are its other fields. null is NaN where a number is due."""
    values, hints = dict(given), get_type_hints(kind)
    fields = _mapping(found, what)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            continue
        if field.name in fields:
            values[field.name] = _value(fields[field.name], hints[field.name], f"{what}'s {field.name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"its {what} lacks {field.name}")
    return kind(**values)


def _value(value: object, declared: object, what: str) -> object:
    if declared is float and value is None:
        return math.nan
    kinds: dict[object, tuple[type, ...]] = {float: (float, int), int: (int,), str: (str,), bool: (bool,)}
    if declared not in kinds:  # one that may be null
        allowed = get_args(declared)
        kinds[declared] = tuple(kind for one in allowed for kind in kinds.get(one, (one,)))
    if not isinstance(value, kinds[declared]) or (isinstance(value, bool) and declared is not bool):
        raise ValueError(f"its {what} is {shown(value)}")
    return float(value) if declared is float and isinstance(value, int) else value


def _mapping(found: object, what: str) -> Mapping[str, object]:
    if not isinstance(found, dict):
        raise ValueError(f"its {what} is {shown(found)}, no set of fields")
    return found


def _sequence(fields: Mapping[str, object], name: str) -> list[object]:
    found = fields.get(name)
    if not isinstance(found, list):
        raise ValueError(f"its {name} are {shown(found)}, no list")
    return found


def _table(found: object, what: str) -> pd.DataFrame:
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ValueError(f"its {what} are {shown(found)}, no rows of a table")
    return pd.DataFrame(found)


def _older_table(found: object) -> pd.DataFrame:
    """What an older file has beside the claim: rows, rows by name, or any other value."""
    if isinstance(found, dict) and all(isinstance(row, dict) for row in found.values()):
        found = [{"name": name, **row} for name, row in found.items()]
    rows = isinstance(found, list) and all(isinstance(row, dict) for row in found)
    return pd.DataFrame(found if rows else {"value": [found]})


def _numbers(found: object, what: str) -> dict[str, float | int]:
    fields = _mapping(found, what)
    numbers = {name: value for name, value in fields.items() if isinstance(value, (int, float))}
    if len(numbers) < len(fields):
        raise ValueError(f"its {what} are {shown(dict(fields))}, not all of them numbers")
    return numbers


def _seeds(found: object) -> tuple[int, ...]:
    if not isinstance(found, list) or not found or not all(isinstance(seed, int) for seed in found):
        raise ValueError("its seeds are no list of whole numbers")
    return tuple(found)


def _text_or_none(row: Mapping[str, object], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"its contrast's {name} is {shown(value)}")
    return value


def _one_of(found: object, names: tuple[str, ...], what: str) -> str:
    if not isinstance(found, str) or found not in names:
        raise ValueError(f"its {what} is {shown(found)}, none of {', '.join(filter(None, names))}")
    return found
