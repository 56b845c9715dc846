"""How runs are executed (in worker processes, or stacked in one), and what reports on them."""
