"""The figures of the explorer with what must stand next to them: the same on a page, in a report and in a notebook.

One module per question. `results, where, damage, claims` read stored tables and need no torch; `sequences, attention,
circuits, weights` generate data or run a model.
"""

from procpre_interp.views.exhibits.exhibit import Answer, Exhibit

__all__ = ["Answer", "Exhibit"]
