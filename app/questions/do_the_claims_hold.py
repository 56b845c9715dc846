"""To be written."""

import state

state.open_page("do_the_claims_hold")
