"""What was generated? A playground of every task: tokens by role, what is scored, structure, and the control; how
complex the tasks are, and the corpora of real text."""

from typing import Any

import corpus_views
import display
import selections
import stores
import streamlit as st

from procpre_interp.core.plugins import load_named
from procpre_interp.data import TASKS, Task
from procpre_interp.views.exhibits import inside, sequences

load_named()
PLAIN = [name for name in TASKS if name not in (*sequences.MADE_OF_OTHERS, "text", "metamath")]
MOST = {"int": 10_000, "float": 1.0}


def ask(name: str, field: sequences.Field) -> Any:
    """A control for one field; its key names the task too, as tasks have defaults of their own."""
    key, label = f"{name}_{field.name}", field.name.replace("_", " ")
    if field.kind == "choice":
        return selections.choose(label.capitalize(), field.choices, key)
    largest = MOST[field.kind]
    least, step = (0, 1) if field.kind == "int" else (0.0, 0.01)
    label = f"{label.capitalize()}{' (empty for a fixed one)' if field.optional else ''}"
    return st.number_input(label, least, largest, field.default, step=step, key=key, bind="query-params")


@st.cache_resource(max_entries=8, show_spinner="Reading the corpus")
def whole_task(task: Task) -> Task:
    """The task with its corpus found and its tokenizer trained."""
    resolved = task.resolve()
    resolved.prepare()
    return resolved


@st.cache_data(max_entries=32, show_spinner="Measuring complexity")
def measured(task: Task) -> dict[str, str]:
    """How complex a task is, from a sample of its sequences."""
    return sequences.complexity(task)


def show_task() -> None:
    """The playground of one task."""
    name = selections.choose("Task", sorted(TASKS, key=lambda task: task != "dyck"), "task")
    st.markdown((TASKS[name].__doc__ or "").splitlines()[0])
    parts: list[str] = []
    if name == "mixture":
        parts = selections.choose_many("Components", {part: part for part in PLAIN}, "parts", start=["dyck", "set"])
    elif name in sequences.MADE_OF_ONE:
        parts = [selections.choose("Task that it is made of", PLAIN, "inner")]
    fields, values = sequences.fields(name), {}
    for column, field in zip(st.columns(max(1, len(fields))), fields):
        with column:
            values[field.name] = ask(name, field)
    left, right = st.columns(2)
    with left:
        seed = selections.choose_number("Seed", 0, 10**6, "seed")
    with right:
        n = selections.choose_number("Sequences", 1, 24, "n", start=6)

    task = whole_task(sequences.build(name, parts, **values))
    if task.n_ctx > 4096:
        st.error(f"Sequences of {task.n_ctx:,} tokens are more than a page can show; choose a shorter length.")
        return
    columns = st.columns(5)
    for column, (title, value) in zip(columns, sequences.facts(task, seed).items()):
        column.metric(title, value)
    for column, (title, value) in zip(st.columns(4), measured(task).items()):
        column.metric(title, value)
    st.caption(
        "gzip at one byte per token (two beyond 256 ids); shuffled tokens keep their counts alone. Entropy is "
        "estimated from above, by k-grams and repeats. Loss area: mean loss of a small model's first steps, where a "
        "guess has 100 %; stored for default fields."
    )

    drawn = sequences.tokens(task, seed, n)
    display.show_answer(inside.scored(drawn))
    display.show(drawn)
    if hasattr(task, "rule_name"):
        number = selections.choose_number("Sequence that is drawn", 0, n - 1, "example")
        display.show(sequences.automaton(task, seed, number))
    if hasattr(task, "p_open"):
        display.show(sequences.depth(task, seed, n))
    if name != "shuffled":
        display.show(sequences.control(task, seed, n))
    with st.expander("As text", expanded=name == "text"):
        batch = sequences.draw(task, seed, n)
        lines = [task.example(row[:length].tolist()) for row, length in zip(batch.tokens, batch.lengths)]
        st.code("\n".join(lines), language=None, wrap_lines=True)


stores.open_page(
    "What was generated?",
    "Phase 1 learns from generated sequences. Change a task and see what a model is given, and what it must predict.",
)
tab, place = selections.tabs({"task": "A task", "complexity": "Complexity of all", "corpora": "Corpora of real text"})
with place:
    if tab == "task":
        show_task()
    elif tab == "complexity":
        display.show(sequences.complexities())
    else:
        corpus_views.show_corpora()
