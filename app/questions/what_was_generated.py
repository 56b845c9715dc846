"""To be written."""

import state

state.open_page("what_was_generated")
