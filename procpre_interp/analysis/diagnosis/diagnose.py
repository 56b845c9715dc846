"""Why a transfer failed: failure signatures of runs, named with the numbers that say so.

A run is compared with others of its store, as `evidence` finds them; a comparison that the store does not hold is
named, never guessed. The rules are in `signatures` (what is seen) and `reasons` (why it may be so).
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from procpre_interp.analysis.diagnosis.evidence import Evidence, score_name, score_of
from procpre_interp.analysis.diagnosis.reasons import reasons, token_ratio
from procpre_interp.analysis.diagnosis.signatures import (
    Finding,
    Numbers,
    copying,
    difference,
    full_below_selective,
    margin,
    outcome,
    percent,
    shown,
    verdict,
)
from procpre_interp.core.config import ORIGIN
from procpre_interp.store.differences import flatten
from procpre_interp.store.run import Run, parents_of
from procpre_interp.store.store import RunStore

NO_SIGNATURE = "no failure signature"
NO_BASELINE = "no baseline"
"""There is nothing to judge a run by, which is no failure of its."""

EXPLAINED = {
    NO_SIGNATURE: "the transfer gained, or there was none to judge",
    "no gain": "no better than the same model without pretraining, neither in score nor in time to breakthrough",
    "at baseline": "no better than the same model without pretraining, neither in score nor in time to breakthrough",
    "below baseline": "worse than the same model without pretraining",
    NO_BASELINE: "the store has no run without pretraining to compare with",
    "diverged": "the training loss ran away",
    "shuffled or noised lineage": "its weights, or its phase-1 sequences, were shuffled or noised: reason enough",
    "phase 1 under-trained": "pretraining had not reached the accuracy that helps, or was still learning",
    "phase 1 over-trained": "a transfer from an earlier state of the same pretraining does better",
    "positions not carried": "the position embeddings were fresh",
    "embeddings fresh": "the token embeddings or the unembedding were fresh",
    "LayerNorms not selected": "attention or MLP came without the LayerNorms that it was trained with",
    "full below selective": "transferring everything did worse than attention or MLP alone from the same parent",
    "domain mismatch": "both treat embeddings and positions alike, so what full transfer adds does harm, or delays the "
    "gain",
    "confounded": "the two transfers differ in more than their parts",
    "this replicate only": "over all replicates there is no such difference",
}
"""What the parts of a signature's name mean."""


def diagnose(run: Run, store: RunStore) -> list[Finding]:
    """The failure signatures of a finished run, or one finding that says that there is none."""
    return diagnose_all([run], store)


def diagnose_all(runs: Sequence[Run], store: RunStore, summaries: pd.DataFrame | None = None) -> list[Finding]:
    """The findings on several runs, in their order; the store is read once, or was (`summaries`: its `query`)."""
    evidence = Evidence(store, summaries)
    return [finding for run in runs for finding in _findings(run, evidence)]


def diagnosis_table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per finding, as text: run, signature, finding, numbers."""
    rows = [[each.run, each.signature, each.sentence, describe_numbers(each.numbers)] for each in findings]
    return pd.DataFrame(rows, columns=["run", "signature", "finding", "numbers"])


def describe_numbers(numbers: Mapping[str, float | int | str]) -> str:
    """Names and values in one line, in the units that people read: shares in %, their differences in points."""
    in_nats = any(name.endswith("loss_nats") for name in numbers)

    def text(name: str, value: float | int | str) -> str:
        if isinstance(value, str):
            return value
        if name.endswith(("accuracy", "late_fall")):
            return percent(value)
        if isinstance(value, float) and ("gain" in name or "lead" in name):
            return f"{value:+.3f} nats" if in_nats else f"{100 * value:+.1f} points"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    return ", ".join(f"{name.replace('_', ' ')} {text(name, value)}" for name, value in numbers.items())


def diagnosis_by_condition(findings: Sequence[Finding], cells: pd.DataFrame) -> pd.DataFrame:
    """One row per signature of each condition of `cells` (columns label, run), as text: its runs, and their mean score,
    that of the same models without pretraining, and the gain, where the finding has them."""
    labels, rows = dict(zip(cells["run"], cells["label"])), []
    for label in dict.fromkeys(labels[each.run] for each in findings):
        group = [each for each in findings if labels[each.run] == label]
        n = len({each.run for each in group})
        for signature in dict.fromkeys(each.signature for each in group):
            found = [each.numbers for each in group if each.signature == signature]
            rows.append([label, signature, f"{len(found)} of {n}", *_mean_scores(found)])
    columns = ["Condition", "What is seen", "Runs", "Score", "Without pretraining", "Gain"]
    return pd.DataFrame(rows, columns=columns)


def _mean_scores(found: Sequence[Numbers]) -> tuple[str, str, str]:
    """Mean score, baseline's score and gain of some findings as text; empty where one of them has none."""
    name = "loss_nats" if all("loss_nats" in each for each in found) else "accuracy"
    in_nats = name == "loss_nats"
    scale, digits = (1.0, ".3f") if in_nats else (100.0, ".1f")

    def mean(key: str, sign: str, unit: str) -> str:
        if not all(key in each for each in found):
            return ""
        value = scale * sum(float(each[key]) for each in found) / len(found)
        return f"{value:{sign}{digits}} {'nats' if in_nats else unit}"

    return mean(name, "", "%"), mean(f"baseline_{name}", "", "%"), mean("gain", "+", "points")


def explain_signatures(signatures: Iterable[str]) -> list[str]:
    """A line for each part of these signatures' names that says what it means."""
    named = list(signatures)
    return [f"{part}: {meaning}." for part, meaning in EXPLAINED.items() if any(part in name for name in named)]


def _findings(run: Run, evidence: Evidence) -> list[Finding]:
    if run.summary["status"] == "diverged":
        return [_diverged(run)]
    if "imported" in run.config:
        sentence = "Imported, and not trained here: there is no score, and no transfer to judge."
        return [Finding(run=run.id, signature=NO_SIGNATURE, sentence=sentence, numbers={}, remedy="")]
    if not parents_of(run):
        sentence = f"Score {shown(run)}. Trained from fresh weights: there is no transfer to judge."
        numbers: Numbers = {score_name(run): run.summary[score_name(run)]}
        return [Finding(run=run.id, signature=NO_SIGNATURE, sentence=sentence, numbers=numbers, remedy="")]
    found = list(full_below_selective(run, evidence))
    baseline = evidence.baselines(run).get(run.seed)
    if baseline is None or score_of(baseline) is None:
        return [_no_baseline(run, baseline, evidence), *found]
    seen, damage = verdict(run, baseline), evidence.damage(run)
    sentence, numbers = outcome(run, baseline, evidence)
    if damage:
        sentence, numbers = f"Lineage: {'; '.join(damage)}. {sentence}", numbers | {"damage": "; ".join(damage)}
    if seen == "gain":
        remedy = "The damage does not take the gain away in this run." if damage else ""
        return found or [Finding(run=run.id, signature=NO_SIGNATURE, sentence=sentence, numbers=numbers, remedy=remedy)]
    if damage:
        signature, remedy, causes = f"{seen}: shuffled or noised lineage", _undamaged(run, evidence), []
    else:
        signature = "no gain" if seen == "at baseline" else seen
        judged = list(reasons(run, evidence, signature))
        causes = [each for each in judged if isinstance(each, Finding)]
        remarks = [each for each in judged if isinstance(each, str)]
        if not causes:
            remarks.insert(0, "None of the known reasons is seen.")
        remedy, numbers = " ".join(remarks), numbers | token_ratio(run, evidence)
    if numbers["gained"]:
        remedy += " Other replicates did gain: compare times to breakthrough over more seeds, with a longer limit."
    first = Finding(run=run.id, signature=signature, sentence=sentence, numbers=numbers, remedy=remedy)
    return [first, *causes, *found]


def _undamaged(run: Run, evidence: Evidence) -> str:
    """What the same transfer reaches without the damage, if the store has it."""
    intact = [each for each, factors in evidence.siblings(run) if factors <= {"ablation", "sequences"}]
    intact = [each for each in intact if not evidence.damage(each)]
    if not intact:
        return "The same transfer without the damage would tell what the damage took away; it is not in the store."
    best = max(intact, key=lambda each: difference(each, run))
    same = difference(best, run) <= margin(run)
    remark = ": in this replicate the damage need not be the cause." if same else "."
    return f"The same transfer without the damage reaches {shown(best)} (run {best.id}){remark}"


def _diverged(run: Run) -> Finding:
    step, limit, why = run.summary["steps"], run.summary.get("breakthrough_limit"), run.summary.get("stop_reason")
    sentence = f"Diverged at step {step:,}{f' of {limit:,}' if limit else ''}: {why}."
    numbers: Numbers = {"status": "diverged", "stop_reason": str(why), "step": step}
    rate = run.config.get("train", {}).get("learning_rate")
    remedy = f"Lower --train.learning-rate{f' (now {rate:g})' if rate else ''}, or lengthen --train.warmup-steps."
    return Finding(run=run.id, signature="no gain: diverged", sentence=sentence, numbers=numbers, remedy=remedy)


def _no_baseline(run: Run, diverged: Run | None, evidence: Evidence) -> Finding:
    """The baseline is missing, or diverged: so the gain is unknown."""
    sentence = (
        f"Score {shown(run)}; the gain is unknown: no baseline run with seed {run.seed} (same "
        "task, model and training, without parents) in the store."
    )
    numbers: Numbers = {score_name(run): run.summary[score_name(run)], "seed": run.seed}
    remedy = _baseline_command(run, evidence)
    if diverged is not None:
        sentence = f"Score {shown(run)}; the gain is unknown: the baseline run {diverged.id} diverged."
        numbers, remedy = numbers | {"baseline_run": diverged.id}, "Lower --train.learning-rate for both."
    elif evidence.n_damaged:
        sentence += f" Damaged runs, {evidence.n_damaged} of them, were not used; it may be among these."
        numbers |= {"damaged_runs": evidence.n_damaged}
    sentence += copying(run)
    return Finding(run=run.id, signature="no baseline", sentence=sentence, numbers=numbers, remedy=remedy)


def _baseline_command(run: Run, evidence: Evidence) -> str:
    """The command that trains the run's model from fresh weights; words where options cannot say its task."""
    task = run.task
    parts = {part: run.config.get(part, {}) for part in ("task", "model", "train")}
    if any(isinstance(value, (list, dict)) for part in parts.values() for value in part.values()):
        return f"Train the task, model, train and seed of {run.folder / 'config.yaml'} without its parents."
    flags = flatten(parts)
    words = ["procpre-interp", "train", "--task", task["name"], "--seed", str(run.seed)]
    if plugin := task.get("plugin"):
        words += ["--import", str(plugin).partition("@")[0]]
    for name, value in flags.items():
        part, _, option = name.partition(".")
        if option and option not in {"name", *ORIGIN}:
            option = option.replace("_", "-")
            words += {"true": [f"--{part}.{option}"], "false": [f"--{part}.no-{option}"]}.get(
                value, [f"--{part}.{option}", value]
            )
    return f"This makes it: `{shlex.join([*words, '--store', str(evidence.store.path)])}`"
