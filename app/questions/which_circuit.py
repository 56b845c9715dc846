"""To be written."""

import state

state.open_page("which_circuit")
