"""The explorer: one page a question. `procpre-interp app`, or `streamlit run app/main.py -- --store runs`."""

import streamlit as st

st.set_page_config(page_title="procpre-interp", layout="wide")

PAGES = [
    st.Page("questions/did_transfer_help.py", title="Did transfer help?", default=True),
    st.Page("questions/runs.py", title="Runs"),
]

st.navigation(PAGES).run()
