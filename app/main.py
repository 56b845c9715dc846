"""The explorer: one page per question. `procpre-interp app` starts it, for this machine alone."""

import os
from pathlib import Path

import stores
import streamlit as st
from markup import escaped

from procpre_interp.core.messages import cut

# A file of our own: the icons that Streamlit knows by name are fetched from another host.
ICON = Path(__file__).with_name("icon.svg")

st.set_page_config(page_title="procpre-interp", page_icon=ICON, layout="wide")

PAGES = {
    "Results": [
        st.Page("questions/did_transfer_help.py", title="Did transfer help?", default=True),
        st.Page("questions/where_does_it_live.py", title="Where does it live?"),
        st.Page("questions/what_survives_damage.py", title="What survives damage?"),
        st.Page("questions/can_anything_cheaper.py", title="Can anything cheaper do the same?"),
        st.Page("questions/does_it_help_on_real_text.py", title="Does it help on real text?"),
        st.Page("questions/do_the_claims_hold.py", title="Do the claims hold?"),
    ],
    "Inside the model": [
        st.Page("questions/where_does_attention_look.py", title="Where does attention look?"),
        st.Page("questions/which_circuit.py", title="Which circuit?"),
        st.Page("questions/how_do_weights_move.py", title="How do weights move?"),
    ],
    "Data and runs": [
        st.Page("questions/what_was_generated.py", title="What was generated?"),
        st.Page("questions/run_something.py", title="Run something"),
        st.Page("questions/runs.py", title="Runs"),
    ],
}

page = st.navigation(PAGES)
try:
    stores.choose_store()
    page.run()
except (ValueError, LookupError, OSError, RuntimeError, MemoryError) as problem:
    # The explorer's counterpart of the command line's last resort: what went wrong in one line, no traceback.
    if os.environ.get("PROCPRE_TRACEBACK"):
        raise
    st.error(escaped(cut(str(problem))) or type(problem).__name__)
