"""What claims are about: each measure with its name, unit and scale, as people read it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity that claims compare, as people read it."""

    name: str
    level: str = ""
    """Unit of its values."""
    unit: str = ""
    """Unit of differences between its values."""
    scale: float = 1.0
    """Factor from a stored difference to the one that people read."""
    form: str = ".3f"
    """Format of such a difference."""

    @property
    def axis(self) -> str:
        """Title of an axis of differences, with their unit."""
        return self.titled(self.name)

    @property
    def level_axis(self) -> str:
        """Title of an axis of values, with their unit."""
        return f"{self.name} ({self.level})" if self.level else self.name

    def titled(self, name: str) -> str:
        """A name with the unit of differences."""
        unit = "percentage points" if self.unit == "points" else self.unit or self.level
        return f"{name} ({unit})" if unit else name


def accuracy_measure(name: str, level: str = "% of answer tokens") -> Measure:
    """A share that is read in percent, its differences in percentage points."""
    return Measure(name, level, "points", 100.0, ".1f")


MEASURES = {
    "accuracy": accuracy_measure("test accuracy"),
    "answers_right": accuracy_measure("answers right", "% of questions"),
    "area": accuracy_measure("mean validation accuracy over training"),
    "restricted_time_steps": Measure("time to breakthrough", "steps, at most the limit", "steps", 1.0, ",.0f"),
    "loss_nats": Measure("test loss", "nats per token", "nats"),
    "entropy_relative": Measure("attention entropy", "share of the largest that causal attention can have"),
    "jaccard": Measure("overlap of circuits", "Jaccard index"),
    "faithfulness": Measure("faithfulness", "share of what the whole model does"),
    "completeness": Measure("completeness", "share of what is left without the circuit"),
}
"""Columns of results, and what the package itself observes of runs. A claim declares any other measure."""


def measure_of(name: str) -> Measure:
    """How people read a measure that its claim does not declare."""
    return MEASURES.get(name) or Measure(name.replace("_", " "))
