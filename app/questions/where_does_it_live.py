"""To be written."""

import state

state.open_page("where_does_it_live")
