"""What the small files in a store must hold, checked once, when they are read."""

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

from procpre_interp.core.messages import shown as shown_value

STATUSES = ("finished", "diverged")
"""How a run can have ended."""

ClassFields = Mapping[str, Any]
"""Fields of a config class, which `core.config.from_dict` checks."""


class ParentFields(TypedDict):
    """A parent in a stored config."""

    run: str
    selector: NotRequired[str]
    step: NotRequired[int]
    ablation: NotRequired[ClassFields]


class ConfigFields(TypedDict):
    """A run's config as it is stored: fields at their default are left out. `check_config` reads the outline of it."""

    version: NotRequired[int]
    task: ClassFields
    model: NotRequired[ClassFields]
    train: NotRequired[ClassFields]
    transfer: NotRequired[ClassFields]
    optimiser: NotRequired[str]
    seed: NotRequired[int]
    parents: NotRequired[list[ParentFields]]
    imported: NotRequired[ClassFields]
    """What is known of the origin of a model that was not trained here."""


class Summary(TypedDict):
    """A finished run's row in the list of runs, as this version writes it; `check_summary` says what older ones have.

    Scores of a run that diverged are null.
    """

    run: str
    status: Literal["finished", "diverged"]
    stop_reason: str
    created: str
    task: str
    seed: int
    parents: tuple[str, ...]
    """Ids; a list in JSON, none for a run from fresh weights. Older versions wrote text, with ", " between."""
    components: str | None
    """The parents' selectors with ", " between; null for a run from fresh weights."""
    n_layers: int
    n_heads: int
    d_model: int
    n_parameters: int
    steps: int
    """The step at which it ended."""
    start_at: NotRequired[int]
    """The step of its first parent's training from which it went on; of a training of its own it is left out."""
    tokens: int
    teraflops: NotRequired[float]
    """Compute of training, 10^12 floating-point operations; older runs lack it."""
    epochs: NotRequired[float]
    """How often training went through its data, in runs on text."""
    seconds: float
    loss_nats: float
    accuracy: float
    exact_match: float
    perplexity: NotRequired[float]
    bits_per_byte: NotRequired[float]
    answers_right: NotRequired[float]
    """Share of test questions whose whole answer the model wrote by itself, by greedy decoding; of text that asks."""
    breakthrough_step: int | None
    breakthrough_limit: int
    prompt_overlap: float
    positions_carried: bool
    kernel: str
    threads: int
    device: str
    left_out: NotRequired[str]
    """What a copy of the run lacks."""


_NUMBERS = (
    *("seed", "n_layers", "n_heads", "d_model", "n_parameters", "steps", "start_at", "tokens", "epochs", "teraflops"),
    *("seconds", "threads"),
    *("loss_nats", "accuracy", "exact_match", "perplexity", "bits_per_byte", "answers_right", "prompt_overlap"),
    *("breakthrough_step", "breakthrough_limit"),
)
_SUMMARY: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("stop_reason", "task", "components", "kernel", "device", "created"), str),
    **dict.fromkeys(_NUMBERS, (int, float)),
    "positions_carried": bool,
    "parents": (str, list),
}
_LARGEST = 2**63


def check_fields(found: Mapping[Any, Any], types: Mapping[str, type | tuple[type, ...]]) -> None:
    """Raise `ValueError` where a known field that is not null has another type. Booleans are not numbers."""
    for name, value in found.items():
        if value is None or (kind := types.get(name)) is None or type(value) is kind:
            continue
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"{name} is {shown(value)}")


def check_summary(summary: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a summary that cannot be a row in the list of runs: every field must be a single value,
    but for the list of parents."""
    check_fields(summary, _SUMMARY)
    parents = summary.get("parents")
    if isinstance(parents, list) and not all(isinstance(run, str) for run in parents):
        raise ValueError(f"parents holds {shown(next(run for run in parents if not isinstance(run, str)))}")
    for name, value in summary.items():
        if isinstance(value, str) or value is None or name == "parents":
            continue
        if isinstance(value, (list, dict)) or not -_LARGEST < value < _LARGEST:
            raise ValueError(f"{name} is {shown(value)}")
    if summary.get("status") not in STATUSES:
        raise ValueError(f"status is {shown(summary.get('status'))}, not one of {', '.join(STATUSES)}")
    if not isinstance(summary.get("created"), str):
        raise ValueError(f"created is {shown(summary.get('created'))}")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a config without the outline of a run's config: task, model, training, seed, parents."""
    parts = dict.fromkeys(("task", "model", "train", "transfer", "imported"), dict)
    check_fields(config, parts | {"seed": int, "parents": list, "optimiser": str})
    for name in (*parts, "seed"):
        if name in config and config[name] is None:
            raise ValueError(f"{name} is null")
    check_fields(config.get("task", {}), {"name": str})
    if type(start := config.get("train", {}).get("start_at", 0)) is not int:
        raise ValueError(f"train.start_at is {shown(start)}")
    if "imported" in config and not isinstance(files := config["imported"].get("files"), list):
        raise ValueError(f"imported.files is {shown(files)}")
    for parent in config.get("parents") or []:
        if not isinstance(parent, dict) or not isinstance(parent.get("run"), str):
            raise ValueError(f"parents has {shown(parent)}, which names no run")
        check_fields(parent, {"selector": str, "step": int, "ablation": dict})
        if parent.get("ablation") and not isinstance(parent["ablation"].get("name"), str):
            raise ValueError(f"parents has the ablation {shown(parent['ablation'])}, which has no name")


def check_metadata(metadata: Any) -> None:
    """Raise `ValueError` where known fields of a table's metadata have a wrong type."""
    if not isinstance(metadata, dict):
        raise ValueError(f"its metadata are {shown(metadata)}")
    text = dict.fromkeys(("title", "claim", "task", "protocol", "protocol_name", "note", "demo", "config"), str)
    numbers = dict.fromkeys(("threshold", "limit", "target_accuracy"), (int, float))
    check_fields(metadata, text | numbers | {"maps": list, "paper": dict, "paper_notes": dict, "cost": dict})
    for name in ("paper", "cost"):
        check_fields(metadata.get(name) or {}, dict.fromkeys(metadata.get(name) or {}, (int, float)))
    for each in metadata.get("maps") or []:
        if not isinstance(each, dict):
            raise ValueError(f"maps has {shown(each)}")
        check_fields(each, {"title": str, "effects": list, "interactions": list, "coverage": str})


def shown(value: Any) -> str:
    """A stored value for a message, cut to what fits on a line."""
    return "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else shown_value(value, 60)
