"""Grids of transfers over replicates."""
