"""Did transfer help, on text? Loss by condition, and over tokens and compute; from one stored table."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from procpre_interp.claims.contrast_text import bounds_text, number
from procpre_interp.claims.text import question_title
from procpre_interp.stats.baselines import compared_with
from procpre_interp.stats.losses import summarise_losses
from procpre_interp.stats.rows import named_rows
from procpre_interp.views.exhibits import results as by_accuracy
from procpre_interp.views.exhibits.exhibit import Answer, Exhibit
from procpre_interp.views.exhibits.results import LOSSES, QUANTITIES, Results
from procpre_interp.views.plots.curves import from_the_steep_part, learning_curves, score_by_condition


def answer_of(results: Results) -> Answer:
    """What the results say first: of text by the loss, of other tasks by accuracy."""
    return answer(results) if results.on_text else by_accuracy.answer(results)


def answer(results: Results) -> Answer:
    """Which conditions lowered the loss below that of no pretraining by their intervals, which raised it, and by how
    much."""
    rows = [row for row in named_rows(_compared(results, summarise_losses(results.table))) if row.n]
    sides = [1 if row.gain_low > 0 else -1 if row.gain_high < 0 else 0 for row in rows]

    def listed(side: int) -> str:
        found = [row for row, its in zip(rows, sides) if its == side]
        return ", ".join(f"{row.label} (gain {gain(row)}, n = {row.gain_n})" for row in found)

    def gain(row: Any) -> str:
        return bounds_text(row.gain_mean, row.gain_low, row.gain_high, 1, "+.3f") or "unknown"

    parts = [f"Lower loss than no pretraining: {listed(1)}." if 1 in sides else "No condition lowered the loss."]
    parts += [f"Higher: {listed(-1)}."] if -1 in sides else []
    parts += [f"Open: {listed(0)}."] if 0 in sides else []
    rule = (
        "The rule: the 95 % interval of the gain, in nats per token, lies above 0 (lower loss), below it (higher) or "
        "has 0 in it."
    )
    return Answer(" ".join([*parts, rule]), decided=any(sides))


def losses(results: Results, conditions: Sequence[str]) -> Exhibit:
    """Test loss of these conditions with its interval; the gains stay those over no pretraining."""
    summary = _kept(results, conditions)
    compared = _compared(results, summary)
    lower = int((compared["gain_low"] > 0).to_numpy().sum())
    title = question_title("Did transfer help?", f"It lowered the loss in {lower} of {len(compared)} conditions")
    table = results.table.loc[results.table["condition"].isin(conditions)]
    return Exhibit(
        name="losses",
        figure=score_by_condition(summary, "loss_nats", table=table, title=title),
        reading="The lower the better. Transfer helped where the interval of the gain, in the table, lies wholly above "
        "0: it compares replicates in pairs, as the intervals of this figure do not.",
        table=summary,
    )


def losses_table(results: Results, conditions: Sequence[str]) -> pd.DataFrame:
    """The same as text: losses and gains, each with its interval in brackets, and what they cost."""
    summary = _kept(results, conditions)
    rows, diverged = [], (summary["diverged"] > 0).to_numpy().any()
    compared = _compared(results, summary)
    fewer = (compared["gain_n"] < compared["n"]).to_numpy().any()
    has = set(summary) - ({"tokens", "teraflops"} if _chained(results) else {"total_tokens", "total_teraflops"})
    for row in named_rows(summary):
        line = {
            "Condition": row.label,
            "Loss, nats per token": bounds_text(row.loss_nats_mean, row.loss_nats_low, row.loss_nats_high, 1, ".3f"),
            "Gain, nats": bounds_text(row.gain_mean, row.gain_low, row.gain_high, 1, "+.3f"),
            **({"Pairs": str(row.gain_n)} if fewer else {}),
            **({"Bits per byte": f"{row.bits_per_byte:.3f}"} if "bits_per_byte" in has else {}),
            **({"Perplexity": f"{row.perplexity:,.4g}"} if "perplexity" in has else {}),
            **({"Answers right": f"{row.answers_right:.1%}"} if "answers_right" in has else {}),
            **({"Million tokens": f"{row.tokens / 1e6:,.3g}"} if "tokens" in has else {}),
            **({"Million tokens, all phases": f"{row.total_tokens / 1e6:,.3g}"} if "total_tokens" in has else {}),
            **({"Epochs": f"{row.epochs:.3g}"} if "epochs" in has else {}),
            **({"Compute": f"{row.phase1_teraflops:,.3g} + {row.teraflops:,.3g}"} if "teraflops" in has else {}),
            **({"Compute, all phases": number(row.total_teraflops, ",.3g")} if "total_teraflops" in has else {}),
        }
        rows.append(line | ({"Diverged": str(row.diverged)} if diverged else {}))
    return pd.DataFrame(rows)


def explained(results: Results) -> str:
    """What the columns of `losses_table` mean, for the line below it."""
    phases = "all phases of a chain" if _chained(results) else "phase 1 + phase 2 of a run"
    return (
        "Loss: on the test set. Gain: how far below no pretraining, within replicates. Bits per byte do not depend on "
        "the tokenizer. Answers right: exact match of whole answers by greedy decoding, of text that asks. Epochs: how "
        f"often {_last_phase(results)} went through the training split. Compute: {phases}, 10¹² floating-point "
        "operations."
    )


def _chained(results: Results) -> bool:
    """Whether some condition has more than phase 1 and then phase 2."""
    return "chain" in results.table


def _last_phase(results: Results) -> str:
    """What the tokens, epochs and curves of a table are of."""
    return "the last phase" if _chained(results) else "phase 2"


def _compared(results: Results, summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of a summary that have a gain: all but those that others are compared with."""
    return summary.loc[~summary["condition"].isin(list(compared_with(results.table)))]


def _kept(results: Results, conditions: Sequence[str]) -> pd.DataFrame:
    summary = summarise_losses(results.table)
    return summary.loc[summary["condition"].isin(conditions)]


def progress(results: Results) -> dict[str, str]:
    """What learning can be drawn against: column of `with_progress` -> what people read.

    Compute only where every run has phase 1 and then phase 2: phase 1 in the middle is spent there, not before, and
    the table does not say what a phase before the last one took.
    """
    names = {"tokens": f"Tokens of {_last_phase(results)}", "teraflops": "Compute, phase 1 included", "step": "Steps"}
    counted = results.table.reindex(columns=["teraflops", "phase1_teraflops"]).notna().to_numpy().all()
    if _chained(results):
        cells = results.table[["chain", "phase1_run"]].itertuples(index=False, name=None)
        counted = counted and all(len(chain) <= len({*phase1}) + 1 for chain, phase1 in cells)
    return {name: title for name, title in names.items() if name != "teraflops" or counted}


def with_progress(results: Results) -> pd.DataFrame:
    """The evaluations with `teraflops`: the compute up to each of them, that of phase 1 included.

    Where `progress` has it. Every token of phase 2 costs the same: an evaluation has the share of the compute that it
    has of the tokens.
    """
    if "teraflops" not in progress(results):
        return results.histories
    cost = results.table.set_index("run")[["tokens", "teraflops", "phase1_teraflops"]]
    cost = cost.loc[~cost.index.duplicated()].reindex(results.histories["run"]).set_axis(results.histories.index)
    spent = cost["phase1_teraflops"] + cost["teraflops"] * results.histories["tokens"] / cost["tokens"]
    return results.histories.assign(teraflops=spent)


def quantities(results: Results) -> dict[str, str]:
    """What the evaluations hold, losses first: column -> what people read."""
    known = results.quantities
    return {name: known[name] for name in (*LOSSES, *known) if name in known}


def learning(results: Results, quantity: str = "loss_nats", along: str = "tokens") -> Exhibit:
    """A validation quantity over training by condition, against one of `progress`.

    Raises `ValueError` where no run can be read, and for compute that `progress` leaves out.
    """
    if along not in progress(results):
        raise ValueError(f"the curves of {results.name} cannot be drawn against {along}")
    if quantity not in results.quantities:
        raise ValueError(f"none of the runs of {results.name} has evaluations of {quantity}")
    evaluations = with_progress(results)
    title = f"{QUANTITIES[quantity]} over training, by condition"
    tokens = f"Tokens of {_last_phase(results)}"
    x_title = tokens if along == "tokens" else ""
    figure = learning_curves(evaluations, quantity, along=along, title=title, x_title=x_title)
    if quantity in LOSSES:
        from_the_steep_part(figure, evaluations, quantity)
    better = "lower" if quantity in LOSSES else "higher"
    apart = f"A curve that lies {better} has learned more of the same text from as much training."
    reading = {
        "step": apart,
        "tokens": f"{apart} Its horizontal distance from no pretraining is how many {tokens.lower()} it saves.",
        "teraflops": "Curves of transfers begin where their phase 1 ended: one that gets "
        f"{better} than no pretraining has paid for it.",
    }[along]
    return Exhibit(
        name=f"learning_{quantity}_{along}",
        figure=figure,
        reading=f"{reading} The axis leaves out the losses of the first fifth." if quantity in LOSSES else reading,
        table=evaluations,
    )
