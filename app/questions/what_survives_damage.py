"""To be written."""

import state

state.open_page("what_survives_damage")
