"""How runs are executed, and what reports on them."""
