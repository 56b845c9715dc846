"""Two-phase experiments as runs."""
