"""Why a transfer brought no gain: the known reasons, each a finding, ruled out, or not to be judged from the store."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from procpre_interp.analysis.diagnosis.evidence import Evidence, factor, selector_of
from procpre_interp.analysis.diagnosis.signatures import (
    Finding,
    Numbers,
    difference,
    margin,
    percent,
    shown,
    shown_difference,
    terms_of,
)
from procpre_interp.core.plain_values import load_header
from procpre_interp.core.regular_files import open_regular
from procpre_interp.store.run import Run, parents_of

DYCK_ACCURACY = 0.41
"""Next-token accuracy that 16-Dyck had to reach in phase 1 before haystack gained, as measured with this toolkit."""

STILL_FALLING = 0.03
"""Share of the whole fall of a validation loss that came in the last fifth of training; on a straight line, 0.2."""

FEWEST_EVALUATIONS = 10
"""Evaluations needed: with fewer, a fifth of the history is one noisy evaluation, and nothing is said about its
fall."""

LARGEST_HEADER = 1 << 24
"""Bytes of a safetensors header that are read at most: a file of another format may claim anything."""


def reasons(run: Run, evidence: Evidence, prefix: str) -> Iterator[Finding | str]:
    """Findings on why there is no gain, and remarks: what was ruled out, and what cannot be judged."""
    siblings = evidence.siblings(run)
    for entry in parents_of(run):
        parent = evidence.open(entry["run"])
        if parent is None:
            yield f"Parent {entry['run']} is missing or damaged: its training and lineage cannot be judged."
        else:
            yield from _under_trained(run, entry, parent, evidence, prefix)
    earlier = [each for each, factors in siblings if factors == {"step"} and _is_earlier(run, each, evidence)]
    if earlier:
        yield _over_trained(run, earlier, evidence, prefix)
    else:
        remarks = ["Over-training cannot be judged: no run after a shorter phase 1 in the store."]
        yield " ".join([*remarks, _ratio(run, evidence), _earlier_command(run, evidence)]).replace("  ", " ")
    if run.summary.get("positions_carried") is False:
        sentence, numbers = _positions(run, evidence)
        rivals = [each for each, factors in siblings if factors == {"positions"}]
        rivals = [each for each in rivals if each.summary.get("positions_carried")]
        remedy = "Carry them: --transfer.positions carry, from a phase 1 whose context (--model.n-ctx) is long enough."
        yield _judged(run, rivals, prefix, "positions not carried", sentence, numbers, remedy)
    fresh = [name for name in ("token_embedding", "unembedding") if factor(run, name) == "fresh"]
    if fresh:
        rivals = [each for each, factors in siblings if factors <= {"token_embedding", "unembedding"}]
        rivals = [each for each in rivals if not any(factor(each, name) == "fresh" for name in fresh)]
        sentence = f"Not taken from the parent, but fresh: {', '.join(fresh)}."
        options = " ".join(f"--transfer.{name.replace('_', '-')} average" for name in fresh)
        remedy = f"Transfer again with {options}."
        yield _judged(run, rivals, prefix, "embeddings fresh", sentence, {"fresh": ", ".join(fresh)}, remedy)
    if _lacks_layer_norms(run):
        rivals = [each for each, factors in siblings if factors == {"selector"}]
        rivals = [each for each in rivals if terms_of(each) == terms_of(run) | {"ln"}]
        sentence = f"{selector_of(run)} came without the LayerNorms that phase 1 trained with it."
        selectors = [f"{entry.get('selector', 'all')}+ln" for entry in parents_of(run)]
        remedy = f"Transfer again with --components {shlex.join(selectors)}."
        numbers: Numbers = {"components": selector_of(run)}
        yield _judged(run, rivals, prefix, "LayerNorms not selected", sentence, numbers, remedy)


def _under_trained(
    run: Run, entry: Mapping[str, Any], parent: Run, evidence: Evidence, prefix: str
) -> Iterator[Finding | str]:
    """Phase 1 below the accuracy that the task needs, where that is known; else a loss that was still falling."""
    task, signature = parent.task, f"{prefix}: phase 1 under-trained"
    step, tokens, accuracy = _phase1(entry, parent, evidence)
    numbers: Numbers = {"phase1_run": parent.id, "phase1_step": step, "phase1_tokens": tokens}
    remedy = "Train phase 1 for more steps (--train.steps), then transfer again."
    numbers |= {} if accuracy is None else {"phase1_accuracy": accuracy}
    reached = f"Phase 1 ({task['name']}, {step:,} steps) reached {percent(accuracy)}"
    if run.task["name"] == "haystack" and task["name"] == "dyck" and task.get("k", 16) == 16:
        if accuracy is not None and accuracy < DYCK_ACCURACY:
            sentence = f"{reached} next-token accuracy; haystack gained from about {percent(DYCK_ACCURACY)} on."
            numbers["needed_accuracy"] = DYCK_ACCURACY
            yield Finding(run=run.id, signature=signature, sentence=sentence, numbers=numbers, remedy=remedy)
        elif accuracy is not None:
            yield f"Not the reason here: phase 1 reached {percent(accuracy)}; it needs {percent(DYCK_ACCURACY)}."
        return
    falling = _late_fall(evidence, parent, step)
    if falling is None:
        yield f"{reached}; from its history it cannot be told whether it was still learning."
    elif falling > STILL_FALLING:
        sentence = (
            f"{reached} and was still learning: {100 * falling:.0f} % of the whole fall of its validation loss came in "
            f"the last fifth of its training (said from {100 * STILL_FALLING:.0f} % on)."
        )
        numbers["late_fall"] = falling
        yield Finding(run=run.id, signature=signature, sentence=sentence, numbers=numbers, remedy=remedy)
    else:
        yield f"{reached}; its loss no longer fell."


def _late_fall(evidence: Evidence, parent: Run, step: int) -> float | None:
    """Share of the whole fall of the validation loss that came in the last fifth; None where that cannot be told.

    Medians of the last fifth of the evaluations and of the fifth before, since single ones are noisy.
    """
    losses = evidence.validation(parent, step)["loss_nats"]
    fifth = len(losses) // 5
    if len(losses) < FEWEST_EVALUATIONS:
        return None
    late, before = losses.iloc[-fifth:].median(), losses.iloc[-2 * fifth : -fifth].median()
    whole = losses.iloc[0] - late
    return float((before - late) / whole) if whole > 0 else None


def _over_trained(run: Run, rivals: Sequence[Run], evidence: Evidence, prefix: str) -> Finding | str:
    """A transfer from an earlier state of phase 1 that does better."""
    best = max(rivals, key=lambda each: difference(each, run))
    (steps, tokens), (earlier, earlier_tokens) = _phase1_cost(run, evidence), _phase1_cost(best, evidence)
    gained = difference(best, run)
    if gained <= margin(run):
        return (
            f"Not the reason here: over-training, since {earlier:,} phase-1 steps give {shown(best)} (run {best.id})."
        )
    sentence = (
        f"The transfer after {earlier:,} instead of {steps:,} phase-1 steps ({earlier_tokens:,} instead of {tokens:,} "
        f"tokens) reaches {shown(best)} (run {best.id}): {shown_difference(run, gained)}. {_ratio(run, evidence)}"
    )
    numbers: Numbers = {"phase1_step": steps, "earlier_step": earlier, "phase1_tokens": tokens}
    numbers |= {"earlier_tokens": earlier_tokens, "earlier_gain": gained, "earlier_run": best.id}
    remedy = "Transfer from earlier checkpoints (--parent RUN@STEP), and choose among them on other seeds."
    signature = f"{prefix}: phase 1 over-trained"
    return Finding(
        run=run.id, signature=signature, sentence=sentence, numbers=numbers | token_ratio(run, evidence), remedy=remedy
    )


def token_ratio(run: Run, evidence: Evidence) -> Numbers:
    """Tokens of phase 1 for each token of phase 2; nothing where a parent is missing."""
    if any(evidence.open(entry["run"]) is None for entry in parents_of(run)):
        return {}
    return {"phase1_tokens_per_token": _phase1_cost(run, evidence)[1] / run.summary["tokens"]}


def _ratio(run: Run, evidence: Evidence) -> str:
    ratio = token_ratio(run, evidence)
    return "".join(f"Phase 1 had {value:.2g} times the tokens of phase 2." for value in ratio.values())


def _phase1_cost(run: Run, evidence: Evidence) -> tuple[int, int]:
    """Steps and tokens behind the weights that the parents gave, each parent counted once."""
    taken = {(entry["run"], entry.get("step")): entry for entry in parents_of(run)}.values()
    parents = [(entry, evidence.open(entry["run"])) for entry in taken]
    costs = [_phase1(entry, parent, evidence) for entry, parent in parents if parent is not None]
    return sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)


def _is_earlier(run: Run, other: Run, evidence: Evidence) -> bool:
    """Whether the other's parents gave weights of fewer steps."""
    if any(evidence.open(entry["run"]) is None for each in (run, other) for entry in parents_of(each)):
        return False
    theirs, mine = (sum(evidence.step(entry) or 0 for entry in parents_of(each)) for each in (other, run))
    return theirs < mine


def _earlier_command(run: Run, evidence: Evidence) -> str:
    """How to make the transfer from an earlier checkpoint."""
    config = shlex.quote(str(run.folder / "config.yaml"))
    entries = [(entry, evidence.open(entry["run"])) for entry in parents_of(run)]
    kept = [[s for s in parent.steps if 0 < s < (evidence.step(entry) or 0)] for entry, parent in entries if parent]
    if len(kept) < len(entries) or not all(kept):
        return "Phase 1 kept no earlier weights: train it with fewer --train.steps, or with --train.checkpoints."
    parents = " ".join(f"{entry['run']}@{steps[-1]}" for (entry, _), steps in zip(entries, kept))
    store = shlex.quote(str(evidence.store.path))
    return f"`procpre-interp transfer --config {config} --parent {parents} --store {store}` makes one."


def _phase1(entry: Mapping[str, Any], parent: Run, evidence: Evidence) -> tuple[int, int, float | None]:
    """Steps, tokens and accuracy (tested at the end, before it validated) of phase 1 where the weights were taken."""
    step = entry.get("step")
    if step is None:
        return parent.summary["steps"], parent.summary["tokens"], parent.summary["accuracy"]
    rows = evidence.validation(parent, step)
    if rows.empty:
        return step, parent.summary["tokens"] * step // parent.summary["steps"], None
    return step, int(rows["tokens"].iloc[-1]), float(rows["accuracy"].iloc[-1])


def _positions(run: Run, evidence: Evidence) -> tuple[str, Numbers]:
    """That positions are fresh, and why: by choice, or since the parent's context is too short."""
    parents = parents_of(run)
    which = factor(run, "embedding_parent")
    parent = evidence.open(parents[which]["run"]) if which < len(parents) else None
    contexts = {"n_ctx": _context(run), "parent_n_ctx": None if parent is None else _context(parent)}
    numbers: Numbers = {name: size for name, size in contexts.items() if size is not None}
    if factor(run, "positions") == "fresh":
        return "Position embeddings are fresh: the transfer asked for that.", {"positions": "fresh"} | numbers
    told = {name: "of unknown length" if size is None else f"{size} positions" for name, size in contexts.items()}
    sentence = (
        f"Position embeddings are fresh, since the parent's context is the shorter one: {told['parent_n_ctx']}, the "
        f"model's {told['n_ctx']}."
    )
    return sentence, numbers


def _context(run: Run) -> int | None:
    """Positions of the run's model, from the header of its weights; None where these cannot be read."""
    try:
        with run.reading(), open_regular(run.weights_path()) as file:
            header = load_header(file, LARGEST_HEADER)
        return int(header["pos_embed.W_pos"]["shape"][0])
    except (ValueError, LookupError, TypeError):  # damaged, of another format, or no weights kept
        return None


def _lacks_layer_norms(run: Run) -> bool:
    """Whether attention or MLP weights were taken without any LayerNorm."""
    terms = terms_of(run)
    taken = {term for term in terms if not term.startswith("-")}
    norms = any("ln" in term or re.fullmatch(r"all|blocks(\.\d+)?", term) for term in taken)
    return "-ln" in terms or (not norms and any("attn" in term or "mlp" in term for term in taken))


def _judged(
    run: Run, rivals: Sequence[Run], prefix: str, name: str, sentence: str, numbers: Numbers, remedy: str
) -> Finding | str:
    """A possible reason, `name`, checked against the runs that differ in it alone: supported, ruled out or open."""
    best = max(rivals, key=lambda each: difference(each, run), default=None)
    if best is None:
        sentence += " Whether it matters here is open: no run that differs in this alone is in the store."
    elif difference(best, run) <= margin(run):
        return f"Not the reason here: {name}, since with this changed run {best.id} reaches {shown(best)}."
    else:
        sentence += f" Run {best.id}, which differs in this alone, reaches {shown(best)}."
        numbers = {**numbers, "changed_run": best.id, "changed_gain": difference(best, run)}
        remedy = f"{remedy} It helped in this replicate."
    return Finding(run=run.id, signature=f"{prefix}: {name}", sentence=sentence, numbers=numbers, remedy=remedy)
