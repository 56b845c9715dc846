"""Reports on stored tables and runs: what they say, section by section."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from procpre_interp.analysis.diagnosis import diagnose_all, diagnosis_table, explain_signatures
from procpre_interp.claims.text import conditions_table, describe_cost, map_effects_table, map_interactions_table
from procpre_interp.store.about import StoredMap
from procpre_interp.store.cells import LISTS, with_run_text
from procpre_interp.store.differences import config_differences, flatten, lineage
from procpre_interp.store.run import parents_of
from procpre_interp.store.store import Run, RunStore
from procpre_interp.views.exhibits import pairs, text_results
from procpre_interp.views.exhibits import results as exhibits
from procpre_interp.views.exhibits.damage import diagnosis
from procpre_interp.views.exhibits.run_details import numbers
from procpre_interp.views.exhibits.savings import against_spent, as_text, by_condition, savings
from procpre_interp.views.glossary import SETTING, glossary
from procpre_interp.views.html_page import Block, Caution, Section, cell_text, write_report
from procpre_interp.views.plots.curves import learning_curves
from procpre_interp.views.plots.heatmaps import transfer_bars, transfer_heatmap


def conditions_report(store: RunStore, table_name: str, path: str | Path) -> Path:
    """The report on a stored table of `reproduce` or a sweep: results beside the paper's, curves, protocol and cost.

    The table has one row per condition and replicate; its metadata are title, protocol, threshold, cost and, where
    there are any, paper (accuracies by condition, as shares) and maps (effects of `transfer_map`, with a title each).
    """
    found = exhibits.load_results(store, table_name)
    sections = [
        introduction(found, store),
        *results_sections(found),
        *savings_sections(found),
        *(Section(title=each.title, blocks=_map_blocks(each)) for each in found.about.maps),
        Section(title="Diagnosis", blocks=_condition_diagnosis(found, store)),
        Section(title="Protocol", blocks=[found.about.protocol]),
        Section(title="Cost", blocks=[describe_cost(found.about.cost)]),
        Section(title="Every run", blocks=_cells(found.table)),
        Section(title="Environment", blocks=_environments(store, found.table)),
    ]
    return write_report(path, found.title, sections)


def introduction(found: exhibits.Results, store: RunStore) -> Section:
    """What a reader of the abstract must know of this experiment: the setting, its words, and where to look first."""
    tasks = [each for run in _opened(found, store) for each in [run.config.get("task", {})]]
    reading = (
        "How to read this report: first the answer and the table under Result, where the gain says whether a transfer "
        "helped; then the learning curves, where thick lines are means and thin ones single replicates. A number in "
        "brackets is an interval: with few replicates it is wide, and one that has 0 in it leaves the question open."
    )
    answer = text_results.answer_of(found).text if (found.summary["n"] > 1).to_numpy().all() else ""
    words = glossary([{"name": found.about.task}, *tasks], on_text=found.on_text)
    blocks: list[Block | Caution] = [SETTING, *([answer] if answer else []), reading, words]
    return Section(title="What this is about", blocks=blocks)


def _opened(found: exhibits.Results, store: RunStore) -> list[Run]:
    """One run of each condition and those of the phases before it, as far as the store holds them."""
    rows = found.table.drop_duplicates("condition")
    before = itertools.chain(*(itertools.chain(*rows[name]) for name in LISTS if name in rows.columns))
    ids = [*rows["run"], *before]
    runs = []
    for run_id in dict.fromkeys(str(each) for each in ids if each):
        try:
            runs.append(store.open(run_id, verify=False))
        except ValueError:  # missing or damaged: said under "Learning"
            continue
    return runs


def _cells(table: pd.DataFrame) -> list[Block | Caution]:
    """Every run as text; what all of them have in common stands above, so that the table fits."""
    shown = with_run_text(table.drop(columns=["label"]))
    for name in ("accuracy", "exact_match", "phase1_accuracy"):
        if name in shown:
            shares: list[float] = shown[name].to_numpy(dtype=float).tolist()
            shown[name] = [None if math.isnan(share) else f"{100 * share:.1f} %" for share in shares]
    if "exact_match" in shown and shown["exact_match"].equals(shown["accuracy"]):
        shown = shown.drop(columns="exact_match")
    same = [name for name in shown if len(shown) > 1 and len(set(map(cell_text, shown[name]))) == 1]
    said = ", ".join(f"{name.replace('_', ' ')} {cell_text(shown[name].iloc[0]) or 'none'}" for name in same)
    return [*([f"The same for all: {said}."] if same else []), shown.drop(columns=same)]


def results_sections(found: exhibits.Results) -> list[Section]:
    """Accuracy, learning and time to breakthrough by condition; on text, losses by condition, tokens and compute."""
    result: list[Block | Caution] = []
    if found.is_observation:
        result.append(Caution(text="One replicate: an observation, not a result. Repeat with --replicates 5 or more."))
    result += [found.about.note] if found.about.note else []
    learning: list[Block | Caution] = [Caution(text=problem) for problem in found.problems]
    if found.on_text:
        every = list(found.labels)
        explained = text_results.explained(found)
        result += [text_results.losses_table(found, every), explained, text_results.losses(found, every)]
        if "loss_nats" in found.quantities:
            learning += [text_results.learning(found, along=along) for along in text_results.progress(found)]
        return [Section(title="Result", blocks=result), Section(title="Learning", blocks=learning)]
    result += [conditions_table(found.summary, found.about), exhibits.explained(found), exhibits.accuracy(found)]
    learning += [exhibits.learning(found, name) for name in ("accuracy", "loss_nats") if name in found.histories]
    return [
        Section(title="Result", blocks=result),
        Section(title="Learning", blocks=learning),
        Section(title="Time to breakthrough", blocks=[exhibits.survival(found)]),
    ]


def savings_sections(found: exhibits.Results) -> list[Section]:
    """What phase 1 saves, for results on text: there the loss falls smoothly, and so is reached with fewer tokens."""
    if not found.on_text or "phase1_tokens" not in found.table:
        return []
    try:
        saved = savings(found)
    except ValueError:  # no pair of runs yet, or none that the store holds
        return []
    blocks: list[Block | Caution] = [as_text(saved), saved.note, by_condition(saved), against_spent(saved)]
    return [Section(title="Budgets", blocks=blocks)]


def runs_report(store: RunStore, runs: Sequence[Run], path: str | Path) -> Path:
    """The report on some runs of a store: numbers, curves, diagnosis, what the configs differ in, and parents."""
    runs = list({run.id: run for run in runs}.values())
    about = describe_runs(runs, store)
    histories = pd.concat(
        [run.history().assign(condition=run.id, label=f"{run.id[:8]}: {about[run.id]}", replicate=0) for run in runs],
        ignore_index=True,
    )
    curves: list[Block | Caution] = [
        learning_curves(histories, value, title=title)
        for value, title in (("accuracy", "Accuracy"), ("loss_nats", "Loss"))
        if value in histories and histories[value].notna().to_numpy().any()
    ]
    title = "Config" if len(runs) == 1 else "What the configs differ in"
    introduced: list[Block | Caution] = [
        SETTING,
        "Each of these runs is one line in the figures. One run is an observation, not a result: conditions are "
        "compared over replicates, as `procpre-interp reproduce` and `procpre-interp sweep` do.",
        pd.DataFrame({"Run": list(about), "What it is": list(about.values())}),
        glossary((run.config.get("task", {}) for run in runs), on_text=all("epochs" in run.summary for run in runs)),
    ]
    sections = [
        Section(title="What this is about", blocks=introduced),
        Section(title="Numbers", blocks=[numbers(runs)]),
        Section(title="Learning", blocks=curves),
        Section(title="Diagnosis", blocks=_diagnosis(store, runs)),
        Section(title=title, blocks=[config_differences({run.id: run.config for run in runs})]),
        Section(title="Lineage", blocks=[lineage(runs)]),
        Section(title="Environment", blocks=[_environment_table(run.environment) for run in runs[:1]]),
    ]
    return write_report(path, f"Runs {', '.join(run.id[:8] for run in runs)}", sections)


def _map_blocks(found: StoredMap) -> list[Block | Caution]:
    """A transfer map: all methods beside one another, a heat map each, and the numbers; or why there is none."""
    if found.effects.empty:
        return [Caution(text=found.problem)]
    frame = found.effects.astype({"estimate": float, "low": float, "high": float})
    methods = list(dict.fromkeys(frame["method"]))
    heatmaps = [transfer_heatmap(frame.loc[frame["method"] == method]) for method in methods]
    blocks: list[Block | Caution] = [found.coverage] if found.coverage else []
    blocks += [transfer_bars(frame), *heatmaps, map_effects_table(frame)]
    if len(found.interactions):
        together = found.interactions.astype({"estimate": float, "low": float, "high": float, "p_holm": float})
        blocks += [pairs.heatmap(together, frame), map_interactions_table(together)]
    return blocks


def _diagnosis(store: RunStore, runs: Sequence[Run]) -> list[Block | Caution]:
    """A paragraph a finding, then the numbers behind them."""
    findings = diagnose_all(runs, store)
    said = [f"{each.run[:8]}, {each.signature}: {each.sentence} {each.remedy}" for each in findings]
    return [*said, diagnosis_table(findings).drop(columns="finding")]


def _condition_diagnosis(found: exhibits.Results, store: RunStore) -> list[Block | Caution]:
    """One row per condition with pretraining and what is seen there, over those of its runs that the store holds."""
    note = (
        "One row per condition and what is seen there; one run may show several. Scores are means of these runs. "
        "`procpre-interp diagnose RUN` gives sentences, remedies and comparison runs."
    )
    by_condition, findings = diagnosis(found, store)
    return [by_condition, note, *explain_signatures(findings["signature"])]


def describe_runs(runs: Sequence[Run], store: RunStore) -> dict[str, str]:
    """Run -> what tells it from the others: its task, where its weights came from, its seed; where two are alike in
    that, what else their configs differ in."""
    said = {run.id: _what_it_is(run, store) for run in runs}
    configs = {run.id: flatten(run.config) for run in runs}
    found = {}
    for run in runs:
        alike = [other for other in said if said[other] == said[run.id]]
        fields = dict.fromkeys(name for other in alike for name in configs[other] if not name.startswith("parents"))
        differ = [name for name in fields if len({configs[other].get(name) for other in alike}) > 1]
        more = [f"{name} {configs[run.id].get(name, '(default)')}" for name in differ[:2]]
        found[run.id] = ", ".join([said[run.id], *more])
    return found


def _what_it_is(run: Run, store: RunStore) -> str:
    parts = []
    for entry in parents_of(run):
        try:
            task = store.open(entry["run"], verify=False).task["name"]
        except ValueError:  # the parent is gone, or damaged
            task = "a parent"
        damage = f", {ablation['name'].replace('_', ' ')}" if (ablation := entry.get("ablation")) else ""
        parts.append(f"{entry.get('selector', 'all')} from {task} {entry['run'][:8]}{damage}")
    seed = run.summary.get("seed", "?")
    origin = "imported weights" if "imported" in run.config else "fresh weights"
    return f"{run.summary.get('task', '')}, {' and '.join(parts) or origin}, seed {seed}"


def _environments(store: RunStore, table: pd.DataFrame) -> list[Block | Caution]:
    """The distinct environments that the runs were computed in (their starts left out)."""
    seen: dict[str, Mapping[str, object]] = {}
    for run_id in table["run"]:
        try:
            found = store.open(run_id, verify=False).environment
        except ValueError:  # missing or damaged: said under "Learning"
            continue
        found = {key: value for key, value in found.items() if key != "started"}
        seen[json.dumps(found, sort_keys=True)] = found
    return [_environment_table(found) for found in seen.values()]


def _environment_table(environment: Mapping[str, object]) -> pd.DataFrame:
    return pd.DataFrame(list(flatten(environment).items()), columns=["", "value"])
