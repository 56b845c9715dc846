"""Where does it live? Effects of the parts of a model on the gain of a transfer, and the curves behind each part."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import yaml

from procpre_interp.describe import map_effects_table
from procpre_interp.exhibits.exhibit import Exhibit
from procpre_interp.exhibits.results import Results, learning
from procpre_interp.players import coalitions, condition_name, place
from procpre_interp.plots.axes import add_click_targets
from procpre_interp.plots.heatmaps import METHODS, transfer_bars, transfer_heatmap
from procpre_interp.transfer_map import OUTCOMES, transfer_map

READINGS = {
    "add_one_in": "blue: this part alone raises the outcome over transferring nothing; red: it lowers it",
    "leave_one_out": "blue: the whole transfer is better with this part than without it; red: it is better without",
    "shapley": "blue: the part adds to the outcome on average over all sets of other parts; red: it takes away",
}
"""How to read the colours of each method."""

MOST_PARTS = 6
"""Parts that the answer names of each kind; a map of heads has dozens."""

METHOD_NAMES = {name: text[0].upper() + text[1:] for name, (_, text) in METHODS.items()}
"""Method -> what people read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferMap:
    """The runs of one transfer map: a row a coalition of players (column coalition) and replicate."""

    title: str
    players: tuple[str, ...]
    methods: tuple[str, ...]
    n_orders: int
    rows: pd.DataFrame
    conditions: dict[str, str]
    """Coalition -> the condition that stands for it in the table."""

    @property
    def outcomes(self) -> dict[str, str]:
        """What the table has of `OUTCOMES`: name -> what people read."""
        known = {name: each for name, each in OUTCOMES.items() if set(each.columns) <= set(self.rows)}
        return {name: f"{each.description} ({each.unit})" for name, each in known.items()}

    @property
    def is_fine(self) -> bool:
        """Whether some player is a single head or a matrix."""
        places = [place(player) for player in self.players]
        return any(spot["head"] is not None or spot["matrix"] is not None for spot in places)


def maps(results: Results) -> list[TransferMap]:
    """The transfer maps of a sweep that have effects. Raises `ValueError` for a table without any."""
    try:
        configs = yaml.safe_load(results.about.get("config") or "")["maps"]
        pairs = list(zip(configs, results.about["maps"], strict=True))
        found = [_map(results, config, stored) for config, stored in pairs if stored["effects"]]
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        raise ValueError(f"table {results.name} has no transfer map that can be read") from None
    if not found:
        raise ValueError(f"table {results.name} has no transfer map with a complete replicate")
    return found


def _map(results: Results, config: dict, stored: dict) -> TransferMap:
    players = tuple(dict.fromkeys(effect["player"] for effect in stored["effects"]))
    methods = tuple(dict.fromkeys(effect["method"] for effect in stored["effects"]))
    given, n_orders, table = config.get("given", ""), int(config.get("n_orders", 4)), results.table
    conditions: dict[str, str] = {}
    for replicate in table["replicate"].unique():
        for coalition in coalitions(players, methods, replicate=int(replicate), n_orders=n_orders):
            chosen = coalition.split("|") if coalition else []
            conditions[coalition] = condition_name(config["phase1"], chosen, given)
    named = {condition: coalition for coalition, condition in conditions.items()}
    rows = table.loc[table["condition"].isin(list(named))]
    rows = rows.assign(coalition=rows["condition"].map(named)).reset_index(drop=True)
    return TransferMap(
        title=str(stored["title"]),
        players=players,
        methods=methods,
        n_orders=n_orders,
        rows=rows,
        conditions=conditions,
    )


def effects(found: TransferMap, outcome: str = "accuracy") -> pd.DataFrame:
    """Effect of each player by each method, as `transfer_map` gives it."""
    return transfer_map(found.rows, found.players, found.methods, outcome, n_orders=found.n_orders)


def answer(table: pd.DataFrame) -> str:
    """In words: which parts carry the gain, which harm it, and what is left of that when adjusted for their number.

    `table` is that of `effects`, of one method and outcome. The largest effects come first.
    """
    about = OUTCOMES[table["outcome"].iloc[0]]
    better = -1 if "below 0" in about.description else 1
    helps, harms, rest = [], [], []
    for row in table.sort_values("estimate", key=abs, ascending=False, kind="stable").to_dict("records"):
        said = f"{row['player']} ({_bounds(row, about.unit)})"
        low, high = sorted((better * row["low"], better * row["high"]))
        (helps if low > 0 else harms if high < 0 else rest).append(said)
    parts = [f"Carries the gain: {_listed(helps) or 'no part for sure'}."]
    parts += [f"Harms it: {_listed(harms)}."] if harms else []
    parts += [f"Not told from 0: {_listed(rest)}."] if rest else []
    return " ".join([*parts, _adjusted(table)])


def heatmap(table: pd.DataFrame) -> Exhibit:
    """The effects of one method on one outcome over the model; each cell can be clicked, and is its player."""
    method = str(table["method"].iloc[0])
    return Exhibit(
        name=f"transfer_map_{method}",
        figure=add_click_targets(transfer_heatmap(table)),
        reading=f"{READINGS.get(method, 'blue is up, red is down')}; brackets: the interval includes 0.".capitalize(),
        table=table,
        notes=("Intervals are not adjusted for the number of parts; the table's decisions are (Holm).",),
    )


def bars(table: pd.DataFrame) -> Exhibit:
    """The effects of all methods on one outcome, with intervals."""
    return Exhibit(
        name="transfer_effects",
        figure=transfer_bars(table),
        reading="A part matters for sure where its interval does not cross the line at 0; the methods may disagree, "
        "where parts replace or need one another.",
        table=table,
    )


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The effects for people: one row a method and player."""
    return map_effects_table(table.to_dict("records"))


def compared(found: TransferMap, player: str) -> dict[str, str]:
    """Conditions that show what a player does: condition -> what people read. Those that the table has."""
    if player not in found.players:
        raise ValueError(f"no part {player[:40]!r} in this map; there are: {', '.join(found.players)}")
    others = [each for each in found.players if each != player]
    named = {
        "": "nothing",
        player: f"{player} alone",
        "|".join(others): f"all but {player}",
        "|".join(found.players): "all parts",
    }
    present = set(found.rows["condition"])
    return {
        found.conditions[coalition]: label
        for coalition, label in named.items()
        if found.conditions.get(coalition) in present
    }


def curves(results: Results, found: TransferMap, player: str, quantity: str = "accuracy") -> Exhibit:
    """Learning curves with a player and without it: alone against nothing, and all against all but this one."""
    labels = compared(found, player)
    exhibit = learning(results.keep(list(labels)).relabel(labels), quantity)
    missing = [label for condition, label in labels.items() if condition not in set(exhibit.table["condition"])]
    notes = (f"Not drawn, as their runs are not in the store: {', '.join(missing)}.",) if missing else ()
    return replace(exhibit, notes=(*exhibit.notes, *notes))


def runs_behind(found: TransferMap, player: str) -> pd.DataFrame:
    """The runs of these curves: what was transferred, replicate, run, accuracy, breakthrough."""
    labels = compared(found, player)
    rows = found.rows.loc[found.rows["condition"].isin(list(labels))]
    columns = ["replicate", "run", "phase1_run", "status", "accuracy", "breakthrough_step"]
    shown = rows.assign(transferred=rows["condition"].map(labels))
    return shown[["transferred", *[name for name in columns if name in shown]]].reset_index(drop=True)


def _adjusted(table: pd.DataFrame) -> str:
    """What the tests say, adjusted for the number of parts. Intervals are not, so a reader must be told both."""
    significant = table.loc[table["decision"] == "significant", "player"].tolist()
    undecided = [text.partition(": ")[2] for text in table["decision"] if text.startswith("undecided: ")]
    if significant:
        found = f"significant: {_listed(significant)}"
    elif len(undecided) == len(table):
        found = f"none can be decided: {undecided[0]}"
    else:
        found = "none is significant"
    return f"By the tests, adjusted for {len(table)} parts (Holm), {found}."


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_PARTS
    return ", ".join(names[:MOST_PARTS]) + (f" and {more} more" if more > 0 else "")


def _bounds(row: dict, unit: str) -> str:
    """An effect and its interval with one precision for all three numbers."""
    scale, name = (100, "points") if unit.startswith("share") else (1, unit)
    values = np.array([scale * row[key] for key in ("estimate", "low", "high")])
    if np.isnan(values[0]):
        return "no complete replicate"
    form = "+,.0f" if np.nanmax(np.abs(values)) >= 1000 else "+.1f" if scale == 100 else "+.2f"
    estimate, low, high = (format(value, form) for value in values)
    interval = "no interval" if np.isnan(values[1:]).any() else f"[{low}, {high}]"
    return f"{estimate} {interval} {name}" if interval.startswith("[") else f"{estimate} {name}, {interval}"
