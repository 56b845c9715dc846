"""What a test or a comparison decides, each with the reason where it decides nothing."""

from dataclasses import dataclass
from enum import StrEnum


class Decision(StrEnum):
    """What a test says at its level."""

    SIGNIFICANT = "significant"
    NOT_SIGNIFICANT = "not significant"
    UNDECIDED = "undecided"
    """No result could have been significant, or there is none."""


class EquivalenceDecision(StrEnum):
    """What an equivalence test says."""

    EQUIVALENT = "equivalent"
    NOT_EQUIVALENT = "not equivalent"
    """The interval lies wholly outside of the margin."""
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Decided:
    """The decision of a test, and why it is undecided ("" where it is not)."""

    decision: Decision
    reason: str = ""

    def __str__(self) -> str:
        """The decision in words: "undecided: n = 4 can give no p below 0.125"."""
        return decision_text(self.decision, self.reason)


def decision_text(decision: str | None, reason: str | None) -> str:
    """A decision with its reason, for a table that people read; empty where nothing was tested."""
    return f"{decision}: {reason}" if decision and reason else decision or ""


def stored_decision(decision: str | None, reason: str | None = None) -> tuple[Decision | None, str]:
    """A decision and its reason from a file. Files of older versions have both in one text, "undecided: ...".

    Raises `ValueError` for a decision that does not exist.
    """
    if decision is None:
        return None, reason or ""
    name, colon, rest = decision.partition(": ")
    if name not in set(Decision):
        raise ValueError(f"the decision {decision[:60]!r} is none of {', '.join(Decision)}")
    return Decision(name), rest if colon else reason or ""
