"""Where does it live? Effects of the parts of a model on the gain of a transfer, and the curves behind each part."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from procpre_interp.claims.text import map_effects_table, question_title
from procpre_interp.core.plain_values import parse_yaml
from procpre_interp.core.selectors import place
from procpre_interp.stats.coalitions import SAMPLING, Coalition, Sampling, coalitions, condition_name, coverage
from procpre_interp.stats.rows import named_rows
from procpre_interp.stats.summary import ALPHA, Decision
from procpre_interp.stats.transfer_map import OUTCOMES, Outcome, transfer_map
from procpre_interp.store.about import StoredMap, about_table
from procpre_interp.store.store import RunStore
from procpre_interp.views.exhibits import text_results
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import Results, learning
from procpre_interp.views.plots.axes import add_click_targets
from procpre_interp.views.plots.heatmaps import METHODS, effect_text, transfer_bars, transfer_heatmap

READINGS = {
    "add_one_in": "Blue: this part alone raises the outcome over transferring nothing; red: it lowers it",
    "leave_one_out": "Blue: this part raises the outcome over a transfer of all others; red: it lowers it",
    "shapley": "Blue: the part adds to the outcome on average over all sets of other parts; red: it takes away",
}
"""How to read the colours of each method."""

MOST_PARTS = 6
"""Parts that the answer names of each kind; a map of heads has dozens."""

PARTS = {
    "attn": "attention (queries, keys, values, output) of all layers",
    "mlp": "MLP of all layers",
    "ln": "LayerNorms of all layers and the last one",
    "ln_final": "the last LayerNorm",
    "pos": "position embeddings",
    "embed": "token embeddings and unembedding, each the average of the parent's",
    "blocks": "all layers",
}
"""What the names of whole parts stand for."""

METHOD_NAMES = {name: text[0].upper() + text[1:] for name, (_, text) in METHODS.items()}
"""Method -> what people read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferMap:
    """The runs of one transfer map: a row per coalition of players (column coalition) and replicate."""

    title: str
    players: tuple[str, ...]
    methods: tuple[str, ...]
    outcome: str
    """What the sweep was to explain: on text the loss."""
    sampling: Sampling
    rows: pd.DataFrame
    conditions: dict[Coalition, str]
    """Coalition -> the condition that stands for it in the table."""

    @property
    def outcomes(self) -> dict[str, str]:
        """What the table has of `OUTCOMES`, the map's own first: name -> what people read."""
        names = dict.fromkeys([self.outcome, *OUTCOMES])
        known = {name: OUTCOMES[name] for name in names if set(OUTCOMES[name].columns) <= set(self.rows)}
        return {name: f"{each.description} ({each.effect_unit})" for name, each in known.items()}

    @property
    def coverage(self) -> str:
        """How many coalitions it is made of, in a sentence."""
        first = min(int(replicate) for replicate in self.rows["replicate"].tolist())
        return coverage(self.players, self.methods, replicate=first, sampling=self.sampling)

    @property
    def is_fine(self) -> bool:
        """Whether some player is a single head or a matrix."""
        places = [place(player) for player in self.players]
        return any(spot.head is not None or spot.matrix is not None for spot in places)


def priority(players: Iterable[str]) -> tuple[int, int]:
    """Which map is shown first, by its parts, the highest: in which layers the gain lies is the first question, then in
    which heads and matrices, of which a map has so many that it decides little; last are parts of all layers together.
    Of maps alike the one with more parts."""
    places = [place(player) for player in players]
    if all(spot.layer is None for spot in places):
        kind = 0
    elif any(spot.matrix is not None for spot in places):
        kind = 1
    else:
        kind = 2 if any(spot.head is not None for spot in places) else 3
    return kind, len(places)


def by_priority(found: Sequence[TransferMap]) -> list[int]:
    """Places of the maps of a sweep in their list, the one that is shown first in front."""
    return sorted(range(len(found)), key=lambda index: priority(found[index].players), reverse=True)


def first_shown(store: RunStore, names: Sequence[str]) -> list[str]:
    """Names of tables with transfer maps, the one with the map that is shown first in front; equals stay in order."""
    ranks = {}
    for name in names:
        stored = about_table(store.read_table(name).metadata).maps
        ranks[name] = max(priority(each.effects["player"].unique()) for each in stored if len(each.effects))
    return sorted(names, key=ranks.__getitem__, reverse=True)


def maps(results: Results) -> list[TransferMap]:
    """The transfer maps of a sweep that have effects. Raises `ValueError` for a table without any."""
    try:
        configs = parse_yaml(results.about.config)["maps"]
        pairs = list(zip(configs, results.about.maps, strict=True))
        found = [_map(results, config, stored) for config, stored in pairs if len(stored.effects)]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError(f"table {results.name} has no transfer map that can be read") from None
    if not found:
        raise ValueError(f"table {results.name} has no transfer map with a complete replicate")
    return found


def _map(results: Results, config: dict, stored: StoredMap) -> TransferMap:
    players = tuple(dict.fromkeys(stored.effects["player"]))
    methods = tuple(dict.fromkeys(stored.effects["method"]))
    given, table = config.get("given", ""), results.table
    sampling = Sampling(
        n_orders=int(config.get("n_orders", SAMPLING.n_orders)),
        exact_up_to=int(config.get("exact_up_to", SAMPLING.exact_up_to)),
        interactions=bool(config.get("interactions", False)),
    )
    conditions: dict[Coalition, str] = {}
    for replicate in table["replicate"].unique():
        for coalition in coalitions(players, methods, replicate=int(replicate), sampling=sampling):
            conditions[coalition] = condition_name(config["phase1"], coalition, given)
    named = {condition: coalition for coalition, condition in conditions.items()}
    rows = table.loc[table["condition"].isin(list(named))]
    rows = rows.assign(coalition=rows["condition"].map(named)).reset_index(drop=True)
    return TransferMap(
        title=stored.title,
        players=players,
        methods=methods,
        outcome=str(stored.effects["outcome"].iloc[0]),
        sampling=sampling,
        rows=rows,
        conditions=conditions,
    )


def effects(found: TransferMap, outcome: str | None = None) -> pd.DataFrame:
    """Effect of each player by each method, as `transfer_map` gives it. Default: on the map's own outcome."""
    return transfer_map(found.rows, found.players, found.methods, outcome or found.outcome, sampling=found.sampling)


def answer(table: pd.DataFrame) -> Answer:
    """A few sentences: which parts carry the gain or harm it, and which are not decided; the largest effects come
    first.

    `table` is that of `effects`, of one method and outcome. The rule is that of its column decision: a part counts only
    where its test is significant after the adjustment for the number of parts (Holm).
    """
    about = OUTCOMES[table["outcome"].iloc[0]]
    better = 1 if about.higher_is_better else -1
    helps, harms, rest = [], [], []
    for row in named_rows(table.sort_values("estimate", key=abs, ascending=False, kind="stable")):
        said = f"{row.player} ({_bounds(float(row.estimate), float(row.low), float(row.high), about)})"
        decided = row.decision == Decision.SIGNIFICANT
        (rest if not decided else helps if better * row.estimate > 0 else harms).append(said)
    parts = [f"Carries the gain: {_listed(helps)}."] if helps else []
    parts += [f"Harms it: {_listed(harms)}."] if harms else []
    if not parts:
        parts.append("No part is decided.")
    parts.append(_rule(table))
    parts += [f"Not decided, with 95 % intervals of each part alone: {_listed(rest)}."] if rest else []
    return Answer(" ".join(parts), decided=bool(helps or harms))


def heatmap(table: pd.DataFrame) -> Exhibit:
    """The effects of one method on one outcome over the model; each cell can be clicked, and is its player."""
    method = str(table["method"].iloc[0])
    return Exhibit(
        name=f"transfer_map_{method}",
        figure=add_click_targets(transfer_heatmap(table, title=_title(table))),
        reading=f"{READINGS.get(method, 'Blue is up, red is down')}{_wanted(table)}. "
        "In brackets the 95 % interval of each part alone; bold: decided after the adjustment for the number of parts "
        "(Holm).",
        table=table,
        notes=_legend(table),
    )


def bars(table: pd.DataFrame) -> Exhibit:
    """The effects of all methods on one outcome, with intervals."""
    return Exhibit(
        name="transfer_effects",
        figure=transfer_bars(table, title=_title(table)),
        reading="Intervals are of each part alone, so one that does not cross the line at 0 decides nothing yet: the "
        "table's decisions are adjusted for the number of parts (Holm). The methods may disagree, where parts replace "
        "or need one another.",
        table=table,
        notes=_legend(table),
    )


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """The effects for people: one row per method and player."""
    return map_effects_table(table)


def compared(found: TransferMap, player: str) -> dict[str, str]:
    """Conditions that show what a player does: condition -> what people read. Those that the table has."""
    if player not in found.players:
        raise ValueError(f"no part {player[:40]!r} in this map; there are: {', '.join(found.players)}")
    named = {
        (): "nothing",
        (player,): f"{player} alone",
        tuple(each for each in found.players if each != player): f"all but {player}",
        found.players: "all parts",
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
    kept = results.keep(list(labels)).relabel(labels)
    exhibit = text_results.learning(kept, quantity, "step") if kept.on_text else learning(kept, quantity)
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


def _title(table: pd.DataFrame) -> str:
    """Which parts are decided, of those of the table; a part counts once, whichever method decides it."""
    decided = list(dict.fromkeys(table.loc[table["decision"] == Decision.SIGNIFICANT, "player"]))
    question = f"Which parts matter for {str(table['outcome'].iloc[0]).replace('_', ' ')}?"
    return question_title(question, f"Decided: {_listed(decided)}" if decided else "None is decided")


def _wanted(table: pd.DataFrame) -> str:
    """Which way is better, where it is not up."""
    return "" if OUTCOMES[str(table["outcome"].iloc[0])].higher_is_better else " (here lower is better)"


def _legend(table: pd.DataFrame) -> tuple[str, ...]:
    """What the names of the parts stand for, those that a reader cannot read off a selector."""
    known = [f"{part} = {PARTS[part]}" for part in dict.fromkeys(table["player"]) if part in PARTS]
    return (f"Parts: {'; '.join(known)}.",) if known else ()


def _rule(table: pd.DataFrame) -> str:
    """When a part counts as decided, and whether this many replicates could decide any."""
    rule = f"The rule: p of at most {ALPHA}, adjusted for {len(table)} parts (Holm)"
    least = float(table["smallest_p_holm"].to_numpy(dtype=float).min())
    if not least > ALPHA:
        return f"{rule}."
    return f"{rule}; with n = {table['n'].max()} replicates it cannot be below {least:.3g}, so no result could decide."


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_PARTS
    return ", ".join(names[:MOST_PARTS]) + (f" and {more} more" if more > 0 else "")


def _bounds(mean: float, low: float, high: float, about: Outcome) -> str:
    """An effect and its interval in the unit that people read."""
    values = [about.scale * value for value in (mean, low, high)]
    if np.isnan(values[0]):
        return "no complete replicate"
    name = "points" if about.is_share else about.unit
    shown, *bounds = (effect_text(value, about) for value in values)
    return f"{shown} {name}, no interval" if np.isnan(values[1:]).any() else f"{shown} [{', '.join(bounds)}] {name}"
