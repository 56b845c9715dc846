"""How do weights move? Spectra of matrices, how far training moved them, and how alike representations are."""

from procpre_interp.data import Task
from procpre_interp.data.samples import SEQUENCES, sample
from procpre_interp.model import HookedTransformer
from procpre_interp.probe import drift as drift_table
from procpre_interp.probe.representation import cka
from procpre_interp.probe.weights import spectra as spectra_table
from procpre_interp.views.exhibits.exhibit import Exhibit
from procpre_interp.views.plots.weights import cka_heatmap, drift_figure, spectrum_figure


def spectra(model: HookedTransformer, *, of: str = "") -> Exhibit:
    """Singular values of every matrix of a model. `of`: whose, for the title."""
    table = spectra_table(model)
    return Exhibit(
        name="spectra",
        figure=spectrum_figure(table, title=f"Singular values{f': {of}' if of else ''}"),
        reading="A line that falls steeply is a matrix of few directions; a flat one is still like its random start.",
        table=table,
    )


def drift(before: HookedTransformer, after: HookedTransformer, *, of: str = "") -> Exhibit:
    """How far each matrix moved between two models, and in which directions.

    Raises `ValueError` for models of different shapes.
    """
    table = drift_table(before, after)
    return Exhibit(
        name="drift",
        figure=drift_figure(table, title=f"How far matrices moved{f': {of}' if of else ''}"),
        reading="First row: how much a matrix changed, and whether it still points the same way. Second row: how much "
        "of the change lies in the directions that the matrix had; at a diamond it went anywhere, right of it it "
        "stayed within them.",
        table=table,
        notes=tuple(f"{row['name']} is left out: {row['note']}." for row in table.to_dict("records") if row["note"]),
    )


def likeness(
    first: HookedTransformer,
    second: HookedTransformer,
    task: Task,
    *,
    seed: int = 0,
    names: tuple[str, str] = ("first model", "second model"),
) -> Exhibit:
    """Linear CKA of the residual streams of two models on sequences of a task.

    Raises `ValueError` for a model that does not know the task's tokens.
    """
    for model, name in zip((first, second), names):
        if model.config.d_vocab < task.d_vocab or model.config.n_ctx < task.n_ctx:
            raise ValueError(f"{name} has no place for {task.name}: other token ids or too few positions")
    table = cka(first, second, sample(task, seed, SEQUENCES))
    return Exhibit(
        name="cka",
        figure=cka_heatmap(table, first=names[0], second=names[1]),
        reading="1: the two sites tell the same tokens apart in the same way; 0: they have nothing in common. Like "
        "models have a bright diagonal.",
        table=table,
        notes=(f"Up to {SEQUENCES} sequences of {task.name}, seed {seed}.",),
    )
