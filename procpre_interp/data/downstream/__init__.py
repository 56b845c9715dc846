"""Diagnostic tasks, for phase 2."""
