"""Runs and tables on disk: written once, checked when read. No torch."""
