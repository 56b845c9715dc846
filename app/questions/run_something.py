"""Run something: start a command from a form, and watch, cancel or repeat it. Jobs outlive the page."""

import shlex
from collections.abc import Mapping

import display
import job_views
import listings
import markup
import selections
import stores
import streamlit as st

from procpre_interp.core.terminal import usable_cores
from procpre_interp.jobs import FORMS, Job, JobStore, Value, command_line
from procpre_interp.views.exhibits import Answer

ICONS = {"running": "⏳", "stopping": "✋", "finished": "✅", "cancelled": "⏹", "failed": "❌", "died": "❌"}
REFRESH_SECONDS = 2
stores.open_page(
    "Run something", "Each job is a process of its own: it keeps running after this page, or the explorer, is closed."
)
store = stores.own_store()
jobs = JobStore(store.path)


def start(name: str, values: Mapping[str, Value]) -> None:
    st.query_params["job"] = st.session_state["job"] = jobs.start(name, values).id


def show_form(name: str) -> None:
    form = FORMS[name]
    st.markdown(form.about)
    with st.container(border=True):
        values = job_views.ask_all([option for option in form.options if not option.is_rare], store, name)
        if rare := [option for option in form.options if option.is_rare]:
            with st.expander("More about the training"):
                values |= job_views.ask_all(rare, store, f"{name}_rare")
        busy = [job for job in jobs.all() if job.is_running]
        if name in ("train", "transfer"):
            st.caption(job_views.how_long(values, store))
        anyway = st.checkbox("Start anyway", key=f"{name}_anyway") if busy else True
        sent = st.button("Start", type="primary", key=f"{name}_start")
    if busy:
        st.caption(f"Running: {busy[0].id}. {usable_cores()} cores; two jobs at once slow each other down.")
    if sent:
        arguments = command_line(name, values, store.path)
        st.code(shlex.join(["procpre-interp", *arguments]), language="bash", wrap_lines=True)
        if anyway:
            start(name, values)
        else:
            st.warning(f"Job {busy[0].id} is running: wait for it, cancel it, or tick the box.")


@st.dialog("Forget this job?")
def ask_and_delete(job: Job) -> None:
    st.text(f"{job.id} and its log go; its runs stay.")
    if st.button("Forget", type="primary", icon=":material/delete_forever:"):
        jobs.delete(job.id)
        st.query_params.pop("job", None)
        st.rerun()


def cancel(job: Job) -> None:
    try:
        job.cancel()
    except OSError as problem:  # nothing above this catches it
        st.session_state["not_cancelled"] = str(problem)


@st.fragment(run_every=REFRESH_SECONDS)
def show_jobs() -> None:
    """Every job, and one in full; runs by itself, so that the forms above keep what is typed."""
    # A state is read from a lock and files: once a job, as this runs every other second.
    states = {job.id: job.state for job in jobs.all()}
    found = {job_id: f"{ICONS[now]} {job_id} {now}" for job_id, now in states.items()}
    running = {job_id for job_id, now in states.items() if now in ("running", "stopping")}
    if st.session_state.setdefault("running_jobs", running) != running:
        # The form above says what runs, and lists of runs are kept for a while: both are out of date now.
        st.session_state["running_jobs"] = running
        listings.list_runs.clear()
        listings.list_models.clear()
        st.rerun()
    if not found:
        st.caption("No job yet.")
        return
    job = jobs.open(selections.choose("Job", found, "job"))
    now = states[job.id]
    if job.arguments:
        st.code(shlex.join(["procpre-interp", *job.arguments]), language="bash", wrap_lines=True)
    if job.problem:
        st.warning(markup.quoted(job.problem, 300))
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    times = markup.escaped(f"started {job.started}{f', ended {job.ended}' if job.ended else ''}{code}")
    st.markdown(f"{ICONS[now]} **{now}**, {times}")
    buttons = st.container(horizontal=True)
    if now in ("running", "stopping"):
        label = "Cancel: saves its state" if now == "running" else "Kill: loses what was not saved"
        buttons.button(label, key="cancel_job", on_click=cancel, args=(job,))
        if "not_cancelled" in st.session_state:
            st.error(markup.quoted(st.session_state.pop("not_cancelled"), 500))
        job_views.show_progress(job, store)
    else:
        if not job.problem:
            label = "Repeat" if now == "finished" else "Go on from there"
            buttons.button(label, key="repeat_job", on_click=start, args=(job.name, job.values))
        if buttons.button("Forget", key="delete_job"):
            ask_and_delete(job)
        job_views.show_results(job, store)
    st.code(job.log() or "(no output yet)", language=None, height=320)


at_work = sum(job.is_running for job in jobs.all())
said = f"{at_work} job{'s' * (at_work != 1)} running" if at_work else "No job is running"
display.show_answer(Answer(f"{said} in this store; {usable_cores()} cores.", decided=False))
tab, place = selections.tabs({name: form.title for name, form in FORMS.items()}, key="command")
with place:
    show_form(tab)
st.subheader("Jobs")
show_jobs()
