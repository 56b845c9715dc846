"""What is to be known about a stored table of conditions: title, protocol, task, the paper's numbers, maps and cost."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from procpre_interp.core import schema


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoredMap:
    """A transfer map of a sweep."""

    title: str
    effects: pd.DataFrame
    """`transfer_map` of one outcome; no rows where there is a problem."""
    problem: str = ""
    """Why it has no effects."""
    interactions: pd.DataFrame = field(default_factory=pd.DataFrame)
    """`interaction_table` of the same outcome; no rows where its coalitions do not hold what that needs."""
    coverage: str = ""
    """How many coalitions it has, in a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class About:
    """The metadata of a table of conditions. What a table does not say is empty, or None."""

    title: str = ""
    """Title of the report."""
    claim: str = ""
    """The sentence, where the table is that of a claim."""
    task: str | None = None
    """Task of phase 2."""
    limit: int | None = None
    """Last step of phase 2."""
    threshold: float | None = None
    """Accuracy that counts as a breakthrough, share."""
    target_accuracy: float | None = None
    """Accuracy at which runs were ended, share."""
    protocol: str = ""
    """How the runs were trained, in words."""
    protocol_name: str = ""
    config: str = ""
    """YAML of the sweep."""
    note: str = ""
    """What else a reader must know."""
    demo: str = ""
    """What is left out, in the demo."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """Condition -> the paper's accuracy, share."""
    paper_notes: Mapping[str, str] = field(default_factory=dict)
    """Condition -> what the paper says without a number."""
    cost: Mapping[str, float | int] = field(default_factory=dict)
    """`outcomes.cost_of` all runs."""
    maps: tuple[StoredMap, ...] = ()

    def plain(self) -> dict[str, object]:
        """Values for JSON, without what the table does not say."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self) if each.name != "maps"}
        found: dict[str, object] = {name: value for name, value in values.items() if value not in ("", {}, None)}
        maps = [
            {
                "title": each.title,
                "effects": each.effects.to_dict("records"),
                "problem": each.problem,
                "interactions": each.interactions.to_dict("records"),
                "coverage": each.coverage,
            }
            for each in self.maps
        ]
        if maps:
            found["maps"] = maps
        return found


def about_table(metadata: Mapping[str, object]) -> About:
    """What the metadata of a table say. Raises `ValueError` where a known field has a wrong type."""
    schema.check_metadata(metadata)
    known = {each.name for each in dataclasses.fields(About)} - {"maps"}
    fields = {name: value for name, value in metadata.items() if name in known and value is not None}
    maps = metadata.get("maps")
    return About(**fields, maps=tuple(map(_map, maps)) if isinstance(maps, list) else ())  # type: ignore[arg-type]


def _map(found: Mapping[str, object]) -> StoredMap:
    return StoredMap(
        title=str(found.get("title", "")),
        effects=_rows(found.get("effects")),
        problem=str(found.get("problem") or ""),
        interactions=_rows(found.get("interactions")),
        coverage=str(found.get("coverage") or ""),
    )


def _rows(found: object) -> pd.DataFrame:
    """A stored table, without what is no row of it."""
    return pd.DataFrame([row for row in found if isinstance(row, dict)] if isinstance(found, list) else [])
