"""Procedural tasks, for phase 1: sequences made by a rule."""
