"""Measures that need finished runs."""
