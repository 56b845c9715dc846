"""`procpre-interp patch`: which activations, edges and circuits carry an answer, on counterfactual pairs."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from procpre_interp.analysis.circuit_overlap import circuit_overlaps, circuit_reuse
from procpre_interp.commands._models import (
    Columns,
    Look,
    of_stored_runs,
    options_given,
    show,
    stage_title,
    subjects,
)
from procpre_interp.commands._options import Runs, parse
from procpre_interp.core.seeding import stream
from procpre_interp.core.text_table import stdout_console
from procpre_interp.data import samples
from procpre_interp.data.counterfactual import Pairs
from procpre_interp.patch import activation_patching, circuit_curve, edge_attribution, edge_patching, gap_of, head_test
from procpre_interp.pipeline.lineage import Subject, table_of
from procpre_interp.store.store import Run, RunStore
from procpre_interp.train.process import run_threads
from procpre_interp.views.plots.circuit_graph import circuit_graph
from procpre_interp.views.plots.circuits import faithfulness_curve
from procpre_interp.views.plots.measures import measure_dots
from procpre_interp.views.plots.patching import gap_note, patch_heatmap

What = Literal["nodes", "edges", "exact_edges", "circuit", "heads", "overlap", "reuse"]


@dataclass(frozen=True, kw_only=True)
class Patch(Look):
    """Which activations, edges and circuits carry an answer?

    Pairs of a clean and a corrupted sequence differ in one cause; what the model says changes with it. RUN is an id,
    the beginning of one, "latest", RUN@STEP for kept weights, or a folder with a GPT-2 of Hugging Face's. With several
    runs the table has means over them.
    """

    runs: Runs = ()
    """Models to patch."""
    what: What = "nodes"
    """nodes: activation patching; edges: EAP-IG scores of all edges; exact_edges: each edge patched alone; circuit: how
    much the strongest edges carry; heads: which heads a learned mask keeps (no pairs); overlap, reuse: whether
    circuits of phase 1, of the transplanted and the finished model are the same, and what each carries in the last."""
    cause: str | None = None
    """What differs in a pair. Default: pairs of every cause of the task. `procpre-interp tasks` names them."""
    sites: tuple[str, ...] = ("resid_pre", "attn_out", "mlp_out", "z")
    """nodes: resid_pre, resid_mid, resid_post, attn_out, mlp_out, q, k, v, z, pattern."""
    by_position: bool = False
    """nodes: every position by itself."""
    direction: Literal["denoise", "noise"] = "denoise"
    """nodes, exact_edges: put clean activations into the corrupted run (denoise), or the other way round (noise)."""
    replacement: Literal["other", "zero", "mean", "resample"] = "other"
    """nodes, circuit: what replaces an activation: the other sequence's, zeros, the mean over pairs, or another
    pair's."""
    method: Literal["eap", "eap_ig_inputs", "eap_ig_activations"] = "eap_ig_inputs"
    """edges, circuit: how edges are scored: by the gradient in one run, or its mean on the way between two."""
    gradient_run: Literal["corrupted", "clean"] = "corrupted"
    """edges, circuit with eap or eap_ig_activations: the run in which the gradient is taken. "clean" is that of the
    methods' authors."""
    metric: Literal["logit_difference", "probability", "loss"] = "logit_difference"
    """Read where the two sequences' next tokens differ."""
    seed: int = 0
    """Seed of the pairs and of everything else that is drawn at random."""


def main(arguments: list[str]) -> int:
    """Print the table, and write the figures if asked."""
    command = parse(Patch, "patch", arguments)
    if command.what in ("overlap", "reuse"):
        of_stored_runs(command.runs, command.what)
    _refuse_unread(command)
    found = subjects(command.runs, command, "patch")
    measure, columns = WHAT[command.what]
    with run_threads(1):
        table = table_of(found, lambda subject: measure(subject, command))
    title = stage_title(found, command.what.replace("_", " "))
    figures = _figures(command, table) if command.html is not None else []
    show(table, columns, command, figures, title)
    if command.format == "table":
        for run, rows in table.groupby("run", sort=False):
            if note := gap_note(rows):
                stdout_console().print(f"{run}: {note}")
    return 0


def pairs_of(subject: Subject, command: Patch) -> Pairs:
    """`command.sequences` pairs of the cause, or of each where none is named."""
    return samples.pairs_of(subject.task, command.cause, command.seed, command.sequences)


def _nodes(subject: Subject, command: Patch) -> pd.DataFrame:
    return activation_patching(
        subject.model,
        pairs_of(subject, command),
        sites=command.sites,
        by_position=command.by_position,
        direction=command.direction,
        replacement=command.replacement,
        metric=command.metric,
        generator=stream(command.seed, "resample"),
    )


def _edges(subject: Subject, command: Patch) -> pd.DataFrame:
    pairs = pairs_of(subject, command)
    table = _scores(subject, pairs, command).assign(**gap_of(subject.model, pairs, metric=command.metric).columns())
    return table.sort_values("score", key=abs, ascending=False, kind="stable")


def _scores(subject: Subject, pairs: Pairs, command: Patch) -> pd.DataFrame:
    return edge_attribution(
        subject.model, pairs, metric=command.metric, method=command.method, gradient_run=command.gradient_run
    )


def _exact_edges(subject: Subject, command: Patch) -> pd.DataFrame:
    table = edge_patching(subject.model, pairs_of(subject, command), metric=command.metric, direction=command.direction)
    return table.sort_values("effect", key=abs, ascending=False, kind="stable")


def _circuit(subject: Subject, command: Patch) -> pd.DataFrame:
    pairs = pairs_of(subject, command)
    scores = _scores(subject, pairs, command)
    replacement = "corrupted" if command.replacement == "other" else command.replacement
    generator = stream(command.seed, "random circuits")
    return circuit_curve(
        subject.model, pairs, scores, metric=command.metric, replacement=replacement, generator=generator
    )


def _heads(subject: Subject, command: Patch) -> pd.DataFrame:
    generator = stream(command.seed, "head test", subject.task.stream_label)
    batch, test = (subject.task.probe_batch(command.sequences, generator=generator) for _ in range(2))
    return head_test(subject.model, batch, test, generator=generator)


def _of_run(measure: Callable[[list[Run], RunStore], pd.DataFrame], subject: Subject, command: Patch) -> pd.DataFrame:
    moment = subject.moment
    assert moment is not None  # `of_stored_runs` has refused other models
    if moment.step is not None:
        raise ValueError(f"--what {command.what} compares all stages of a run in one way; leave out @STEP")
    return measure([moment.run], RunStore(command.store)).drop(columns=["run", "replicate"])


_PAIRS = {"cause", "metric", "seed", "sequences", "stage", "task"}
READ: dict[str, set[str]] = {
    "nodes": _PAIRS | {"sites", "by_position", "direction", "replacement"},
    "edges": _PAIRS | {"method", "gradient_run"},
    "exact_edges": _PAIRS | {"direction"},
    "circuit": _PAIRS | {"method", "gradient_run", "replacement"},
    "heads": {"seed", "sequences", "stage", "task"},
    "overlap": set(),
    "reuse": set(),
}
"""Which options each of them reads."""


def _refuse_unread(command: Patch) -> None:
    """Raise `ValueError` for options that would change nothing, so that nobody reports what was never computed."""
    read = READ[command.what]
    if given := options_given(command, sorted(set().union(*READ.values()) - read)):
        why = "reads other options" if read else "compares all stages of a run in one way"
        raise ValueError(f"--what {command.what} {why}; leave out {', '.join(given)}")


WHAT: dict[str, tuple[Callable[[Subject, Patch], pd.DataFrame], Columns]] = {
    "nodes": (_nodes, Columns(("site", "layer", "head", "position"), ("value", "effect", "share"))),
    "edges": (_edges, Columns(("writer", "reader"), ("score",))),
    "exact_edges": (_exact_edges, Columns(("writer", "reader"), ("value", "effect", "share"))),
    "circuit": (_circuit, Columns(("search", "n_edges"), ("value", "faithfulness", "completeness"))),
    "heads": (
        _heads,
        Columns(
            ("mask", "sparsity"),
            ("n_kept", "kl_nats", "random_kl_nats_mean", "accuracy", "random_accuracy_mean", "full_accuracy"),
        ),
    ),
    "overlap": (
        partial(_of_run, circuit_overlaps),
        Columns(("first", "second"), ("n_shared", "jaccard", "null_mean", "null_high", "p")),
    ),
    "reuse": (partial(_of_run, circuit_reuse), Columns(("circuit", "n_edges"), ("faithfulness", "completeness"))),
}
"""What is measured, and which columns people are shown."""


def _figures(command: Patch, table: pd.DataFrame) -> list[go.Figure]:
    """Figures of the first run: an average of circuits is none."""
    first = table.loc[table["run"] == table["run"].iloc[0]]
    if command.what == "nodes":
        return [patch_heatmap(first, site) for site in command.sites]
    if command.what in ("edges", "exact_edges"):
        return [circuit_graph(first.rename(columns={"effect": "score"}), n=30)]
    if command.what == "circuit":
        return [faithfulness_curve(first)]
    shown = {
        "heads": ("kl_nats", "random_kl_nats_mean"),
        "overlap": ("jaccard", "null_mean"),
        "reuse": ("faithfulness", "completeness"),
    }
    return [measure_dots(table, WHAT[command.what][1].keys, shown[command.what], title=command.what)]
