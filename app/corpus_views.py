"""What the page "What was generated?" shows of the corpora of real text."""

import display
import selections
import streamlit as st
from markup import escaped

from procpre_interp.views.exhibits import corpora


def show_corpora() -> None:
    """All of them, and one in full."""
    display.show_answer(corpora.answer())
    display.show_table(corpora.catalogue(), "corpora")
    known = corpora.all_corpora()
    name = selections.choose("Corpus", list(known), "of_corpus")
    st.markdown(escaped(corpora.about(known[name])))
    if command := corpora.how_to_get(known[name]):
        st.info("It is not on this machine yet. This gets it, as does the form Corpora of the page Run something:")
        st.code(command, language="bash")
    else:
        st.code(sample(name), language=None, wrap_lines=True)


@st.cache_data(max_entries=16, show_spinner="Reading the corpus")
def sample(name: str) -> str:
    """The beginning of a corpus."""
    return corpora.sample(corpora.all_corpora()[name])
