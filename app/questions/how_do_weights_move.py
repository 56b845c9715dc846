"""To be written."""

import state

state.open_page("how_do_weights_move")
