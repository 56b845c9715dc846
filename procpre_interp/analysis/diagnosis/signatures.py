"""Failure signatures: rules over a run and the evidence on it, each yielding a finding with its numbers.

Source: P1 and P2, which name the signatures; the margins are ours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from procpre_interp.analysis.diagnosis.evidence import (
    Evidence,
    factor,
    parents_of,
    score_name,
    score_of,
    score_word,
    selector_of,
)
from procpre_interp.core.selectors import parse_selector
from procpre_interp.stats.summary import interval_note, replicate_bootstrap
from procpre_interp.store.run import Run

BASELINE_MARGIN = 0.05
"""Accuracy, a share: a smaller difference is none. Ten standard errors of haystack's test (4,000 sequences at 11 %)."""

LOSS_MARGIN = 0.02
"""Nats a token, the margin on text: 2 % of perplexity, where the paper's gains are 4 to 6 %."""

TIME_MARGIN = 0.1
"""Share of the step limit: a breakthrough sooner than the baseline's by more is a gain even at the same score."""

FULL = ({"all"}, {"blocks", "ln_final"}, {"blocks", "ln"}, {"attn", "mlp", "ln"})
"""Selectors, as sets of terms, that take every weight but the embeddings."""

Numbers = dict[str, float | int | str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One signature of one run."""

    run: str
    """Its id."""
    signature: str
    """What was recognised."""
    sentence: str
    """What was found, with its numbers and the runs that it rests on."""
    numbers: Numbers
    """The numbers behind it: shares in 0 to 1, steps, tokens, ids."""
    remedy: str
    """What mends it, or what would tell."""


def verdict(run: Run, baseline: Run) -> str:
    """The run beside its baseline: "gain", "at baseline" or "below baseline".

    A gain is one of score or, where the score is not below the baseline's, of steps to breakthrough.
    """
    gain = difference(run, baseline)
    if gain < -margin(run):
        return "below baseline"
    limit = min(each.summary.get("breakthrough_limit") or each.summary["steps"] for each in (run, baseline))
    steps = [each.summary.get("breakthrough_step") for each in (run, baseline)]
    times = [limit if step is None else min(step, limit) for step in steps]
    return "gain" if gain > margin(run) or times[1] - times[0] > TIME_MARGIN * limit else "at baseline"


def outcome(run: Run, baseline: Run, evidence: Evidence) -> tuple[str, Numbers]:
    """The run beside its baseline, and what the other replicates say, as sentences and as numbers."""
    gain, name = difference(run, baseline), score_name(run)
    sentence = (
        f"{score_word(run).capitalize()} {shown(run)}, without pretraining {shown(baseline)} (run "
        f"{baseline.id}): {shown_difference(run, gain)}. Breakthrough: {_when(run)}; without pretraining: "
        f"{_when(baseline)}."
    )
    numbers: Numbers = {name: run.summary[name], f"baseline_{name}": baseline.summary[name], "gain": gain}
    for column, each in (("breakthrough_step", run), ("baseline_breakthrough_step", baseline)):
        if (step := each.summary.get("breakthrough_step")) is not None:
            numbers[column] = step
    pairs = _pairs(evidence.replicates(run), evidence.baselines(run))
    text, bounds = _over_replicates(pairs, "Mean gain")
    gained = sum(verdict(*pair) == "gain" for pair in pairs.values())
    if len(pairs) > 1:
        text += f" Gained: {gained} of {len(pairs)}."
        if len({entry["run"] for each, _ in pairs.values() for entry in parents_of(each)}) == len(parents_of(run)):
            text += " All share one phase 1, whose seed was not varied."
    return f"{sentence} {text}{copying(run)}", numbers | {"baseline_run": baseline.id} | bounds | {"gained": gained}


def copying(run: Run) -> str:
    """A remark on a haystack run that scores no more than copying a random value of the context does."""
    task = run.task
    if task["name"] != "haystack":
        return ""
    pairs = range(task.get("min_pairs", 1), task.get("max_pairs", 30) + 1)
    chance = sum(1 / n for n in pairs) / len(pairs)
    if run.summary["accuracy"] > chance:
        return ""
    return f" Copying a random value of the context scores about {percent(chance)}: no retrieval formed."


def full_below_selective(run: Run, evidence: Evidence) -> Iterator[Finding]:
    """Full transfer below that of attention or MLP alone (with or without LayerNorms) from the same parent.

    The best selective run that treats embeddings and positions alike; only where none is ahead, the best other one.
    """
    if len(parents_of(run)) != 1 or terms_of(run) not in FULL or score_of(run) is None:
        return
    rivals = [each for each in evidence.siblings(run) if _is_selective(each[0])]
    rivals = [each for each in rivals if "selector" in each[1] and not each[1] & {"ablation", "step", "sequences"}]
    alike = [each for each in rivals if each[1] == {"selector"}]
    if not any(difference(each, run) > margin(run) for each, _ in alike):
        alike = rivals
    best, factors = max(alike, key=lambda each: difference(each[0], run), default=(run, frozenset()))
    lead, confounding = difference(best, run), sorted(factors - {"selector"})
    if lead <= margin(run):
        return
    pairs = _pairs(evidence.replicates(best), evidence.replicates(run))
    text, bounds = _over_replicates(pairs, "Mean lead")
    if len(pairs) > 1:
        broke = [sum(pair[i].summary.get("breakthrough_step") is not None for pair in pairs.values()) for i in (1, 0)]
        text += f" Of {len(pairs)} each, {broke[0]} full and {broke[1]} selective ones broke through."
    name = score_name(run)
    sentence = (
        f"Full transfer reaches {shown(run)}, {selector_of(best)} from the same parent {shown(best)} (run {best.id}): "
        f"{shown_difference(run, lead)}. {text}"
    )
    numbers: Numbers = {name: run.summary[name], f"selective_{name}": best.summary[name], "lead": lead}
    numbers |= {"selective": selector_of(best), "selective_run": best.id, "compared": len(alike)} | bounds
    kind = "domain mismatch"
    if confounding:
        values = [f"{option} ({factor(run, option)} here, {factor(best, option)} there)" for option in confounding]
        sentence += f" They differ in {', '.join(values)} too: the comparison is confounded."
        kind, numbers["confounded_by"] = "confounded", ", ".join(confounding)
        remedy = f"Give both the same {', '.join(confounding)}; only then can the components be blamed."
    elif float(bounds.get("mean_lead", lead)) <= margin(run):
        kind = "this replicate only"
        remedy = (
            "Over replicates there is no such lead, so it is rather a matter of seeds that break through late or never."
        )
    else:
        remedy = (
            "Embeddings and positions are treated alike: what full transfer adds does harm here, or delays the gain."
        )
    if len(alike) > 1:
        remedy += f" The best of {len(alike)} selective runs was chosen, which flatters it: confirm on fresh seeds."
    signature = f"full below selective: {kind}"
    yield Finding(run=run.id, signature=signature, sentence=sentence, numbers=numbers, remedy=remedy)


def terms_of(run: Run) -> set[str]:
    """Names of all terms of its parents' selectors, those that are taken away with a `-` before them."""
    selectors = [entry.get("selector", "all") for entry in parents_of(run)]
    return {term.name if term.sign == "+" else f"-{term.name}" for each in selectors for term in parse_selector(each)}


def margin(run: Run) -> float:
    """The difference in score from which on it counts, in the unit of the run's score."""
    return LOSS_MARGIN if score_name(run) == "loss_nats" else BASELINE_MARGIN


def difference(run: Run, other: Run) -> float:
    """Score of the first minus that of the second; NaN where one diverged."""
    scores = [score_of(each) for each in (run, other)]
    return float("nan") if scores[0] is None or scores[1] is None else scores[0] - scores[1]


def shown(run: Run) -> str:
    """The run's score as text, with its unit."""
    value = run.summary.get(score_name(run))
    if value is None:
        return str(run.summary["status"])
    return f"{value:.3f} nats" if score_name(run) == "loss_nats" else percent(value)


def shown_difference(run: Run, value: float) -> str:
    """A difference in the score of such a run as text; positive is better."""
    return f"{_signed(run, value)} {'nats gained' if score_name(run) == 'loss_nats' else 'points'}"


def _signed(run: Run, value: float) -> str:
    return f"{value:+.3f}" if score_name(run) == "loss_nats" else f"{100 * value:+.1f}"


def percent(share: float | None) -> str:
    """A share as text."""
    return "none" if share is None else f"{100 * share:.1f} %"


def _is_selective(run: Run) -> bool:
    terms = terms_of(run)
    return ("attn" in terms) != ("mlp" in terms) and terms <= {"attn", "mlp", "ln", "ln1", "ln2", "ln_final"}


def _when(run: Run) -> str:
    step = run.summary.get("breakthrough_step")
    return f"none in {run.summary['steps']:,} steps" if step is None else f"at step {step:,}"


def _pairs(these: Mapping[int, Run], those: Mapping[int, Run]) -> dict[int, tuple[Run, Run]]:
    """The runs of both conditions by seed, where both have a score."""
    both = {seed: (these[seed], those[seed]) for seed in sorted(these.keys() & those.keys())}
    return {seed: pair for seed, pair in both.items() if difference(*pair) == difference(*pair)}


def _over_replicates(pairs: Mapping[int, tuple[Run, Run]], what: str) -> tuple[str, Numbers]:
    """The mean difference in score with its interval, as a sentence and as numbers."""
    if len(pairs) < 2:
        return "One replicate: an observation, not a result.", {"n": len(pairs)}
    differences = pd.DataFrame({"difference": [difference(*pair) for pair in pairs.values()]})
    values = dict(zip(("", "_low", "_high"), replicate_bootstrap(differences).iloc[0].tolist()))
    name, one = what.lower().replace(" ", "_"), next(iter(pairs.values()))[0]
    low, high = (_signed(one, values[key]) for key in ("_low", "_high"))
    numbers: Numbers = {"n": len(pairs)} | {f"{name}{key}": value for key, value in values.items()}
    return f"{what} {shown_difference(one, values[''])} [{low}, {high}], {interval_note(len(pairs))}.", numbers
