"""Where does attention look? Heads by layer, the pattern of one sequence, over the checkpoints of both phases."""

from collections.abc import Sequence

import computed
import display
import markup
import models
import selections
import stores
import streamlit as st

from procpre_interp.data.tokens import parse_tokens, token_names
from procpre_interp.pipeline.lineage import moments
from procpre_interp.views.exhibits import attention, inside

TABS = {"pattern": "One sequence", "scores": "All scores", "training": "Over training"}

store = stores.open_page(
    "Where does attention look?",
    "Pick a run and a moment of its making; click a head to see its pattern.",
)
beside = st.toggle("Two runs side by side", key="beside", bind="query-params")
columns = st.columns(2) if beside else [st.container()]
runs, subjects = [], []
for column, (label, run_key, key) in zip(columns, (("Run", "run", "at"), ("Other run", "other", "other_at"))):
    with column:
        runs.append(selections.choose_run(store, label, run_key, beside=runs[0] if runs else None))
        subjects.append(models.choose_moment(runs[-1], store, key))
first, sides = subjects[0], ("first", "second")

tables = [models.measure(attention.score_table, subject) for subject in subjects]
names = attention.score_names(first.task)
job = attention.standing_out(tables[0], first.task).score
score = selections.choose("Score", {job: names[job]} | names, "score")
start = attention.standing_out(tables[0], first.task, score)


def take(place: Sequence[int]) -> None:
    """Show the head of the cell that was clicked."""
    st.session_state.update(layer=int(place[0]), head=int(place[1]), all_heads=False)


columns = st.columns(2) if beside else [st.container()]
for column, side, subject, table in zip(columns, sides, subjects, tables):
    with column:
        if score in attention.score_names(subject.task):
            exhibit = attention.scored(table, subject.task, score, of=subject.name)
            display.show_answer(inside.strongest_head(exhibit, score, subject.name))
            display.show(exhibit, key=side, on_click=take)
        else:
            st.info(markup.escaped(f"{subject.task.name} has no score {score}."))

tab, place = selections.tabs(TABS)
with place:
    if tab == "pattern":
        row = st.columns(4, vertical_alignment="bottom")
        with row[0]:
            layer = selections.choose_number("Layer", 0, first.model.config.n_layers - 1, "layer", start=start.layer)
        with row[1]:
            head = selections.choose_number("Head", 0, first.model.config.n_heads - 1, "head", start=start.head)
        with row[2]:
            example = selections.choose_number("Generated sequence", 0, attention.SEQUENCES - 1, "example")
        with row[3]:
            every = st.toggle("All heads", key="all_heads", bind="query-params")
        typed = st.text_input(
            "Or type a sequence: names or ids of tokens, separated by blanks",
            key="tokens",
            bind="query-params",
            placeholder=" ".join(token_names(first.task, attention.sequence(first.task, 0, 0).tolist())[:8]),
        )
        where = (None, None) if every else (layer, head)
        for column, side, subject in zip(st.columns(2) if beside else [st.container()], sides, subjects):
            with column:
                task = subject.task
                tokens = parse_tokens(task, typed) if typed else attention.sequence(task, 0, example)
                pattern = models.measure(attention.pattern, subject, tuple(tokens.tolist()), *where, of=subject.name)
                display.show(pattern, key=side)
    elif tab == "scores":
        for side, subject, table in zip(sides, subjects, tables):
            st.caption(markup.escaped(f"{subject.name}: each score of each head, and what even attention gives"))
            grid = attention.score_grid(table, subject.task)
            rounded = {name: st.column_config.NumberColumn(format="%.3f") for name in grid if name != "of"}
            display.show_table(grid, f"scores_{side}", rounded)
    else:
        for side, run in zip(sides, runs):
            kept = moments(run, store)
            tables = computed.each(
                f"Measuring run {run.id[:8]}",
                kept,
                lambda each: models.measure(attention.score_table, models.show(each, store)),
                key=f"development_{run.id}",
                name=lambda each: each.label,
            )
            if tables:
                display.show(attention.developed(run, kept, tables, score), key=side)
