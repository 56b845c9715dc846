"""To be written."""

import state

state.open_page("run_something")
